//! Exact causality over random histories: the states of replicas equal a naive model that keeps explicit sets, and no
//! write disappears.
//!
//! The replicas are real ones, on an in-memory disk. Histories have reads, writes with and without contexts, retries on
//! other nodes, copies that are dropped, doubled or late, lost records, and restarts.

use std::collections::{BTreeMap, BTreeSet};

use cartwheel_core::value::clock::{Clock, Run};
use cartwheel_core::value::dot::Dot;
use cartwheel_core::value::state::{Seen, State};
use cartwheel_core::value::write_id::WriteId;
use proptest::prelude::*;

use crate::harness::{TestReplica, Write, join};

const NODES: usize = 3;
const CLIENTS: usize = 3;

/// One event of a history. Numbers choose among the existing writes and copies, modulo their count.
#[derive(Clone, Debug)]
enum Event {
    /// A client reads from a replica and keeps the context.
    Read { client: usize, node: usize },
    /// A client writes with what it has seen. `reply` says whether it gets the new context.
    Write { client: usize, node: usize, reply: bool },
    /// A client writes without a context.
    Blind { node: usize },
    /// A client's context is thinned, as a long one is.
    Thin { client: usize, singles_max: usize },
    /// A client takes over the context of another; both continue from it.
    Fork { from: usize, to: usize },
    /// A write is tried again on any node.
    Retry { write: usize, node: usize },
    /// A replica's state is sent to another. It may be delivered late, twice or never.
    Send { from: usize, to: usize },
    /// A sent state arrives. It may arrive again later.
    Deliver { copy: usize },
    /// A replica loses its record, if the others hold all that was in it.
    Lose { node: usize },
    /// A replica restarts, after an orderly stop or not.
    Restart { node: usize, in_order: bool },
    /// A replica's record goes back to an earlier one, if the others hold all that was in it. Then it merges a peer's
    /// state, or restarts.
    RollBack { node: usize, from_peer: bool },
    /// A replica's directory is copied while it runs.
    Copy { node: usize },
    /// A copy replaces the replica's directory, and the replica is restarted, if the others hold all that was in it.
    /// Neither this replica nor the others are told.
    PutBack { node: usize, copy: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let (client, node) = (0..CLIENTS, 0..NODES);
    prop_oneof![
        3 => (client.clone(), node.clone()).prop_map(|(client, node)| Event::Read { client, node }),
        4 => (client, node.clone(), any::<bool>()).prop_map(|(client, node, reply)| Event::Write { client, node, reply }),
        2 => node.clone().prop_map(|node| Event::Blind { node }),
        2 => (0..CLIENTS, 0usize..3).prop_map(|(client, singles_max)| Event::Thin { client, singles_max }),
        1 => (0..CLIENTS, 0..CLIENTS).prop_map(|(from, to)| Event::Fork { from, to }),
        2 => (any::<usize>(), node.clone()).prop_map(|(write, node)| Event::Retry { write, node }),
        4 => (node.clone(), node.clone()).prop_map(|(from, to)| Event::Send { from, to }),
        4 => any::<usize>().prop_map(|copy| Event::Deliver { copy }),
        1 => node.clone().prop_map(|node| Event::Lose { node }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, in_order)| Event::Restart { node, in_order }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, from_peer)| Event::RollBack { node, from_peer }),
        1 => node.clone().prop_map(|node| Event::Copy { node }),
        1 => (node, any::<usize>()).prop_map(|(node, copy)| Event::PutBack { node, copy }),
    ]
}

/// A naive model of a state: explicit sets.
#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    dots: BTreeSet<Dot>,
    live: BTreeMap<Dot, WriteId>,
    replaced: BTreeSet<WriteId>,
}

