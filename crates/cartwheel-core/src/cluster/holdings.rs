//! What holds in the partitions of a shard, and what this node is in each. Immutable, like the view that it goes with, and cheap to share.

use std::sync::Arc;

use crate::cluster::configuration::{Configuration, Footing, Home, Homes, Phase, Step};
use crate::cluster::counts::{Group, KnownCounts, ReplicaCounts};
use crate::cluster::lane::Lane;
use crate::cluster::membership::View;
use crate::cluster::seat::Seat;
use crate::cluster::sizes::TreeId;
use crate::ring::PartitionId;
use crate::value::dot::NodeId;
use crate::value::key::Key;

/// What holds, as this node has it durably or has heard of it.
#[derive(Clone, Debug)]
pub struct Holdings {
    me: Home,
    view: Arc<View>,
    seats: Seats,
    known: KnownCounts,
}

/// How many partitions' seats are copied when one of them changes: about the root of the largest number of them.
const CHUNK: usize = 256;

/// The seats by partition. A copy costs little: it shares all that does not change, in chunks.
#[derive(Clone, Debug, Default)]
struct Seats {
    /// None where the partition belongs to another shard.
    chunks: Vec<Arc<Vec<Option<Arc<Seat>>>>>,
    /// How many are candidates' seats.
    candidates: usize,
    /// In how many something is left that may go.
    leftovers: usize,
}

impl Seats {
    fn new(seats: Vec<Option<Arc<Seat>>>) -> Self {
        let count = |is_meant: fn(&Seat) -> bool| seats.iter().flatten().filter(|seat| is_meant(seat)).count();
        let (candidates, leftovers) = (count(|seat| seat.is_candidate), count(|seat| seat.has_leftovers));
        Self { chunks: seats.chunks(CHUNK).map(|chunk| Arc::new(chunk.to_vec())).collect(), candidates, leftovers }
    }

    fn get(&self, partition: PartitionId) -> Option<&Arc<Seat>> {
        self.chunks.get(partition.index() / CHUNK)?.get(partition.index() % CHUNK)?.as_ref()
    }

    fn set(&mut self, partition: PartitionId, seat: Seat) {
        let Some(before) = self.get(partition).cloned() else { return };
        self.candidates = self.candidates + usize::from(seat.is_candidate) - usize::from(before.is_candidate);
        self.leftovers = self.leftovers + usize::from(seat.has_leftovers) - usize::from(before.has_leftovers);
        let chunk = Arc::make_mut(&mut self.chunks[partition.index() / CHUNK]);
        chunk[partition.index() % CHUNK] = Some(Arc::new(seat));
    }

    fn iter(&self) -> impl Iterator<Item = (PartitionId, &Arc<Seat>)> {
        let seats = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..).map(PartitionId).zip(seats).filter_map(|(partition, seat)| Some((partition, seat.as_ref()?)))
    }
}

impl Holdings {
    /// What holds when a shard starts: what it has saved, and the founding's configurations elsewhere.
    pub fn new(me: Home, view: Arc<View>, lane: Lane, saved: impl IntoIterator<Item = (PartitionId, Seat)>) -> Self {
        let seat = |partition: PartitionId| {
            let is_here = Lane::of_partition(partition, lane.count) == lane.index;
            is_here.then(|| Arc::new(Seat::founding(view.first_configuration(partition), me)))
        };
        let mut seats: Vec<Option<Arc<Seat>>> = view.ring.partitions().iter().map(seat).collect();
        let mut known = KnownCounts::default();
        for (partition, seat) in saved {
            if let Some(place) = seats.get_mut(partition.index()).filter(|place| place.is_some()) {
                let mut seat = seat.said(view.first_counts());
                seat.share_counts(&mut known);
                *place = Some(Arc::new(seat));
            }
        }
        Self { me, view, seats: Seats::new(seats), known }
    }

    /// The wish, and the settings.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// This node.
    pub const fn me(&self) -> Home {
        self.me
    }

    /// The same with another wish.
    #[must_use]
    pub fn with_view(&self, view: Arc<View>) -> Self {
        Self { view, ..self.clone() }
    }

