//! The choice of one next configuration after a configuration: Paxos for a single value (Lamport, "Paxos made simple", 2001). The acceptors are
//! those of the configuration's homes that choose ([`Configuration::choosers`]). Pure bookkeeping: it sends nothing, stores nothing and reads no
//! clock.
//!
//! Every response of an acceptor must be durable before it is sent.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::configuration::{Configuration, Home};
use crate::ring::quorum::majority;
use crate::value::dot::NodeId;

/// A proposer's attempt. A greater ballot takes precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ballot {
    /// The number of the attempt.
    pub round: u64,
    /// The proposer.
    pub node: NodeId,
}

/// What an acceptor has accepted: the proposal and its ballot.
pub type Accepted = (Ballot, Configuration);

/// The state of an acceptor.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Acceptor {
    /// The greatest ballot it has promised. It rejects lesser ballots.
    pub promised: Option<Ballot>,
    /// The proposal that it accepted last.
    pub accepted: Option<Accepted>,
}

impl Acceptor {
    /// Promises to reject lesser ballots, and returns what it has accepted.
    ///
    /// # Errors
    /// The greater ballot that it has already promised, if there is one.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Option<Accepted>, Ballot> {
        self.promise(ballot)?;
        Ok(self.accepted.clone())
    }

    /// Accepts a proposal.
    ///
    /// # Errors
    /// The greater ballot that it has already promised, if there is one.
    pub fn accept(&mut self, ballot: Ballot, proposal: Configuration) -> Result<(), Ballot> {
        self.promise(ballot)?;
        self.accepted = Some((ballot, proposal));
        Ok(())
    }

    fn promise(&mut self, ballot: Ballot) -> Result<(), Ballot> {
        if let Some(promised) = self.promised.filter(|&promised| promised > ballot) {
            return Err(promised);
        }
        self.promised = Some(ballot);
        Ok(())
    }
}

/// The state of a proposer under one ballot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposer {
    choosers: Vec<Home>,
    ballot: Ballot,
    proposal: Configuration,
    /// The acceptors that have promised, and what each had accepted.
    promises: BTreeMap<Home, Option<Accepted>>,
    /// The acceptors that have accepted; `None` while promises are gathered.
    accepted: Option<BTreeSet<Home>>,
}

/// The next action of a proposer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposed {
    /// Wait for more responses.
    Waiting,
    /// Ask the acceptors to accept this.
    Accept(Configuration),
    /// This is chosen, for good.
    Chosen(Configuration),
}

impl Proposer {
    /// Begins to propose, with the request for promises.
    pub const fn new(choosers: Vec<Home>, ballot: Ballot, proposal: Configuration) -> Self {
        Self { choosers, ballot, proposal, promises: BTreeMap::new(), accepted: None }
    }

    /// The ballot under which it proposes.
    pub const fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The acceptors.
    pub fn choosers(&self) -> &[Home] {
        &self.choosers
    }

    /// Takes a promise. Once a majority has promised, it proposes what any of them accepted under the greatest ballot, if that may have been
    /// chosen, or else its own proposal.
    pub fn promised(&mut self, by: Home, ballot: Ballot, accepted: Option<Accepted>) -> Proposed {
        if ballot != self.ballot || self.accepted.is_some() || !self.choosers.contains(&by) {
            return Proposed::Waiting;
        }
        self.promises.insert(by, accepted);
        if self.promises.len() < majority(self.choosers.len()) {
            return Proposed::Waiting;
        }
        let accepted = || self.promises.values().flatten();
        // An acceptor that promised without having accepted anything will accept nothing under a lesser ballot. If the others are no majority,
        // nothing was chosen. Then the proposer is free of earlier proposals, which may name homes that have died since.
        let may_have_accepted = self.choosers.len() - self.promises.len() + accepted().count();
        if may_have_accepted >= majority(self.choosers.len())
            && let Some((_, earlier)) = accepted().max_by_key(|(ballot, _)| *ballot)
        {
            self.proposal = earlier.clone();
        }
        self.accepted = Some(BTreeSet::new());
        Proposed::Accept(self.proposal.clone())
    }

