//! Proofs: which trees were compared with which peers and when, when the next exchange is due, and which trees have
//! recovered.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::anti_entropy::merkle::Trees;
use crate::cluster::configuration::ConfigStamp;
use crate::cluster::counts::Group;
use crate::cluster::holdings::Holdings;
use crate::cluster::sizes::TreeId;
use crate::ring::PartitionId;
use crate::value::dot::{NodeId, Since};
use crate::value::hlc::WallMs;
use crate::value::time::{Instant, Now};

/// A tree, and a peer that is a home of it too.
pub type Pair = (TreeId, NodeId);

/// The exchanges of one pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairState {
    due: Instant,
    /// When the pair's regular turn comes. Turns are spread evenly, whatever other exchanges take place.
    turn: Instant,
    /// When the last successful exchange began, by this node's wall clock.
    proven: Option<WallMs>,
    /// The same for exchanges of this boot, by the monotonic clock.
    begun: Option<Instant>,
    /// Set once an exchange has succeeded in this boot: whether it was with a replica all of whose records count.
    compared: Option<bool>,
    /// The result of the last successful exchange of this boot.
    last: Option<Compared>,
}

/// The result of a successful exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compared {
    /// When it began. This node holds all that the peer held then.
    pub begun: Instant,
    /// Whether every record of the peer's counts, absent ones included.
    pub is_recovered: bool,
    /// The configuration stamp of the peer's first response. Later responses carried no earlier one.
    pub config_stamp: ConfigStamp,
}

/// All pairs of one shard.
#[derive(Debug, Default)]
pub struct Proofs {
    pairs: BTreeMap<Pair, PairState>,
    due: BTreeSet<(Instant, TreeId, NodeId)>,
    /// The pairs by when their last successful exchange of this boot began. Pairs without one come first.
    begun: BTreeSet<(Option<Instant>, TreeId, NodeId)>,
}

impl Proofs {
    /// Adopts new homes. Regular turns are spread evenly over `every`, and the first exchanges of new pairs over
    /// `within`, a shorter time.
    pub fn set_homes(&mut self, held: &Holdings, trees: &Trees, now: Instant, every: Duration, within: Duration) {
        let others = |id: TreeId| held.homes(id.partition, id.group).without(held.me().node).all();
        let wanted: Vec<Pair> = trees.ids().flat_map(|id| others(id).into_iter().map(move |peer| (id, peer))).collect();
        let mut before = std::mem::take(&mut self.pairs);
        let count = wanted.len().max(1) as u32;
        for (index, pair) in wanted.into_iter().enumerate() {
            let at_turn = |time: Duration| now + time / count * index as u32;
            let (due, turn) = (at_turn(within), at_turn(every));
            let new = PairState { due, turn, proven: None, begun: None, compared: None, last: None };
            self.pairs.insert(pair, before.remove(&pair).unwrap_or(new));
        }
        self.due = self.pairs.iter().map(|(&(tree, peer), pair_state)| (pair_state.due, tree, peer)).collect();
        self.begun = self.pairs.iter().map(|(&(tree, peer), pair_state)| (pair_state.begun, tree, peer)).collect();
    }

    /// The same for one partition. Pairs that stay keep their turns; a hash decides the turn of a new one.
    pub fn set_homes_of(
        &mut self,
        held: &Holdings,
        trees: &Trees,
        partition: PartitionId,
        now: Instant,
        (every, within): (Duration, Duration),
    ) {
        let others = |id: TreeId| held.homes(id.partition, id.group).without(held.me().node).all();
        let ids = trees.ids_of(partition);
        let wanted: BTreeSet<Pair> = ids.flat_map(|id| others(id).into_iter().map(move |peer| (id, peer))).collect();
        for pair in self.of_partition(partition) {
            if !wanted.contains(&pair)
                && let Some(gone) = self.pairs.remove(&pair)
            {
                self.due.remove(&(gone.due, pair.0, pair.1));
                self.begun.remove(&(gone.begun, pair.0, pair.1));
            }
        }
        for pair in wanted {
            if self.pairs.contains_key(&pair) {
                continue;
            }
            let share = f64::from(spread(pair)) / f64::from(u32::MAX);
            let (due, turn) = (now + within.mul_f64(share), now + every.mul_f64(share));
            let new = PairState { due, turn, proven: None, begun: None, compared: None, last: None };
            self.pairs.insert(pair, new);
            self.due.insert((due, pair.0, pair.1));
            self.begun.insert((None, pair.0, pair.1));
        }
    }

