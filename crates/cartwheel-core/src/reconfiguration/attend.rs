//! What a node does for a partition whose configuration is not the one that is wished.

use std::collections::BTreeSet;

use super::{CANDIDATES_MAX, COPIED_FOR, DECIDE_AFTER, Reconfiguration, Scx, is_gone, is_lost, is_there, wait};
use crate::anti_entropy::Compared;
use crate::cluster::configuration::{ConfigPhase, Configuration, Home};
use crate::cluster::counts::Group;
use crate::cluster::next_configuration::next_configuration;
use crate::cluster::partition_state::PartitionState;
use crate::cluster::sizes::TreeId;
use crate::message::reconfiguration::ReconfigurationMessage;
use crate::mutation::Mutation;
use crate::ring::PartitionId;
use crate::ring::quorum::majority;
use crate::value::dot::NodeId;
use crate::value::time::Instant;

/// The partitions of which a record is being read or written.
type Busy = BTreeSet<PartitionId>;

impl Reconfiguration {
    /// Does what is due.
    pub fn tick(&mut self, cx: &mut Scx<'_>) {
        self.unsaved.due(cx.now).into_iter().for_each(|partition| self.save(cx, partition));
        self.pending_versions.due(cx.now).into_iter().for_each(|partition| self.ask(cx, partition));
        let (mut busy, every) = (None, self.turn_every());
        for partition in self.attended.due(cx.now) {
            let Some(turn) = self.attended.get_mut(partition) else { continue };
            let is_turn = *turn <= cx.now;
            if is_turn {
                *turn = cx.now + every;
            }
            let next = *turn;
            self.attended.put_off(partition, next);
            self.attend(cx, partition, is_turn, &mut busy);
        }
        self.clear_waiting(cx);
    }

    /// Does what there is to do for a partition; what others are told again and again only in its turn.
    fn attend(&mut self, cx: &mut Scx<'_>, partition: PartitionId, is_turn: bool, busy: &mut Option<Busy>) {
        let Some(partition_state) = cx.held.partition_state(partition).cloned() else { return };
        if self.saves.contains_key(&partition) {
            // What follows from what is being saved is looked at when it is.
            return;
        }
        if !self.is_unsettled(cx.held, partition, &partition_state) {
            self.attended.remove(partition);
            self.reports.remove(&partition);
            self.proposals.remove(&partition);
            self.left_at.remove(&partition);
            self.copied.remove(&partition);
            self.undecided.remove(&partition);
            self.waiting.remove(&partition);
            return;
        }
        if let Some(force_recovered) = self.force_recovered(cx.held, partition, &partition_state) {
            return self.enter(cx, partition, ConfigPhase::Stable(force_recovered));
        }
        let latest = partition_state.phase.latest();
        let is_awaited = partition_state.phase.next().is_some() || latest.is_force_recovered();
        if is_turn && is_awaited && latest.has(self.me) && partition_state.is_synced_in(latest.number) {
            self.say(cx, partition, self.synced_messages(&partition_state.phase));
        }
        match &partition_state.phase {
            // In what was made anew not every majority holds everything from the start.
            ConfigPhase::Stable(only)
                if only.is_force_recovered() && !self.are_synced(cx, partition, &partition_state, only) => {}
            ConfigPhase::Stable(only) => self.drive(cx, partition, &partition_state, only),
            ConfigPhase::Joint(_, next) => {
                self.complete(cx, partition, &partition_state, next);
                if cx.broken.is(Mutation::ReplacedHomePurges)
                    && cx.held.goes(partition)
                    && !partition_state.has_stale_data
                {
                    return self.change(
                        cx,
                        partition,
                        |partition_state| partition_state.has_stale_data = true,
                        Vec::new(),
                    );
                }
            }
        }
        self.fill(cx, partition, &partition_state);
        self.copy(cx, partition, &partition_state, is_turn);
        self.leave(cx, partition, &partition_state, busy);
        if partition_state.has_stale_data {
            self.clear(cx, partition);
        }
        if is_turn
            && (partition_state.phase.next().is_some()
                || partition_state.retired.is_some()
                || !partition_state.phase.has(self.me))
        {
            self.inquire(cx, partition, &partition_state.phase);
        }
    }

