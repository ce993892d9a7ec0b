//! `/v1/cluster/members`: plans and makes changes of the members.

mod lost;

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::State;
use axum::http::Request as HttpRequest;
use axum::{Extension, Json};
use cartwheel_core::cluster::configuration::{ConfigPhase, Home};
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::{BadChange, ChangeKind, Member, View, planned};
use cartwheel_core::control::MembersChange;
use cartwheel_core::ring::report::{Capped, Violations};
use cartwheel_core::ring::{NORMAL_WEIGHT, PartitionId};
use cartwheel_core::value::dot::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::AuditDetail;
use super::amounts::{self, Amount, Route};
use super::buckets::read_change;
use super::error::ApiError;
use super::openapi::ChangeErrors;
use super::query::Query;
use crate::backend::{Readiness, name_of};
use crate::config::ListenAddr;

/// Changes to make together, or not at all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MembersChangeForm {
    /// The changes, in order.
    changes: Vec<MemberChangeForm>,
    /// The `version` of the plan that was reviewed: if the cluster has changed since, the request fails.
    planned_on: Option<String>,
    /// Whether to make the changes, or only to plan them.
    #[serde(default)]
    apply: bool,
}

/// A change of the members. Nodes are given by name.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum MemberChangeForm {
    /// Add a waiting node as a member.
    Add {
        /// The node.
        node: String,
        /// Its share of the data; 100 is normal.
        weight: Option<u32>,
    },
    /// Remove a member, which first hands over what it holds.
    Remove {
        /// The node.
        node: String,
    },
    /// Replace a member with a waiting node.
    Replace {
        /// The member.
        node: String,
        /// The waiting node.
        with: String,
    },
    /// Set a member's weight.
    Weight {
        /// The node.
        node: String,
        /// Its share of the data; 100 is normal.
        weight: u32,
    },
    /// Set a member's zone and host.
    Zone {
        /// The node.
        node: String,
        /// Its zone.
        zone: String,
        /// Its machine; unchanged if not given.
        host: Option<String>,
    },
    /// Set a member's addresses, if it moved and could not report that itself.
    Address {
        /// The node.
        node: String,
        /// Its address for peers; unchanged if not given.
        peer_address: Option<String>,
        /// Its address for HTTP clients; unchanged if not given.
        http_address: Option<String>,
    },
    /// Mark as lost the nodes that were removed, by these or earlier changes, and do not answer. Partitions that lack a majority of their
    /// homes are force-recovered from those that remain, which ends their guarantees.
    Force {},
}

/// The effect of changes.
#[derive(Serialize, ToSchema)]
pub(super) struct PlanForm {
    /// The version of the history that it is based on.
    version: String,
    /// Whether the changes were made. Data then moves in the background.
    applied: bool,
    /// The partitions whose homes change.
    transfers: Vec<PlannedTransferForm>,
    /// How many replicas of partitions are copied to new homes.
    replicas: usize,
    /// How many keys those hold, tombstones included; none if no node reported.
    keys: Option<u64>,
    /// The bytes of keys and values; none if no node reported.
    bytes: Option<u64>,
    /// Whether the sizes of some partitions are unknown and estimated as the mean of the others.
    estimated: bool,
    /// The partitions that are force-recovered.
    force_recovered: Vec<ForceRecoveredForm>,
    /// Warnings to read before the changes are made.
    warnings: Vec<String>,
    /// The members whose weight exceeds what a node can hold.
    capped: Vec<CappedForm>,
    /// What each member holds before and after.
    nodes: Vec<ShareForm>,
    /// The imbalance of the placement before.
    before: BalanceForm,
    /// The imbalance of the placement after.
    after: BalanceForm,
}

#[derive(Serialize, ToSchema)]
struct PlannedTransferForm {
    /// The partition.
    partition: u32,
    /// Its present homes.
    from: Vec<String>,
    /// Its target homes.
    to: Vec<String>,
    /// How many keys are copied to new homes; none if no node reported.
    keys: Option<u64>,
    /// The bytes of these keys and their values; none if no node reported.
    bytes: Option<u64>,
    /// Whether keys and bytes are estimated as the mean of the other partitions, because no home has answered.
    estimated: bool,
}

#[derive(Serialize, ToSchema)]
struct ForceRecoveredForm {
    /// The partition.
    partition: u32,
    /// Its remaining homes; if there are none, the partition starts empty.
    left: Vec<String>,
}

