//! What holds in the partitions of a shard, and what this node is in each. Immutable, like the view that it goes with, and cheap to share.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::configuration::{Configuration, Footing, Home, Homes, Phase, Step};
use crate::dot::NodeId;
use crate::key::Key;
use crate::membership::View;
use crate::message::Lane;
use crate::ring::PartitionId;
use crate::succession::Seat;

/// What holds, as this node has it durably or has heard of it.
#[derive(Clone, Debug)]
pub struct Holdings {
    me: Home,
    view: Arc<View>,
    /// By partition; none where the partition belongs to another shard.
    seats: Vec<Option<Arc<Seat>>>,
}

impl Holdings {
    /// What holds when a shard starts: what it has saved, and the founding's configurations elsewhere.
    pub fn new(me: Home, view: Arc<View>, lane: Lane, saved: impl IntoIterator<Item = (PartitionId, Seat)>) -> Self {
        let seat = |partition: PartitionId| {
            let is_here = Lane::of_partition(partition, lane.count) == lane.index;
            is_here.then(|| Arc::new(Seat::founding(view.first_configuration(partition), me)))
        };
        let mut seats: Vec<Option<Arc<Seat>>> = view.ring.partitions().iter().map(seat).collect();
        for (partition, seat) in saved {
            if let Some(place) = seats.get_mut(partition.index()).filter(|place| place.is_some()) {
                *place = Some(Arc::new(seat));
            }
        }
        Self { me, view, seats }
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

    /// From now on this node has this seat.
    pub fn take(&mut self, partition: PartitionId, seat: Seat) {
        if let Some(Some(place)) = self.seats.get_mut(partition.index()) {
            *place = Arc::new(seat);
        }
    }

    /// This node's seat; none if the partition belongs to another shard.
    pub fn seat(&self, partition: PartitionId) -> Option<&Arc<Seat>> {
        self.seats.get(partition.index())?.as_ref()
    }

    /// The seats of the shard.
    pub fn seats(&self) -> impl Iterator<Item = (PartitionId, &Arc<Seat>)> {
        (0..).map(PartitionId).zip(&self.seats).filter_map(|(partition, seat)| Some((partition, seat.as_ref()?)))
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> PartitionId {
        self.view.ring.partition_of(key.token())
    }

    /// How many homes a key of `bucket` has.
    pub fn n(&self, bucket: &[u8]) -> u8 {
        self.view.settings(bucket).n
    }

    /// Each n that any bucket has.
    pub fn ns(&self) -> BTreeSet<u8> {
        self.view.ns()
    }

    /// The largest n of any bucket.
    pub fn n_max(&self) -> u8 {
        self.view.n_max()
    }

    /// The homes of keys in buckets of `n` replicas.
    pub fn homes(&self, partition: PartitionId, n: u8) -> Homes {
        let Some(seat) = self.seat(partition) else { return Homes::default() };
        let is_past = |home: &Home| match home.node == self.me.node {
            true => *home != self.me,
            false => self.view.is_gone(home.node, home.life),
        };
        seat.phase.homes(n, is_past)
    }

    /// The homes of `key`.
    pub fn homes_of(&self, key: &Key) -> Homes {
        self.homes(self.partition_of(key), self.n(key.bucket()))
    }

    /// Whether this node is a home of `key`.
    pub fn is_home(&self, key: &Key) -> bool {
        let n = self.n(key.bucket());
        self.seat(self.partition_of(key)).is_some_and(|seat| seat.phase.is_home(self.me, n))
    }

    /// Whether a node is a home of `key`, in whatever life.
    pub fn has_home(&self, key: &Key, node: NodeId) -> bool {
        let n = self.n(key.bucket());
        let is_home = |configuration: &Configuration| configuration.of(n).iter().any(|home| home.node == node);
        self.seat(self.partition_of(key)).is_some_and(|seat| seat.phase.both().any(is_home))
    }

    /// Whether this node holds what it has of a partition's keys in buckets of `n` replicas for more than to hand it over: it is a home,
    /// is to be one, or was one and has not been relieved.
    pub fn keeps(&self, partition: PartitionId, n: u8) -> bool {
        let is_wished = || self.view.wished(partition).iter().take(n.into()).any(|&home| home == self.me);
        self.seat(partition).is_some_and(|seat| {
            seat.phase.is_home(self.me, n) || seat.leaves(self.me, n) || seat.is_candidate && is_wished()
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
        Footing { step: seat.phase.step(), is_filling: !seat.is_whole() }
    }

    /// What holds in a partition.
    pub fn phase(&self, partition: PartitionId) -> Option<&Phase> {
        self.seat(partition).map(|seat| &seat.phase)
    }
}
