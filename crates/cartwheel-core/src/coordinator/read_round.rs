//! The tally of a read: whom to ask next, and when enough has been heard (paper, section 4.5).
//!
//! Pure bookkeeping: it sends nothing and knows no time. One home is asked for its state, the others for digests; where the
//! digests are equal that is all. A home whose digest differs is asked for its state too, and what it holds is joined.

use std::collections::{BTreeMap, BTreeSet};

use crate::dot::NodeId;
use crate::message::{Answer, StateDigest, Want};
use crate::quorum::majority;
use crate::state::{Epoch, State};

/// A read under way.
#[derive(Debug)]
pub struct ReadRound {
    /// The homes in the order in which they are asked.
    homes: Vec<NodeId>,
    asked: usize,
    needed: usize,
    slots: BTreeMap<NodeId, Slot>,
}

#[derive(Debug)]
enum Slot {
    Waiting(Want),
    Heard(Heard),
    Failed,
}

#[derive(Debug)]
struct Heard {
    digest: StateDigest,
    state: Option<State>,
    epoch: Option<Epoch>,
    counts: bool,
}

/// Questions to be asked.
pub type Questions = Vec<(NodeId, Want)>;

/// What a read has come to.
#[derive(Debug)]
pub enum Progress {
    /// Ask these, if any, and wait.
    Wait(Questions),
    /// Enough homes have answered.
    Enough(Box<Joined>),
    /// Too few can still answer.
    Short,
}

/// The join of what the homes hold that answered.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The join.
    pub state: State,
    /// Its digest.
    pub digest: StateDigest,
    /// The oldest epoch among what it was built from, if any state came with one.
    pub epoch: Option<Epoch>,
    /// The homes whose answers count, and what each held.
    pub held: BTreeMap<NodeId, StateDigest>,
    /// Homes that answered but have not made good a loss.
    pub catching_up: BTreeSet<NodeId>,
    n: usize,
    homes: usize,
}

impl Joined {
    /// Whether the join holds enough of the other homes' states for `node` to count again after it lost its record: a
    /// majority of homes besides itself, or all.
    pub fn heals(&self, node: NodeId) -> bool {
        let others = self.held.keys().filter(|&&other| other != node).count();
        let heard = self.held.len() + self.catching_up.iter().filter(|&&other| other != node).count();
        let heard_others = heard - usize::from(self.held.contains_key(&node));
        others >= majority(self.n) || heard_others + 1 >= self.homes
    }

    /// The homes that answered and lack something of the join, or are to be told that they have it all.
    pub fn behind(&self) -> Vec<NodeId> {
        let stale = self.held.iter().filter(|(_, digest)| **digest != self.digest).map(|(&node, _)| node);
        stale.chain(self.catching_up.iter().copied()).collect()
    }

    /// How many homes that count held exactly the join.
    pub fn agreeing(&self) -> usize {
        self.held.values().filter(|digest| **digest == self.digest).count()
    }
}

impl ReadRound {
    /// A read of `needed` of `homes`, which are the homes of a key with `n` of them wished for.
    pub fn new(homes: Vec<NodeId>, needed: usize) -> Self {
        Self { homes, asked: 0, needed, slots: BTreeMap::new() }
    }

    /// How many homes have answered in a way that counts.
    pub fn counted(&self) -> usize {
        self.slots.values().filter(|slot| matches!(slot, Slot::Heard(heard) if heard.counts)).count()
    }

    /// How many must.
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// Asks for one more home than before to answer; false if there is none.
    pub const fn need_more(&mut self) -> bool {
        self.needed += 1;
        self.needed <= self.homes.len()
    }

    /// Whether any home that was asked has not answered yet.
    pub fn is_waiting(&self) -> bool {
        self.slots.values().any(|slot| matches!(slot, Slot::Waiting(_)))
    }

    /// Whether anything live was heard of, from however few homes.
    pub fn has_heard_of_writes(&self) -> bool {
        let held = |slot: &Slot| match slot {
            Slot::Heard(heard) => heard
                .state
                .as_ref()
                .map_or(heard.digest != StateDigest::of(&State::default()), |state| state.siblings().len() > 0),
            Slot::Waiting(_) | Slot::Failed => false,
        };
        self.slots.values().any(held)
    }

