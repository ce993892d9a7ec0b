//! A machine: a node's state machine with its disk and clocks, and what happened to it.

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

/// How the names begin under which a node remembers its partition states.
const SEAT: &str = "seat";

/// What a machine is to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineStatus {
    /// It may become a member.
    Spare,
    /// It is one.
    Member,
    /// It was one.
    Gone,
}

/// All that a data directory held once, but for the history of changes.
#[derive(Clone, Debug)]
pub(crate) struct DirCopy {
    /// Whose it is.
    pub(crate) incarnation: Incarnation,
    /// Which of the incarnation's boots it was copied from.
    pub(crate) boot: u32,
    medium: Medium,
    pub(crate) epoch: Epoch,
    loss_floor: Since,
}

/// One machine of the cluster.
#[derive(Debug)]
pub struct Machine {
    /// The running node; none while it is down.
    pub(crate) node: Option<Node>,
    /// What it is to the cluster.
    pub(crate) status: MachineStatus,
    /// How often it has started.
    pub(crate) boot: u32,
    /// The incarnation of its disk.
    pub(crate) incarnation: Incarnation,
    /// How often it had started when that began.
    pub(crate) boots_before: u32,
    /// What survives a crash.
    pub(crate) disk: Disk,
    /// What time it is there.
    pub(crate) clock: Clock,
    /// It stands still: its inputs wait.
    pub(crate) paused: bool,
    /// The inputs that wait.
    pub(crate) backlog: VecDeque<Input>,
    /// When it last crashed, in microseconds of simulated time.
    pub(crate) down_since_us: u64,
    /// When it last started or went on after a pause.
    pub(crate) running_since_us: u64,
    /// The tick it waits for.
    pub(crate) wake_at_us: Option<u64>,
    /// The epoch that is on its disk.
    pub(crate) epoch: Epoch,
    /// The epoch that was on another's when its own was made.
    pub(crate) epoch_floor: Epoch,
    /// Since which boot of its incarnation it goes on with its actors.
    pub(crate) actors: ActorsSince,
    /// What its store holds before this may have holes, as its next boot is told.
    pub(crate) loss_floor: Since,
    /// Its disk is a copy that was put back, and nobody noticed.
    pub(crate) went_back: bool,
    /// By how many boots its disk has gone back in its incarnation. Its control does not: peers that had met the later boot would notice.
    pub(crate) back_by: u32,
    /// Messages of lower numbers, to it or from it, ended with the connections that they were on.
    pub(crate) connected_from: u64,
    /// Its last stop was orderly: nothing was lost.
    pub(crate) was_stopped: bool,
    /// The requests that it has not answered.
    pub(crate) unanswered: BTreeSet<ClientId>,
}

impl Machine {
    /// A machine that has not started.
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
            down_since_us: 0,
            running_since_us: 0,
            wake_at_us: None,
            epoch: Epoch::FIRST,
            epoch_floor: Epoch::UNKNOWN,
            actors: ActorsSince { boot: 0, drawn: 0 },
            loss_floor: Since(0),
            went_back: false,
            back_by: 0,
            connected_from: 0,
            was_stopped: false,
            unanswered: BTreeSet::new(),
        }
    }

    /// Everything that is not on the disk is gone; of what is not synced, at least the first `least` changes survive. Returns the
    /// requests that will not be answered, and the records that have lost changes.
    pub(crate) fn crash(&mut self, least: usize) -> (BTreeSet<ClientId>, Vec<Bytes>) {
        self.node = None;
        self.paused = false;
        self.backlog.clear();
        self.wake_at_us = None;
        let lost = self.disk.crash(least);
        (std::mem::take(&mut self.unanswered), lost)
    }

    /// The disk is another one, which is empty. The machine must be down.
    pub(crate) fn wipe(&mut self, incarnation: Incarnation, epoch_floor: Epoch, rng: Rng) {
        self.disk = self.disk.replaced(rng);
        (self.incarnation, self.boots_before, self.back_by) = (incarnation, self.boot, 0);
        (self.epoch, self.epoch_floor, self.was_stopped) = (Epoch::UNKNOWN, epoch_floor, false);
    }

    /// A copy of its data directory, made while it runs.
    pub(crate) fn copy(&self) -> DirCopy {
        let Start { incarnation, boot, epoch, .. } = self.start();
        DirCopy { incarnation, boot, medium: self.disk.copy(), epoch, loss_floor: self.loss_floor }
    }

    /// A copy of an earlier time is in the place of the data directory. The machine must be down.
    pub(crate) fn put_back(&mut self, copy: DirCopy) {
        self.was_stopped = false;
        self.disk.put_back(copy.medium);
        self.back_by += self.start().boot - copy.boot;
        self.boots_before = self.boot - copy.boot;
        (self.incarnation, self.epoch, self.loss_floor, self.went_back) =
            (copy.incarnation, copy.epoch, copy.loss_floor, true);
    }

    /// Whether its partition states are what they were in a copy: what it has promised since cannot be taken back.
    pub(crate) fn has_partition_states_of(&self, copy: &DirCopy) -> bool {
        let partition_states = |image: &Image| -> Vec<(Bytes, Bytes)> {
            let named = image.named.iter().filter(|(name, _)| name.starts_with(SEAT.as_bytes()));
            named.map(|(name, partition_state)| (name.clone(), partition_state.clone())).collect()
        };
        partition_states(self.disk.current()) == partition_states(copy.medium.image())
    }

    /// Which start of its incarnation the last one was.
    pub(crate) const fn start(&self) -> Start {
        let Self { incarnation, epoch, epoch_floor, actors, .. } = *self;
        Start { incarnation, boot: self.boot - self.boots_before, actors, epoch, epoch_floor }
    }

    /// Its state machine; none while it is down.
    pub const fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// What its store held before this may have holes.
    pub const fn loss_floor(&self) -> Since {
        self.loss_floor
    }

    /// Whether it takes requests.
    pub const fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it stands still.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// When it last started or went on after a pause, in microseconds of simulated time.
    pub const fn running_since_us(&self) -> u64 {
        self.running_since_us
    }

    /// Its store.
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }
}
