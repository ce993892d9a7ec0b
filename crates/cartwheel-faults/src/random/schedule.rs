//! Draws settings and rounds from a seed: the faults of each round, when each begins, and how long it lasts.
//!
//! It draws no combination for which Cartwheel makes no promise: at any time each client reaches W nodes that reach each other, and a round loses
//! fewer disks than nodes acknowledge a write.

use std::fmt;
use std::time::Duration;

/// The time in which other nodes take over the data of a lost disk.
const REFILLED_AFTER: Duration = Duration::from_secs(12);
/// The nodes that bootstrap the cluster: two in the first zone, two in the second, one in the third.
pub(crate) const INITIAL: u8 = 5;
/// The nodes that may join later.
pub(crate) const JOINERS: u8 = 2;
/// The node with a small disk, which it keeps.
pub(crate) const SMALL_DISK: usize = 1;
const ROUNDS: u64 = 3;
const CANDIDATES: u64 = 6;
/// The latest begin of a fault in its round.
const BEGIN_MS: u64 = 12_000;
const LASTS_MS: std::ops::Range<u64> = 2_000..9_000;
/// How long a fault may have effects after its end: a node starts, or peers connect to it again.
const AFTERMATH: Duration = Duration::from_secs(4);
/// A node whose clock is off by more refuses writes.
const CLOCK_BOUND_MS: i64 = 10_000;
/// The most nodes that are unavailable at once.
const UNAVAILABLE_MAX: usize = 2;

/// A fault. Nodes and zones are counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Kill a node; restart it at the end.
    Kill(usize),
    /// Stop a node with SIGTERM; restart it at the end.
    Stop(usize),
    /// Pause a node.
    Pause(usize),
    /// Cut off a zone.
    CutZone(usize),
    /// Drop all packets from the first node to the second.
    CutOneWay(usize, usize),
    /// Fill the small disk to the last byte.
    FillDisk,
    /// Wipe a node's disk; renew the node at the end.
    Wipe(usize),
    /// Copy a node's directory while it runs; at the end kill the node and restart it on the copy.
    HotCopy(usize),
    /// Kill a node, damage blocks of its tables and restart it; renew it at the end.
    Damage(usize),
    /// Shift a node's clock by this many milliseconds; back at the end.
    Clock(usize, i64),
    /// Shift all clocks together; back at the end.
    AllClocks(i64),
    /// Change a member's weight.
    Weight(usize, u32),
    /// Change the n of the carts' bucket.
    Replicas(u8),
    /// Kill a member for good and replace it with a joiner.
    Replace(usize, usize),
    /// Add a joiner.
    Add(usize),
}

impl Fault {
    /// The affected node, if it is a single one.
    const fn node(self) -> Option<usize> {
        match self {
            Self::Kill(node)
            | Self::Stop(node)
            | Self::Pause(node)
            | Self::CutOneWay(node, _)
            | Self::Wipe(node)
            | Self::HotCopy(node)
            | Self::Damage(node)
            | Self::Clock(node, _)
            | Self::Replace(node, _) => Some(node),
            Self::FillDisk => Some(SMALL_DISK),
            _ => None,
        }
    }

    /// Whether some client cannot write to the affected node meanwhile, or the node stores no writes.
    const fn is_unavailable(self) -> bool {
        match self {
            Self::Clock(_, ms) => ms.abs() > CLOCK_BOUND_MS / 2,
            _ => self.node().is_some(),
        }
    }

    const fn is_cut(self) -> bool {
        matches!(self, Self::CutZone(_) | Self::CutOneWay(..))
    }

    const fn loses_disk(self) -> bool {
        matches!(self, Self::Wipe(_) | Self::HotCopy(_) | Self::Damage(_) | Self::Replace(..))
    }

    const fn changes_configuration(self) -> bool {
        matches!(self, Self::Weight(..) | Self::Replicas(_) | Self::Replace(..) | Self::Add(_))
    }
}

/// A fault and its times since the round's begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ScheduledFault {
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
    pub(crate) fault: Fault,
}

/// All that is drawn from a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The number of nodes that acknowledge a write.
    pub(crate) w: u8,
    /// When a node acknowledges a write: `fsync` or `os`.
    pub(crate) durability: &'static str,
    /// The faults of each round.
    pub(crate) rounds: Vec<Vec<ScheduledFault>>,
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let w = [2, 2, 2, 3, 1][rng.usize(..5)];
        let durability = if rng.u8(..10) < 3 { "os" } else { "fsync" };
        let mut draw = Draw { rng, w, members: (0..INITIAL.into()).collect(), joiners: (5..7).collect() };
        Self { w, durability, rounds: (0..ROUNDS).map(|_| draw.round()).collect() }
    }
}