    /// Takes an acceptance.
    pub fn accepted(&mut self, by: Home, ballot: Ballot) -> Proposed {
        let Some(accepted) = self.accepted.as_mut().filter(|_| ballot == self.ballot) else { return Proposed::Waiting };
        if self.choosers.contains(&by) {
            accepted.insert(by);
        }
        if accepted.len() < majority(self.choosers.len()) {
            return Proposed::Waiting;
        }
        Proposed::Chosen(self.proposal.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::counts::ReplicaCounts;
    use crate::value::dot::Incarnation;

    fn home(node: u64) -> Home {
        Home { node: NodeId::new(node), incarnation: Incarnation(1) }
    }

    fn configuration(home_of: u64) -> Configuration {
        Configuration { number: 1, homes: vec![home(home_of)], choosers: 1, counts: ReplicaCounts::default() }
    }

    /// A possible event: a proposer begins anew, or a message of its latest attempt reaches an acceptor and the response arrives or is lost.
    #[derive(Clone, Debug)]
    enum Act {
        Begin(usize),
        Prepare(usize, usize, bool),
        Accept(usize, usize, bool),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            1 => (0usize..3).prop_map(Act::Begin),
            6 => (0usize..3, 0usize..5, any::<bool>()).prop_map(|(from, to, back)| Act::Prepare(from, to, back)),
            6 => (0usize..3, 0usize..5, any::<bool>()).prop_map(|(from, to, back)| Act::Accept(from, to, back)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn one_value_is_chosen_whatever_is_lost(count in 3u64..6, acts in prop::collection::vec(act(), 0..200)) {
            let choosers: Vec<Home> = (1..=count).map(home).collect();
            let mut acceptors = vec![Acceptor::default(); choosers.len()];
            let mut rounds = 0;
            let mut proposers: Vec<Option<Proposer>> = vec![None; 3];
            let mut chosen: Option<Configuration> = None;
            for act in acts {
                match act {
                    Act::Begin(proposer) => {
                        rounds += 1;
                        let ballot = Ballot { round: rounds, node: NodeId::new(proposer as u64) };
                        proposers[proposer] = Some(Proposer::new(choosers.clone(), ballot, configuration(proposer as u64)));
                    }
                    Act::Prepare(_, at, _) | Act::Accept(_, at, _) if at >= choosers.len() => {}
                    Act::Prepare(from, at, back) => {
                        let Some(proposer) = &mut proposers[from] else { continue };
                        if let Ok(accepted) = acceptors[at].prepare(proposer.ballot()) && back {
                            let ballot = proposer.ballot();
                            proposer.promised(choosers[at], ballot, accepted);
                        }
                    }
                    Act::Accept(from, at, back) => {
                        let Some(proposer) = &mut proposers[from] else { continue };
                        let Some(proposal) = proposer.accepted.as_ref().map(|_| proposer.proposal.clone()) else { continue };
                        let ballot = proposer.ballot();
                        if acceptors[at].accept(ballot, proposal).is_ok()
                            && back
                            && let Proposed::Chosen(value) = proposer.accepted(choosers[at], ballot)
                        {
                            prop_assert_eq!(chosen.get_or_insert(value.clone()), &value);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_earlier_proposal_that_cannot_have_been_chosen_is_ignored() {
        let ballot = Ballot { round: 1, node: NodeId::new(1) };
        let earlier = (Ballot { round: 0, node: NodeId::new(3) }, configuration(8));
        let ends = |choosers: u64, accepted: &[u64]| {
            let mut proposer = Proposer::new((1..=choosers).map(home).collect(), ballot, configuration(7));
            let promises = 1..=majority(choosers as usize) as u64;
            let promised = |by| proposer.promised(home(by), ballot, accepted.contains(&by).then(|| earlier.clone()));
            promises.map(promised).last()
        };
        let own = |ended| ended == Some(Proposed::Accept(configuration(7)));
        assert!(
            own(ends(4, &[1])),
            "one of three has accepted it, and perhaps the fourth: they are no majority of four"
        );
        assert!(!own(ends(4, &[1, 2])), "with the fourth they are");
        assert!(!own(ends(3, &[1])) && own(ends(3, &[])));
    }

    #[test]
    fn only_acceptors_count_each_once_and_in_its_incarnation() {
        let ballot = Ballot { round: 1, node: NodeId::new(1) };
        let mut proposer = Proposer::new((1..=3).map(home).collect(), ballot, configuration(7));
        let other_incarnation = Home { incarnation: Incarnation(2), ..home(2) };
        for by in [home(1), home(1), home(9), other_incarnation] {
            assert_eq!(proposer.promised(by, ballot, None), Proposed::Waiting);
        }
        let earlier = (Ballot { round: 0, node: NodeId::new(3) }, configuration(8));
        assert_eq!(proposer.promised(home(2), ballot, Some(earlier)), Proposed::Accept(configuration(8)));
        assert_eq!(proposer.accepted(home(3), ballot), Proposed::Waiting);
        assert_eq!(proposer.accepted(home(1), Ballot { round: 2, ..ballot }), Proposed::Waiting);
        assert_eq!(proposer.accepted(home(1), ballot), Proposed::Chosen(configuration(8)));
    }
}
