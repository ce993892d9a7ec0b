//! Faults: each kind strikes a random victim at its own rate, and ends after a while.

use std::collections::BTreeMap;

use bytes::Bytes;
use cartwheel_core::value::dot::Incarnation;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::State;

use crate::machine::DirCopy;
use crate::options::{ClockOptions, FaultOptions, Rate};
use crate::rng::{Rng, Stream};
use crate::run::Alarm;
use crate::world::World;

/// The most copies of one node's disk that are kept.
const COPIES_MAX: usize = 3;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// One direction between two nodes is cut.
    Cut,
    /// The nodes are split into two groups.
    Partition,
    /// A node crashes.
    Crash,
    /// A node is paused.
    Pause,
    /// A clock jumps.
    ClockJump,
    /// A record is damaged.
    Damage,
    /// A disk is full; sometimes all disks are.
    FullDisk,
    /// A node loses its disk and comes back as a new incarnation.
    Wipe,
    /// All nodes crash.
    Outage,
    /// A running node's disk is copied, and the copy is restored after a crash, in the same boot or a later one.
    HotCopy,
    /// All homes of a key crash, and their stand-ins restart before the homes do.
    StandIns,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Cut,
        Self::Partition,
        Self::Crash,
        Self::Pause,
        Self::ClockJump,
        Self::Damage,
        Self::FullDisk,
        Self::Wipe,
        Self::Outage,
        Self::HotCopy,
        Self::StandIns,
    ];

    const fn rate(self, options: &FaultOptions) -> Option<Rate> {
        match self {
            Self::Cut => options.cut,
            Self::Partition => options.partition,
            Self::Crash => options.crash,
            Self::Pause => options.pause,
            Self::ClockJump => options.clock_jump,
            Self::Damage => options.damage,
            Self::FullDisk => options.full_disk,
            Self::Wipe => options.wipe,
            Self::Outage => options.outage,
            Self::HotCopy => options.hot_copy,
            Self::StandIns => options.stand_ins,
        }
    }
}

/// How a fault ends.
#[derive(Clone, Debug)]
enum Remedy {
    Links(Vec<(usize, usize)>),
    Start(usize),
    /// The first nodes restart, then the others start.
    Restart(Vec<usize>, Vec<usize>),
    Resume(usize),
    Room(Vec<usize>),
    /// A copy of the disk is restored.
    RestoreCopy(usize),
}

/// Begins and ends faults.
#[derive(Debug)]
pub struct Faults {
    options: FaultOptions,
    clocks: ClockOptions,
    rng: Rng,
    /// For full disks only. Each kind that was added later has its own generator, so that runs of earlier seeds stay the same.
    room_rng: Rng,
    /// For lost disks only.
    wipe_rng: Rng,
    /// For orderly stops only.
    stops_rng: Rng,
    /// For crashes of all nodes only.
    outages_rng: Rng,
    /// For copies of disks only.
    copies_rng: Rng,
    /// The latest copies of each node's disk.
    copies: BTreeMap<usize, Vec<DirCopy>>,
    /// For restarts of stand-ins only.
    founders_rng: Rng,
    remedies: Vec<Option<Remedy>>,
    over: bool,
}

impl Faults {
    /// The faults of a run.
    pub fn new(
        options: FaultOptions,
        clocks: ClockOptions,
        rng: Rng,
        room_rng: Rng,
        wipe_rng: Rng,
        stops_rng: Rng,
        (outages_rng, copies_rng, founders_rng): (Rng, Rng, Rng),
    ) -> Self {
        Self {
            options,
            clocks,
            rng,
            room_rng,
            wipe_rng,
            stops_rng,
            outages_rng,
            copies_rng,
            copies: BTreeMap::new(),
            founders_rng,
            remedies: Vec::new(),
            over: false,
        }
    }

    const fn rng(&mut self, fault: Fault) -> &mut Rng {
        match fault {
            Fault::FullDisk => &mut self.room_rng,
            Fault::Wipe => &mut self.wipe_rng,
            Fault::Outage => &mut self.outages_rng,
            Fault::HotCopy => &mut self.copies_rng,
            Fault::StandIns => &mut self.founders_rng,
            _ => &mut self.rng,
        }
    }

    /// Sets the clocks' errors and schedules the first fault of each kind.
    pub fn start(&mut self, world: &mut World) {
        for node in 0..world.cluster().len() {
            let skew_ms = self.offset_ms(self.clocks.skew_max_ms);
            world.set_clock(node, skew_ms);
        }
        for fault in Fault::ALL {
            self.schedule(world, fault);
        }
    }