struct Draw {
    rng: fastrand::Rng,
    w: u8,
    members: Vec<usize>,
    joiners: Vec<usize>,
}

impl Draw {
    fn round(&mut self) -> Vec<ScheduledFault> {
        let mut schedule: Vec<ScheduledFault> = Vec::new();
        for _ in 0..CANDIDATES {
            let begin = Duration::from_millis(self.rng.u64(..BEGIN_MS));
            let end = begin + Duration::from_millis(self.rng.u64(LASTS_MS));
            let Some(fault) = self.fault() else { continue };
            schedule.push(ScheduledFault { begin, end, fault });
            if !is_tolerable(&schedule, &self.members, self.w) {
                schedule.pop();
            }
        }
        for scheduled in &schedule {
            match scheduled.fault {
                Fault::Replace(node, joiner) => {
                    self.members.retain(|&member| member != node);
                    self.admit(joiner);
                }
                Fault::Add(joiner) => self.admit(joiner),
                _ => {}
            }
        }
        schedule.sort_by_key(|scheduled| scheduled.begin);
        schedule
    }

    fn admit(&mut self, joiner: usize) {
        self.members.push(joiner);
        self.joiners.retain(|&waiting| waiting != joiner);
    }

    fn fault(&mut self) -> Option<Fault> {
        let node = self.members[self.rng.usize(..self.members.len())];
        let other = self.members[self.rng.usize(..self.members.len())];
        let offsets = [300, -300, 4_000, -4_000, 60_000, -60_000, 3_600_000, -3_600_000];
        let ms = offsets[self.rng.usize(..offsets.len())];
        let joiner = self.joiners.first().copied();
        Some(match self.rng.u8(..17) {
            0 | 1 => Fault::Kill(node),
            2 => Fault::Stop(node),
            3 => Fault::Pause(node),
            4 | 5 => Fault::CutZone(self.rng.usize(..3)),
            6 if node != other => Fault::CutOneWay(node, other),
            7 => Fault::FillDisk,
            8 => Fault::Wipe(node),
            9 => Fault::HotCopy(node),
            10 => Fault::Damage(node),
            11 => Fault::Clock(node, ms),
            12 => Fault::AllClocks(ms),
            13 => Fault::Weight(node, [20, 50, 300, 60_000][self.rng.usize(..4)]),
            14 => Fault::Replicas(self.rng.u8(self.w.max(2)..6)),
            15 => Fault::Replace(node, joiner?),
            16 => Fault::Add(joiner?),
            _ => return None,
        })
    }
}

/// Whether a cluster must tolerate all of a round's faults without refusing or losing an eventual write.
fn is_tolerable(schedule: &[ScheduledFault], members: &[usize], w: u8) -> bool {
    let faults = || schedule.iter().map(|scheduled| scheduled.fault);
    let at_most_one = |of: fn(Fault) -> bool| faults().filter(|&fault| of(fault)).count() <= 1;
    let disks = faults().filter(|fault| fault.loses_disk()).count();
    if disks >= usize::from(w) || !at_most_one(Fault::changes_configuration) {
        return false;
    }
    // Two lost disks may be two of three homes. The third keeps what was acknowledged with w=3, but cannot agree on new homes alone.
    let losses = || schedule.iter().filter(|scheduled| scheduled.fault.loses_disk());
    if losses().any(|one| losses().any(|other| other.begin > one.begin && other.begin < one.end + REFILLED_AFTER)) {
        return false;
    }
    if faults().filter(|fault| matches!(fault, Fault::Clock(..) | Fault::AllClocks(_))).count() > 1 {
        return false;
    }
    // The small disk is a mount, which cannot be replaced or moved.
    if faults().any(|fault| fault.loses_disk() && fault.node() == Some(SMALL_DISK)) {
        return false;
    }
    // Registers need at least two acknowledgements, carts may need only one.
    let within_reach = usize::from(w.max(2));
    schedule.iter().all(|scheduled| is_tolerable_at(schedule, scheduled.begin, members, within_reach))
}

fn is_tolerable_at(schedule: &[ScheduledFault], at: Duration, members: &[usize], w: usize) -> bool {
    let active = || {
        schedule
            .iter()
            .filter(|scheduled| scheduled.begin <= at && at <= scheduled.end + AFTERMATH)
            .map(|scheduled| scheduled.fault)
    };
    let unavailable: Vec<usize> = active().filter(|fault| fault.is_unavailable()).filter_map(Fault::node).collect();
    let touched: Vec<usize> = active().filter_map(Fault::node).collect();
    let mut once = touched.clone();
    once.sort_unstable();
    once.dedup();
    if once.len() != touched.len()
        || unavailable.len() > UNAVAILABLE_MAX
        || active().filter(|fault| fault.is_cut()).count() > 1
    {
        return false;
    }
    let left = |zone: Option<usize>, is_inside: bool| {
        let here = |&&member: &&usize| zone.is_none_or(|zone| (zone_of(member) == zone) == is_inside);
        members.iter().filter(here).filter(|member| !unavailable.contains(member)).count()
    };
    let cut = active().find_map(|fault| if let Fault::CutZone(zone) = fault { Some(zone) } else { None });
    left(cut, true) >= w && left(cut, false) >= w
}

