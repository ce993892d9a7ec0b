//! The figures of the Dynamo paper (DeCandia et al., SOSP 2007).

/// Table 2, server-driven and client-driven coordination, in ms: the 99.9th percentiles of reads and writes, and their averages.
pub(super) const TABLE_2: [[f64; 4]; 2] = [[68.9, 68.5, 3.9, 4.02], [30.4, 30.4, 1.55, 1.9]];

/// Section 6.3: the percentages of reads that return one, two, three and four versions, over 24 hours.
pub(super) const VERSIONS_PERCENT: [f64; 4] = [99.94, 0.000_57, 0.000_47, 0.000_09];

/// Section 6.1 on figure 4.
pub(super) const FIGURE_4: &str = "99.9th percentiles around 200 ms, an order of magnitude above the averages";

/// Section 6.1 on figure 5.
pub(super) const FIGURE_5: &str = "a buffer lowers the 99.9th percentile by a factor of 5 at peak load";

/// Section 6.2 on figure 6: the share of nodes out of balance at an eighth of the peak load, and at a high load.
pub(super) const FIGURE_6: [f64; 2] = [0.2, 0.1];