    /// Stops all faults: none begins any more, and scheduled ends do nothing.
    pub const fn end(&mut self) {
        self.over = true;
    }

    fn schedule(&mut self, world: &mut World, fault: Fault) {
        if let Some(rate) = fault.rate(&self.options) {
            let after = 1 + self.rng(fault).waiting_us(rate.every_us);
            world.alarm(after, Alarm::Fault(fault).number());
        }
    }

    /// Begins a fault. Returns the indexes of the keys that may have lost data: those whose records were damaged or lost, or that lost acknowledged
    /// writes.
    pub fn strike(&mut self, world: &mut World, fault: Fault, keys: &[&Key]) -> Vec<usize> {
        if self.over {
            return Vec::new();
        }
        self.schedule(world, fault);
        let nodes = world.cluster().len();
        let victim = self.rng(fault).index(nodes);
        match fault {
            Fault::Cut => {
                let to = self.rng.index(nodes);
                self.cut(world, fault, vec![(victim, to)]);
            }
            Fault::Partition => {
                let links = self.draw_partition(nodes);
                self.cut(world, fault, links);
            }
            Fault::Crash if world.machine(victim).is_up() => {
                let is_orderly = self.stops_rng.chance(self.options.orderly_per_mille);
                if is_orderly && !world.machine(victim).is_paused() {
                    let lost = world.stop(victim);
                    self.schedule_end(world, fault, Remedy::Start(victim));
                    return indices_of(world, keys, &lost);
                }
                return self.crash(world, fault, victim, keys);
            }
            Fault::Pause if world.machine(victim).is_up() && !world.machine(victim).is_paused() => {
                world.pause(victim);
                self.schedule_end(world, fault, Remedy::Resume(victim));
            }
            Fault::Crash | Fault::Pause => {}
            Fault::ClockJump => {
                let offset_ms = world.clock_offset_ms(victim) + self.offset_ms(self.clocks.jump_max_ms);
                // They jump, but do not drift apart without bound.
                let bound = (self.clocks.jump_max_ms + self.clocks.skew_max_ms) as i64;
                world.set_clock(victim, offset_ms.clamp(-bound, bound));
            }
            Fault::Wipe => return self.wipe(world, victim, keys),
            Fault::Outage => return self.crash_all(world, keys),
            Fault::HotCopy if world.machine(victim).is_up() => {
                let copies = self.copies.entry(victim).or_default();
                copies.push(world.copy_disk(victim));
                copies.drain(..copies.len().saturating_sub(COPIES_MAX));
                self.schedule_end(world, fault, Remedy::RestoreCopy(victim));
            }
            Fault::HotCopy => {}
            Fault::StandIns => return self.crash_homes(world, keys),
            Fault::Damage => return self.damage(world, victim, keys).into_iter().collect(),
            Fault::FullDisk => {
                let victims: Vec<_> = if self.room_rng.chance(200) { (0..nodes).collect() } else { vec![victim] };
                victims.iter().for_each(|&victim| world.set_full(victim, true));
                self.schedule_end(world, fault, Remedy::Room(victims));
            }
        }
        Vec::new()
    }

    /// Crashes a node. Returns the indexes of the keys of which it lost acknowledged writes.
    fn crash(&mut self, world: &mut World, fault: Fault, victim: usize, keys: &[&Key]) -> Vec<usize> {
        let lost = world.crash(victim, least_survivors(world, victim));
        self.schedule_end(world, fault, Remedy::Start(victim));
        indices_of(world, keys, &lost)
    }

    fn crash_all(&mut self, world: &mut World, keys: &[&Key]) -> Vec<usize> {
        let nodes = 0..world.cluster().len();
        let up: Vec<usize> = nodes.filter(|&node| world.machine(node).is_up()).collect();
        up.into_iter().flat_map(|victim| self.crash(world, Fault::Outage, victim, keys)).collect()
    }

    /// Crashes all homes of a key.
    fn crash_homes(&mut self, world: &mut World, keys: &[&Key]) -> Vec<usize> {
        let homes = world.homes(keys[self.founders_rng.index(keys.len())]);
        let up: Vec<usize> = homes.into_iter().filter(|&node| world.machine(node).is_up()).collect();
        let others: Vec<usize> = world.members().into_iter().filter(|node| !up.contains(node)).collect();
        let lost: Vec<usize> = up
            .iter()
            .flat_map(|&home| {
                let lost = world.crash(home, least_survivors(world, home));
                indices_of(world, keys, &lost)
            })
            .collect();
        self.schedule_end(world, Fault::StandIns, Remedy::Restart(others, up));
        lost
    }