    fn of_partition(&self, partition: PartitionId) -> Vec<Pair> {
        let first = (TreeId { partition, group: Group(0) }, NodeId::new(0));
        let last = (TreeId { partition, group: Group(u64::MAX) }, NodeId::new(u64::MAX));
        self.pairs.range(first..=last).map(|(&pair, _)| pair).collect()
    }

    /// Whether both are homes of the tree.
    pub fn knows(&self, pair: Pair) -> bool {
        self.pairs.contains_key(&pair)
    }

    /// The exchanges that are due, the longest due first.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = Pair> + '_ {
        self.due.iter().take_while(move |(at, ..)| *at <= now).map(|&(_, tree, peer)| (tree, peer))
    }

    /// When the next exchange that is not due yet becomes due.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let last = (now, TreeId { partition: PartitionId(u32::MAX), group: Group(u64::MAX) }, NodeId::new(u64::MAX));
        let mut next = self.due.range((Bound::Excluded(last), Bound::Unbounded));
        next.next().map(|&(at, ..)| at)
    }

    /// An exchange of a pair begins; the next is due at the pair's regular turn.
    pub fn begins(&mut self, pair: Pair, now: Instant, every: Duration) {
        if let Some(pair_state) = self.pairs.get_mut(&pair) {
            if pair_state.turn <= now {
                pair_state.turn = now + every;
            }
            let turn = pair_state.turn;
            self.put_off(pair, turn);
        }
    }

    /// A peer was away. All its pairs become due `within` this time, not only at their turns: no node may have a hint
    /// of what was written meanwhile.
    pub fn hasten(&mut self, peer: NodeId, now: Instant, within: Duration) {
        let pairs: Vec<Pair> = self.pairs.keys().copied().filter(|&(_, other)| other == peer).collect();
        let count = pairs.len().max(1) as u32;
        for (index, pair) in (0..).zip(pairs) {
            let soon = now + within / count * index;
            if self.pairs.get(&pair).is_some_and(|pair_state| pair_state.due > soon) {
                self.put_off(pair, soon);
            }
        }
    }

    /// Sets when the next exchange of a pair is due.
    pub fn put_off(&mut self, pair: Pair, until: Instant) {
        if let Some(pair_state) = self.pairs.get_mut(&pair) {
            self.due.remove(&(pair_state.due, pair.0, pair.1));
            pair_state.due = until;
            self.due.insert((until, pair.0, pair.1));
        }
    }

    /// Records a successful exchange that began at `begun`. `is_recovered`: all records of the peer's replica counted.
    pub fn prove(&mut self, pair: Pair, begun: Now, is_recovered: bool, config_stamp: Option<ConfigStamp>) {
        if let Some(pair_state) = self.pairs.get_mut(&pair) {
            pair_state.proven = Some(begun.wall);
            self.begun.remove(&(pair_state.begun, pair.0, pair.1));
            pair_state.begun = Some(begun.instant);
            self.begun.insert((pair_state.begun, pair.0, pair.1));
            pair_state.compared = Some(is_recovered || pair_state.compared == Some(true));
            pair_state.last =
                config_stamp.map(|config_stamp| Compared { begun: begun.instant, is_recovered, config_stamp });
        }
    }

    /// Drops the proof of a pair: one of its replicas has lost something.
    pub fn disprove(&mut self, pair: Pair) {
        if let Some(pair_state) = self.pairs.get_mut(&pair) {
            self.begun.remove(&(pair_state.begun, pair.0, pair.1));
            (pair_state.proven, pair_state.begun, pair_state.last) = (None, None, None);
            self.begun.insert((None, pair.0, pair.1));
        }
    }

    /// Drops the proofs of a partition: this node's replica has lost something.
    pub fn disprove_partition(&mut self, partition: PartitionId) {
        self.of_partition(partition).into_iter().for_each(|pair| self.disprove(pair));
    }

    /// The result of the last successful exchange of a pair in this boot.
    pub fn compared(&self, pair: Pair) -> Option<Compared> {
        self.pairs.get(&pair)?.last
    }

    /// Makes all exchanges of a partition due at once: its homes have changed.
    pub fn hasten_partition(&mut self, partition: PartitionId, now: Instant) {
        self.of_partition(partition).into_iter().for_each(|pair| self.hasten_pair(pair, now));
    }

    /// Makes an exchange of a pair due at once.
    pub fn hasten_pair(&mut self, pair: Pair, now: Instant) {
        if self.pairs.get(&pair).is_some_and(|pair_state| pair_state.due > now) {
            self.put_off(pair, now);
        }
    }

    /// Since when each pair is proven equal.
    pub fn iter(&self) -> impl Iterator<Item = (Pair, Option<WallMs>)> + '_ {
        self.pairs.iter().map(|(&pair, pair_state)| (pair, pair_state.proven))
    }

    /// Whether every pair has ended an exchange that began at `instant` or later, in this boot.
    pub fn all_begun_since(&self, instant: Instant) -> bool {
        self.begun.first().is_none_or(|&(begun, ..)| begun.is_some_and(|begun| begun >= instant))
    }

    /// Whether a tree was compared in this boot with `needed` homes whose records count, or with all homes that there
    /// are.
    pub fn is_recovered(&self, tree: TreeId, needed: impl Fn(usize) -> usize) -> bool {
        let compared = || self.of_tree(tree).filter_map(|pair_state| pair_state.compared);
        let others = self.of_tree(tree).count();
        compared().count() == others || compared().filter(|&is_recovered| is_recovered).count() >= needed(others)
    }

    /// Whether a tree was compared with any home in this boot.
    pub fn is_compared(&self, tree: TreeId) -> bool {
        self.of_tree(tree).any(|pair_state| pair_state.compared.is_some())
    }

    fn of_tree(&self, tree: TreeId) -> impl Iterator<Item = &PairState> {
        self.pairs.range((tree, NodeId::new(0))..=(tree, NodeId::new(u64::MAX))).map(|(_, pair_state)| pair_state)
    }

    /// The stored form of the proofs, with the loss floor they hold for.
    pub fn encode(&self, floor: Since) -> Bytes {
        let mut bytes = floor.0.to_le_bytes().to_vec();
        for ((tree, peer), proven) in self.iter() {
            if let Some(wall) = proven {
                bytes.extend(encode_tree(tree));
                bytes.extend(peer.get().to_le_bytes());
                bytes.extend(wall.0.to_le_bytes());
            }
        }
        bytes.into()
    }

    /// Takes in the proofs of an earlier boot, unless the store has lost writes since.
    pub fn remember(&mut self, bytes: &[u8], floor: Since) {
        let Some((saved, entries)) = bytes.split_first_chunk::<8>() else { return };
        if u64::from_le_bytes(*saved) != floor.0 {
            return;
        }
        for entry in entries.as_chunks::<28>().0 {
            let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
            let pair = (decode_tree(entry[..12].try_into().expect("twelve bytes")), NodeId::new(number(12)));
            if let Some(pair_state) = self.pairs.get_mut(&pair).filter(|pair_state| pair_state.proven.is_none()) {
                pair_state.proven = Some(WallMs(number(20)));
            }
        }
    }
}

