//! `cartwheel simulate placement`: the paper's figures 6 and 8.

use std::fs;

use cartwheel_sim::placement::design::Strategy;
use cartwheel_sim::placement::{efficiency, imbalance};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{SimulateError, figures};
use crate::cli::PlacementArgs;
use crate::terminal::output::show;
use crate::terminal::table::table;

/// The number of windows of skewed load for each cluster and load level.
const WINDOWS: u32 = 4;

/// The results. `--json` prints the fields, which are stable: fields may be added but not removed.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// The number of nodes.
    pub(super) nodes: u32,
    /// The number of replicas of each key.
    pub(super) replicas: u8,
    pub(super) seed: u64,
    /// The number of clusters that the figures are averaged over.
    pub(super) clusters: u32,
    /// Figure 8.
    pub(super) efficiency: Vec<efficiency::EfficiencyPoint>,
    /// Figure 6.
    pub(super) imbalance: Imbalance,
}

#[derive(Debug, Serialize)]
pub(super) struct Imbalance {
    /// The limit of the membership state of a node.
    pub(super) state_bytes: u64,
    pub(super) skew: f64,
    /// The relative deviation from the mean above which a node's load is out of balance.
    pub(super) threshold: f64,
    pub(super) points: Vec<imbalance::ImbalancePoint>,
}

/// Computes the figures, writes the charts if requested, and shows the figures.
pub(super) fn run(args: &PlacementArgs) -> Result<(), SimulateError> {
    let outcome = measure(args);
    if let Some(dir) = &args.svg_dir {
        fs::create_dir_all(dir).map_err(|source| SimulateError::Svg { path: dir.clone(), source })?;
        for (name, chart) in
            [("figure-6.svg", figures::imbalance(&outcome)), ("figure-8.svg", figures::efficiency(&outcome))]
        {
            let path = dir.join(name);
            let written = chart.to_svg().and_then(|svg| fs::write(&path, svg));
            written.map_err(|source| SimulateError::Svg { path, source })?;
        }
    }
    Ok(show(args.format, &outcome, |outcome, _| text(outcome))?)
}

fn measure(args: &PlacementArgs) -> Outcome {
    let (nodes, replicas, seed) = (args.nodes, usize::from(args.replicas), args.seed);
    let settings = efficiency::EfficiencySettings { nodes, replicas, clusters: args.clusters, seed };
    let designs: Vec<_> = Strategy::ALL
        .into_iter()
        .flat_map(|strategy| efficiency::sizes().map(move |bytes| (strategy, bytes)))
        .collect();
    let bar = progress_bar(designs.len() + imbalance::LEVELS.count());
    let measured = designs.into_iter().filter_map(|(strategy, bytes)| {
        bar.inc(1);
        efficiency::measure(settings, strategy, bytes)
    });
    let efficiency = measured.collect();
    let skewed = imbalance::ImbalanceSettings {
        nodes,
        replicas,
        state_bytes: args.state.as_u64(),
        clusters: args.clusters,
        windows: WINDOWS,
        keys: args.keys,
        requests: args.requests,
        skew: args.skew,
        seed,
    };
    let points = imbalance::LEVELS.map(|eighths| {
        bar.inc(1);
        imbalance::measure(skewed, eighths)
    });
    let imbalance = Imbalance {
        state_bytes: args.state.as_u64(),
        skew: args.skew,
        threshold: imbalance::THRESHOLD,
        points: points.collect(),
    };
    bar.finish_and_clear();
    Outcome { nodes, replicas: args.replicas, seed, clusters: args.clusters, efficiency, imbalance }
}

fn progress_bar(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} settings, {eta} left");
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn text(outcome: &Outcome) -> String {
    let Outcome { nodes, replicas, clusters, imbalance, .. } = outcome;
    let state = HumanBytes(imbalance.state_bytes);
    format!(
        "Efficiency (mean load of a node / load of the hottest node) of {nodes} nodes with {replicas} replicas of each key under a \
         uniform load,\nfor what each node keeps of membership; T: tokens a node, Q: partitions; mean of {clusters} clusters \
         (figure 8 of the paper)\n\n{}\n{}\n\
         Nodes whose load is more than {:.0}% off the mean, with up to {state} of state; requests fall off with a key's rank r \
         as 1/r^{}\n(figure 6 of the paper)\n\n{}",
        efficiency_table(outcome),
        sentences(outcome),
        imbalance.threshold * 100.0,
        imbalance.skew,
        imbalance_table(&imbalance.points)
    )
}

fn efficiency_table(outcome: &Outcome) -> String {
    let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
    let rows = efficiency::sizes().map(|bytes| {
        let [one, two, three] = Strategy::ALL.map(|strategy| {
            // The finest design of each strategy that fits. It takes more than half of the limit, or a finer one would fit.
            let of = |point: &&efficiency::EfficiencyPoint| point.strategy == strategy.number();
            let fits =
                |point: &&efficiency::EfficiencyPoint| point.state_bytes <= bytes && point.state_bytes > bytes / 2;
            outcome.efficiency.iter().filter(of).find(fits)
        });
        let share = |point: Option<&efficiency::EfficiencyPoint>| {
            point.map_or_else(|| "-".to_owned(), |point| format!("{:.3}", point.efficiency))
        };
        [
            HumanBytes(bytes).to_string(),
            number(one.and_then(|point| point.tokens)),
            share(one),
            number(two.and_then(|point| point.tokens)),
            number(two.and_then(|point| point.partitions)),
            share(two),
            number(three.and_then(|point| point.partitions)),
            share(three),
        ]
    });
    let header = ["STATE", "T (1)", "STRATEGY 1", "T (2)", "Q (2)", "STRATEGY 2", "Q (3)", "STRATEGY 3"];
    table(header, rows)
}

/// The membership state that each strategy needs for a good efficiency.
fn sentences(outcome: &Outcome) -> String {
    let mut text = String::new();
    for wanted in [0.8, 0.9, 0.95] {
        let needs = Strategy::ALL.map(|strategy| {
            let least = efficiency::least_state(&outcome.efficiency, strategy, wanted);
            let least = least.map_or_else(|| "more than was tried".to_owned(), |bytes| HumanBytes(bytes).to_string());
            format!("strategy {} {least}", strategy.number())
        });
        text += &format!("least state measured with an efficiency of {wanted} or more: {}\n", needs.join(", "));
    }
    text
}

fn imbalance_table(points: &[imbalance::ImbalancePoint]) -> String {
    let rows = points.iter().map(|point| {
        let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0));
        let [one, two, three] = point.out_of_balance.map(share);
        let load = format!("{}/8", point.load_eighths);
        [load, point.requests.to_string(), point.keys.to_string(), one, two, three]
    });
    table(["LOAD", "REQUESTS", "KEYS", "STRATEGY 1", "STRATEGY 2", "STRATEGY 3"], rows)
}