    /// It has taken too long: asks those again that have not answered, and one home more.
    pub fn hedge(&mut self) -> Questions {
        let mut questions: Questions = self
            .slots
            .iter()
            .filter_map(|(&node, slot)| match slot {
                Slot::Waiting(want) => Some((node, *want)),
                Slot::Heard(_) | Slot::Failed => None,
            })
            .collect();
        questions.extend(self.ask_next(1));
        questions
    }

    /// Takes in an answer; false if nobody asked for it.
    pub fn heard(&mut self, from: NodeId, answer: &Answer) -> bool {
        let Some(slot) = self.slots.get_mut(&from) else { return false };
        let heard = match answer {
            Answer::State { state, epoch, counts } => Heard {
                digest: StateDigest::of(state),
                state: Some(state.clone()),
                epoch: Some(*epoch),
                counts: *counts,
            },
            Answer::Digest { digest, counts } => {
                // A digest that comes after the state it was superseded by says nothing new.
                if matches!(slot, Slot::Heard(Heard { state: Some(_), .. }) | Slot::Waiting(Want::State)) {
                    return true;
                }
                Heard { digest: *digest, state: None, epoch: None, counts: *counts }
            }
            Answer::Failed(_) => {
                *slot = Slot::Failed;
                return true;
            }
            Answer::Stored | Answer::Holds { .. } => return false,
        };
        *slot = Slot::Heard(heard);
        true
    }

    /// What the read has come to, and whom to ask next.
    pub fn progress(&mut self, n: usize) -> Progress {
        let mut questions = self.fetch_missing_states();
        let counted = self.counted();
        if counted >= self.needed && questions.is_empty() {
            return Progress::Enough(Box::new(self.join(n)));
        }
        let waiting = self.slots.values().filter(|slot| matches!(slot, Slot::Waiting(_))).count();
        questions.extend(self.ask_next(self.needed.saturating_sub(counted + waiting)));
        if questions.is_empty() && waiting == 0 {
            return Progress::Short;
        }
        Progress::Wait(questions)
    }

    fn ask_next(&mut self, count: usize) -> Questions {
        let mut questions = Questions::new();
        for &node in self.homes.iter().skip(self.asked).take(count) {
            // Only the first is asked for everything; the second stands in for it where the first has failed.
            let states = self.slots.values().any(|slot| match slot {
                Slot::Waiting(want) => *want == Want::State,
                Slot::Heard(heard) => heard.state.is_some(),
                Slot::Failed => false,
            });
            let want = if states { Want::Digest } else { Want::State };
            self.slots.insert(node, Slot::Waiting(want));
            questions.push((node, want));
        }
        self.asked += questions.len();
        questions
    }

    /// Once enough have answered: asks one home for each state of which only the digest is known. Until it answers, that home
    /// does not count.
    fn fetch_missing_states(&mut self) -> Questions {
        if self.counted() < self.needed {
            return Questions::new();
        }
        let known: BTreeSet<StateDigest> = self.states().map(|(digest, _)| digest).collect();
        let mut wanted = BTreeSet::new();
        let mut questions = Questions::new();
        for (&node, slot) in &mut self.slots {
            if let Slot::Heard(Heard { digest, state: None, .. }) = slot
                && !known.contains(digest)
                && wanted.insert(*digest)
            {
                *slot = Slot::Waiting(Want::State);
                questions.push((node, Want::State));
            }
        }
        questions
    }