    /// Restarts stand-ins in order, and then schedules the start of their homes.
    fn restart(&mut self, world: &mut World, stand_ins: &[usize], homes: &[usize], keys: &[&Key]) -> Vec<usize> {
        let mut indices = Vec::new();
        for &node in stand_ins {
            if world.machine(node).is_up() && !world.machine(node).is_paused() {
                let lost = world.stop(node);
                indices.extend(indices_of(world, keys, &lost));
                world.start(node);
            }
        }
        for &node in homes {
            self.schedule_end(world, Fault::StandIns, Remedy::Start(node));
        }
        indices
    }

    /// All links between two groups; sometimes only those in one direction.
    fn draw_partition(&mut self, nodes: usize) -> Vec<(usize, usize)> {
        let sides: Vec<bool> = (0..nodes).map(|_| self.rng.chance(500)).collect();
        let one_way = self.rng.chance(250);
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        pairs.filter(|&(from, to)| sides[from] != sides[to] && (sides[from] || !one_way)).collect()
    }

    fn cut(&mut self, world: &mut World, fault: Fault, links: Vec<(usize, usize)>) {
        let links: Vec<_> = links.into_iter().filter(|(from, to)| from != to).collect();
        for &(from, to) in &links {
            world.cut(from, to);
        }
        self.schedule_end(world, fault, Remedy::Links(links));
    }

    fn schedule_end(&mut self, world: &mut World, fault: Fault, remedy: Remedy) {
        let lasts_us = fault.rate(&self.options).map_or(0, |rate| rate.lasts_us);
        let after = 1 + self.rng(fault).waiting_us(lasts_us);
        world.alarm(after, Alarm::EndFault(self.remedies.len()).number());
        self.remedies.push(Some(remedy));
    }

    /// Ends a fault. Returns the same as [`Self::strike`].
    pub fn end_fault(&mut self, world: &mut World, index: usize, keys: &[&Key]) -> Vec<usize> {
        if self.over {
            return Vec::new();
        }
        match self.remedies[index].take() {
            Some(Remedy::Links(links)) => links.iter().for_each(|&(from, to)| world.heal_link(from, to)),
            Some(Remedy::Start(node)) if !world.machine(node).is_up() => world.start(node),
            Some(Remedy::Resume(node)) if world.machine(node).is_paused() => world.resume(node),
            Some(Remedy::Room(nodes)) => nodes.iter().for_each(|&node| world.set_full(node, false)),
            Some(Remedy::RestoreCopy(node)) => return self.restore_copy(world, node, keys),
            Some(Remedy::Restart(stand_ins, homes)) => return self.restart(world, &stand_ins, &homes, keys),
            _ => {}
        }
        Vec::new()
    }

    /// Restores a copy of the disk of `victim`, if that loses no data. It also requires that since the copy was made no epoch has begun, the
    /// node has made no promise, and no other node knows of a loss. Otherwise those would not count the node until its boots have come as far again,
    /// or the loss is forgotten. Returns the indexes of the keys that the node is a home of.
    fn restore_copy(&mut self, world: &mut World, victim: usize, keys: &[&Key]) -> Vec<usize> {
        let Some(copies) = self.copies.get(&victim).filter(|copies| !copies.is_empty()) else { return Vec::new() };
        let copy = copies[self.copies_rng.index(copies.len())].clone();
        let machine = world.machine(victim);
        let is_fit = machine.start().incarnation == copy.incarnation
            && machine.start().epoch == copy.epoch
            && machine.has_partition_states_of(&copy)
            && !world.others_know_of_a_loss_after(victim, copy.boot);
        if !is_fit || !can_lose(world, victim, keys) {
            return Vec::new();
        }
        world.crash(victim, 0);
        world.restore_copy(victim, copy);
        self.schedule_end(world, Fault::HotCopy, Remedy::Start(victim));
        (0..keys.len()).filter(|&index| world.homes(keys[index]).contains(&victim)).collect()
    }

    /// A random offset of at most `max_ms` in either direction.
    fn offset_ms(&mut self, max_ms: u64) -> i64 {
        self.rng.range(0, 2 * max_ms) as i64 - max_ms as i64
    }