    /// Lets the homes know how far this node is, and those who are to be homes, for the homes that it knows of may be long gone: who is
    /// further says so.
    fn inquire(&self, cx: &mut Scx<'_>, partition: PartitionId, phase: &ConfigPhase) {
        let target = cx.held.view().target(partition);
        let mut nodes = phase.nodes();
        nodes.extend(target.iter().map(|home| home.node));
        let is_member = |node: NodeId| node != self.me.node && cx.held.view().member(node).is_some();
        for node in nodes.into_iter().filter(|&node| is_member(node)) {
            cx.send(node, partition, ReconfigurationMessage::Holds(phase.clone()));
        }
    }

    /// Proposes the next configuration on the way to the wish, once those who come are ready. The first of those who choose does, of
    /// those that seem to be there; and one that has accepted a successor of which it hears no more sees to it that one is chosen.
    fn drive(
        &mut self,
        cx: &mut Scx<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        only: &Configuration,
    ) {
        let decides = self.is_to_decide(cx, partition, partition_state);
        if self.proposals.get(&partition).is_some_and(|proposal| cx.now < proposal.until) {
            return;
        }
        self.proposals.remove(&partition);
        let first = only.choosers().iter().find(|&&home| is_there(cx, home));
        let next = if first == Some(&self.me) { self.next_on_the_way(cx, partition, only) } else { None };
        // The same homes once more, where what was accepted cannot have been chosen: then nobody moves for what is not wished any more.
        let same = || Configuration { number: only.number.saturating_add(1), ..only.clone() };
        if let Some(next) = next.or_else(|| decides.then(same)) {
            self.propose(cx, partition, only, next);
        }
    }

    /// Whether this node has accepted a successor so long ago that it waits for nobody else any more to have one chosen.
    fn is_to_decide(&mut self, cx: &mut Scx<'_>, partition: PartitionId, partition_state: &PartitionState) -> bool {
        let Some((ballot, _)) = partition_state.acceptor.accepted else {
            self.undecided.remove(&partition);
            return false;
        };
        let known = self.undecided.get(&partition).filter(|(of, _)| *of == ballot);
        let (_, at) = known.copied().unwrap_or_else(|| (ballot, cx.now + wait(cx.random, DECIDE_AFTER)));
        self.undecided.insert(partition, (ballot, at));
        at <= cx.now
    }

    /// The next configuration on the way to the wish, if those who come are ready.
    fn next_on_the_way(&mut self, cx: &Scx<'_>, partition: PartitionId, only: &Configuration) -> Option<Configuration> {
        let number = only.number.saturating_add(1);
        let reports = self.reports.entry(partition).or_default();
        let has_copied = |home: Home| {
            let said = reports.copied.get(&home);
            let is_ready = said.is_some_and(|&(of, at)| of == number && at + COPIED_FOR > cx.now);
            is_ready && is_there(cx, home)
        };
        let target = cx.held.view().target(partition);
        let counts = cx.held.view().target_counts();
        let next = next_configuration(only, &target, counts, has_copied, |home| !is_there(cx, home));
        next.filter(|next| newcomers(only, next).into_iter().all(has_copied))
    }

    /// What tells all homes that this one holds what those before held.
    fn synced_messages(&self, phase: &ConfigPhase) -> Vec<(NodeId, ReconfigurationMessage)> {
        let others = phase.nodes().into_iter().filter(|&node| node != self.me.node);
        others.map(|node| (node, ReconfigurationMessage::Synced(phase.latest().number))).collect()
    }

    /// The successor stands alone once enough of its homes, and all of them that seem to be there, hold what the homes before held.
    fn complete(
        &mut self,
        cx: &mut Scx<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        next: &Configuration,
    ) {
        if self.are_synced(cx, partition, partition_state, next) {
            self.enter(cx, partition, ConfigPhase::Stable(next.clone()));
        }
    }

