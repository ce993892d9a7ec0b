//! The charts of `cartwheel bench paper`.

use std::ops::Range;

use cartwheel_sim::placement::imbalance::{ImbalancePoint, THRESHOLD};

use super::report::Window;
use crate::commands::simulate::figures::by_load;
use crate::terminal::chart::lines::{Axis, Chart, Series};

/// A time of this many microseconds stands for any shorter one, which has no place on a logarithmic axis.
const SHORTEST_US: f64 = 1.0;

/// Figure 4: latencies over time.
pub(super) fn latencies(windows: &[Window]) -> Chart {
    let series = [
        line("reads, mean", windows, |window| window.fsync_read.mean_us),
        line("writes, mean", windows, |window| window.fsync_write.mean_us),
        line("reads, 99.9th percentile", windows, |window| window.fsync_read.p999_us),
        line("writes, 99.9th percentile", windows, |window| window.fsync_write.p999_us),
    ];
    over_time("Latency as the load rises and falls", windows, series.into())
}

/// Figure 5: the 99.9th percentile of buffered and synced writes.
pub(super) fn buffered_writes(windows: &[Window]) -> Chart {
    let series = [
        line("synced (fsync)", windows, |window| window.fsync_write.p999_us),
        line("buffered (os)", windows, |window| window.os_write.p999_us),
    ];
    over_time("99.9th percentile of writes", windows, series.into())
}

/// Figure 6: nodes out of balance, by load.
pub(super) fn imbalance(points: &[ImbalancePoint]) -> Chart {
    by_load(format!("Nodes more than {:.0}% off the mean load", THRESHOLD * 100.0), points)
}

fn line(name: &str, windows: &[Window], us: fn(&Window) -> f64) -> Series {
    let point = |window: &Window| (f64::from(window.number + 1), power(us(window)));
    Series { name: name.to_owned(), points: windows.iter().map(point).collect() }
}

/// The place of a time on a logarithmic axis of milliseconds.
fn power(us: f64) -> f64 {
    us.max(SHORTEST_US).log10() - 3.0
}

fn over_time(title: &str, windows: &[Window], series: Vec<Series>) -> Chart {
    let range = powers(series.iter().flat_map(|series| &series.points).map(|&(_, power)| power));
    Chart {
        title: title.to_owned(),
        x: Axis {
            label: "window".into(),
            range: 1.0..(windows.len() as f64).max(2.0),
            labels: 12,
            text: |number| format!("{number:.0}"),
        },
        y: Axis {
            label: "ms".into(),
            labels: (range.end - range.start) as usize + 1,
            range,
            text: |power| 10_f64.powf(power).to_string(),
        },
        series,
    }
}

/// The range of whole powers that holds all of `powers`.
fn powers(powers: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = powers.clone().fold(f64::INFINITY, f64::min).floor();
    let most = powers.fold(f64::NEG_INFINITY, f64::max).ceil();
    if least.is_finite() && most.is_finite() { least..most.max(least + 1.0) } else { 0.0..1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_begin_and_end_at_whole_powers() {
        assert_eq!(powers([-0.5, 1.2].into_iter()), -1.0..2.0);
        assert_eq!(powers([1.0].into_iter()), 1.0..2.0);
        assert_eq!(powers(std::iter::empty()), 0.0..1.0);
        assert_eq!((power(10_000.0), power(0.0)), (1.0, -3.0));
    }
}