    /// Wipes the disk of `victim` if that loses no data. Returns the indexes of the keys that it is a home of.
    fn wipe(&mut self, world: &mut World, victim: usize, keys: &[&Key]) -> Vec<usize> {
        let is_home = |key: &Key| world.homes(key).contains(&victim);
        if !can_lose(world, victim, keys) {
            return Vec::new();
        }
        let indices = (0..keys.len()).filter(|&index| is_home(keys[index])).collect();
        world.crash(victim, 0);
        world.wipe(victim, Incarnation(self.wipe_rng.bits()), Rng::new(self.wipe_rng.bits(), Stream::Wipe));
        self.schedule_end(world, Fault::Wipe, Remedy::Start(victim));
        indices
    }

    /// Damages a record of `victim` if that loses no data.
    fn damage(&mut self, world: &mut World, victim: usize, keys: &[&Key]) -> Option<usize> {
        let index = self.rng.index(keys.len());
        let key = keys[index];
        if !can_spare(world, victim, key) {
            return None;
        }
        world.damage(victim, key);
        Some(index)
    }
}

/// The indexes of the keys whose acknowledged writes may be among the lost changes.
fn indices_of(world: &World, keys: &[&Key], lost: &[Key]) -> Vec<usize> {
    (0..keys.len())
        .filter(|&index| world.cluster().leaves_to_the_os(keys[index]) && lost.contains(keys[index]))
        .collect()
}

/// The number of unsynced changes of `victim` that must survive a crash. An acknowledged write may be lost only where other disks hold it. Changes
/// that were to be synced have not been acknowledged.
fn least_survivors(world: &World, victim: usize) -> usize {
    let is_needed = |storage_key: Option<&Bytes>| {
        let key = storage_key.and_then(|storage_key| Key::from_storage_key(storage_key).ok());
        key.is_some_and(|key| world.cluster().leaves_to_the_os(&key) && !others_hold(world, victim, &key))
    };
    let needed: Vec<bool> = world.machine(victim).disk().unsynced().map(is_needed).collect();
    needed.iter().rposition(|&needed| needed).map_or(0, |last| last + 1)
}

/// Whether the other running homes durably hold all that `victim` would read of `key`.
fn others_hold(world: &World, victim: usize, key: &Key) -> bool {
    let Some(Ok(own)) = world.record(victim, key) else { return false };
    let mut others = State::default();
    for home in world.homes(key).into_iter().filter(|&home| home != victim) {
        if let Some(Ok(record)) = world.durable_record(home, key)
            && world.machine(home).is_up()
            && !world.is_leaving(home)
        {
            others.merge(&record.state);
        }
    }
    let notes = own.state.notes().iter().all(|(id, _)| others.notes().get(id).is_some());
    notes && others.clock().covers(own.state.clock())
}

/// Whether no data is lost with the disk of `victim`.
fn can_lose(world: &World, victim: usize, keys: &[&Key]) -> bool {
    let is_home = |key: &Key| world.homes(key).contains(&victim);
    let can_spare = |key: &Key| holds_nothing(world, victim, key) || (is_home(key) && can_spare(world, victim, key));
    world.machine(victim).is_up()
        && world.others_know_settings(victim)
        && world.can_do_without(victim)
        && !world.is_leaving(victim)
        && keys.iter().all(|key| can_spare(key))
}

/// Whether `victim` holds nothing of `key`, and no write of it is on its way to the disk.
fn holds_nothing(world: &World, victim: usize, key: &Key) -> bool {
    world.record(victim, key).is_none() && !world.machine(victim).disk().is_pending(&key.storage_key())
}

/// Whether the other running homes durably hold all that `victim` holds of `key`, and no copy is damaged already. A home that has lost its disk
/// does not count before its new incarnation is a home: until then that loss is not recovered.
fn can_spare(world: &World, victim: usize, key: &Key) -> bool {
    let homes = world.homes(key);
    if world.is_only_home(victim, key) {
        return false;
    }
    if !homes.contains(&victim) || world.machine(victim).disk().is_pending(&key.storage_key()) {
        return false;
    }
    let mut others = State::default();
    for &home in homes.iter().filter(|&&home| home != victim) {
        match world.durable_record(home, key) {
            Some(Ok(record)) if record.header.recovering.is_some() => return false,
            Some(Err(_)) => return false,
            Some(Ok(record))
                if world.machine(home).is_up() && !world.is_leaving(home) && world.is_home_yet(home, key) =>
            {
                others.merge(&record.state);
            }
            Some(Ok(_)) | None => {}
        }
    }
    let Some(Ok(record)) = world.durable_record(victim, key) else { return false };
    let notes = record.state.notes().iter().all(|(id, _)| others.notes().get(id).is_some());
    record.header.recovering.is_none() && notes && others.clock().covers(record.state.clock())
}
