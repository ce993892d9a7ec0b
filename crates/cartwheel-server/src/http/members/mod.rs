//! `/v1/cluster/members`: what an administrator wants changed about the members, and what that leads to.

mod lost;

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request as HttpRequest;
use cartwheel_core::cluster::configuration::{ConfigPhase, Home};
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::{BadChange, ChangeKind, Member, View, planned};
use cartwheel_core::control::MembersChange;
use cartwheel_core::ring::report::{Capped, Violations};
use cartwheel_core::ring::{NORMAL_WEIGHT, PartitionId};
use cartwheel_core::value::dot::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::amounts::{self, Amount, Route};
use super::buckets::read_change;
use super::error::ApiError;
use super::openapi::ChangeErrors;
use super::query::Query;
use super::{Door, Readiness};
use crate::config::ListenAddr;

/// What is to be changed, all of it or nothing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedForm {
    /// The changes, in their order.
    changes: Vec<WishForm>,
    /// The `version` of the plan that was looked at: if the cluster has changed since, nothing is done.
    planned_on: Option<String>,
    /// Whether to make the changes, or only to say what they would lead to.
    #[serde(default)]
    apply: bool,
}

/// One change of the members. Nodes are named.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum WishForm {
    /// A node that waits to be a member becomes one.
    Add {
        /// The node.
        node: String,
        /// Its share of the data; 100 is a normal one.
        weight: Option<u32>,
    },
    /// A member hands over what it holds, and leaves.
    Remove {
        /// The node.
        node: String,
    },
    /// A node that waits takes the place of a member.
    Replace {
        /// The member.
        node: String,
        /// The node that waits.
        with: String,
    },
    /// A member is to have another share of the data.
    Weight {
        /// The node.
        node: String,
        /// Its share of the data; 100 is a normal one.
        weight: u32,
    },
    /// A member stands somewhere else.
    Zone {
        /// The node.
        node: String,
        /// Its zone.
        zone: String,
        /// Its machine; as before if it is not said.
        host: Option<String>,
    },
    /// A member is found somewhere else: it moved, and could not say so itself.
    Address {
        /// The node.
        node: String,
        /// Where peers find it; as before if it is not said.
        peer_address: Option<String>,
        /// Where HTTP clients find it; as before if it is not said.
        http_address: Option<String>,
    },
    /// What was removed, by these changes or before, and does not answer is given up for good. Partitions that lack so many homes that they
    /// cannot get others are made anew of those that are left, and what was promised of them ends.
    Force {},
}

/// What changes lead to.
#[derive(Serialize, ToSchema)]
pub(super) struct PlanForm {
    /// Which history of changes it was made on.
    version: String,
    /// Whether the changes are made. Data moves in the background from then on.
    applied: bool,
    /// The partitions whose homes change.
    moves: Vec<MoveForm>,
    /// How many replicas of partitions go to nodes that do not hold them.
    replicas: usize,
    /// How many keys those hold, tombstones among them; none if nobody could say.
    keys: Option<u64>,
    /// How many bytes keys and values have; none if nobody could say.
    bytes: Option<u64>,
    /// Not every partition's size is known: for some, keys and bytes are the mean of the others.
    estimated: bool,
    /// The partitions that are made anew.
    force_recovered: Vec<RemadeForm>,
    /// What an administrator should know before the changes are made.
    warnings: Vec<String>,
    /// The members whose weights ask for more replicas than a node can hold.
    capped: Vec<CappedForm>,
    /// What each member holds before and after.
    nodes: Vec<ShareForm>,
    /// How far the placement is from an even one, before.
    before: BalanceForm,
    /// And after.
    after: BalanceForm,
}

#[derive(Serialize, ToSchema)]
struct MoveForm {
    /// The partition.
    partition: u32,
    /// Who holds it now.
    from: Vec<String>,
    /// Who is to hold it.
    to: Vec<String>,
    /// How many keys are copied to those who do not hold it; none if nobody could say.
    keys: Option<u64>,
    /// How many bytes those and their values have; none if nobody could say.
    bytes: Option<u64>,
    /// Keys and bytes are the mean of the other partitions: nobody who holds it has answered.
    estimated: bool,
}

