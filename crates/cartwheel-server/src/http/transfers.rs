//! `/v1/cluster/transfers`: partitions that are not at their target homes yet, their progress, and what they wait for.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::cluster::configuration::{ConfigPhase, Configuration, Home};
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::{Member, View};
use cartwheel_core::cluster::sizes::Size;
use cartwheel_core::control::Surveyed;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::amounts::{self, Amount, Route};
use super::error::ApiError;
use super::members::names;
use super::openapi::QueryErrors;
use super::query::Query;
use crate::backend::name_of;

/// The transfers under way.
#[derive(Serialize, ToSchema)]
pub(super) struct TransfersForm {
    /// The version of the history that the answering node uses.
    version: String,
    /// How many partitions there are.
    partitions: u32,
    /// The partitions that are not at their target homes.
    transfers: Vec<TransferForm>,
    /// The bytes to copy to new homes, in all; none if no node reported.
    bytes: Option<u64>,
    /// How many of them are copied; none if a new home has not reported.
    copied_bytes: Option<u64>,
    /// Whether keys and bytes of some partitions are estimated as the mean of the others.
    estimated: bool,
    /// Retired replicas: partitions on nodes that are no longer their homes, kept until every home has confirmed that it holds them, and then purged.
    retired_replicas: Vec<RetiredReplicaForm>,
    /// The members that are leaving.
    leaving: Vec<String>,
    /// The nodes that wait to join.
    waiting: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct TransferForm {
    /// The partition.
    partition: u32,
    /// Its configuration version; two versions while it is joint.
    config_version: String,
    /// Its present homes.
    from: Vec<String>,
    /// Its target homes.
    to: Vec<String>,
    /// `copying`: the new homes copy the data. `joint`: the homes have agreed on the next configuration, and old and new homes both count
    /// until the new ones are synced.
    state: &'static str,
    /// How many keys are copied to new homes, in all; none if no node reported.
    keys: Option<u64>,
    /// The bytes of these keys and their values; none if no node reported.
    bytes: Option<u64>,
    /// How many of the keys are copied; none if a new home has not reported.
    copied_keys: Option<u64>,
    /// How many of the bytes are copied; none if a new home has not reported.
    copied_bytes: Option<u64>,
    /// Whether keys and bytes are estimated as the mean of the other partitions, because no home has answered.
    estimated: bool,
    /// The nodes that it needs and that are down.
    waits_for: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct RetiredReplicaForm {
    /// The partition.
    partition: u32,
    /// The node that still holds it.
    node: String,
    /// The homes that have yet to confirm that they hold it, and are down.
    waits_for: Vec<String>,
}

/// List the transfers under way
#[utoipa::path(get, path = "/v1/cluster/transfers", tag = "cluster",
    responses((status = 200, description = "The transfers, as this node and those that it asks know them", body = TransfersForm), QueryErrors))]
pub(super) async fn transfers(State(api): State<ApiState>, uri: Uri) -> Result<Json<TransfersForm>, ApiError> {
    Query::none(uri.query())?;
    let (view, phases) = (api.view(), api.phases());
    let moving = under_way(&view, &phases);
    let routes: Vec<Route> = moving.iter().map(|(route, _)| route.clone()).collect();
    let surveyed = api.survey(survey_targets(&api, &view, &routes)).await?;
    let amounts = amounts::amounts(&routes, &surveyed);
    let copied: Vec<_> = routes.iter().map(|route| amounts::copied(route, &surveyed)).collect();
    let total = amounts::total(&amounts);
    let form = |(route, phase): &(Route, &ConfigPhase), amount: Option<Amount>, copied: Option<Size>| TransferForm {
        partition: route.partition.0,
        config_version: phase.version().to_string(),
        from: names(&view, &route.from),
        to: names(&view, &route.to),
        state: if phase.next().is_some() { "joint" } else { "copying" },
        keys: amount.map(|amount| amount.size.keys),
        bytes: amount.map(|amount| amount.size.bytes),
        copied_keys: copied.map(|copied| copied.keys),
        copied_bytes: copied.map(|copied| copied.bytes),
        estimated: amount.is_some_and(|amount| amount.is_estimate),
        waits_for: names(&view, &silent(&api, &view, route)),
    };
    let known = moving.iter().zip(amounts).zip(&copied);
    let is_member =
        |waits: &Member| view.member(waits.id).is_some_and(|known| known.member.incarnation == waits.incarnation);
    let waiting = api.waiting().all().into_iter().filter(|waits| !is_member(waits)).map(|waits| waits.name);
    let leaving = view.members().filter(|known| known.leaving).map(|known| known.member.name.clone());
    Ok(Json(TransfersForm {
        version: view.ring.version().to_string(),
        partitions: view.ring.partitions().count(),
        bytes: total.map(|total| total.size.bytes),
        copied_bytes: copied.iter().map(|copied| copied.map(|copied| copied.bytes)).sum(),
        estimated: total.is_some_and(|total| total.is_estimate),
        transfers: known.map(|((moving, amount), &copied)| form(moving, amount, copied)).collect(),
        retired_replicas: retired_replicas(&api, &view, &phases, &surveyed),
        leaving: leaving.collect(),
        waiting: waiting.collect(),
    }))
}

/// The partitions that are not at their target homes, with their configurations.
fn under_way<'a>(view: &View, phases: &'a [ConfigPhase]) -> Vec<(Route, &'a ConfigPhase)> {
    let partitions = view.ring.partitions().iter().zip(phases);
    let route = |(partition, phase): (_, &'a ConfigPhase)| (Route::new(partition, phase.current(), view), phase);
    partitions.map(route).filter(|(route, phase)| phase.next().is_some() || route.is_change()).collect()
}

/// Asks the present and the new homes about the partitions that move, and every node about its stale data.
fn survey_targets(api: &ApiState, view: &View, routes: &[Route]) -> amounts::SurveyTargets {
    let mut survey_targets = amounts::sources(api, view, routes);
    for known in view.members() {
        survey_targets.entry(known.member.id).or_default();
    }
    for route in routes {
        for home in route.all_new_homes() {
            survey_targets.entry(home.node).or_default().insert(route.partition);
        }
    }
    survey_targets
}

/// The homes that a transfer needs and that are down.
fn silent(api: &ApiState, view: &View, route: &Route) -> Vec<Home> {
    down(api, route.from.iter().filter(|&&home| !view.is_removed(home)).chain(&route.to))
}

fn down<'a>(api: &ApiState, homes: impl Iterator<Item = &'a Home>) -> Vec<Home> {
    let liveness = api.liveness();
    let down: BTreeSet<Home> = homes.filter(|home| liveness.status(home.node) == Status::Down).copied().collect();
    down.into_iter().collect()
}

fn retired_replicas(
    api: &ApiState,
    view: &View,
    phases: &[ConfigPhase],
    surveyed: &Surveyed,
) -> Vec<RetiredReplicaForm> {
    let mut leaves: Vec<RetiredReplicaForm> = Vec::new();
    for (&node, sizes) in surveyed {
        for &partition in &sizes.leaves {
            let homes = phases.get(partition.index()).into_iter().flat_map(ConfigPhase::both);
            let homes = homes.flat_map(Configuration::homes_of_any);
            let waits_for = names(view, &down(api, homes.filter(|&&home| !view.is_removed(home))));
            leaves.push(RetiredReplicaForm { partition: partition.0, node: name_of(view, node), waits_for });
        }
    }
    leaves.sort_by(|a, b| (a.partition, &a.node).cmp(&(b.partition, &b.node)));
    leaves
}
