//! Version vectors as exact sets of dots.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use crate::value::dot::{Actor, Dot};

/// An exact set of dots: for each actor all counters up to one without a gap, and single counters beyond a gap.
///
/// It is the paper's vector clock (section 4.4) with room for gaps. A client may have been shown an actor's sixth write but not its fifth. A
/// clock that could not express that would claim the fifth, and the write would be lost.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Clock {
    /// Ascending by actor. Most clocks have one to three, and are copied more often than changed.
    actors: Vec<(Actor, Counters)>,
}

/// The counters of one actor.
///
/// Invariant: `beyond` holds only numbers above `upto + 1`, so equal sets have equal forms.
#[derive(Clone, PartialEq, Eq, Default)]
struct Counters {
    upto: u64,
    beyond: BTreeSet<u64>,
}

impl Counters {
    fn contains(&self, counter: u64) -> bool {
        counter <= self.upto || self.beyond.contains(&counter)
    }

    fn insert(&mut self, counter: u64) {
        if counter > self.upto {
            self.beyond.insert(counter);
            self.close_gaps();
        }
    }

    fn merge(&mut self, other: &Self) {
        self.upto = self.upto.max(other.upto);
        self.beyond.extend(&other.beyond);
        self.close_gaps();
    }

    fn close_gaps(&mut self) {
        while let Some(&first) = self.beyond.first() {
            if first > self.upto.saturating_add(1) {
                return;
            }
            self.upto = self.upto.max(first);
            self.beyond.pop_first();
        }
    }

    fn covers(&self, other: &Self) -> bool {
        // Every counter of `other` up to its `upto` must be here: without a gap, or one by one beyond it.
        let run = other.upto <= self.upto || (self.upto + 1..=other.upto).all(|counter| self.beyond.contains(&counter));
        run && other.beyond.iter().all(|&counter| self.contains(counter))
    }

    fn highest(&self) -> u64 {
        self.beyond.last().copied().unwrap_or(self.upto)
    }

    fn is_empty(&self) -> bool {
        self.upto == 0 && self.beyond.is_empty()
    }
}

/// The dots of one actor as they are stored: all counters `1..=upto`, and `beyond`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The actor that made them.
    pub actor: Actor,
    /// The highest counter without a gap; 0 if the first is missing.
    pub upto: u64,
    /// Single counters beyond the gap, ascending.
    pub beyond: Vec<u64>,
}

impl Clock {
    /// The empty set.
    pub const fn new() -> Self {
        Self { actors: Vec::new() }
    }

    /// Where the actor is, or would be.
    fn place(&self, actor: Actor) -> Result<usize, usize> {
        self.actors.binary_search_by_key(&actor, |&(known, _)| known)
    }

    fn counters(&self, actor: Actor) -> Option<&Counters> {
        self.place(actor).ok().map(|at| &self.actors[at].1)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }

    /// The number of actors in it.
    pub fn actors_len(&self) -> usize {
        self.actors.len()
    }

    /// The actors in it.
    pub fn actors(&self) -> impl Iterator<Item = Actor> + '_ {
        self.actors.iter().map(|&(actor, _)| actor)
    }

    /// Removes all dots of actors for which `is_kept` is false.
    pub fn retain_actors(&mut self, is_kept: impl Fn(Actor) -> bool) {
        self.actors.retain(|&(actor, _)| is_kept(actor));
    }

    /// The actors of which all dots are also in `other`.
    pub fn actors_within(&self, other: &Self) -> Vec<Actor> {
        let is_within = |(actor, counters): &&(Actor, Counters)| {
            other.counters(*actor).is_some_and(|theirs| theirs.covers(counters))
        };
        self.actors.iter().filter(is_within).map(|&(actor, _)| actor).collect()
    }

    /// The number of single dots beyond gaps.
    pub fn singles_len(&self) -> usize {
        self.actors.iter().map(|(_, counters)| counters.beyond.len()).sum()
    }

    /// Removes single dots beyond gaps until `singles_max` are left, or only dots in `kept`. It takes the lowest dot of the actor that has most.
    pub fn thin(&mut self, singles_max: usize, kept: &Self) {
        for _ in singles_max..self.singles_len() {
            let spare = |&(actor, ref counters): &(Actor, Counters)| {
                let mut spare = counters.beyond.iter().filter(|&&counter| !kept.contains(Dot { actor, counter }));
                let lowest = *spare.next()?;
                Some((spare.count(), actor, lowest))
            };
            let Some((_, actor, lowest)) = self.actors.iter().filter_map(spare).max() else { return };
            if let Ok(at) = self.place(actor) {
                self.actors[at].1.beyond.remove(&lowest);
            }
        }
        self.actors.retain(|(_, counters)| !counters.is_empty());
    }

    /// The dots that are also in `other`.
    pub fn dots_in(&self, other: &Self) -> Self {
        let mut common = Self::new();
        for &(actor, ref counters) in &self.actors {
            let Some(theirs) = other.counters(actor) else { continue };
            let upto = counters.upto.min(theirs.upto);
            let ours = counters.beyond.iter().filter(|&&counter| theirs.contains(counter));
            let theirs = theirs.beyond.iter().filter(|&&counter| counters.contains(counter));
            common.add(actor, &Counters { upto, beyond: ours.chain(theirs).copied().filter(|&c| c > upto).collect() });
        }
        common
    }

    /// Whether it contains `dot`.
    pub fn contains(&self, dot: Dot) -> bool {
        self.counters(dot.actor).is_some_and(|counters| counters.contains(dot.counter))
    }

    /// Adds `dot`. Counters start at 1; a zero counter names no write and adds nothing.
    pub fn insert(&mut self, dot: Dot) {
        if dot.counter > 0 {
            let at = self.place(dot.actor).unwrap_or_else(|at| {
                self.actors.insert(at, (dot.actor, Counters::default()));
                at
            });
            self.actors[at].1.insert(dot.counter);
        }
    }

    /// Adds all dots of a stored run.
    pub fn insert_run(&mut self, run: &Run) {
        let counters = Counters { upto: run.upto, beyond: run.beyond.iter().copied().filter(|&c| c > 0).collect() };
        self.add(run.actor, &counters);
    }

    /// Adds all of `other`'s dots.
    pub fn merge(&mut self, other: &Self) {
        for (actor, counters) in &other.actors {
            self.add(*actor, counters);
        }
    }

    fn add(&mut self, actor: Actor, counters: &Counters) {
        match self.place(actor) {
            Ok(at) => self.actors[at].1.merge(counters),
            Err(at) => {
                let mut fresh = counters.clone();
                fresh.close_gaps();
                if !fresh.is_empty() {
                    self.actors.insert(at, (actor, fresh));
                }
            }
        }
    }

    /// Whether it contains every dot of `other`: it descends from `other` or is the same.
    pub fn covers(&self, other: &Self) -> bool {
        other.actors.iter().all(|(actor, theirs)| self.counters(*actor).is_some_and(|counters| counters.covers(theirs)))
    }

    /// The highest counter of `actor`, or 0 if it has none.
    pub fn highest(&self, actor: Actor) -> u64 {
        self.counters(actor).map_or(0, Counters::highest)
    }

    /// Its runs, in the order of their actors.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.actors.iter().map(|(actor, counters)| Run {
            actor: *actor,
            upto: counters.upto,
            beyond: counters.beyond.iter().copied().collect(),
        })
    }
}

