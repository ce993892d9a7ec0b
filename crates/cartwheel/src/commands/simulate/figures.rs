//! The charts of `cartwheel simulate placement`.

use cartwheel_sim::placement::design::Strategy;
use cartwheel_sim::placement::efficiency::sizes;
use cartwheel_sim::placement::imbalance::{ImbalancePoint, LEVELS};

use super::placement::Outcome;
use crate::terminal::chart::lines::{Axis, Chart, Series};

/// Figure 8: efficiency against state.
pub(super) fn efficiency(outcome: &Outcome) -> Chart {
    let line = |strategy: Strategy| {
        let of = outcome.efficiency.iter().filter(|point| point.strategy == strategy.number());
        let points = of.map(|point| ((point.state_bytes as f64).log2(), point.efficiency)).collect();
        Series { name: name(strategy), points }
    };
    // The number of tokens is whole, so the smallest design may take less than the smallest size.
    let least = outcome.efficiency.iter().map(|point| point.state_bytes).min().unwrap_or(1).max(1).ilog2();
    let most = sizes().last().unwrap_or(1).ilog2().max(least);
    Chart {
        title: format!("Efficiency of placement, {} nodes, {} replicas", outcome.nodes, outcome.replicas),
        x: Axis {
            label: "membership state kept at each node (KiB)".into(),
            // A logarithmic axis: its values are powers of two.
            range: f64::from(least)..f64::from(most),
            labels: (most - least + 1) as usize,
            text: |power| 2_f64.powf(power - 10.0).to_string(),
        },
        y: Axis {
            label: "mean load / max load".into(),
            range: 0.0..1.0,
            labels: 11,
            text: |share| format!("{share:.1}"),
        },
        series: Strategy::ALL.map(line).into(),
    }
}

/// Figure 6: imbalance against load.
pub(super) fn imbalance(outcome: &Outcome) -> Chart {
    let off = outcome.imbalance.threshold * 100.0;
    let title =
        format!("Nodes more than {off:.0}% off the mean load, {} nodes, {} replicas", outcome.nodes, outcome.replicas);
    by_load(title, &outcome.imbalance.points)
}

/// The chart of nodes out of balance by load, a line for each strategy.
pub(in crate::commands) fn by_load(title: String, points: &[ImbalancePoint]) -> Chart {
    let line = |(strategy, at): (Strategy, usize)| {
        let of = points.iter().filter_map(|point| Some((f64::from(point.load_eighths), point.out_of_balance[at]?)));
        Series { name: name(strategy), points: of.collect() }
    };
    let most = points.iter().flat_map(|point| point.out_of_balance).flatten().fold(0.0, f64::max);
    let tenths = (most * 10.0).ceil().clamp(1.0, 10.0);
    Chart {
        title,
        x: Axis {
            label: "load, as a part of the peak".into(),
            range: f64::from(*LEVELS.start())..f64::from(*LEVELS.end()),
            labels: LEVELS.count(),
            text: |eighths| format!("{eighths:.0}/8"),
        },
        y: Axis {
            label: "share of nodes out of balance".into(),
            range: 0.0..tenths / 10.0,
            labels: tenths as usize + 1,
            text: |share| format!("{:.0}%", share * 100.0),
        },
        series: Strategy::ALL.into_iter().zip(0..).map(line).collect(),
    }
}

fn name(strategy: Strategy) -> String {
    format!("strategy {}", strategy.number())
}
