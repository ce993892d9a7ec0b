//! `/v1/cluster/moves`: which partitions are on their way to where they are wished, how far they are, and what they wait for.

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

use super::Door;
use super::amounts::{self, Amount, Route};
use super::error::ApiError;
use super::members::{name_of, names};
use super::openapi::AskErrors;
use super::query::Query;

/// What is on its way.
#[derive(Serialize, ToSchema)]
pub(super) struct MovesForm {
    /// Which history of changes the node that answers goes by.
    version: String,
    /// How many partitions there are.
    partitions: u32,
    /// The partitions that are not held as they are wished.
    moves: Vec<UnderWayForm>,
    /// How many bytes all of them together have to bring to the nodes that come; none if nobody could say.
    bytes: Option<u64>,
    /// How many of those have come; none if a node that comes has not said.
    copied_bytes: Option<u64>,
    /// For some partitions, keys and bytes are the mean of the others.
    estimated: bool,
    /// What nodes hold that they are no home of any more, until every home has confirmed that it holds it, too, and it is cleared away.
    handing_over: Vec<LeavesForm>,
    /// The members that are leaving.
    leaving: Vec<String>,
    /// The nodes that wait to be let in.
    waiting: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct UnderWayForm {
    /// The partition.
    partition: u32,
    /// How far its chain of configurations has come: a number, or two while one takes over from the other.
    step: String,
    /// Who holds it.
    from: Vec<String>,
    /// Who is to hold it in the end.
    to: Vec<String>,
    /// `copying` (those who come copy what is held) or `agreed` (the homes have agreed on who comes next, and both count until those hold
    /// everything).
    state: &'static str,
    /// How many keys are copied in all to those who come; none if nobody could say.
    keys: Option<u64>,
    /// How many bytes those and their values have; none if nobody could say.
    bytes: Option<u64>,
    /// How many of the keys have come; none if one of those who come has not said.
    copied_keys: Option<u64>,
    /// How many of the bytes have come; none if one of those who come has not said.
    copied_bytes: Option<u64>,
    /// Keys and bytes are the mean of the other partitions: nobody who holds it has answered.
    estimated: bool,
    /// Those who are needed and do not answer.
    waits_for: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct LeavesForm {
    /// The partition.
    partition: u32,
    /// Who still holds it.
    node: String,
    /// Those who are to confirm that they hold it, too, and do not answer.
    waits_for: Vec<String>,
}

/// What is on its way to where it is wished
#[utoipa::path(get, path = "/v1/cluster/moves", tag = "cluster",
    responses((status = 200, description = "The partitions that move, as this node and those it asks know", body = MovesForm), AskErrors))]
pub(super) async fn moves(State(door): State<Door>, uri: Uri) -> Result<Json<MovesForm>, ApiError> {
    Query::none(uri.query())?;
    let (view, phases) = (door.view(), door.phases());
    let moving = under_way(&view, &phases);
    let routes: Vec<Route> = moving.iter().map(|(route, _)| route.clone()).collect();
    let surveyed = door.survey(questions(&door, &view, &routes)).await?;
    let amounts = amounts::amounts(&routes, &surveyed);
    let copied: Vec<_> = routes.iter().map(|route| amounts::copied(route, &surveyed)).collect();
    let total = amounts::total(&amounts);
    let form = |(route, phase): &(Route, &ConfigPhase), amount: Option<Amount>, copied: Option<Size>| UnderWayForm {
        partition: route.partition.0,
        step: phase.version().to_string(),
        from: names(&view, &route.from),
        to: names(&view, &route.to),
        state: if phase.next().is_some() { "agreed" } else { "copying" },
        keys: amount.map(|amount| amount.size.keys),
        bytes: amount.map(|amount| amount.size.bytes),
        copied_keys: copied.map(|copied| copied.keys),
        copied_bytes: copied.map(|copied| copied.bytes),
        estimated: amount.is_some_and(|amount| amount.is_estimate),
        waits_for: names(&view, &silent(&door, &view, route)),
    };
    let known = moving.iter().zip(amounts).zip(&copied);
    let is_member =
        |waits: &Member| view.member(waits.id).is_some_and(|known| known.member.incarnation == waits.incarnation);
    let waiting = door.waiting().all().into_iter().filter(|waits| !is_member(waits)).map(|waits| waits.name);
    let leaving = view.members().filter(|known| known.leaving).map(|known| known.member.name.clone());
    Ok(Json(MovesForm {
        version: view.ring.version().to_string(),
        partitions: view.ring.partitions().count(),
        bytes: total.map(|total| total.size.bytes),
        copied_bytes: copied.iter().map(|copied| copied.map(|copied| copied.bytes)).sum(),
        estimated: total.is_some_and(|total| total.is_estimate),
        moves: known.map(|((moving, amount), &copied)| form(moving, amount, copied)).collect(),
        handing_over: handing_over(&door, &view, &phases, &surveyed),
        leaving: leaving.collect(),
        waiting: waiting.collect(),
    }))
}

/// The partitions that are not held as they are wished, and what holds in them.
fn under_way<'a>(view: &View, phases: &'a [ConfigPhase]) -> Vec<(Route, &'a ConfigPhase)> {
    let partitions = view.ring.partitions().iter().zip(phases);
    let route = |(partition, phase): (_, &'a ConfigPhase)| (Route::new(partition, phase.current(), view), phase);
    partitions.map(route).filter(|(route, phase)| phase.next().is_some() || route.is_change()).collect()
}

/// Those who hold what moves and those who come are asked about it, and everyone about what it has to hand over.
fn questions(door: &Door, view: &View, routes: &[Route]) -> amounts::Questions {
    let mut questions = amounts::sources(door, view, routes);
    for known in view.members() {
        questions.entry(known.member.id).or_default();
    }
    for route in routes {
        for home in route.come_at_all() {
            questions.entry(home.node).or_default().insert(route.partition);
        }
    }
    questions
}

/// Those who are needed and are down.
fn silent(door: &Door, view: &View, route: &Route) -> Vec<Home> {
    down(door, route.from.iter().filter(|&&home| !view.is_removed(home)).chain(&route.to))
}

fn down<'a>(door: &Door, homes: impl Iterator<Item = &'a Home>) -> Vec<Home> {
    let liveness = door.liveness();
    let down: BTreeSet<Home> = homes.filter(|home| liveness.status(home.node) == Status::Down).copied().collect();
    down.into_iter().collect()
}

fn handing_over(door: &Door, view: &View, phases: &[ConfigPhase], surveyed: &Surveyed) -> Vec<LeavesForm> {
    let mut leaves: Vec<LeavesForm> = Vec::new();
    for (&node, sizes) in surveyed {
        for &partition in &sizes.leaves {
            let homes = phases.get(partition.index()).into_iter().flat_map(ConfigPhase::both);
            let homes = homes.flat_map(Configuration::homes_of_any);
            let waits_for = names(view, &down(door, homes.filter(|&&home| !view.is_removed(home))));
            leaves.push(LeavesForm { partition: partition.0, node: name_of(view, node), waits_for });
        }
    }
    leaves.sort_by(|a, b| (a.partition, &a.node).cmp(&(b.partition, &b.node)));
    leaves
}
