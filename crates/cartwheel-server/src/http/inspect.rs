//! `/v1/cluster/replicas/{bucket}/{key}`: what each replica of a key holds.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::message::client::{
    HeldVersion, Inspected, InspectedReplica, Operation, ReplicaContents, Reply, Request,
};
use cartwheel_core::message::{Failure, Role};
use cartwheel_core::value::clock::{Clock, Run};
use cartwheel_core::value::dot::Dot;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::InspectErrors;
use super::query::Query;
use super::{ApiState, show};
use crate::backend::name_of;

const PREFIX: &str = "/v1/cluster/replicas/";

/// What the replicas of a key hold. Values are not shown.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyReplicasForm {
    /// The key's token, in hexadecimal.
    token: String,
    /// The partition that holds the token.
    partition: u32,
    /// How many homes the bucket's keys have.
    n: u8,
    /// The versions that any replica holds and that no version known to any replica has replaced: the key's siblings.
    siblings: Vec<String>,
    /// The versions that any replica holds, in the order in which they were written, as far as timestamps tell.
    versions: Vec<VersionForm>,
    /// All writes that any replica knows, by the actor that gave them their counters.
    clock: Vec<ActorForm>,
    /// The replicas, homes first.
    replicas: Vec<KeyReplicaForm>,
}

/// A version of a value.
#[derive(Serialize, ToSchema)]
struct VersionForm {
    /// The version, as reads of the key show it: its actor and its counter.
    version: String,
    /// The actor that wrote it.
    actor: String,
    /// Its number among the actor's writes of this key.
    counter: u64,
    /// The name of the node that coordinated the write, or its id if it is no longer a member.
    node: String,
    /// When it was written, as RFC 3339.
    modified: String,
    /// Whether it is a tombstone.
    deleted: bool,
    /// The size of its value; 0 for a tombstone.
    bytes: u64,
    /// When the value expires, as RFC 3339.
    expires: Option<String>,
}

/// The writes of an actor: a node's unbroken memory of the key.
#[derive(Serialize, ToSchema)]
struct ActorForm {
    /// The actor.
    actor: String,
    /// The name of its node, or its id if it is no longer a member.
    node: String,
    /// All writes up to this counter are known.
    upto: u64,
    /// Further ones that are known.
    beyond: Vec<u64>,
}

/// One replica of the key.
#[derive(Serialize, ToSchema)]
struct KeyReplicaForm {
    /// The name of the node.
    node: String,
    /// `home` or `standin`.
    role: &'static str,
    /// `holds`; `nothing`, if it has never seen the key; `silent`, if it did not answer in time; `failed`.
    state: &'static str,
    /// Why it failed.
    problem: Option<&'static str>,
    /// It has lost records and has not recovered yet, so that it does not count in reads.
    recovering: bool,
    /// The digest of what it holds, in hexadecimal: replicas with equal digests are equal.
    digest: Option<String>,
    /// The versions that it holds.
    holds: Vec<String>,
    /// Those of `versions` that it does not hold because it knows what replaced them.
    replaced: Vec<String>,
}

/// Show what each replica of a key holds, without the values
///
/// Nothing is joined or repaired. Homes are asked, and as many of the next nodes on the walk, which may stand in for them.
#[utoipa::path(get, path = "/v1/cluster/replicas/{bucket}/{key}", tag = "cluster",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("key" = String, Path, description = "The key, percent-encoded: 1 to 4096 bytes, slashes included"),
        ("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")
    ),
    responses((status = 200, description = "The versions on each replica", body = KeyReplicasForm), InspectErrors))]
pub(super) async fn replicas_of_key(State(api): State<ApiState>, uri: Uri) -> Result<Json<KeyReplicasForm>, ApiError> {
    let key = api.key_of(PREFIX, uri.path())?;
    let query = Query::parse(uri.query(), &["timeout_ms"])?;
    let (place, timeout) = api.admit(&key, query.timeout).await?;
    let request = Request { operation: Operation::Inspect(key.clone()), timeout };
    let Reply::Inspected(inspected) = api.request(request, Some(place)).await? else {
        return Err(ApiError::unavailable("the node's response does not match the request: report this as a bug"));
    };
    let view = api.view();
    Ok(Json(KeyReplicasForm {
        token: key.token().to_string(),
        partition: view.ring.partition_of(key.token()).0,
        n: view.settings(key.bucket()).n,
        ..form(&view, &inspected)
    }))
}

/// The form, but for what follows from the key alone.
fn form(view: &View, inspected: &Inspected) -> KeyReplicasForm {
    let (mut clock, mut versions) = (Clock::new(), Vec::<HeldVersion>::new());
    for (known, held) in inspected.replicas.iter().filter_map(held) {
        clock.merge(known);
        for version in held {
            if !versions.iter().any(|other| other.dot == version.dot) {
                versions.push(*version);
            }
        }
    }
    versions.sort_by_key(|version| (version.hlc, version.dot));
    let is_replaced = |dot: Dot| {
        let mut replicas = inspected.replicas.iter().filter_map(held);
        replicas.any(|(known, held)| known.contains(dot) && !held.iter().any(|version| version.dot == dot))
    };
    let siblings = versions.iter().map(|version| version.dot).filter(|&dot| !is_replaced(dot));
    let dots: BTreeSet<Dot> = versions.iter().map(|version| version.dot).collect();
    KeyReplicasForm {
        token: String::new(),
        partition: 0,
        n: 0,
        siblings: siblings.map(show::version).collect(),
        versions: versions.iter().map(|version| version_form(view, version)).collect(),
        clock: clock.runs().map(|run| actor_form(view, run)).collect(),
        replicas: inspected.replicas.iter().map(|replica| replica_form(view, replica, &dots)).collect(),
    }
}

