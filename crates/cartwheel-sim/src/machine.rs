//! A machine: a node's state machine with its disk and clocks, and what happened to it.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use cartwheel_core::dot::{Life, Since};
use cartwheel_core::epoch::Epoch;
use cartwheel_core::node::{ClientId, Input, Node};

use crate::clock::Clock;
use crate::cluster::Start;
use crate::disk::Disk;
use crate::rng::Rng;

/// What a machine is to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may become a member.
    Spare,
    /// It is one.
    Member,
    /// It was one.
    Gone,
}

/// One machine of the cluster.
#[derive(Debug)]
pub struct Machine {
    /// The running node; none while it is down.
    pub(crate) node: Option<Node>,
    /// What it is to the cluster.
    pub(crate) standing: Standing,
    /// How often it has started.
    pub(crate) boot: u32,
    /// The life of its disk.
    pub(crate) life: Life,
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
    /// What its store holds before this may have holes, as its next boot is told.
    pub(crate) loss_floor: Since,
    /// Its last stop was orderly: nothing was lost.
    pub(crate) was_stopped: bool,
    /// The requests that it has not answered.
    pub(crate) unanswered: BTreeSet<ClientId>,
}

impl Machine {
    /// A machine that has not started.
    pub(crate) fn new(life: Life, disk: Disk, clock: Clock) -> Self {
        Self {
            node: None,
            standing: Standing::Member,
            boot: 0,
            life,
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
            loss_floor: Since(0),
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
    pub(crate) fn wipe(&mut self, life: Life, epoch_floor: Epoch, rng: Rng) {
        self.disk = self.disk.replaced(rng);
        (self.life, self.boots_before) = (life, self.boot);
        (self.epoch, self.epoch_floor) = (Epoch::UNKNOWN, epoch_floor);
    }

    /// Which start of its life the last one was.
    pub(crate) const fn start(&self) -> Start {
        Start { life: self.life, boot: self.boot - self.boots_before, epoch: self.epoch, epoch_floor: self.epoch_floor }
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