    fn states(&self) -> impl Iterator<Item = (StateDigest, &State)> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Heard(Heard { digest, state: Some(state), .. }) => Some((*digest, state)),
            _ => None,
        })
    }

    fn join(&self, n: usize) -> Joined {
        let mut state = State::default();
        for (_, held) in self.states() {
            state.merge(held);
        }
        let mut joined = Joined {
            digest: StateDigest::of(&state),
            state,
            epoch: None,
            held: BTreeMap::new(),
            catching_up: BTreeSet::new(),
            n,
            homes: self.homes.len(),
        };
        for (&node, slot) in &self.slots {
            if let Slot::Heard(heard) = slot {
                joined.epoch = joined.epoch.into_iter().chain(heard.epoch).min();
                if heard.counts {
                    joined.held.insert(node, heard.digest);
                } else {
                    joined.catching_up.insert(node);
                }
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::dot::{Actor, Dot, Life, Since};
    use crate::hlc::Hlc;
    use crate::message::Failure;
    use crate::state::{Content, Sibling};
    use crate::write_id::WriteId;

    fn state(writes: &[u64]) -> State {
        let actor = Actor { node: NodeId::new(9), life: Life(9), since: Since(9) };
        let sibling = |&counter: &u64| Sibling {
            dot: Dot { actor, counter },
            content: Content::Tombstone,
            hlc: Hlc::ZERO,
            epoch: Epoch(1),
            write_id: WriteId::from_bytes([counter as u8; 16]),
            expires: None,
        };
        State::from_parts(Clock::new(), writes.iter().map(sibling), BTreeMap::new())
    }

    fn answer(state: &State, want: Want, counts: bool) -> Answer {
        match want {
            Want::State => Answer::State { state: state.clone(), epoch: Epoch(1), counts },
            Want::Digest => Answer::Digest { digest: StateDigest::of(state), counts },
        }
    }

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId::new).collect()
    }

    #[test]
    fn equal_homes_cost_one_state_and_digests() {
        let mut round = ReadRound::new(nodes(3), 2);
        let Progress::Wait(questions) = round.progress(3) else { panic!("nothing is known yet") };
        assert_eq!(questions, [(NodeId::new(1), Want::State), (NodeId::new(2), Want::Digest)]);
        for (node, want) in questions {
            assert!(round.heard(node, &answer(&state(&[1]), want, true)));
        }
        let Progress::Enough(joined) = round.progress(3) else { panic!("two have answered") };
        assert_eq!((joined.agreeing(), joined.behind().len()), (2, 0));
    }

    #[test]
    fn an_answer_that_nobody_asked_for_counts_for_nothing() {
        let mut round = ReadRound::new(nodes(3), 1);
        round.progress(3);
        assert!(!round.heard(NodeId::new(3), &answer(&state(&[1]), Want::State, true)));
        assert!(!round.heard(NodeId::new(77), &answer(&state(&[1]), Want::State, true)));
        assert_eq!(round.counted(), 0);
    }

    #[test]
    fn a_home_that_lost_its_record_counts_again_after_a_majority_besides_itself_or_all() {
        let heals = |n: usize, counting: &[u64], catching_up: &[u64], node: u64| {
            let joined = Joined {
                state: State::default(),
                digest: StateDigest::of(&State::default()),
                epoch: None,
                held: counting.iter().map(|&id| (NodeId::new(id), StateDigest::of(&State::default()))).collect(),
                catching_up: catching_up.iter().map(|&id| NodeId::new(id)).collect(),
                n,
                homes: n,
            };
            joined.heals(NodeId::new(node))
        };
        assert!(heals(3, &[2, 3], &[1], 1));
        assert!(!heals(3, &[2], &[1], 1));
        assert!(heals(3, &[3], &[1, 2], 1), "all others have been heard");
        assert!(heals(1, &[], &[1], 1), "there are no others");
        assert!(heals(2, &[2], &[1], 1));
        assert!(!heals(5, &[2, 3], &[1], 1));
        assert!(heals(5, &[2, 3, 4], &[1], 1));
    }

    proptest! {
        /// Against a dumb version: ask everyone who does not fail until enough count; the answer is the join of those heard.
        #[test]
        fn it_ends_as_a_dumb_read_would(
            homes in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(1u64..4, 0..3)), 1..6),
            needed in 1usize..6,
        ) {
            let n = homes.len();
            let needed = needed.min(n);
            let mut round = ReadRound::new(nodes(n as u64), needed);
            let mut heard = BTreeSet::new();
            let ended = loop {
                match round.progress(n) {
                    Progress::Wait(questions) => {
                        prop_assert!(!questions.is_empty(), "everything asked is answered, so it must ask or end");
                        for (node, want) in questions {
                            let (fails, counts, writes) = &homes[node.get() as usize - 1];
                            let failed = Answer::Failed(Failure::Storage);
                            heard.insert(node);
                            round.heard(node, &if *fails { failed } else { answer(&state(writes), want, *counts) });
                        }
                    }
                    Progress::Enough(joined) => break Some(joined),
                    Progress::Short => break None,
                }
            };
            let could_count = homes.iter().filter(|(fails, counts, _)| !fails && *counts).count();
            prop_assert_eq!(ended.is_some(), could_count >= needed);
            if let Some(joined) = ended {
                let mut expected = State::default();
                for node in heard {
                    let (fails, _, writes) = &homes[node.get() as usize - 1];
                    if !fails {
                        expected.merge(&state(writes));
                    }
                }
                prop_assert!(joined.held.len() >= needed);
                prop_assert_eq!(&joined.state, &expected);
                prop_assert_eq!(joined.digest, StateDigest::of(&expected));
            }
        }
    }
}