/// The zone of a node, by the same rule as [`Cluster::start`](crate::cluster::Cluster::start).
fn zone_of(node: usize) -> usize {
    let initial = usize::from(INITIAL);
    if node < initial { node * 3 / initial } else { (node - initial) % 3 }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "carts with w={} and durability {}", self.w, self.durability)?;
        for (number, round) in self.rounds.iter().enumerate() {
            for ScheduledFault { begin, end, fault } in round {
                let (begin, end) = (begin.as_secs_f64(), end.as_secs_f64());
                write!(f, "\n    round {}, {begin:.1} to {end:.1} s: {fault}", number + 1)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: usize| format!("node-{}", node + 1);
        match *self {
            Self::Kill(node) => write!(f, "kill -9 of {}", name(node)),
            Self::Stop(node) => write!(f, "SIGTERM to {}", name(node)),
            Self::Pause(node) => write!(f, "SIGSTOP of {}", name(node)),
            Self::CutZone(zone) => write!(f, "zone-{} cut off", zone + 1),
            Self::CutOneWay(node, other) => write!(f, "packets from {} to {} dropped", name(node), name(other)),
            Self::FillDisk => write!(f, "disk of {} filled to the last byte", name(SMALL_DISK)),
            Self::Wipe(node) => write!(f, "disk of {} wiped, then renewed", name(node)),
            Self::HotCopy(node) => {
                write!(f, "{} copied while running, then killed and restarted on the copy", name(node))
            }
            Self::Damage(node) => write!(f, "blocks of {} damaged, then renewed", name(node)),
            Self::Clock(node, ms) => write!(f, "clock of {} shifted by {ms:+} ms", name(node)),
            Self::AllClocks(ms) => write!(f, "all clocks shifted by {ms:+} ms"),
            Self::Weight(node, weight) => write!(f, "weight of {} set to {weight}", name(node)),
            Self::Replicas(n) => write!(f, "n of the carts set to {n}"),
            Self::Replace(node, with) => write!(f, "{} killed for good and replaced by {}", name(node), name(with)),
            Self::Add(node) => write!(f, "{} added", name(node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduled(begin: u64, end: u64, fault: Fault) -> ScheduledFault {
        ScheduledFault { begin: Duration::from_secs(begin), end: Duration::from_secs(end), fault }
    }

    #[test]
    fn the_same_seed_draws_the_same_plan() {
        assert_eq!(Plan::draw(7), Plan::draw(7));
        assert_ne!(Plan::draw(7).rounds, Plan::draw(8).rounds);
    }

    #[test]
    fn every_kind_of_fault_is_drawn_and_every_plan_is_tolerable() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..2_000 {
            let plan = Plan::draw(seed);
            for round in &plan.rounds {
                kinds.extend(round.iter().map(|scheduled| {
                    let name = format!("{:?}", scheduled.fault);
                    name.split('(').next().unwrap_or_default().to_owned()
                }));
                let disks = round.iter().filter(|scheduled| scheduled.fault.loses_disk()).count();
                assert!(disks < usize::from(plan.w), "seed {seed}: {plan}");
            }
        }
        assert_eq!(kinds.len(), 15, "{kinds:?}");
    }

    #[test]
    fn intolerable_combinations_are_not_drawn() {
        let members: Vec<usize> = (0..5).collect();
        let two = [scheduled(0, 5, Fault::Kill(0)), scheduled(1, 5, Fault::Pause(2))];
        assert!(is_tolerable(&two, &members, 2));
        let in_a_cut = [scheduled(0, 5, Fault::Kill(0)), scheduled(1, 5, Fault::CutZone(0))];
        assert!(!is_tolerable(&in_a_cut, &members, 2), "one node of the zone is left");
        assert!(!is_tolerable(&[scheduled(0, 5, Fault::CutZone(2))], &members, 2), "there is one node in the zone");
        assert!(!is_tolerable(&[scheduled(0, 5, Fault::CutZone(0))], &members, 3), "there are two nodes in the zone");
        let disks = [scheduled(0, 5, Fault::Wipe(0)), scheduled(20, 25, Fault::Damage(2))];
        assert!(!is_tolerable(&disks, &members, 2) && is_tolerable(&disks, &members, 3));
        assert!(!is_tolerable(&disks[..1], &members, 1), "the only copy of a cart may be there");
    }
}