impl Model {
    fn merge(&self, other: &Self) -> Self {
        let replaced: BTreeSet<_> = self.replaced.union(&other.replaced).copied().collect();
        let in_both = |dot: &Dot| self.live.contains_key(dot) && other.live.contains_key(dot);
        let new_here = |dot: &Dot| other.live.contains_key(dot) && !self.dots.contains(dot);
        let new_there = |dot: &Dot| self.live.contains_key(dot) && !other.dots.contains(dot);
        let live = self
            .live
            .iter()
            .chain(&other.live)
            .filter(|(dot, id)| (in_both(dot) || new_here(dot) || new_there(dot)) && !replaced.contains(id))
            .map(|(&dot, &id)| (dot, id))
            .collect();
        Self { dots: self.dots.union(&other.dots).copied().collect(), live, replaced }
    }

    fn put(&mut self, dot: Dot, id: WriteId, seen_dots: &BTreeSet<Dot>, seen_ids: &BTreeSet<WriteId>) {
        self.dots.extend(seen_dots);
        self.dots.insert(dot);
        self.replaced.extend(seen_ids);
        self.replaced.extend(self.live.iter().filter(|(dot, _)| seen_dots.contains(dot)).map(|(_, id)| *id));
        self.live.retain(|_, id| !self.replaced.contains(id));
        self.live.insert(dot, id);
    }

    fn of(state: &State) -> Self {
        let dots = |run: Run| {
            let all = (1..=run.upto).chain(run.beyond);
            all.map(move |counter| Dot { actor: run.actor, counter })
        };
        Self {
            dots: state.clock().runs().flat_map(dots).collect(),
            live: state.siblings().map(|held| (held.dot, held.write_id)).collect(),
            replaced: state.notes().iter().map(|(id, _)| id).collect(),
        }
    }

    fn matches(&self, state: &State) -> bool {
        *self == Self::of(state)
    }
}

/// What a client has seen: as the protocol keeps it, as the model does, and as the writes it was shown.
#[derive(Clone, Default)]
struct Knowledge {
    seen: Seen,
    dots: BTreeSet<Dot>,
    shown: BTreeSet<WriteId>,
}

#[derive(Clone)]
struct Tried {
    write: Write,
    knowledge: Knowledge,
}

struct World {
    replicas: Vec<TestReplica>,
    models: Vec<Model>,
    clients: Vec<Knowledge>,
    tried: Vec<Tried>,
    copies: Vec<(usize, State, Model)>,
    dots_made: BTreeSet<Dot>,
}

impl World {
    fn new() -> Self {
        Self {
            replicas: (0..NODES).map(|node| TestReplica::new(node as u64 + 1)).collect(),
            models: vec![Model::default(); NODES],
            clients: vec![Knowledge::default(); CLIENTS],
            tried: Vec::new(),
            copies: Vec::new(),
            dots_made: BTreeSet::new(),
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Read { client, node } => {
                let state = self.replicas[node].state();
                self.clients[client] = Knowledge {
                    seen: state.seen(),
                    dots: self.models[node].dots.clone(),
                    shown: state.siblings().map(|held| held.write_id).collect(),
                };
            }
            Event::Write { client, node, reply } => {
                let knowledge = self.clients[client].clone();
                if let Some(after) = self.write(node, knowledge)
                    && reply
                {
                    self.clients[client] = after;
                }
            }
            Event::Thin { client, singles_max } => {
                let Knowledge { seen, dots, .. } = &mut self.clients[client];
                let before = seen.clock.singles_len();
                seen.clock.thin(singles_max, &Clock::new());
                assert!(seen.clock.singles_len() == before.min(singles_max));
                dots.retain(|&dot| seen.clock.contains(dot));
            }
            Event::Fork { from, to } => self.clients[to] = self.clients[from].clone(),
            Event::Blind { node } => {
                self.write(node, Knowledge::default());
            }
            Event::Retry { write, node } => {
                if !self.tried.is_empty() {
                    let tried = self.tried[write % self.tried.len()].clone();
                    self.carry_out(node, &tried);
                }
            }
            Event::Send { from, to } => {
                self.copies.push((to, self.replicas[from].state(), self.models[from].clone()));
            }
            Event::Deliver { copy } => {
                if !self.copies.is_empty() {
                    let (to, state, model) = self.copies[copy % self.copies.len()].clone();
                    self.replicas[to].merge(&state);
                    self.models[to] = self.models[to].merge(&model);
                }
            }
            Event::Lose { node } => self.lose(node),
            Event::Restart { node, in_order: true } => self.replicas[node].restart(),
            Event::Restart { node, in_order: false } => self.replicas[node].restart_unsure(),
            Event::RollBack { node, from_peer } => self.roll_back(node, from_peer),
            Event::Copy { node } => self.replicas[node].copy(),
            Event::PutBack { node, copy } => {
                if self.held_by_others(node).is_some() {
                    self.replicas[node].put_back(copy);
                    self.models[node] = Model::of(&self.replicas[node].state());
                }
            }
        }
    }