/// The stored form of the recovered trees, with the loss floor they hold for.
pub fn encode_recovered(trees: &BTreeSet<TreeId>, floor: Since) -> Bytes {
    let mut bytes = floor.0.to_le_bytes().to_vec();
    trees.iter().for_each(|&tree| bytes.extend(encode_tree(tree)));
    bytes.into()
}

/// The recovered trees, unless the store has lost writes since they were saved.
pub fn decode_recovered(bytes: &[u8], floor: Since) -> Vec<TreeId> {
    match bytes.split_first_chunk::<8>() {
        Some((saved, trees)) if u64::from_le_bytes(*saved) == floor.0 => {
            trees.as_chunks::<12>().0.iter().map(|&tree| decode_tree(tree)).collect()
        }
        _ => Vec::new(),
    }
}

/// A pseudo-random number that depends on the pair alone.
fn spread((tree, peer): Pair) -> u32 {
    let bytes = [&encode_tree(tree)[..], &peer.get().to_le_bytes()].concat();
    xxhash_rust::xxh3::xxh3_64(&bytes) as u32
}

fn encode_tree(tree: TreeId) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&tree.partition.0.to_le_bytes());
    bytes[4..].copy_from_slice(&tree.group.0.to_le_bytes());
    bytes
}

fn decode_tree(bytes: [u8; 12]) -> TreeId {
    let (partition, group) = bytes.split_at(4);
    let partition = PartitionId(u32::from_le_bytes(partition.try_into().expect("four bytes")));
    TreeId { partition, group: Group(u64::from_le_bytes(group.try_into().expect("eight bytes"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::hlc::WallMs;

    fn pair(partition: u32, peer: u64) -> Pair {
        (TreeId { partition: PartitionId(partition), group: Group(3) }, NodeId::new(peer))
    }

    fn at(time: u64) -> Now {
        Now { instant: Instant(time), wall: WallMs(time) }
    }

    /// Pairs that are due at these times.
    fn proofs(due: &[(Pair, u64)]) -> Proofs {
        let mut proofs = Proofs::default();
        for &(pair, time) in due {
            let (due, turn) = (Instant(time), Instant(time));
            proofs.pairs.insert(pair, PairState { due, turn, proven: None, begun: None, compared: None, last: None });
            proofs.due.insert((due, pair.0, pair.1));
            proofs.begun.insert((None, pair.0, pair.1));
        }
        proofs
    }

    #[test]
    fn next_due_skips_the_exchanges_that_are_due_already() {
        let proofs = proofs(&[(pair(1, 2), 10), (pair(1, 3), 20), (pair(2, 2), 20), (pair(2, 3), 30)]);
        assert_eq!(proofs.due(Instant(20)).count(), 3);
        assert_eq!(proofs.next_due(Instant(20)), Some(Instant(30)));
        assert_eq!((proofs.next_due(Instant(9)), proofs.next_due(Instant(30))), (Some(Instant(10)), None));
    }

    #[test]
    fn all_are_compared_once_the_last_pair_is_and_a_loss_undoes_it() {
        let mut proofs = proofs(&[(pair(1, 2), 10), (pair(2, 2), 10)]);
        assert!(!proofs.all_begun_since(Instant(0)));
        proofs.prove(pair(1, 2), at(15), true, None);
        proofs.prove(pair(2, 2), at(12), true, None);
        assert!(proofs.all_begun_since(Instant(12)) && !proofs.all_begun_since(Instant(13)));
        proofs.prove(pair(2, 2), at(20), true, None);
        assert!(proofs.all_begun_since(Instant(15)) && !proofs.all_begun_since(Instant(16)));
        proofs.disprove_partition(PartitionId(1));
        assert!(!proofs.all_begun_since(Instant(0)));
        proofs.prove(pair(1, 2), at(30), false, None);
        assert!(proofs.all_begun_since(Instant(20)) && Proofs::default().all_begun_since(Instant(99)));
    }
}
