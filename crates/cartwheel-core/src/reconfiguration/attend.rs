//! The duties of a node for a partition whose configuration differs from the target.

use std::collections::BTreeSet;

use super::{
    CANDIDATES_MAX, COPIED_FOR, DECIDE_AFTER, Reconfiguration, ReconfigurationContext, is_gone, is_lost, is_reachable,
    wait,
};
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

/// The partitions with a record that is being read or written.
type Busy = BTreeSet<PartitionId>;

impl Reconfiguration {
    /// Does what is due.
    pub fn tick(&mut self, cx: &mut ReconfigurationContext<'_>) {
        self.unsaved.due(cx.now).into_iter().for_each(|partition| self.save(cx, partition));
        self.pending_versions.due(cx.now).into_iter().for_each(|partition| self.query(cx, partition));
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
        self.resume_purges(cx);
    }

    /// Does what is due for a partition. Messages that are repeated to peers are sent in the partition's turn only.
    fn attend(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        is_turn: bool,
        busy: &mut Option<Busy>,
    ) {
        let Some(partition_state) = cx.held.partition_state(partition).cloned() else { return };
        if self.saves.contains_key(&partition) {
            // What follows from a state that is being saved waits until it is durable.
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
            self.deliver(cx, partition, self.synced_messages(&partition_state.phase));
        }
        match &partition_state.phase {
            // In a force-recovered configuration, not every majority holds everything from the start.
            ConfigPhase::Stable(only)
                if only.is_force_recovered() && !self.are_synced(cx, partition, &partition_state, only) => {}
            ConfigPhase::Stable(only) => self.drive(cx, partition, &partition_state, only),
            ConfigPhase::Joint(_, next) => {
                self.complete(cx, partition, &partition_state, next);
                if cx.broken.is(Mutation::ReplacedHomePurges)
                    && cx.held.is_leaving(partition)
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
        self.sync(cx, partition, &partition_state);
        self.copy(cx, partition, &partition_state, is_turn);
        self.leave(cx, partition, &partition_state, busy);
        if partition_state.has_stale_data {
            self.purge(cx, partition);
        }
        if is_turn
            && (partition_state.phase.next().is_some()
                || partition_state.retired.is_some()
                || !partition_state.phase.has(self.me))
        {
            self.inquire(cx, partition, &partition_state.phase);
        }
    }

    /// Sends the known phase to the homes, and to the homes of the target, as the known homes may be long gone. A node
    /// that knows a newer one replies with it.
    fn inquire(&self, cx: &mut ReconfigurationContext<'_>, partition: PartitionId, phase: &ConfigPhase) {
        let target = cx.held.view().target(partition);
        let mut nodes = phase.nodes();
        nodes.extend(target.iter().map(|home| home.node));
        let is_member = |node: NodeId| node != self.me.node && cx.held.view().member(node).is_some();
        for node in nodes.into_iter().filter(|&node| is_member(node)) {
            cx.send(node, partition, ReconfigurationMessage::Holds(phase.clone()));
        }
    }

    /// Proposes the next configuration towards the target, once its new homes are ready. The first reachable chooser
    /// does so. An acceptor that accepted a configuration and does not learn the outcome also proposes, so that one is
    /// chosen.
    fn drive(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        only: &Configuration,
    ) {
        let decides = self.is_to_decide(cx, partition, partition_state);
        if self.proposals.get(&partition).is_some_and(|proposal| cx.now < proposal.until) {
            return;
        }
        self.proposals.remove(&partition);
        let first = only.choosers().iter().find(|&&home| is_reachable(cx, home));
        let next = if first == Some(&self.me) { self.next_if_ready(cx, partition, only) } else { None };
        // Proposes the same homes again, if what was accepted was not chosen. Then no data moves for a target that has
        // changed since.
        let same = || Configuration { number: only.number.saturating_add(1), ..only.clone() };
        if let Some(next) = next.or_else(|| decides.then(same)) {
            self.propose(cx, partition, only, next);
        }
    }

    /// Whether this node accepted a configuration so long ago that it no longer waits for another node to have one
    /// chosen.
    fn is_to_decide(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
    ) -> bool {
        let Some((ballot, _)) = partition_state.acceptor.accepted else {
            self.undecided.remove(&partition);
            return false;
        };
        let known = self.undecided.get(&partition).filter(|(of, _)| *of == ballot);
        let (_, at) = known.copied().unwrap_or_else(|| (ballot, cx.now + wait(cx.random, DECIDE_AFTER)));
        self.undecided.insert(partition, (ballot, at));
        at <= cx.now
    }

    /// The next configuration towards the target, if its new homes are ready.
    fn next_if_ready(
        &mut self,
        cx: &ReconfigurationContext<'_>,
        partition: PartitionId,
        only: &Configuration,
    ) -> Option<Configuration> {
        let number = only.number.saturating_add(1);
        let reports = self.reports.entry(partition).or_default();
        let has_copied = |home: Home| {
            let report = reports.copied.get(&home);
            let is_ready = report.is_some_and(|&(of, at)| of == number && at + COPIED_FOR > cx.now);
            is_ready && is_reachable(cx, home)
        };
        let target = cx.held.view().target(partition);
        let counts = cx.held.view().target_counts();
        let next = next_configuration(only, &target, counts, has_copied, |home| !is_reachable(cx, home));
        next.filter(|next| newcomers(only, next).into_iter().all(has_copied))
    }

    /// The reports to all homes that this one is synced.
    fn synced_messages(&self, phase: &ConfigPhase) -> Vec<(NodeId, ReconfigurationMessage)> {
        let others = phase.nodes().into_iter().filter(|&node| node != self.me.node);
        others.map(|node| (node, ReconfigurationMessage::Synced(phase.latest().number))).collect()
    }

    /// Makes the phase stable with the next configuration once enough of its homes, and all that seem reachable, are
    /// synced.
    fn complete(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        next: &Configuration,
    ) {
        if self.are_synced(cx, partition, partition_state, next) {
            self.enter(cx, partition, ConfigPhase::Stable(next.clone()));
        }
    }

    /// Whether enough of the homes, and all that seem reachable, have reported to be synced.
    fn are_synced(
        &self,
        cx: &ReconfigurationContext<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        latest: &Configuration,
    ) -> bool {
        let number = latest.number;
        let is_own = latest.has(self.me) && partition_state.is_synced_in(number);
        let reported = |home: &Home| self.reports.get(&partition)?.synced.get(home);
        let is_synced = |home: Home| reported(&home) == Some(&number) || is_own && home == self.me;
        latest.counts.ns().into_iter().all(|n| {
            let homes = latest.of(n);
            let synced = homes.iter().filter(|&&home| is_synced(home)).count();
            synced >= synced_needed(cx, homes) && homes.iter().all(|&home| is_synced(home) || !is_reachable(cx, home))
        })
    }

    /// Syncs this node. A home that missed the sync of its stable configuration makes up for it even in the next joint
    /// phase: so many others may be lost meanwhile that without it no majority holds everything.
    fn sync(&mut self, cx: &mut ReconfigurationContext<'_>, partition: PartitionId, partition_state: &PartitionState) {
        match &partition_state.phase {
            ConfigPhase::Joint(current, next) => {
                self.sync_in(cx, partition, partition_state, current, |it, cx, tree| {
                    it.has_one_synced(cx, tree, partition_state, current)
                });
                self.sync_in(cx, partition, partition_state, next, |it, cx, tree| {
                    it.has_all_of(cx, tree, partition_state, current)
                });
            }
            ConfigPhase::Stable(only) => self.sync_in(cx, partition, partition_state, only, |it, cx, tree| {
                it.has_one_synced(cx, tree, partition_state, only)
                    || only.is_force_recovered() && it.has_all_remaining(cx, tree, partition_state, only)
            }),
        }
    }

    /// Marks this node as synced in a configuration once each of its trees there `holds` what it must.
    fn sync_in(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        configuration: &Configuration,
        holds: impl Fn(&Self, &mut ReconfigurationContext<'_>, TreeId) -> bool,
    ) {
        let number = configuration.number;
        if !configuration.homes_of_any().contains(&self.me) || partition_state.is_synced_in(number) {
            return;
        }
        let mut is_synced = true;
        // Each call begins the exchanges that are still needed.
        for group in partition_state.phase.counts().groups().filter(|&group| configuration.is_home(self.me, group)) {
            is_synced &= holds(self, cx, TreeId { partition, group });
        }
        let is_latest = number == partition_state.phase.latest().number;
        if is_synced || is_latest && cx.broken.is(Mutation::SyncedTooEarly) {
            // Reports are about the latest configuration only.
            let messages = if is_latest { self.synced_messages(&partition_state.phase) } else { Vec::new() };
            self.change(cx, partition, |partition_state| partition_state.synced.insert(number), messages);
        }
    }

    /// Whether this node holds all that the homes of `current` held after they had learned of the next configuration.
    /// Every home counts that has not been removed: it alone may hold a write acknowledged with w=1. And so many of
    /// them must be synced that every majority includes one.
    fn has_all_of(
        &self,
        cx: &mut ReconfigurationContext<'_>,
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
        is_all && synced >= synced_needed(cx, homes)
    }

    /// The homes of a tree's keys in a configuration, without this node.
    fn other_homes<'a>(&self, of: &'a Configuration, tree: TreeId) -> impl Iterator<Item = Home> + use<'a> {
        let me = self.me;
        of.homes_of(tree.group).iter().copied().filter(move |&home| home != me)
    }

    /// Whether this node holds all that some synced home held. That is enough for a home that comes late.
    fn has_one_synced(
        &self,
        cx: &mut ReconfigurationContext<'_>,
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

    /// Whether this node holds all that the remaining reachable homes hold. After a force recovery, no node holds more.
    fn has_all_remaining(
        &self,
        cx: &mut ReconfigurationContext<'_>,
        tree: TreeId,
        partition_state: &PartitionState,
        only: &Configuration,
    ) -> bool {
        let version = partition_state.phase.version();
        let reachable: Vec<Home> = self.other_homes(only, tree).filter(|&home| is_reachable(cx, home)).collect();
        let mut has_all = true;
        for home in reachable {
            has_all &= is_compared(cx, tree, home, |compared| compared.config_stamp.version >= version);
        }
        has_all || cx.broken.is(Mutation::ForceRecoveredUnfilled)
    }

    /// Begins to copy where the target makes this node a home and it is not one yet, and reports when it has copied.
    fn copy(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        partition_state: &PartitionState,
        is_turn: bool,
    ) {
        let is_wanted = self.is_wanted(cx.held, partition, partition_state);
        self.waiting.remove(&partition);
        if !partition_state.is_candidate {
            cx.transfers.end(partition);
            cx.exchange.hold_back(cx.now, partition, false);
        }
        match (partition_state.is_candidate, is_wanted) {
            (false, true) if partition_state.retired.is_none() && !partition_state.has_stale_data => {
                // Candidates that only wait for other nodes do not count. Otherwise nodes that wait for each other in
                // different partitions would block forever.
                let copying = cx.held.candidates().saturating_sub(self.waiting.len());
                // States on their way to the disk are few, since no more copies are begun than allowed.
                let coming = || self.saves.values().filter(|save| save.partition_state.is_candidate).count();
                if copying < CANDIDATES_MAX && copying + coming() < CANDIDATES_MAX {
                    // A home of other keys of the partition must keep running exchanges for those, so it copies by
                    // exchanges.
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
        cx: &mut ReconfigurationContext<'_>,
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
        if !only.homes_of_any().iter().any(|&home| home != self.me && is_reachable(cx, home)) {
            self.waiting.insert(partition);
        }
        let is_to_come = |&group: &Group| cx.held.keeps(partition, group) && !only.is_home(self.me, group);
        let groups: BTreeSet<Group> = only.counts.groups().filter(is_to_come).collect();
        if !only.homes_of_any().contains(&self.me) {
            // Groups that only lost homes held have no source.
            let is_left = |group: &&Group| only.homes_of(**group).iter().any(|&home| !is_lost(cx, home));
            let left: BTreeSet<Group> = groups.iter().filter(is_left).copied().collect();
            let left = if left.is_empty() { groups.clone() } else { left };
            let least_n = left.iter().map(|&group| only.counts.n_of(group)).min().unwrap_or(u8::MAX);
            let reachable = |homes: &[Home]| -> Vec<NodeId> {
                homes.iter().filter(|&&home| is_reachable(cx, home)).map(|home| home.node).collect()
            };
            // Homes that hold all groups; or, if none of them is reachable, the others: the missing ones may be
            // reachable again soon.
            let sources = Some(reachable(only.of(least_n))).filter(|sources| !sources.is_empty());
            let sources = sources.unwrap_or_else(|| reachable(only.homes_of_any()));
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
            // Lost homes cannot be copied from.
            has_copied &= from_any || synced_needed(cx, only.homes_of(group)) == 0;
        }
        if has_copied {
            self.waiting.insert(partition);
            self.copied.insert(partition, number);
            for &home in only.choosers() {
                cx.send(home.node, partition, ReconfigurationMessage::Copied(number));
            }
        }
    }

    /// Releases a retired home once it has run an exchange with every home since, with no local operation under way.
    fn leave(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
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
            // If all homes are gone, this node may be the last one that holds anything.
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
            let release = |partition_state: &mut PartitionState| {
                (partition_state.retired, partition_state.has_stale_data) = (None, true)
            };
            self.change(cx, partition, release, Vec::new());
        }
    }
}

/// The homes that `next` makes hold keys that they do not hold in `current`: new homes, and homes of a bucket whose n
/// grows.
fn newcomers(current: &Configuration, next: &Configuration) -> BTreeSet<Home> {
    let present = current.homes_of_any();
    let new = next.homes_of_any().iter().filter(|home| !present.contains(home));
    let raised = next.counts.groups().filter(|&group| next.counts.n_of(group) > current.counts.n_of(group));
    let more = raised.flat_map(|group| next.homes_of(group).iter().filter(move |home| !current.is_home(**home, group)));
    new.chain(more).copied().collect()
}

/// Whether this node has run an exchange with a home that `counts`. If not, makes one due.
fn is_compared(
    cx: &mut ReconfigurationContext<'_>,
    tree: TreeId,
    home: Home,
    counts: impl FnOnce(Compared) -> bool,
) -> bool {
    let is_compared = cx.exchange.compared(tree, home.node).is_some_and(counts);
    if !is_compared {
        cx.exchange.compare_soon(cx.now, tree, home.node);
    }
    is_compared
}

/// How many homes must be synced: so many that every majority includes one of them, which then holds whatever a
/// majority has acknowledged. Where so many homes are lost that there is no majority, all that are left. Of two homes
/// that is one, of three two, of four two.
fn synced_needed(cx: &ReconfigurationContext<'_>, homes: &[Home]) -> usize {
    let lost = homes.iter().filter(|&&home| is_lost(cx, home)).count();
    (homes.len() - majority(homes.len()) + 1).min(homes.len() - lost)
}