    fn write(&mut self, node: usize, knowledge: Knowledge) -> Option<Knowledge> {
        let write = Write::numbered(self.tried.len() as u64, knowledge.seen.clone());
        let tried = Tried { write, knowledge };
        self.tried.push(tried.clone());
        self.carry_out(node, &tried)
    }

    fn carry_out(&mut self, node: usize, tried: &Tried) -> Option<Knowledge> {
        let id = tried.write.id;
        let was_known = self.replicas[node].state().knows(id).is_some();
        let (dot, hlc) = self.replicas[node].write(&tried.write)?;
        if !was_known {
            assert!(self.dots_made.insert(dot), "{dot:?} was made twice");
            let ids = tried.write.seen.ids.keys().copied().collect();
            self.models[node].put(dot, id, &tried.knowledge.dots, &ids);
        }
        let mut after = tried.knowledge.clone();
        after.seen.clock.insert(dot);
        after.seen.hlc = after.seen.hlc.max(hlc);
        after.seen.ids.insert(id, hlc);
        after.dots.insert(dot);
        after.shown.insert(id);
        Some(after)
    }

    /// The join of the other replicas' states, if it includes all that `node` holds.
    fn held_by_others(&self, node: usize) -> Option<State> {
        let others = self.replicas.iter().enumerate().filter(|(other, _)| *other != node).map(|(_, r)| r.state());
        let others = join(others);
        let mut with_it = others.clone();
        (!with_it.merge(&self.replicas[node].state()).changed).then_some(others)
    }

    fn lose(&mut self, node: usize) {
        if self.held_by_others(node).is_some() {
            self.replicas[node].lose();
            self.models[node] = Model::default();
        }
    }

    fn roll_back(&mut self, node: usize, from_peer: bool) {
        let Some(others) = self.held_by_others(node) else { return };
        self.replicas[node].roll_back();
        if from_peer {
            self.replicas[node].merge(&others);
        } else {
            self.replicas[node].restart_unsure();
        }
        self.models[node] = Model::of(&self.replicas[node].state());
    }

    fn check(&self) {
        for (replica, model) in self.replicas.iter().zip(&self.models) {
            let state = replica.state();
            assert!(model.matches(&state), "the replica holds {state:?}, the model {model:?}");
        }
        // Every write is live, or was replaced by a write that had been shown it and is itself accounted for.
        let everything = join(self.replicas.iter().map(TestReplica::state));
        let mut accounted: BTreeSet<WriteId> = everything.siblings().map(|held| held.write_id).collect();
        for tried in self.tried.iter().rev() {
            if accounted.contains(&tried.write.id) {
                accounted.extend(&tried.knowledge.shown);
            }
        }
        for tried in &self.tried {
            assert!(accounted.contains(&tried.write.id), "{:?} has disappeared from {everything:?}", tried.write.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 300 } else { 3_000 }, ..ProptestConfig::default() })]

    #[test]
    fn replicas_equal_the_model_and_no_write_disappears(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            world.check();
        }
    }
}
