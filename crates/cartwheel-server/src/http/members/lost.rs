//! What becomes of partitions whose homes are lost for good.

use std::collections::BTreeSet;

use cartwheel_core::cluster::configuration::{ConfigPhase, ConfigVersion, Home};
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::{ChangeKind, View};
use cartwheel_core::ring::PartitionId;

use super::super::Door;
use super::super::error::ApiError;
use super::{RemadeForm, names};

/// The homes of any partition that are to hold nothing any more, and do not answer, or not in the incarnation in which they were homes.
fn lost(door: &Door, after: &View) -> BTreeSet<Home> {
    let liveness = door.liveness();
    let phases = door.phases();
    let homes: BTreeSet<Home> = phases.iter().flat_map(ConfigPhase::both).flat_map(|of| &of.homes).copied().collect();
    let answers = |home: &Home| {
        let is_present = after.member(home.node).is_some_and(|known| known.member.incarnation == home.incarnation);
        is_present && (home.node == door.local().node || liveness.status(home.node) != Status::Down)
    };
    homes.into_iter().filter(|home| after.is_removed(*home) && !answers(home)).collect()
}

/// Gives up what is lost.
pub(super) fn mark_lost(door: &Door, after: &View) -> Result<ChangeKind, ApiError> {
    let lost = lost(door, after);
    if lost.is_empty() {
        let why = "nothing is to be forced: no node that was removed or replaced, now or before, is down and still named by a partition";
        return Err(ApiError::bad_request(why));
    }
    let versions = stuck(door, after, &lost);
    Ok(ChangeKind::MarkLost { homes: lost.into_iter().collect(), versions })
}

/// The partitions that get no other homes any more once these are lost, and how far they have come.
fn stuck(door: &Door, after: &View, lost: &BTreeSet<Home>) -> Vec<(PartitionId, ConfigVersion)> {
    let is_stuck = |(partition, phase): &(PartitionId, &ConfigPhase)| {
        let target = after.target(*partition);
        phase.force_recovered(|home| lost.contains(home), |home| !lost.contains(home), &target).is_some()
    };
    let phases = door.phases();
    let phases = (0..).map(PartitionId).zip(phases.iter()).filter(is_stuck);
    phases.map(|(partition, phase)| (partition, phase.version())).collect()
}

/// The partitions that are made anew.
pub(super) fn force_recovered(door: &Door, after: &View) -> Vec<RemadeForm> {
    let phases = door.phases();
    let form = |(partition, phase): (PartitionId, &ConfigPhase)| {
        let force_recovered = after.force_recovered(partition, phase)?;
        let left: Vec<Home> = force_recovered.homes.into_iter().filter(|&home| phase.has(home)).collect();
        Some(RemadeForm { partition: partition.0, left: names(after, &left) })
    };
    (0..).map(PartitionId).zip(phases.iter()).filter_map(form).collect()
}

/// What an administrator should know of partitions that are, or would be, made anew.
pub(super) fn warnings(door: &Door, after: &View, force_recovered: &[RemadeForm]) -> Vec<String> {
    let empty = force_recovered.iter().filter(|form| form.left.is_empty()).count();
    let still_stuck = stuck(door, after, &lost(door, after)).len().saturating_sub(force_recovered.len());
    let mut warnings = Vec::new();
    if !force_recovered.is_empty() {
        warnings.push(format!(
            "{} partitions are made anew of the homes that are left: what only the lost ones held is gone, strong writes too",
            force_recovered.len()
        ));
    }
    if empty > 0 {
        warnings.push(format!("of {empty} of these no home is left: they begin empty"));
    }
    if still_stuck > 0 {
        warnings.push(format!(
            "{still_stuck} partitions have lost so many of their homes that they can get no others: if those never come back, give them up \
             with --force"
        ));
    }
    warnings
}
