//! A machine: a node's state machine, its disk and its clocks.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use cartwheel_core::message::client::ClientId;
use cartwheel_core::node::{Input, Node};
use cartwheel_core::store::image::Image;
use cartwheel_core::store::record::ActorsSince;
use cartwheel_core::value::dot::{Incarnation, Since};
use cartwheel_core::value::epoch::Epoch;

use crate::clock::Clock;
use crate::cluster::Start;
use crate::disk::{Disk, Medium};
use crate::rng::Rng;

/// The prefix of the names under which a node stores its partition states.
const PARTITION_STATE_PREFIX: &str = "seat";

/// A machine's relation to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineStatus {
    /// It may become a member.
    Spare,
    /// It is a member.
    Member,
    /// It was a member.
    Gone,
}

/// A copy of a data directory, without its membership history.
#[derive(Clone, Debug)]
pub(crate) struct DirCopy {
    /// The incarnation of the directory.
    pub(crate) incarnation: Incarnation,
    /// The incarnation's boot from which it was copied.
    pub(crate) boot: u32,
    medium: Medium,
    pub(crate) epoch: Epoch,
    loss_floor: Since,
}

/// One machine of the cluster.
#[derive(Debug)]
pub struct Machine {
    /// The running node; `None` while it is down.
    pub(crate) node: Option<Node>,
    pub(crate) status: MachineStatus,
    /// The number of starts.
    pub(crate) boot: u32,
    /// The incarnation of its disk.
    pub(crate) incarnation: Incarnation,
    /// The value of `boot` when that incarnation began.
    pub(crate) boots_before: u32,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// Whether it is paused: then its inputs wait in `backlog`.
    pub(crate) paused: bool,
    pub(crate) backlog: VecDeque<Input>,
    /// Whether a turn is due in which it takes its inputs.
    pub(crate) has_turn: bool,
    /// When it last crashed, in microseconds of simulated time.
    pub(crate) down_since_us: u64,
    /// When it last started or resumed.
    pub(crate) running_since_us: u64,
    /// The tick that it waits for.
    pub(crate) wake_at_us: Option<u64>,
    /// The epoch on its disk.
    pub(crate) epoch: Epoch,
    /// The latest epoch on another node's disk when its own disk was made.
    pub(crate) epoch_floor: Epoch,
    /// The boot of its incarnation since which it continues its actors.
    pub(crate) actors: ActorsSince,
    /// Its store may lack records from before this; its next boot starts with this loss floor.
    pub(crate) loss_floor: Since,
    /// Whether its disk is a restored copy, which the node does not know.
    pub(crate) was_restored: bool,
    /// The number of boots by which a restored copy has set its disk back in this incarnation. The control does not go back: peers that had met the
    /// later boot would notice.
    pub(crate) boots_undone: u32,
    /// Messages with lower numbers, to it or from it, are lost with their connections.
    pub(crate) connected_from: u64,
    /// Whether its last stop was orderly: then nothing was lost.
    pub(crate) was_stopped: bool,
    /// The requests that it has not answered.
    pub(crate) unanswered: BTreeSet<ClientId>,
}

impl Machine {
    pub(crate) fn new(incarnation: Incarnation, disk: Disk, clock: Clock) -> Self {
        Self {
            node: None,
            status: MachineStatus::Member,
            boot: 0,
            incarnation,
            boots_before: 0,
            disk,
            clock,
            paused: false,
            backlog: VecDeque::new(),
            has_turn: false,
            down_since_us: 0,
            running_since_us: 0,
            wake_at_us: None,
            epoch: Epoch::FIRST,
            epoch_floor: Epoch::UNKNOWN,
            actors: ActorsSince { boot: 0, drawn: 0 },
            loss_floor: Since(0),
            was_restored: false,
            boots_undone: 0,
            connected_from: 0,
            was_stopped: false,
            unanswered: BTreeSet::new(),
        }
    }

    /// Crashes the machine. All state outside the disk is lost; of the unsynced changes, at least the first `least` survive. Returns the
    /// requests that will not be answered, and the records that lost changes.
    pub(crate) fn crash(&mut self, least: usize) -> (BTreeSet<ClientId>, Vec<Bytes>) {
        self.node = None;
        self.paused = false;
        self.backlog.clear();
        self.has_turn = false;
        self.wake_at_us = None;
        let lost = self.disk.crash(least);
        (std::mem::take(&mut self.unanswered), lost)
    }

    /// Replaces the disk with an empty one. The machine must be down.
    pub(crate) fn wipe(&mut self, incarnation: Incarnation, epoch_floor: Epoch, rng: Rng) {
        self.disk = self.disk.replaced(rng);
        (self.incarnation, self.boots_before, self.boots_undone) = (incarnation, self.boot, 0);
        (self.epoch, self.epoch_floor, self.was_stopped) = (Epoch::UNKNOWN, epoch_floor, false);
    }

    /// Copies its data directory while it runs.
    pub(crate) fn copy(&self) -> DirCopy {
        let Start { incarnation, boot, epoch, .. } = self.start();
        DirCopy { incarnation, boot, medium: self.disk.copy(), epoch, loss_floor: self.loss_floor }
    }

    /// Replaces the data directory with an older copy. The machine must be down.
    pub(crate) fn restore_copy(&mut self, copy: DirCopy) {
        self.was_stopped = false;
        self.disk.restore_copy(copy.medium);
        // The copy may be of a later boot than the last: that of an older copy.
        self.boots_undone = self.boots_undone + self.start().boot - copy.boot;
        self.boots_before = self.boot - copy.boot;
        (self.incarnation, self.epoch, self.loss_floor, self.was_restored) =
            (copy.incarnation, copy.epoch, copy.loss_floor, true);
    }

    /// Whether its partition states equal those of a copy. Promises that were made since then cannot be taken back.
    pub(crate) fn has_partition_states_of(&self, copy: &DirCopy) -> bool {
        let partition_states = |image: &Image| -> Vec<(Bytes, Bytes)> {
            let named = image.named.iter().filter(|(name, _)| name.starts_with(PARTITION_STATE_PREFIX.as_bytes()));
            named.map(|(name, partition_state)| (name.clone(), partition_state.clone())).collect()
        };
        partition_states(self.disk.current()) == partition_states(copy.medium.image())
    }

    /// The last start, in its incarnation.
    pub(crate) const fn start(&self) -> Start {
        let Self { incarnation, epoch, epoch_floor, actors, .. } = *self;
        Start { incarnation, boot: self.boot - self.boots_before, actors, epoch, epoch_floor }
    }

    /// Its state machine; `None` while it is down.
    pub const fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Its store may lack records from before this.
    pub const fn loss_floor(&self) -> Since {
        self.loss_floor
    }

    /// Whether it takes requests.
    pub const fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it is paused.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// When it last started or resumed, in microseconds of simulated time.
    pub const fn running_since_us(&self) -> u64 {
        self.running_since_us
    }

    /// Its store.
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }
}
