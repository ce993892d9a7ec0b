//! The charts of `cartwheel simulate placement`.

use cartwheel_sim::placement::chart::{Axis, Chart, Series};
use cartwheel_sim::placement::design::Strategy;
use cartwheel_sim::placement::efficiency::sizes;
use cartwheel_sim::placement::imbalance::LEVELS;

use super::placement::Outcome;

/// Figure 8: efficiency against state.
pub(super) fn efficiency(outcome: &Outcome) -> Chart {
    let line = |strategy: Strategy| {
        let of = outcome.efficiency.iter().filter(|point| point.strategy == strategy.number());
        let points = of.map(|point| (point.state_bytes as f64, point.efficiency)).collect();
        Series { name: name(strategy), points }
    };
    // Tokens come in whole numbers, so the smallest design may take less than the smallest size.
    let least = outcome.efficiency.iter().map(|point| point.state_bytes).min().unwrap_or(1).max(1).ilog2();
    let most = sizes().last().unwrap_or(1).ilog2().max(least);
    let mark = |power: u32| (2_f64.powi(power as i32), (2_f64.powi(power as i32 - 10)).to_string());
    Chart {
        title: format!("Efficiency of placement, {} nodes, {} replicas", outcome.nodes, outcome.replicas),
        x: Axis {
            label: "membership state kept at each node (KiB)".into(),
            marks: (least..=most).map(mark).collect(),
            logarithmic: true,
        },
        y: Axis {
            label: "mean load / max load".into(),
            marks: tenths(10, |tenth| format!("{tenth:.1}")),
            logarithmic: false,
        },
        lines: Strategy::ALL.map(line).into(),
    }
}

/// Figure 6: imbalance against load.
pub(super) fn imbalance(outcome: &Outcome) -> Chart {
    let points = &outcome.imbalance.points;
    let line = |(strategy, at): (Strategy, usize)| {
        let of = points.iter().filter_map(|point| Some((f64::from(point.load_eighths), point.out_of_balance[at]?)));
        Series { name: name(strategy), points: of.collect() }
    };
    let most = points.iter().flat_map(|point| point.out_of_balance).flatten().fold(0.0, f64::max);
    let marks = LEVELS.map(|eighths| (f64::from(eighths), format!("{eighths}/8")));
    let off = outcome.imbalance.threshold * 100.0;
    Chart {
        title: format!(
            "Nodes more than {off:.0}% off the mean load, {} nodes, {} replicas",
            outcome.nodes, outcome.replicas
        ),
        x: Axis { label: "load, as a part of the peak".into(), marks: marks.collect(), logarithmic: false },
        y: Axis {
            label: "share of nodes out of balance".into(),
            marks: tenths((most * 10.0).ceil().clamp(1.0, 10.0) as u32, |tenth| format!("{:.0}%", tenth * 100.0)),
            logarithmic: false,
        },
        lines: Strategy::ALL.into_iter().zip(0..).map(line).collect(),
    }
}

fn name(strategy: Strategy) -> String {
    format!("strategy {}", strategy.number())
}

/// Marks from 0 to `most` tenths.
fn tenths(most: u32, text: impl Fn(f64) -> String) -> Vec<(f64, String)> {
    (0..=most).map(|tenth| f64::from(tenth) / 10.0).map(|tenth| (tenth, text(tenth))).collect()
}