    /// Whether enough of the homes, and all of them that seem to be there, have said that they hold what there is to hold.
    fn are_synced(
        &self,
        cx: &Scx<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        latest: &Configuration,
    ) -> bool {
        let number = latest.number;
        let is_own = latest.has(self.me) && partition_state.is_synced_in(number);
        let has_said = |home: &Home| self.reports.get(&partition)?.synced.get(home);
        let is_synced = |home: Home| has_said(&home) == Some(&number) || is_own && home == self.me;
        latest.counts.ns().into_iter().all(|n| {
            let homes = latest.of(n);
            let synced = homes.iter().filter(|&&home| is_synced(home)).count();
            synced >= witnesses_to_be_had(cx, homes) && homes.iter().all(|&home| is_synced(home) || !is_there(cx, home))
        })
    }

    /// Brings this node to hold what the homes before held. A home that was away when its configuration came to stand alone makes up for
    /// that while the next one takes over, too: of the others so many may be lost meanwhile that without it no majority holds everything.
    fn fill(&mut self, cx: &mut Scx<'_>, partition: PartitionId, partition_state: &PartitionState) {
        match &partition_state.phase {
            ConfigPhase::Joint(current, next) => {
                self.fill_in(cx, partition, partition_state, current, |it, cx, tree| {
                    it.has_one_synced(cx, tree, partition_state, current)
                });
                self.fill_in(cx, partition, partition_state, next, |it, cx, tree| {
                    it.has_all_of(cx, tree, partition_state, current)
                });
            }
            ConfigPhase::Stable(only) => self.fill_in(cx, partition, partition_state, only, |it, cx, tree| {
                it.has_one_synced(cx, tree, partition_state, only)
                    || only.is_force_recovered() && it.has_what_is_left(cx, tree, partition_state, only)
            }),
        }
    }

