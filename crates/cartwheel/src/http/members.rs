//! `/v1/cluster/members` and `/v1/cluster/moves`: what an administrator wants changed about the members, and what is on its way.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request as HttpRequest, Uri};
use cartwheel_core::configuration::{Home, Phase};
use cartwheel_core::control::MembersChange;
use cartwheel_core::dot::NodeId;
use cartwheel_core::liveness::Status;
use cartwheel_core::membership::{ChangeKind, Member, View, planned};
use cartwheel_core::ring::NORMAL_WEIGHT;
use cartwheel_core::ring::report::Violations;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Door;
use super::buckets::read;
use super::error::ApiError;
use super::openapi::{AskErrors, ChangeErrors};
use super::query::Query;

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
    let wanted: WantedForm = serde_json::from_slice(&read(body, timeout).await?)
        .map_err(|error| ApiError::bad_request(format!("the body is no JSON object of changes: {error}")))?;
    let (view, history) = (door.view(), door.history());
    let version = history.version();
    if wanted.planned_on.as_ref().is_some_and(|planned_on| *planned_on != version.to_string()) {
        return Err(ApiError::bad_request("the cluster has changed since this was planned: look at the plan again"));
    }
    let changes = wanted.changes.iter().map(|wish| kind_of(&door, &view, wish)).collect::<Result<Vec<_>, _>>()?;
    let after = planned(&history, &changes).map_err(|why| ApiError::bad_request(why.to_string()))?;
    let mut plan = plan_of(&view, &after, &door.phases());
    plan.version = version.to_string();
    if wanted.apply {
        let planned_on = wanted.planned_on.is_some().then_some(version);
        door.control().change_members(MembersChange { changes, planned_on, timeout }).await??;
        plan.applied = true;
    }
    Ok(Json(plan))
}

fn kind_of(door: &Door, view: &View, wish: &WishForm) -> Result<ChangeKind, ApiError> {
    let member = |name: &str| {
        let known = view.members().map(|known| &known.member).find(|member| member.name == *name);
        known.cloned().ok_or_else(|| {
            ApiError::bad_request(format!("the cluster has no member called {name}: see `cartwheel cluster status`"))
        })
    };
    Ok(match wish {
        WishForm::Add { node, weight } => {
            ChangeKind::Add(Member { weight: weight.unwrap_or(NORMAL_WEIGHT), ..waiting(door, view, node)? })
        }
        WishForm::Remove { node } => {
            let member = member(node)?;
            ChangeKind::Remove { node: member.id, life: member.life }
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
    })
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

fn names(view: &View, homes: &[Home]) -> Vec<String> {
    let name =
        |home: &Home| view.member(home.node).map_or_else(|| home.node.to_string(), |known| known.member.name.clone());
    homes.iter().map(name).collect()
}

fn plan_of(before: &View, after: &View, phases: &[Phase]) -> PlanForm {
    let (mut moves, mut replicas) = (Vec::new(), 0);
    let mut shares: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for (partition, phase) in before.ring.partitions().iter().zip(phases) {
        let (from, to) = (phase.latest().of(before.n_max()), after.wished(partition));
        from.iter().for_each(|home| shares.entry(home.node).or_default().0 += 1);
        to.iter().for_each(|home| shares.entry(home.node).or_default().1 += 1);
        let come = to.iter().filter(|home| !from.contains(home)).count();
        replicas += come;
        if come > 0 || from.iter().any(|home| !to.contains(home)) {
            moves.push(MoveForm { partition: partition.0, from: names(before, from), to: names(after, &to) });
        }
    }
    let name = |node: NodeId| {
        let known = after.member(node).or_else(|| before.member(node));
        known.map_or_else(|| node.to_string(), |known| known.member.name.clone())
    };
    let nodes = shares.into_iter().map(|(node, (before, after))| ShareForm { node: name(node), before, after });
    let mut nodes: Vec<ShareForm> = nodes.collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    let (version, applied) = (String::new(), false);
    PlanForm {
        version,
        applied,
        moves,
        replicas,
        nodes,
        before: BalanceForm::of(before),
        after: BalanceForm::of(after),
    }
}

/// What is on its way.
#[derive(Serialize, ToSchema)]
pub(super) struct MovesForm {
    /// Which history of changes the node that answers goes by.
    version: String,
    /// How many partitions there are.
    partitions: u32,
    /// The partitions that are not held as they are wished.
    moves: Vec<UnderWayForm>,
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
    /// `copying` (those who come copy what is held) or `taking over` (both say what is held).
    state: &'static str,
    /// Those who are needed and do not answer.
    waits_for: Vec<String>,
}

/// What is on its way to where it is wished
#[utoipa::path(get, path = "/v1/cluster/moves", tag = "cluster",
    responses((status = 200, description = "The partitions that move, as this node knows", body = MovesForm), AskErrors))]
pub(super) async fn moves(State(door): State<Door>, uri: Uri) -> Result<Json<MovesForm>, ApiError> {
    Query::none(uri.query())?;
    let (view, phases, liveness) = (door.view(), door.phases(), door.liveness());
    let mut moves = Vec::new();
    for (partition, phase) in view.ring.partitions().iter().zip(phases.iter()) {
        let (from, to) = (phase.current().of(view.n_max()), view.wished(partition));
        let is_there = phase.next().is_none() && from.len() == to.len() && from.iter().all(|home| to.contains(home));
        if is_there {
            continue;
        }
        let needed = from.iter().filter(|&&home| !view.is_removed(home)).chain(&to);
        let mut silent: Vec<Home> = needed.filter(|home| liveness.status(home.node) == Status::Down).copied().collect();
        silent.sort_unstable();
        silent.dedup();
        moves.push(UnderWayForm {
            partition: partition.0,
            step: phase.step().to_string(),
            from: names(&view, from),
            to: names(&view, &to),
            state: if phase.next().is_some() { "taking over" } else { "copying" },
            waits_for: names(&view, &silent),
        });
    }
    let leaving = view.members().filter(|known| known.leaving).map(|known| known.member.name.clone());
    Ok(Json(MovesForm {
        version: view.ring.version().to_string(),
        partitions: view.ring.partitions().count(),
        moves,
        leaving: leaving.collect(),
        waiting: door.waiting().all().into_iter().map(|member| member.name).collect(),
    }))
}