/// A member whose weight exceeds what a node can hold: one replica of each partition.
#[derive(Serialize, ToSchema)]
struct CappedForm {
    /// The node.
    node: String,
    /// Its weight.
    weight: u32,
    /// The effective weight.
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
    /// Replicas of partitions in its target.
    after: usize,
}

#[derive(Serialize, ToSchema)]
struct BalanceForm {
    /// The largest difference between a node's number of partitions and its weighted share.
    off_ideal: f64,
    /// How often a node occurs again among the homes of adjacent partitions where that could be avoided.
    node_repeats: u64,
    /// The same for hosts.
    host_repeats: u64,
    /// The same for zones.
    zone_repeats: u64,
}

impl BalanceForm {
    fn of(view: &View) -> Self {
        let Violations { node_repeats, host_repeats, zone_repeats, off_ideal_max } =
            Violations::count(&view.ring, usize::from(view.n_max()));
        Self { off_ideal: off_ideal_max, node_repeats, host_repeats, zone_repeats }
    }
}

/// Plan changes of the members, and optionally make them
#[utoipa::path(post, path = "/v1/cluster/members", tag = "cluster",
    params(("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")),
    request_body = MembersChangeForm,
    responses((status = 200, description = "The plan of the changes", body = PlanForm), ChangeErrors))]
pub(super) async fn change(
    State(api): State<ApiState>,
    request: HttpRequest<Body>,
) -> Result<(Extension<AuditDetail>, Json<PlanForm>), ApiError> {
    let (parts, body) = request.into_parts();
    let timeout = Query::parse(parts.uri.query(), &["timeout_ms"])?.timeout;
    let text = read_change(&parts.headers, body, timeout).await?;
    let detail = AuditDetail(serde_json::from_slice(&text).unwrap_or_default());
    let wanted: MembersChangeForm = serde_json::from_slice(&text)
        .map_err(|error| ApiError::bad_request(format!("the body is not a JSON object of changes: {error}")))?;
    let (view, history) = (api.view(), api.history());
    let version = history.version();
    if wanted.planned_on.as_ref().is_some_and(|planned_on| *planned_on != version.to_string()) {
        return Err(ApiError::bad_request("the cluster has changed since this was planned: review the new plan"));
    }
    let mut changes = kinds_of(&api, &view, &wanted.changes)?;
    let refused = |why: BadChange| ApiError::bad_request(why.to_string());
    let mut after = planned(&history, &changes).map_err(refused)?;
    if is_forced(&wanted.changes) {
        if api.readiness() == Readiness::Connecting {
            let why = "the node has just started and has yet to learn which partitions are lost: try again in a moment, or ask another node";
            return Err(ApiError::unavailable(why));
        }
        changes.push(lost::mark_lost(&api, &after)?);
        after = planned(&history, &changes).map_err(refused)?;
    }
    let mut plan = plan_of(&api, &view, &after).await?;
    plan.version = version.to_string();
    if wanted.apply {
        let planned_on = wanted.planned_on.is_some().then_some(version);
        api.control().change_members(MembersChange { changes, planned_on, timeout }).await??;
        plan.applied = true;
    }
    Ok((Extension(detail), Json(plan)))
}