    /// The same, as if the settings that this node knows said how many homes keys have, and no configuration: a rule broken on purpose.
    #[must_use]
    pub(crate) fn with_counts_by_settings(mut self) -> Self {
        let wished = self.view.wished_counts().clone();
        let mut seats: Vec<(PartitionId, Seat)> =
            self.seats().map(|(partition, seat)| (partition, Seat::clone(seat))).collect();
        seats.iter_mut().for_each(|(_, seat)| seat.set_counts(&wished));
        seats.into_iter().for_each(|(partition, seat)| self.take(partition, seat));
        self
    }

    /// From now on this node has this seat.
    pub fn take(&mut self, partition: PartitionId, mut seat: Seat) {
        seat.share_counts(&mut self.known);
        self.seats.set(partition, seat);
    }

    /// This node's seat; none if the partition belongs to another shard.
    pub fn seat(&self, partition: PartitionId) -> Option<&Arc<Seat>> {
        self.seats.get(partition)
    }

    /// The seats of the shard.
    pub fn seats(&self) -> impl Iterator<Item = (PartitionId, &Arc<Seat>)> {
        self.seats.iter()
    }

    /// In how many partitions this node copies what the homes hold, to become one.
    pub const fn candidates(&self) -> usize {
        self.seats.candidates
    }