    /// Notes that this node holds all that a home of `filled` must, once each of its trees there `holds` that.
    fn fill_in(
        &mut self,
        cx: &mut Scx<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        filled: &Configuration,
        holds: impl Fn(&Self, &mut Scx<'_>, TreeId) -> bool,
    ) {
        let number = filled.number;
        if !filled.homes_of_any().contains(&self.me) || partition_state.is_synced_in(number) {
            return;
        }
        let mut is_synced = true;
        // Each begins the comparisons that it lacks.
        for group in partition_state.phase.counts().groups().filter(|&group| filled.is_home(self.me, group)) {
            is_synced &= holds(self, cx, TreeId { partition, group });
        }
        let is_latest = number == partition_state.phase.latest().number;
        if is_synced || is_latest && cx.broken.is(Mutation::SyncedTooEarly) {
            // What is said is said of the latest.
            let messages = if is_latest { self.synced_messages(&partition_state.phase) } else { Vec::new() };
            self.change(cx, partition, |partition_state| partition_state.synced.insert(number), messages);
        }
    }

    /// Whether all that the homes of `current` held after they had heard of the successor is held here. Each of them counts that has
    /// not been removed, for it alone may hold what was acknowledged with w=1; and so many of them must hold everything that no majority
    /// is without one.
    fn has_all_of(
        &self,
        cx: &mut Scx<'_>,
        tree: TreeId,
        partition_state: &PartitionState,
        current: &Configuration,
    ) -> bool {
        let version = partition_state.phase.version();
        let homes = current.homes_of(tree.group);
        let mut synced = usize::from(homes.contains(&self.me) && partition_state.is_synced_in(current.number));
        let mut is_all = true;
        for &home in homes.iter().filter(|&&home| home != self.me) {
            match cx.exchange.compared(tree, home.node).filter(|compared| compared.config_stamp.version >= version) {
                Some(compared) => synced += usize::from(compared.is_recovered),
                None if is_gone(cx, home) => {}
                None => {
                    is_all = false;
                    cx.exchange.compare_soon(cx.now, tree, home.node);
                }
            }
        }
        is_all && synced >= witnesses_to_be_had(cx, homes)
    }

    /// The homes of a tree's keys in a configuration, without this one.
    fn other_homes<'a>(&self, of: &'a Configuration, tree: TreeId) -> impl Iterator<Item = Home> + use<'a> {
        let me = self.me;
        of.homes_of(tree.group).iter().copied().filter(move |&home| home != me)
    }

    /// Whether all is held here that one home held which holds everything: enough for one that comes late.
    fn has_one_synced(
        &self,
        cx: &mut Scx<'_>,
        tree: TreeId,
        partition_state: &PartitionState,
        only: &Configuration,
    ) -> bool {
        let version = partition_state.phase.version();
        let mut is_synced = false;
        for home in self.other_homes(only, tree) {
            is_synced |= is_compared(cx, tree, home, |compared| {
                compared.config_stamp.version >= version && compared.is_recovered
            });
        }
        is_synced
    }

    /// Whether all is held here that anybody holds who is left and there: after a partition was made anew, nobody holds more.
    fn has_what_is_left(
        &self,
        cx: &mut Scx<'_>,
        tree: TreeId,
        partition_state: &PartitionState,
        only: &Configuration,
    ) -> bool {
        let version = partition_state.phase.version();
        let there: Vec<Home> = self.other_homes(only, tree).filter(|&home| is_there(cx, home)).collect();
        let mut has_all = true;
        for home in there {
            has_all &= is_compared(cx, tree, home, |compared| compared.config_stamp.version >= version);
        }
        has_all || cx.broken.is(Mutation::ForceRecoveredUnfilled)
    }

    /// Begins to copy where this node is wished as a home and is none, and says so when it has.
    fn copy(&mut self, cx: &mut Scx<'_>, partition: PartitionId, partition_state: &PartitionState, is_turn: bool) {
        let is_wanted = self.is_wanted(cx.held, partition, partition_state);
        self.waiting.remove(&partition);
        if !partition_state.is_candidate {
            cx.transfers.end(partition);
            cx.exchange.hold_back(cx.now, partition, false);
        }
        match (partition_state.is_candidate, is_wanted) {
            (false, true) if partition_state.retired.is_none() && !partition_state.has_stale_data => {
                // Those that only wait for others do not count: nodes that wait for each other in different partitions would wait for ever.
                let copying = cx.held.candidates().saturating_sub(self.waiting.len());
                // Those on their way to the disk are few, as no more are begun than may be.
                let coming = || self.saves.values().filter(|save| save.partition_state.is_candidate).count();
                if copying < CANDIDATES_MAX && copying + coming() < CANDIDATES_MAX {
                    // Of the partition's other keys a home must be compared meanwhile, so it copies by comparison.
                    if !partition_state.phase.is_home_of_any(self.me) {
                        cx.transfers.begin(cx.held, partition);
                        cx.exchange.hold_back(cx.now, partition, true);
                    }
                    self.change(cx, partition, |partition_state| partition_state.is_candidate = true, Vec::new());
                }
            }
            (true, false) => {
                let leave = |partition_state: &mut PartitionState| {
                    (partition_state.is_candidate, partition_state.has_stale_data) = (false, true)
                };
                self.change(cx, partition, leave, Vec::new());
            }
            (true, true) => self.report_copied(cx, partition, partition_state, is_turn),
            _ => {}
        }
    }

    fn report_copied(
        &mut self,
        cx: &mut Scx<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        is_turn: bool,
    ) {
        let ConfigPhase::Stable(only) = &partition_state.phase else { return };
        let number = only.number.saturating_add(1);
        if !is_turn && self.copied.get(&partition) == Some(&number) {
            self.waiting.insert(partition);
            return;
        }
        if !only.homes_of_any().iter().any(|&home| home != self.me && is_there(cx, home)) {
            self.waiting.insert(partition);
        }
        let is_to_come = |&group: &Group| cx.held.keeps(partition, group) && !only.is_home(self.me, group);
        let groups: BTreeSet<Group> = only.counts.groups().filter(is_to_come).collect();
        if !only.homes_of_any().contains(&self.me) {
            // What lay only on those who are lost nobody can be asked for.
            let is_left = |group: &&Group| only.homes_of(**group).iter().any(|&home| !is_lost(cx, home));
            let left: BTreeSet<Group> = groups.iter().filter(is_left).copied().collect();
            let left = if left.is_empty() { groups.clone() } else { left };
            let least_n = left.iter().map(|&group| only.counts.n_of(group)).min().unwrap_or(u8::MAX);
            let there = |homes: &[Home]| -> Vec<NodeId> {
                homes.iter().filter(|&&home| is_there(cx, home)).map(|home| home.node).collect()
            };
            // Those that hold all of it, or where none of them is there, the others: what is there of it may be there again soon.
            let sources = Some(there(only.of(least_n))).filter(|sources| !sources.is_empty());
            let sources = sources.unwrap_or_else(|| there(only.homes_of_any()));
            let is_fetched = cx.transfers.want(cx.held, partition, left, sources);
            cx.exchange.hold_back(cx.now, partition, !is_fetched);
            if !is_fetched {
                return;
            }
        }
        let mut has_copied = true;
        for group in groups {
            let tree = TreeId { partition, group };
            let mut from_any = false;
            for &home in only.homes_of(group) {
                from_any |= is_compared(cx, tree, home, |compared| compared.is_recovered);
            }
            // From those who are lost nothing is to be had.
            has_copied &= from_any || witnesses_to_be_had(cx, only.homes_of(group)) == 0;
        }
        if has_copied {
            self.waiting.insert(partition);
            self.copied.insert(partition, number);
            for &home in only.choosers() {
                cx.send(home.node, partition, ReconfigurationMessage::Copied(number));
            }
        }
    }

    /// A home that is none any more is relieved once it was compared with every home since, with nothing under way.
    fn leave(
        &mut self,
        cx: &mut Scx<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        busy: &mut Option<Busy>,
    ) {
        if partition_state.retired.is_none() {
            self.left_at.remove(&partition);
            return;
        }
        let mut is_busy = || busy.get_or_insert_with(|| cx.replica.busy()).contains(&partition);
        if !self.left_at.contains_key(&partition) && is_busy() {
            return;
        }
        let since: Instant = *self.left_at.entry(partition).or_insert(cx.now);
        let mut is_released = true;
        for group in partition_state.phase.counts().groups().filter(|&group| partition_state.leaves(self.me, group)) {
            let tree = TreeId { partition, group };
            let homes: BTreeSet<Home> =
                partition_state.phase.both().flat_map(|of| of.homes_of(group)).copied().collect();
            // Where all are gone, this node may be the last that holds anything.
            is_released &= homes.iter().any(|&home| !is_gone(cx, home));
            let awaited: Vec<Home> =
                homes.into_iter().filter(|&home| home.node != self.me.node && !is_gone(cx, home)).collect();
            for home in awaited {
                is_released &= is_compared(cx, tree, home, |compared| {
                    compared.begun >= since && compared.config_stamp.version >= partition_state.phase.version()
                });
            }
        }
        if is_released || cx.broken.is(Mutation::OldHomePurges) {
            let relieve = |partition_state: &mut PartitionState| {
                (partition_state.retired, partition_state.has_stale_data) = (None, true)
            };
            self.change(cx, partition, relieve, Vec::new());
        }
    }
}