/// What a replica knows and holds, if it has said so.
fn held(replica: &InspectedReplica) -> Option<(&Clock, &[HeldVersion])> {
    match &replica.contents {
        ReplicaContents::Held { clock, versions, .. } => Some((clock, versions)),
        ReplicaContents::Failed(_) | ReplicaContents::Silent => None,
    }
}

fn version_form(view: &View, version: &HeldVersion) -> VersionForm {
    VersionForm {
        version: show::version(version.dot),
        actor: show::actor(version.dot.actor),
        counter: version.dot.counter,
        node: name_of(view, version.dot.actor.node),
        modified: show::rfc3339(show::shown_time(version.hlc.wall())),
        deleted: version.bytes.is_none(),
        bytes: version.bytes.unwrap_or_default(),
        expires: version.expires.map(|at| show::rfc3339(show::shown_time(at))),
    }
}

fn actor_form(view: &View, Run { actor, upto, beyond }: Run) -> ActorForm {
    ActorForm { actor: show::actor(actor), node: name_of(view, actor.node), upto, beyond }
}

fn replica_form(view: &View, replica: &InspectedReplica, dots: &BTreeSet<Dot>) -> KeyReplicaForm {
    let mut form = KeyReplicaForm {
        node: name_of(view, replica.node),
        role: if replica.role == Role::Home { "home" } else { "standin" },
        state: "silent",
        problem: None,
        recovering: false,
        digest: None,
        holds: Vec::new(),
        replaced: Vec::new(),
    };
    match &replica.contents {
        ReplicaContents::Silent => {}
        ReplicaContents::Failed(failure) => (form.state, form.problem) = ("failed", Some(problem(*failure))),
        ReplicaContents::Held { clock, versions, digest, is_recovering } => {
            let holds: BTreeSet<Dot> = versions.iter().map(|version| version.dot).collect();
            let replaced = dots.difference(&holds).filter(|&&dot| clock.contains(dot));
            form.state = if clock.is_empty() && versions.is_empty() { "nothing" } else { "holds" };
            form.recovering = *is_recovering;
            form.digest = Some(digest.0.iter().map(|byte| format!("{byte:02x}")).collect());
            form.replaced = replaced.map(|&dot| show::version(dot)).collect();
            form.holds = holds.into_iter().map(show::version).collect();
        }
    }
    form
}

const fn problem(failure: Failure) -> &'static str {
    match failure {
        Failure::Storage => "its store failed",
        Failure::Overloaded => "it is overloaded",
        Failure::NotAHome => "it does not know that it is a home of the key",
        Failure::DiskFull => "its disk is full",
        Failure::HintsFull => "it holds as many hints as it may",
        Failure::WrongEpoch => "it does not know the epoch",
        Failure::Superseded => "the bucket was emptied",
    }
}

#[cfg(test)]
mod tests {
    use cartwheel_core::message::StateDigest;
    use cartwheel_core::value::dot::{Actor, Incarnation, NodeId, Since};
    use cartwheel_core::value::hlc::{Hlc, WallMs};

    use super::*;

    fn dot(node: u64, counter: u64) -> Dot {
        Dot { actor: Actor { node: NodeId::new(node), incarnation: Incarnation(1), since: Since(1) }, counter }
    }

    fn replica(node: u64, knows: &[Dot], holds: &[Dot]) -> InspectedReplica {
        let mut clock = Clock::new();
        knows.iter().for_each(|&dot| clock.insert(dot));
        let version =
            |&dot: &Dot| HeldVersion { dot, hlc: Hlc::at(WallMs(dot.counter)), bytes: Some(3), expires: None };
        let contents = ReplicaContents::Held {
            clock,
            versions: holds.iter().map(version).collect(),
            digest: StateDigest([0; 16]),
            is_recovering: false,
        };
        InspectedReplica { node: NodeId::new(node), role: Role::Home, contents }
    }

    #[test]
    fn a_version_that_one_replica_holds_and_another_has_replaced_is_no_sibling() {
        let (old, new, other) = (dot(1, 1), dot(1, 2), dot(2, 3));
        let silent = InspectedReplica { node: NodeId::new(4), role: Role::StandIn, contents: ReplicaContents::Silent };
        let replicas =
            vec![replica(1, &[old, new], &[new]), replica(2, &[old], &[old]), replica(3, &[other], &[other]), silent];
        let form = form(crate::backend::tests::view(), &Inspected { replicas });
        assert_eq!(form.siblings, [show::version(new), show::version(other)]);
        assert_eq!(form.versions.iter().map(|version| version.counter).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(form.clock.iter().map(|actor| actor.upto).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(form.clock[1].beyond, [3]);
        assert_eq!(form.replicas[0].replaced, [show::version(old)]);
        assert!(form.replicas[1].replaced.is_empty() && form.replicas[1].holds == [show::version(old)]);
        let states: Vec<&str> = form.replicas.iter().map(|replica| replica.state).collect();
        assert_eq!(states, ["holds", "holds", "holds", "silent"]);
        assert_eq!(form.replicas[3].role, "standin");
    }
}
