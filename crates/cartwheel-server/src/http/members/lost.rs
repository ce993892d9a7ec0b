//! Force recovery: partitions whose homes are lost for good.

use std::collections::BTreeSet;

use cartwheel_core::cluster::configuration::{ConfigPhase, ConfigVersion, Home};
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::{ChangeKind, View};
use cartwheel_core::ring::PartitionId;

use super::super::ApiState;
use super::super::error::ApiError;
use super::{ForceRecoveredForm, names};

/// Removed homes of any partition that do not answer, or not in the incarnation that was a home.
fn lost(api: &ApiState, after: &View) -> BTreeSet<Home> {
    let liveness = api.liveness();
    let phases = api.phases();
    let homes: BTreeSet<Home> = phases.iter().flat_map(ConfigPhase::both).flat_map(|of| &of.homes).copied().collect();
    let responds = |home: &Home| {
        let is_present = after.member(home.node).is_some_and(|known| known.member.incarnation == home.incarnation);
        is_present && (home.node == api.local().node || liveness.status(home.node) != Status::Down)
    };
    homes.into_iter().filter(|home| after.is_removed(*home) && !responds(home)).collect()
}

/// The change that marks these homes as lost.
pub(super) fn mark_lost(api: &ApiState, after: &View) -> Result<ChangeKind, ApiError> {
    let lost = lost(api, after);
    if lost.is_empty() {
        let why = "nothing to force: no node that was removed or replaced is down and still a home of a partition; leave --force out";
        return Err(ApiError::bad_request(why));
    }
    let versions = stuck(api, after, &lost);
    Ok(ChangeKind::MarkLost { homes: lost.into_iter().collect(), versions })
}

/// The partitions that cannot be reconfigured once these homes are lost, with their configuration versions.
fn stuck(api: &ApiState, after: &View, lost: &BTreeSet<Home>) -> Vec<(PartitionId, ConfigVersion)> {
    let is_stuck = |(partition, phase): &(PartitionId, &ConfigPhase)| {
        let target = after.target(*partition);
        phase.force_recovered(|home| lost.contains(home), |home| !lost.contains(home), &target).is_some()
    };
    let phases = api.phases();
    let phases = (0..).map(PartitionId).zip(phases.iter()).filter(is_stuck);
    phases.map(|(partition, phase)| (partition, phase.version())).collect()
}

/// The partitions that force recovery changes.
pub(super) fn force_recovered(api: &ApiState, after: &View) -> Vec<ForceRecoveredForm> {
    let phases = api.phases();
    let form = |(partition, phase): (PartitionId, &ConfigPhase)| {
        let force_recovered = after.force_recovered(partition, phase)?;
        let left: Vec<Home> = force_recovered.homes.into_iter().filter(|&home| phase.has(home)).collect();
        Some(ForceRecoveredForm { partition: partition.0, left: names(after, &left) })
    };
    (0..).map(PartitionId).zip(phases.iter()).filter_map(form).collect()
}

/// Warnings about partitions that are, or should be, force-recovered.
pub(super) fn warnings(api: &ApiState, after: &View, force_recovered: &[ForceRecoveredForm]) -> Vec<String> {
    let empty = force_recovered.iter().filter(|form| form.left.is_empty()).count();
    let still_stuck = stuck(api, after, &lost(api, after)).len().saturating_sub(force_recovered.len());
    let mut warnings = Vec::new();
    if !force_recovered.is_empty() {
        warnings.push(format!(
            "{} partitions are force-recovered from their remaining homes: writes that only the lost homes held are gone, strong ones too",
            force_recovered.len()
        ));
    }
    if empty > 0 {
        warnings.push(format!("{empty} of these have no home left and start empty"));
    }
    if still_stuck > 0 {
        warnings.push(format!(
            "{still_stuck} partitions have lost a majority of their homes and cannot be reconfigured: if those homes never come back, \
            mark them lost with --force"
        ));
    }
    warnings
}