/// Causal order: less when every dot of one is in the other; none when each has a dot that the other lacks (a conflict).
impl PartialOrd for Clock {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl FromIterator<Dot> for Clock {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut clock = Self::new();
        dots.into_iter().for_each(|dot| clock.insert(dot));
        clock
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for run in self.runs() {
            write!(f, "[{:?},{}", run.actor, run.upto)?;
            for counter in run.beyond {
                write!(f, "+{counter}")?;
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::dot::{Incarnation, NodeId, Since};

    fn actor(node: u64) -> Actor {
        Actor { node: NodeId::new(node), incarnation: Incarnation(1), since: Since(1) }
    }

    const X: u64 = 1;
    const Y: u64 = 2;
    const Z: u64 = 3;

    /// The clock of `[node, counter]` pairs as the paper writes it.
    fn clock(pairs: &[(u64, u64)]) -> Clock {
        let mut clock = Clock::new();
        for &(node, upto) in pairs {
            clock.insert_run(&Run { actor: actor(node), upto, beyond: vec![] });
        }
        clock
    }

    fn conflict(a: &[(u64, u64)], b: &[(u64, u64)]) -> bool {
        clock(a).partial_cmp(&clock(b)).is_none()
    }

    #[test]
    fn conflict_table() {
        assert!(conflict(&[(X, 3), (Y, 6)], &[(X, 3), (Z, 2)]));
        assert!(!conflict(&[(X, 3)], &[(X, 5)]));
        assert!(!conflict(&[(X, 3), (Y, 6)], &[(X, 3), (Y, 6), (Z, 2)]));
        assert!(conflict(&[(X, 3), (Y, 10)], &[(X, 3), (Y, 6), (Z, 2)]));
        assert!(!conflict(&[(X, 3), (Y, 10)], &[(X, 3), (Y, 20), (Z, 2)]));
    }

    #[test]
    fn three_replicas_vectors() {
        let v1 = clock(&[(X, 0), (Y, 3), (Z, 2)]);
        let v2 = clock(&[(X, 1), (Y, 3), (Z, 2)]);
        let v3 = clock(&[(X, 0), (Y, 0), (Z, 3)]);
        assert_eq!(v1.partial_cmp(&v2), Some(Ordering::Less));
        assert_eq!(v1.partial_cmp(&v3), None);
        assert_eq!(v2.partial_cmp(&v3), None);
    }

    #[test]
    fn a_gap_is_not_covered_until_it_is_filled() {
        let dot = |counter| Dot { actor: actor(X), counter };
        let mut seen: Clock = [dot(1), dot(3)].into_iter().collect();
        assert!(!seen.contains(dot(2)));
        assert!(!seen.covers(&clock(&[(X, 3)])));
        assert_eq!(seen.highest(actor(X)), 3);
        seen.insert(dot(2));
        assert_eq!(seen, clock(&[(X, 3)]));
    }

    fn dots() -> impl Strategy<Value = BTreeSet<Dot>> {
        prop::collection::btree_set(
            (0u64..3, 1u64..8).prop_map(|(node, counter)| Dot { actor: actor(node), counter }),
            0..12,
        )
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_set_of_dots(a in dots(), b in dots()) {
            let (ca, cb): (Clock, Clock) = (a.iter().copied().collect(), b.iter().copied().collect());
            for dot in a.union(&b) {
                prop_assert_eq!(ca.contains(*dot), a.contains(dot));
            }
            prop_assert_eq!(ca.covers(&cb), a.is_superset(&b));
            prop_assert_eq!(ca == cb, a == b);
            let mut union = ca.clone();
            union.merge(&cb);
            prop_assert_eq!(union, a.union(&b).copied().collect::<Clock>());
            let mut copy = Clock::new();
            ca.runs().for_each(|run| copy.insert_run(&run));
            prop_assert_eq!(copy, ca);
        }
    }
}