/// Those who come to hold what they do not hold in `current`: homes that were none, or not of the keys of a bucket whose n becomes more.
fn newcomers(current: &Configuration, next: &Configuration) -> BTreeSet<Home> {
    let present = current.homes_of_any();
    let new = next.homes_of_any().iter().filter(|home| !present.contains(home));
    let raised = next.counts.groups().filter(|&group| next.counts.n_of(group) > current.counts.n_of(group));
    let more = raised.flat_map(|group| next.homes_of(group).iter().filter(move |home| !current.is_home(**home, group)));
    new.chain(more).copied().collect()
}

/// Whether this node was compared with a home as it counts; if not, it soon is.
fn is_compared(cx: &mut Scx<'_>, tree: TreeId, home: Home, counts: impl FnOnce(Compared) -> bool) -> bool {
    let is_compared = cx.exchange.compared(tree, home.node).is_some_and(counts);
    if !is_compared {
        cx.exchange.compare_soon(cx.now, tree, home.node);
    }
    is_compared
}

/// How many homes must hold everything: so many that every majority has one of them, and so whatever a majority has acknowledged is held by
/// one; or all that are left where so many are lost that there can be no majority. Of two or three that is one or two, of four two.
fn witnesses_to_be_had(cx: &Scx<'_>, homes: &[Home]) -> usize {
    let lost = homes.iter().filter(|&&home| is_lost(cx, home)).count();
    (homes.len() - majority(homes.len()) + 1).min(homes.len() - lost)
}