#[derive(Serialize, ToSchema)]
struct RemadeForm {
    /// The partition.
    partition: u32,
    /// Those of its homes that are left. If it is empty, nothing is.
    left: Vec<String>,
}

/// A member whose weight asks for more replicas than a node can hold: each partition once.
#[derive(Serialize, ToSchema)]
struct CappedForm {
    /// The node.
    node: String,
    /// Its weight.
    weight: u32,
    /// The weight that it counts as.
    counts_as: f64,
}

impl CappedForm {
    fn of(view: &View, Capped { node, weight, counts_as }: Capped) -> Self {
        Self { node: name_of(view, node), weight, counts_as }
    }
}

#[derive(Serialize, ToSchema)]
struct ShareForm {
    /// The node.
    node: String,
    /// Replicas of partitions that it holds now.
    before: usize,
    /// Replicas of partitions that it is to hold.
    after: usize,
}

#[derive(Serialize, ToSchema)]
struct BalanceForm {
    /// The largest distance of a node's number of partitions from its weighted share.
    off_ideal: f64,
    /// How often a node is met again among the homes of a partition's neighbours where that could be avoided.
    node_repeats: u64,
    /// The same of hosts.
    host_repeats: u64,
    /// The same of zones.
    zone_repeats: u64,
}

impl BalanceForm {
    fn of(view: &View) -> Self {
        let Violations { node_repeats, host_repeats, zone_repeats, off_ideal_max } =
            Violations::count(&view.ring, usize::from(view.n_max()));
        Self { off_ideal: off_ideal_max, node_repeats, host_repeats, zone_repeats }
    }
}

/// Plans changes of the members, and makes them if that is asked
#[utoipa::path(post, path = "/v1/cluster/members", tag = "cluster",
    params(("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; 5000 if not said")),
    request_body = WantedForm,
    responses((status = 200, description = "What the changes lead to", body = PlanForm), ChangeErrors))]
pub(super) async fn change(State(door): State<Door>, request: HttpRequest<Body>) -> Result<Json<PlanForm>, ApiError> {
    let (parts, body) = request.into_parts();
    let timeout = Query::parse(parts.uri.query(), &["timeout_ms"])?.timeout;
    let wanted: WantedForm = serde_json::from_slice(&read_change(&parts.headers, body, timeout).await?)
        .map_err(|error| ApiError::bad_request(format!("the body is no JSON object of changes: {error}")))?;
    let (view, history) = (door.view(), door.history());
    let version = history.version();
    if wanted.planned_on.as_ref().is_some_and(|planned_on| *planned_on != version.to_string()) {
        return Err(ApiError::bad_request("the cluster has changed since this was planned: look at the plan again"));
    }
    let mut changes = kinds_of(&door, &view, &wanted.changes)?;
    let refused = |why: BadChange| ApiError::bad_request(why.to_string());
    let mut after = planned(&history, &changes).map_err(refused)?;
    if is_forced(&wanted.changes) {
        if door.readiness() == Readiness::Connecting {
            let why = "the node has just started and has yet to learn which partitions are lost: try again in a moment, or ask another one";
            return Err(ApiError::unavailable(why));
        }
        changes.push(lost::mark_lost(&door, &after)?);
        after = planned(&history, &changes).map_err(refused)?;
    }
    let mut plan = plan_of(&door, &view, &after).await?;
    plan.version = version.to_string();
    if wanted.apply {
        let planned_on = wanted.planned_on.is_some().then_some(version);
        door.control().change_members(MembersChange { changes, planned_on, timeout }).await??;
        plan.applied = true;
    }
    Ok(Json(plan))
}