/// The requested changes. One may name a node that an earlier one adds.
fn kinds_of(api: &ApiState, view: &View, requested: &[MemberChangeForm]) -> Result<Vec<ChangeKind>, ApiError> {
    let mut added: Vec<Member> = Vec::new();
    let mut kinds = Vec::new();
    let is_forced = is_forced(requested);
    for request in requested {
        let Some(kind) = kind_of(api, view, &added, request)? else { continue };
        if is_forced && is_leaving(view, &kind) {
            // It was removed before, and is now to be marked lost.
            continue;
        }
        if let ChangeKind::Add(member) | ChangeKind::Replace { new: member, .. } = &kind {
            added.push(member.clone());
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

fn is_forced(requested: &[MemberChangeForm]) -> bool {
    requested.iter().any(|request| matches!(request, MemberChangeForm::Force {}))
}

fn is_leaving(view: &View, what: &ChangeKind) -> bool {
    matches!(what, ChangeKind::Remove { node, .. } if view.member(*node).is_some_and(|known| known.leaving))
}

/// The change for a request; none for `Force`, which follows from the others.
fn kind_of(
    api: &ApiState,
    view: &View,
    added: &[Member],
    request: &MemberChangeForm,
) -> Result<Option<ChangeKind>, ApiError> {
    let member = |name: &str| {
        let members = view.members().map(|known| &known.member);
        let known = added.iter().chain(members).find(|member| member.name == *name);
        known.cloned().ok_or_else(|| {
            ApiError::bad_request(format!("the cluster has no member called {name}: see `cartwheel cluster status`"))
        })
    };
    Ok(Some(match request {
        MemberChangeForm::Force {} => return Ok(None),
        MemberChangeForm::Add { node, weight } => {
            ChangeKind::Add(Member { weight: weight.unwrap_or(NORMAL_WEIGHT), ..waiting(api, view, node)? })
        }
        MemberChangeForm::Remove { node } => {
            let member = member(node)?;
            ChangeKind::Remove { node: member.id, incarnation: member.incarnation }
        }
        MemberChangeForm::Replace { node, with } => {
            let old = member(node)?;
            ChangeKind::Replace { old: old.id, new: Member { weight: old.weight, ..waiting(api, view, with)? } }
        }
        MemberChangeForm::Weight { node, weight } => ChangeKind::Weight { node: member(node)?.id, weight: *weight },
        MemberChangeForm::Zone { node, zone, host } => {
            let member = member(node)?;
            let host = host.clone().unwrap_or(member.host);
            ChangeKind::Zone { node: member.id, zone: zone.clone(), host }
        }
        MemberChangeForm::Address { node, peer_address, http_address } => {
            let member = member(node)?;
            ChangeKind::Address {
                node: member.id,
                incarnation: member.incarnation,
                peer_addr: address(peer_address.as_ref(), member.peer_addr)?,
                http_addr: address(http_address.as_ref(), member.http_addr)?,
                resp_addr: None,
            }
        }
    }))
}

/// The address `given`, or the one before if there is none.
fn address(given: Option<&String>, before: String) -> Result<String, ApiError> {
    let Some(given) = given else { return Ok(before) };
    match given.parse::<ListenAddr>() {
        Ok(addr) if addr.is_specific() => Ok(addr.to_string()),
        Ok(_) => {
            Err(ApiError::bad_request(format!("{given} is not one address: give one that other nodes can connect to")))
        }
        Err(why) => Err(ApiError::bad_request(format!("{given:?} is not an address: {why}"))),
    }
}

/// A node that waits to join through this one.
fn waiting(api: &ApiState, view: &View, name: &str) -> Result<Member, ApiError> {
    let waiting = api.waiting().all();
    let found = waiting.iter().find(|member| member.name == name).cloned();
    found.ok_or_else(|| {
        let is_member = view.members().any(|known| known.member.name == name && !known.leaving);
        let names: Vec<&str> = waiting.iter().map(|member| member.name.as_str()).collect();
        ApiError::bad_request(match (is_member, names.is_empty()) {
            (true, _) => format!("{name} is a member already: give the new node another name, or replace the member"),
            (false, true) => format!(
                "no node called {name} waits to join: start it with `cartwheel serve --seed HOST:PORT --name {name}`"
            ),
            (false, false) => format!("no node called {name} waits to join; waiting are {}", names.join(", ")),
        })
    })
}

pub(super) fn names(view: &View, homes: &[Home]) -> Vec<String> {
    homes.iter().map(|home| name_of(view, home.node)).collect()
}

/// The partitions with their present and target homes.
fn routes(before: &View, after: &View, phases: &[ConfigPhase]) -> Vec<Route> {
    let partitions = before.ring.partitions().iter().zip(phases);
    let route = |(partition, phase): (PartitionId, &ConfigPhase)| Route::new(partition, phase.latest(), after);
    partitions.map(route).collect()
}

async fn plan_of(api: &ApiState, before: &View, after: &View) -> Result<PlanForm, ApiError> {
    let routes = routes(before, after, &api.phases());
    let mut shares: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for Route { from, to, .. } in &routes {
        from.iter().for_each(|home| shares.entry(home.node).or_default().0 += 1);
        to.iter().for_each(|home| shares.entry(home.node).or_default().1 += 1);
    }
    let moving: Vec<Route> = routes.into_iter().filter(Route::is_change).collect();
    let surveyed = api.survey(amounts::sources(api, before, &moving)).await?;
    let amounts = amounts::amounts(&moving, &surveyed);
    let name = |node: NodeId| name_of(if after.member(node).is_some() { after } else { before }, node);
    let nodes = shares.into_iter().map(|(node, (before, after))| ShareForm { node: name(node), before, after });
    let mut nodes: Vec<ShareForm> = nodes.collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    let total = amounts::total(&amounts);
    let moved = |(route, amount): (&Route, &Option<Amount>)| PlannedTransferForm {
        partition: route.partition.0,
        from: names(before, &route.from),
        to: names(after, &route.to),
        keys: amount.map(|amount| amount.size.keys),
        bytes: amount.map(|amount| amount.size.bytes),
        estimated: amount.is_some_and(|amount| amount.is_estimate),
    };
    let force_recovered = lost::force_recovered(api, after);
    Ok(PlanForm {
        version: String::new(),
        applied: false,
        replicas: moving.iter().map(|route| route.all_new_homes().len()).sum(),
        keys: total.map(|total| total.size.keys),
        bytes: total.map(|total| total.size.bytes),
        estimated: total.is_some_and(|total| total.is_estimate),
        warnings: [
            warnings(api, before, after, &moving),
            weight_warnings(after),
            lost::warnings(api, after, &force_recovered),
        ]
        .concat(),
        capped: after.ring.capped().into_iter().map(|capped| CappedForm::of(after, capped)).collect(),
        force_recovered,
        transfers: moving.iter().zip(&amounts).map(moved).collect(),
        nodes,
        before: BalanceForm::of(before),
        after: BalanceForm::of(after),
    })
}

/// Warnings about weights that cannot take full effect.
fn weight_warnings(after: &View) -> Vec<String> {
    let capped = after.ring.capped().into_iter().map(|Capped { node, weight, counts_as }| {
        let counts_as = (counts_as * 10.0).round() / 10.0;
        format!(
            "{} has weight {weight}, which counts as {counts_as}: a node holds at most one replica of each partition",
            name_of(after, node)
        )
    });
    capped.collect()
}

/// Warnings about nodes that are down: removed ones, and those that transfers need.
fn warnings(api: &ApiState, before: &View, after: &View, moving: &[Route]) -> Vec<String> {
    let liveness = api.liveness();
    let is_down = |home: &Home| home.node != api.local().node && liveness.status(home.node) == Status::Down;
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
        format!("{name} is down and cannot hand over its data: what it alone holds (writes with w=1, hints) is lost")
    });
    let awaited = awaited.into_iter().map(|(node, partitions)| {
        let name = name_of(if after.member(node).is_some() { after } else { before }, node);
        format!("{name} is down: {partitions} of the transfers wait until it is back, removed or replaced")
    });
    gone.chain(awaited).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use cartwheel_core::message::client::Refusal;
    use serde_json::{Value, json};

    use super::super::tests::call;
    use super::*;

    #[test]
    fn every_change_has_a_json_form() {
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
            let wanted: MembersChangeForm = serde_json::from_value(json!({"changes": [form.clone()]})).unwrap();
            assert!(!wanted.apply && wanted.planned_on.is_none(), "nothing is applied by default");
            // The client crate's form is the same.
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
            assert!(serde_json::from_value::<MembersChangeForm>(form.clone()).is_err(), "{form}");
        }
    }

    async fn declined(body: &Value) -> String {
        let (status, response) = call("POST", "/v1/cluster/members", Err(Refusal::Overloaded), body.to_string()).await;
        assert_eq!((status, &response["error"]), (StatusCode::BAD_REQUEST, &json!("bad_request")), "{response}");
        response["message"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn changes_of_unknown_nodes_are_declined() {
        let of = |op: Value| json!({"changes": [op]});
        for op in ["remove", "weight", "zone"] {
            let form = json!({"op": op, "node": "z", "weight": 1, "zone": "x"});
            let fields = |name: &str| [op, "op", "node"].contains(&name);
            let form: Value = form.as_object().unwrap().clone().into_iter().filter(|(name, _)| fields(name)).collect();
            assert!(declined(&of(form)).await.contains("no member called z"), "{op}");
        }
        let unknown = declined(&of(json!({"op": "add", "node": "d"}))).await;
        assert!(unknown.contains("start it with `cartwheel serve --seed HOST:PORT --name d`"), "{unknown}");
        let known = declined(&of(json!({"op": "add", "node": "node-2"}))).await;
        assert!(known.contains("node-2 is a member already"), "{known}");
        let stale = declined(&json!({"changes": [], "planned_on": "1-0"})).await;
        assert!(stale.contains("the cluster has changed since this was planned"), "{stale}");
        assert!(declined(&json!({"changes": 1})).await.contains("not a JSON object of changes"));
    }
}
