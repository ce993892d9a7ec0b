//! `cartwheel simulate ring-state`: the cost of membership as a cluster grows.

use std::time::Instant;

use cartwheel_core::ring::Partitions;
use cartwheel_sim::placement::ring_state::{CLUSTERS, RingState, bootstrap};
use indicatif::HumanBytes;
use serde::Serialize;

use super::SimulateError;
use crate::cli::RingStateArgs;
use crate::terminal::output::show;
use crate::terminal::table::table;

/// One cluster. `--json` prints its fields, which are stable: fields may be added but not removed.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    state: RingState,
    /// The time to compute the view from the history: to place all partitions and to build all preference lists.
    placed_ms: f64,
}

/// Builds clusters of each size and shows their sizes and times.
pub(super) fn run(args: &RingStateArgs) -> Result<(), SimulateError> {
    let clusters = CLUSTERS.into_iter().filter_map(|(nodes, partitions)| measure(nodes, partitions));
    Ok(show(args.format, &clusters.collect::<Vec<_>>(), |rows, _| text(rows))?)
}

fn measure(nodes: u32, partitions: u32) -> Option<Row> {
    let history = bootstrap(nodes, Partitions::new(partitions).ok()?);
    let begun = Instant::now();
    let view = history.view()?;
    let placed_ms = begun.elapsed().as_secs_f64() * 1e3;
    Some(Row { state: RingState::new(&history.encode(), &view), placed_ms })
}

fn text(rows: &[Row]) -> String {
    let bytes = |bytes: usize| HumanBytes(bytes as u64).to_string();
    let cells = rows.iter().map(|Row { state, placed_ms }| {
        [
            state.nodes.to_string(),
            state.partitions.to_string(),
            bytes(state.history_bytes),
            bytes(state.view_bytes),
            bytes(state.ring_bytes),
            format!("{placed_ms:.1} ms"),
        ]
    });
    let shown = table(["NODES", "PARTITIONS", "ON THE WIRE", "IN MEMORY", "OF THAT THE RING", "PLACED IN"], cells);
    format!(
        "On the wire: the history of members, sent to nodes that lack some of it; owners are computed from it and never sent.\n\
         In memory: members, settings, owners, and a list of up to 16 nodes for each partition.\n\n{shown}"
    )
}
