//! Explains why too few replicas answered: how many are needed, how many the cluster has, and which of its nodes cannot be reached.

use std::collections::BTreeSet;

use cartwheel_core::cluster::membership::BucketSettings;
use cartwheel_core::message::client::{Consistency, Operation, Refusal};
use cartwheel_core::ring::quorum::majority;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;

use super::{Backend, NotDone, name_of};

/// What a request needs from a key's replicas.
#[derive(Clone, Debug)]
pub(super) struct QuorumRequest {
    key: Key,
    /// The number of replicas that the request needs.
    count: Option<u8>,
    is_read: bool,
    is_strong: bool,
}

impl QuorumRequest {
    pub(super) fn of(operation: &Operation) -> Self {
        let key = operation.key().clone();
        let (count, consistency, is_read) = match operation {
            Operation::Get(get) => (get.r, get.consistency, true),
            Operation::Put(put) => (put.w, put.consistency, false),
            Operation::Inspect(_) => (None, Consistency::Eventual, true),
            Operation::Restore(_) => (None, Consistency::Eventual, false),
        };
        Self { key, count, is_read, is_strong: consistency == Consistency::Strong }
    }

    /// How many replicas must answer, and a phrase that says so.
    fn needs(&self, settings: &BucketSettings) -> (usize, String) {
        let BucketSettings { n, r, w, .. } = *settings;
        let (name, of_bucket) = if self.is_read { ("r", r) } else { ("w", w) };
        let count = self.count.unwrap_or(of_bucket);
        let source = if self.count.is_some() { "the request" } else { "the bucket" };
        let majority = majority(n.into());
        if self.is_strong && majority >= count.into() {
            return (majority, format!("a strong request needs {majority} of n={n}"));
        }
        (count.into(), format!("{source} needs {name}={count} of n={n}"))
    }

    /// Explains a refusal.
    pub(super) fn refused(&self, node: &Backend, refusal: Refusal) -> NotDone {
        let (Refusal::Unavailable(_) | Refusal::Unverified(_)) = &refusal else { return refusal.into() };
        let view = node.view();
        let settings = view.settings(self.key.bucket());
        let homes = node.homes_of(self.key.bucket(), self.key.token());
        // Stand-ins help eventual requests if the bucket is sloppy.
        let may_stand_in = settings.sloppy && !self.is_strong;
        let others = view.members().filter(|known| may_stand_in && !known.leaving && known.member.weight > 0);
        let requirement: BTreeSet<NodeId> = homes.iter().copied().chain(others.map(|known| known.member.id)).collect();
        let mut unreachable: Vec<String> =
            requirement.iter().filter(|&&other| !node.is_in_reach(other)).map(|&node| name_of(&view, node)).collect();
        unreachable.sort();
        let (needed, needs) = self.needs(settings);
        let facts = Facts {
            needed,
            needs,
            data_nodes: view.data_nodes(),
            homes: homes.len(),
            homes_in_reach: homes.iter().filter(|&&home| node.is_in_reach(home)).count(),
            unreachable: &unreachable,
        };
        NotDone::Refused { refusal, cause: facts.cause(), unreachable }
    }
}

/// The facts from which the cause is derived.
struct Facts<'a> {
    needed: usize,
    needs: String,
    data_nodes: usize,
    homes: usize,
    homes_in_reach: usize,
    unreachable: &'a [String],
}

impl Facts<'_> {
    /// Why too few answered; none if the node knows no cause, for example if nodes are slow.
    fn cause(&self) -> Option<String> {
        let Self { needed, needs, data_nodes, homes, homes_in_reach, unreachable } = self;
        if data_nodes < needed {
            let has = match data_nodes {
                1 => "one data node".to_owned(),
                nodes => format!("{nodes} data nodes"),
            };
            return Some(format!("{needs}, but the cluster has {has}: add nodes, or ask for fewer replicas"));
        }
        if homes_in_reach == homes {
            // The unreachable nodes are then not the cause.
            return None;
        }
        let names = listed(unreachable)?;
        Some(format!("{needs}, but only {homes_in_reach} of the key's {homes} homes can be reached: {names} cannot"))
    }
}

/// Names as in a sentence; none if there are none.
fn listed(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [name] => Some(name.clone()),
        [names @ .., last] => Some(format!("{} and {last}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(needed: usize, data_nodes: usize, homes: (usize, usize), unreachable: &[&str]) -> Option<String> {
        let unreachable: Vec<String> = unreachable.iter().map(|&name| name.to_owned()).collect();
        let needs = format!("the bucket needs w={needed} of n=3");
        let (homes_in_reach, homes) = homes;
        Facts { needed, needs, data_nodes, homes, homes_in_reach, unreachable: &unreachable }.cause()
    }

    #[test]
    fn the_cause_names_missing_or_unreachable_nodes() {
        let one = cause(2, 1, (1, 1), &[]).unwrap();
        assert_eq!(
            one,
            "the bucket needs w=2 of n=3, but the cluster has one data node: add nodes, or ask for fewer replicas"
        );
        assert!(cause(3, 2, (1, 2), &["b"]).unwrap().contains("the cluster has 2 data nodes"));
        let down = cause(2, 3, (1, 3), &["node-2", "node-3"]).unwrap();
        assert_eq!(
            down,
            "the bucket needs w=2 of n=3, but only 1 of the key's 3 homes can be reached: node-2 and node-3 cannot"
        );
        assert!(cause(2, 5, (2, 3), &["a", "b", "c"]).unwrap().ends_with("a, b and c cannot"));
        assert_eq!(cause(2, 3, (3, 3), &[]), None, "the homes are slow");
        assert_eq!(cause(2, 5, (3, 3), &["a"]), None, "a is not a home, and all homes can be reached");
    }
}
