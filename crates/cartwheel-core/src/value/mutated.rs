//! The effects of broken rules on values.

use crate::mutation::{Broken, Mutation};
use crate::value::clock::Run;
use crate::value::dot::Dot;
use crate::value::state::{Notes, State};

impl Broken {
    /// The dot that is assigned in place of `dot`.
    pub(crate) fn dot(self, mut dot: Dot, node_wide_count: &mut u64) -> Dot {
        if self.is(Mutation::ReuseLostActor) {
            dot.actor.since.0 = 0;
        }
        if self.is(Mutation::NodeWideCounter) {
            *node_wide_count += 1;
            dot.actor.since.0 >>= 40;
            dot.counter = *node_wide_count;
        }
        dot
    }

    /// Spoils a state into which a write was put under `dot`.
    pub(crate) fn after_put(self, state: &mut State, dot: Dot) {
        if self.is(Mutation::NodeWideCounter) {
            let mut clock = state.clock().clone();
            clock.insert_run(&Run { actor: dot.actor, upto: dot.counter, beyond: vec![] });
            *state = State::from_parts(clock, state.siblings().cloned().collect::<Vec<_>>(), state.notes().clone());
        }
        self.drop_notes(state);
    }

    /// Spoils a state into which `incoming` was merged.
    pub(crate) fn after_merge(self, state: &mut State, incoming: &State) {
        if self.is(Mutation::LwwInsideMerge) {
            let latest = state.latest().map(|held| held.dot);
            keep_only(state, latest);
        }
        if self.is(Mutation::MergeDropsSibling) && state.siblings().len() > 1 {
            let theirs = incoming.siblings().next().map(|held| held.dot);
            keep_only(state, theirs);
        }
        self.drop_notes(state);
    }

    fn drop_notes(self, state: &mut State) {
        if self.is(Mutation::RetryResurrects) {
            let siblings: Vec<_> = state.siblings().cloned().collect();
            *state = State::from_parts(state.clock().clone(), siblings, Notes::new());
        }
    }
}

fn keep_only(state: &mut State, dot: Option<Dot>) {
    let siblings: Vec<_> = state.siblings().filter(|held| Some(held.dot) == dot).cloned().collect();
    *state = State::from_parts(state.clock().clone(), siblings, state.notes().clone());
}