    /// Whether anything is held in any partition that may go.
    pub const fn has_leftovers(&self) -> bool {
        self.seats.leftovers > 0
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> PartitionId {
        self.view.ring.partition_of(key.token())
    }

    /// How many homes keys have, by bucket, once the latest configuration of a partition that this node knows stands alone.
    pub fn counts(&self, partition: PartitionId) -> ReplicaCounts {
        self.seat(partition).map(|seat| seat.phase.counts().clone()).unwrap_or_default()
    }

    /// The group of the keys of `bucket`.
    pub fn group(&self, partition: PartitionId, bucket: &[u8]) -> Group {
        self.seat(partition).map(|seat| seat.phase.counts().group_of(bucket)).unwrap_or_default()
    }

    /// The partition of a key, and its group there.
    pub fn group_of(&self, key: &Key) -> (PartitionId, Group) {
        let partition = self.partition_of(key);
        (partition, self.group(partition, key.bucket()))
    }

    /// The tree that a key belongs to.
    pub fn tree_of(&self, key: &Key) -> TreeId {
        let (partition, group) = self.group_of(key);
        TreeId { partition, group }
    }

    /// The groups of a partition's keys.
    pub fn groups(&self, partition: PartitionId) -> Vec<Group> {
        self.seat(partition).map(|seat| seat.phase.counts().groups().collect()).unwrap_or_default()
    }

    /// The homes of the keys of a group.
    pub fn homes(&self, partition: PartitionId, group: Group) -> Homes {
        let Some(seat) = self.seat(partition) else { return Homes::default() };
        let is_past = |home: &Home| match home.node == self.me.node {
            true => *home != self.me,
            false => self.view.is_gone(home.node, home.life),
        };
        seat.phase.homes(group, is_past)
    }

    /// The homes of `key`.
    pub fn homes_of(&self, key: &Key) -> Homes {
        let (partition, group) = self.group_of(key);
        self.homes(partition, group)
    }

    /// Whether this node is a home of `key`.
    pub fn is_home(&self, key: &Key) -> bool {
        let (partition, group) = self.group_of(key);
        self.seat(partition).is_some_and(|seat| seat.phase.is_home(self.me, group))
    }

    /// Whether a node is a home of `key`, in whatever life.
    pub fn has_home(&self, key: &Key, node: NodeId) -> bool {
        let (partition, group) = self.group_of(key);
        let is_home =
            |configuration: &Configuration| configuration.homes_of(group).iter().any(|home| home.node == node);
        self.seat(partition).is_some_and(|seat| seat.phase.both().any(is_home))
    }

    /// Whether this node may keep what it has of `key` for a home: in some configuration there is that home, and this node is none. While
    /// one configuration takes over from another, it may be a home in the other one.
    pub fn may_stand_in(&self, key: &Key, home: NodeId) -> bool {
        let (partition, group) = self.group_of(key);
        let is_without_me = |configuration: &Configuration| {
            let homes = configuration.homes_of(group);
            homes.iter().any(|other| other.node == home) && !homes.contains(&self.me)
        };
        self.seat(partition).is_some_and(|seat| seat.phase.both().any(is_without_me))
    }

    /// Whether this node knows no other node to which it could owe what it keeps of `key` for `home`. It knows none, and is none; or it
    /// has forgotten who they are. Nothing is kept for a node that no configuration has named. So a node that is owed something, and that
    /// the founding's configuration does not name, was named by a later one.
    pub fn knows_no_home_instead_of(&self, key: &Key, home: NodeId) -> bool {
        let others = self.homes_of(key).without(self.me.node);
        let is_named = |configuration: &Configuration| configuration.homes.iter().any(|named| named.node == home);
        let is_founding = |seat: &&Arc<Seat>| seat.phase.step() == Step::default();
        let founding = self.seat(self.partition_of(key)).filter(is_founding);
        let has_forgotten = founding.is_some_and(|seat| !seat.phase.both().any(is_named));
        has_forgotten || others.all().is_empty() && !self.is_home(key)
    }

    /// Whether this node is to be a home of the keys of a group.
    pub fn is_wished(&self, partition: PartitionId, group: Group) -> bool {
        let n = self.view.wished_counts().n_of(group);
        self.view.wished(partition).iter().take(n.into()).any(|&home| home == self.me)
    }

    /// Whether this node holds what it has of a group's keys for more than to hand it over: it is a home, is to be one, or was one and
    /// has not been relieved.
    pub fn keeps(&self, partition: PartitionId, group: Group) -> bool {
        self.seat(partition).is_some_and(|seat| {
            let is_to_come = || seat.is_candidate && self.is_wished(partition, group);
            seat.phase.counts().has(group) && (seat.shares(self.me, group) || is_to_come())
        })
    }

    /// Whether this node is a home of a partition now and is none once the successor that was chosen stands alone.
    pub fn goes(&self, partition: PartitionId) -> bool {
        let next = self.phase(partition).and_then(Phase::next);
        next.is_some_and(|next| !next.has(self.me))
    }

    /// How far a partition's chain has come.
    pub fn step(&self, partition: PartitionId) -> Step {
        self.seat(partition).map(|seat| seat.phase.step()).unwrap_or_default()
    }

    /// On what this node stands when it says something about a partition.
    pub fn footing(&self, partition: PartitionId) -> Footing {
        let Some(seat) = self.seat(partition) else { return Footing::default() };
        Footing { step: seat.phase.step(), is_filling: !seat.is_whole(), ..Footing::default() }
    }

    /// The same about the keys of one group.
    pub fn footing_of(&self, TreeId { partition, group }: TreeId) -> Footing {
        let holds_all = self.seat(partition).is_some_and(|seat| seat.holds_all(self.me, group));
        Footing { is_filling: !holds_all, ..self.footing(partition) }
    }

    /// What holds in a partition.
    pub fn phase(&self, partition: PartitionId) -> Option<&Phase> {
        self.seat(partition).map(|seat| &seat.phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::configuration::Configuration;
    use crate::value::dot::Life;

    #[test]
    fn a_seat_that_changes_copies_its_chunk_alone() {
        let me = Home { node: NodeId::new(1), life: Life(1) };
        let seat = || {
            Seat::founding(
                Configuration { number: 0, homes: vec![me], choosers: 3, counts: ReplicaCounts::default() },
                me,
            )
        };
        let mut before =
            Seats::new((0..16_384).map(|partition| (partition % 2 == 0).then(|| Arc::new(seat()))).collect());
        before.set(PartitionId(4), Seat { is_candidate: true, ..seat() });
        assert_eq!((before.candidates, before.leftovers, before.iter().count()), (1, 0, 8_192));
        let mut after = before.clone();
        after.set(PartitionId(4), Seat { has_leftovers: true, ..seat() });
        after.set(PartitionId(5), Seat { has_leftovers: true, ..seat() });
        assert_eq!((after.candidates, after.leftovers), (0, 1), "partition 5 belongs to another shard");
        assert!(
            after.get(PartitionId(5)).is_none() && after.get(PartitionId(4)).is_some_and(|seat| seat.has_leftovers)
        );
        assert!(before.get(PartitionId(4)).is_some_and(|seat| seat.is_candidate), "what others hold stays as it is");
        let copied = before.chunks.iter().zip(&after.chunks).filter(|(before, after)| !Arc::ptr_eq(before, after));
        assert_eq!(copied.count(), 1);
    }
}