/// The changes that are wished. One may name a node that comes by another before it.
fn kinds_of(door: &Door, view: &View, wishes: &[WishForm]) -> Result<Vec<ChangeKind>, ApiError> {
    let mut come: Vec<Member> = Vec::new();
    let mut kinds = Vec::new();
    let is_forced = is_forced(wishes);
    for wish in wishes {
        let Some(kind) = kind_of(door, view, &come, wish)? else { continue };
        if is_forced && is_leaving(view, &kind) {
            // It was removed before, and is to be given up now.
            continue;
        }
        if let ChangeKind::Add(member) | ChangeKind::Replace { new: member, .. } = &kind {
            come.push(member.clone());
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

fn is_forced(wishes: &[WishForm]) -> bool {
    wishes.iter().any(|wish| matches!(wish, WishForm::Force {}))
}

fn is_leaving(view: &View, what: &ChangeKind) -> bool {
    matches!(what, ChangeKind::Remove { node, .. } if view.member(*node).is_some_and(|known| known.leaving))
}

/// The change that a wish stands for; none if that follows from the others.
fn kind_of(door: &Door, view: &View, come: &[Member], wish: &WishForm) -> Result<Option<ChangeKind>, ApiError> {
    let member = |name: &str| {
        let members = view.members().map(|known| &known.member);
        let known = come.iter().chain(members).find(|member| member.name == *name);
        known.cloned().ok_or_else(|| {
            ApiError::bad_request(format!("the cluster has no member called {name}: see `cartwheel cluster status`"))
        })
    };
    Ok(Some(match wish {
        WishForm::Force {} => return Ok(None),
        WishForm::Add { node, weight } => {
            ChangeKind::Add(Member { weight: weight.unwrap_or(NORMAL_WEIGHT), ..waiting(door, view, node)? })
        }
        WishForm::Remove { node } => {
            let member = member(node)?;
            ChangeKind::Remove { node: member.id, incarnation: member.incarnation }
        }
        WishForm::Replace { node, with } => {
            let old = member(node)?;
            ChangeKind::Replace { old: old.id, new: Member { weight: old.weight, ..waiting(door, view, with)? } }
        }
        WishForm::Weight { node, weight } => ChangeKind::Weight { node: member(node)?.id, weight: *weight },
        WishForm::Zone { node, zone, host } => {
            let member = member(node)?;
            let host = host.clone().unwrap_or(member.host);
            ChangeKind::Zone { node: member.id, zone: zone.clone(), host }
        }
        WishForm::Address { node, peer_address, http_address } => {
            let member = member(node)?;
            ChangeKind::Address {
                node: member.id,
                incarnation: member.incarnation,
                peer_addr: address(peer_address.as_ref(), member.peer_addr)?,
                http_addr: address(http_address.as_ref(), member.http_addr)?,
            }
        }
    }))
}

/// Where a node is said to be, or was before.
fn address(said: Option<&String>, before: String) -> Result<String, ApiError> {
    let Some(said) = said else { return Ok(before) };
    match said.parse::<ListenAddr>() {
        Ok(addr) if addr.is_one_place() => Ok(addr.to_string()),
        Ok(_) => {
            Err(ApiError::bad_request(format!("{said} stands for many addresses: give one that others can connect to")))
        }
        Err(why) => Err(ApiError::bad_request(format!("{said:?} is no address: {why}"))),
    }
}

/// A node that has asked this one to be let in.
fn waiting(door: &Door, view: &View, name: &str) -> Result<Member, ApiError> {
    let waiting = door.waiting().all();
    let found = waiting.iter().find(|member| member.name == name).cloned();
    found.ok_or_else(|| {
        let is_member = view.members().any(|known| known.member.name == name && !known.leaving);
        let names: Vec<&str> = waiting.iter().map(|member| member.name.as_str()).collect();
        ApiError::bad_request(match (is_member, names.is_empty()) {
            (true, _) => format!("{name} is a member already: give the new node another name, or replace the member"),
            (false, true) => format!(
                "no node called {name} waits to be let in: start it with `cartwheel serve --seed HOST:PORT --name {name}`"
            ),
            (false, false) => format!("no node called {name} waits to be let in; there are {}", names.join(", ")),
        })
    })
}

pub(super) fn names(view: &View, homes: &[Home]) -> Vec<String> {
    homes.iter().map(|home| name_of(view, home.node)).collect()
}

/// What a node is called, or its id if it is no member any more.
pub(super) fn name_of(view: &View, node: NodeId) -> String {
    view.member(node).map_or_else(|| node.to_string(), |known| known.member.name.clone())
}

/// The partitions whose homes change.
fn routes(before: &View, after: &View, phases: &[ConfigPhase]) -> Vec<Route> {
    let partitions = before.ring.partitions().iter().zip(phases);
    let route = |(partition, phase): (PartitionId, &ConfigPhase)| Route::new(partition, phase.latest(), after);
    partitions.map(route).collect()
}

async fn plan_of(door: &Door, before: &View, after: &View) -> Result<PlanForm, ApiError> {
    let routes = routes(before, after, &door.phases());
    let mut shares: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for Route { from, to, .. } in &routes {
        from.iter().for_each(|home| shares.entry(home.node).or_default().0 += 1);
        to.iter().for_each(|home| shares.entry(home.node).or_default().1 += 1);
    }
    let moving: Vec<Route> = routes.into_iter().filter(Route::is_change).collect();
    let surveyed = door.survey(amounts::sources(door, before, &moving)).await?;
    let amounts = amounts::amounts(&moving, &surveyed);
    let name = |node: NodeId| name_of(if after.member(node).is_some() { after } else { before }, node);
    let nodes = shares.into_iter().map(|(node, (before, after))| ShareForm { node: name(node), before, after });
    let mut nodes: Vec<ShareForm> = nodes.collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    let total = amounts::total(&amounts);
    let moved = |(route, amount): (&Route, &Option<Amount>)| MoveForm {
        partition: route.partition.0,
        from: names(before, &route.from),
        to: names(after, &route.to),
        keys: amount.map(|amount| amount.size.keys),
        bytes: amount.map(|amount| amount.size.bytes),
        estimated: amount.is_some_and(|amount| amount.is_estimate),
    };
    let force_recovered = lost::force_recovered(door, after);
    Ok(PlanForm {
        version: String::new(),
        applied: false,
        replicas: moving.iter().map(|route| route.come_at_all().len()).sum(),
        keys: total.map(|total| total.size.keys),
        bytes: total.map(|total| total.size.bytes),
        estimated: total.is_some_and(|total| total.is_estimate),
        warnings: [
            warnings(door, before, after, &moving),
            weight_warnings(after),
            lost::warnings(door, after, &force_recovered),
        ]
        .concat(),
        capped: after.ring.capped().into_iter().map(|capped| CappedForm::of(after, capped)).collect(),
        force_recovered,
        moves: moving.iter().zip(&amounts).map(moved).collect(),
        nodes,
        before: BalanceForm::of(before),
        after: BalanceForm::of(after),
    })
}

/// What weights cannot lead to.
fn weight_warnings(after: &View) -> Vec<String> {
    let capped = after.ring.capped().into_iter().map(|Capped { node, weight, counts_as }| {
        let counts_as = (counts_as * 10.0).round() / 10.0;
        format!(
            "{} has weight {weight}, which counts as {counts_as}: a node holds each partition once, so it cannot hold more",
            name_of(after, node)
        )
    });
    capped.collect()
}

/// What becomes of nodes that do not answer: those that are to go, and those whose partitions are to move.
fn warnings(door: &Door, before: &View, after: &View, moving: &[Route]) -> Vec<String> {
    let liveness = door.liveness();
    let is_down = |home: &Home| home.node != door.local().node && liveness.status(home.node) == Status::Down;
    let incarnations =
        before.members().map(|known| Home { node: known.member.id, incarnation: known.member.incarnation });
    let (mut gone, mut awaited) = (Vec::new(), BTreeMap::<NodeId, usize>::new());
    gone.extend(incarnations.filter(|home| is_down(home) && after.is_removed(*home) && !before.is_removed(*home)));
    for route in moving {
        let needed = route.from.iter().filter(|home| !after.is_removed(**home));
        let down: BTreeSet<NodeId> =
            needed.chain(&route.to).filter(|home| is_down(home)).map(|home| home.node).collect();
        down.into_iter().for_each(|node| *awaited.entry(node).or_default() += 1);
    }
    let gone = gone.into_iter().map(|home| {
        let name = name_of(before, home.node);
        format!(
            "{name} is down and goes unheard: what it alone holds (a write with w=1, what it keeps for others) is lost"
        )
    });
    let awaited = awaited.into_iter().map(|(node, partitions)| {
        let name = name_of(if after.member(node).is_some() { after } else { before }, node);
        format!("{name} is down: {partitions} of the moves wait until it is back, or is removed or replaced, too")
    });
    gone.chain(awaited).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use cartwheel_core::message::client::Refusal;
    use serde_json::{Value, json};

    use super::super::tests::ask;
    use super::*;

    #[test]
    fn every_change_has_its_form() {
        for form in [
            json!({"op": "add", "node": "c"}),
            json!({"op": "add", "node": "c", "weight": 50}),
            json!({"op": "remove", "node": "b"}),
            json!({"op": "replace", "node": "a", "with": "d"}),
            json!({"op": "weight", "node": "a", "weight": 0}),
            json!({"op": "zone", "node": "a", "zone": "x"}),
            json!({"op": "zone", "node": "a", "zone": "x", "host": "h"}),
            json!({"op": "force"}),
        ] {
            let wanted: WantedForm = serde_json::from_value(json!({"changes": [form.clone()]})).unwrap();
            assert!(!wanted.apply && wanted.planned_on.is_none(), "nothing is done that was not asked for");
            // The client's own form is the same.
            let client: cartwheel_client::MemberChange = serde_json::from_value(form.clone()).unwrap();
            assert_eq!(serde_json::to_value(client).unwrap(), form);
        }
        for form in [
            json!({}),
            json!({"changes": "add"}),
            json!({"changes": [{"op": "drop", "node": "a"}]}),
            json!({"changes": [{"op": "add"}]}),
            json!({"changes": [{"op": "add", "node": "a", "incarnation": 1}]}),
            json!({"changes": [{"op": "weight", "node": "a", "weight": -1}]}),
            json!({"changes": [], "dry_run": true}),
            json!({"changes": [], "apply": "yes"}),
        ] {
            assert!(serde_json::from_value::<WantedForm>(form.clone()).is_err(), "{form}");
        }
    }

    async fn declined(body: &Value) -> String {
        let (status, answer) = ask("POST", "/v1/cluster/members", Err(Refusal::Overloaded), body.to_string()).await;
        assert_eq!((status, &answer["error"]), (StatusCode::BAD_REQUEST, &json!("bad_request")), "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn changes_of_nodes_that_are_not_there_are_declined() {
        let of = |op: Value| json!({"changes": [op]});
        for op in ["remove", "weight", "zone"] {
            let form = json!({"op": op, "node": "z", "weight": 1, "zone": "x"});
            let fields = |name: &str| [op, "op", "node"].contains(&name);
            let form: Value = form.as_object().unwrap().clone().into_iter().filter(|(name, _)| fields(name)).collect();
            assert!(declined(&of(form)).await.contains("no member called z"), "{op}");
        }
        let nobody = declined(&of(json!({"op": "add", "node": "d"}))).await;
        assert!(nobody.contains("start it with `cartwheel serve --seed HOST:PORT --name d`"), "{nobody}");
        let known = declined(&of(json!({"op": "add", "node": "node-2"}))).await;
        assert!(known.contains("node-2 is a member already"), "{known}");
        let stale = declined(&json!({"changes": [], "planned_on": "1-0"})).await;
        assert!(stale.contains("the cluster has changed since this was planned"), "{stale}");
        assert!(declined(&json!({"changes": 1})).await.contains("no JSON object of changes"));
    }
}
