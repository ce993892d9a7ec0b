//! What is drawn from a seed: settings, and for each round which faults begin when and how long they last.
//!
//! What the contract excuses is not drawn: at any time each client reaches W nodes that reach each other, and fewer disks are lost in a
//! round than acknowledge a write.

use std::fmt;
use std::time::Duration;

/// How long after a disk was lost others have taken over what it held.
const REFILLED_AFTER: Duration = Duration::from_secs(12);
/// The nodes that found the cluster: two in the first zone, two in the second, one in the third.
pub(crate) const FOUNDERS: u8 = 5;
/// The nodes that may come later.
pub(crate) const COMERS: u8 = 2;
/// The node with a small disk, which keeps it.
pub(crate) const SMALL_DISK: usize = 1;
const ROUNDS: u64 = 3;
const CANDIDATES: u64 = 6;
/// Faults begin so long after a round does, at most.
const BEGIN_MS: u64 = 12_000;
const LASTS_MS: std::ops::Range<u64> = 2_000..9_000;
/// So long after a fault's end it may still be felt: a node starts, or is called again.
const AFTERMATH: Duration = Duration::from_secs(4);
/// A clock further off than this keeps its node from taking writes.
const CLOCK_BOUND_MS: i64 = 10_000;
/// At most so many nodes are away at once.
const AWAY_MAX: usize = 2;

/// What happens. Nodes and zones are counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A node is killed, and started again at the end.
    Kill(usize),
    /// A node is stopped in order, and started again at the end.
    Stop(usize),
    /// A node is paused.
    Pause(usize),
    /// A zone is cut off.
    CutZone(usize),
    /// What one node sends to the other is lost.
    CutOneWay(usize, usize),
    /// A small disk is filled to the last byte.
    FillDisk,
    /// A node loses its disk, and is renewed at the end.
    Wipe(usize),
    /// A node's directory is copied while it runs; at the end it is killed, and served again from the copy.
    HotCopy(usize),
    /// A node is killed, some blocks of its tables are damaged, and it runs until the end; then it is renewed.
    Damage(usize),
    /// A node's clock jumps by so many milliseconds, and back at the end.
    Clock(usize, i64),
    /// All clocks jump together, and back at the end.
    AllClocks(i64),
    /// A member's weight is changed.
    Weight(usize, u32),
    /// The n of the carts is changed.
    Replicas(u8),
    /// A member dies for good, and is replaced by one that comes.
    Replace(usize, usize),
    /// One that comes is added.
    Add(usize),
}

impl Fault {
    /// The node that it happens to, if it is one.
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

    /// Whether the node takes or stores nothing meanwhile, or not for all.
    const fn takes_away(self) -> bool {
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

/// A fault and its time, from the round's beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConfigVersion {
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
    pub(crate) fault: Fault,
}

/// All that is drawn from a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// How many nodes acknowledge a write to a cart.
    pub(crate) w: u8,
    /// When a node acknowledges one.
    pub(crate) durability: &'static str,
    /// The faults of each round.
    pub(crate) rounds: Vec<Vec<ConfigVersion>>,
}

impl Plan {
    /// Draws it.
    pub fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let w = [2, 2, 2, 3, 1][rng.usize(..5)];
        let durability = if rng.u8(..10) < 3 { "os" } else { "fsync" };
        let mut draw = Draw { rng, w, members: (0..FOUNDERS.into()).collect(), comers: (5..7).collect() };
        Self { w, durability, rounds: (0..ROUNDS).map(|_| draw.round()).collect() }
    }
}

struct Draw {
    rng: fastrand::Rng,
    w: u8,
    members: Vec<usize>,
    comers: Vec<usize>,
}

impl Draw {
    fn round(&mut self) -> Vec<ConfigVersion> {
        let mut steps: Vec<ConfigVersion> = Vec::new();
        for _ in 0..CANDIDATES {
            let begin = Duration::from_millis(self.rng.u64(..BEGIN_MS));
            let end = begin + Duration::from_millis(self.rng.u64(LASTS_MS));
            let Some(fault) = self.fault() else { continue };
            steps.push(ConfigVersion { begin, end, fault });
            if !is_borne(&steps, &self.members, self.w) {
                steps.pop();
            }
        }
        for step in &steps {
            match step.fault {
                Fault::Replace(node, comer) => {
                    self.members.retain(|&member| member != node);
                    self.arrived(comer);
                }
                Fault::Add(comer) => self.arrived(comer),
                _ => {}
            }
        }
        steps.sort_by_key(|step| step.begin);
        steps
    }

    fn arrived(&mut self, comer: usize) {
        self.members.push(comer);
        self.comers.retain(|&waiting| waiting != comer);
    }

    fn fault(&mut self) -> Option<Fault> {
        let node = self.members[self.rng.usize(..self.members.len())];
        let other = self.members[self.rng.usize(..self.members.len())];
        let offsets = [300, -300, 4_000, -4_000, 60_000, -60_000, 3_600_000, -3_600_000];
        let ms = offsets[self.rng.usize(..offsets.len())];
        let comer = self.comers.first().copied();
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
            15 => Fault::Replace(node, comer?),
            16 => Fault::Add(comer?),
            _ => return None,
        })
    }
}

/// Whether a cluster must bear all of a round's faults without refusing an eventual write, or losing one.
fn is_borne(steps: &[ConfigVersion], members: &[usize], w: u8) -> bool {
    let faults = || steps.iter().map(|step| step.fault);
    let at_most_one = |of: fn(Fault) -> bool| faults().filter(|&fault| of(fault)).count() <= 1;
    let disks = faults().filter(|fault| fault.loses_disk()).count();
    if disks >= usize::from(w) || !at_most_one(Fault::changes_configuration) {
        return false;
    }
    // Two at a time may be two of three homes: what is acknowledged with w=3 is kept by the third, which alone cannot agree on new ones.
    let losses = || steps.iter().filter(|step| step.fault.loses_disk());
    if losses().any(|one| losses().any(|other| other.begin > one.begin && other.begin < one.end + REFILLED_AFTER)) {
        return false;
    }
    if faults().filter(|fault| matches!(fault, Fault::Clock(..) | Fault::AllClocks(_))).count() > 1 {
        return false;
    }
    // The small disk is a mount: it cannot be put somewhere else.
    if faults().any(|fault| fault.loses_disk() && fault.node() == Some(SMALL_DISK)) {
        return false;
    }
    // Registers take two acknowledgements at least, carts may take one.
    let within_reach = usize::from(w.max(2));
    steps.iter().all(|step| is_borne_at(steps, step.begin, members, within_reach))
}

fn is_borne_at(steps: &[ConfigVersion], at: Duration, members: &[usize], w: usize) -> bool {
    let active = || steps.iter().filter(|step| step.begin <= at && at <= step.end + AFTERMATH).map(|step| step.fault);
    let away: Vec<usize> = active().filter(|fault| fault.takes_away()).filter_map(Fault::node).collect();
    let touched: Vec<usize> = active().filter_map(Fault::node).collect();
    let mut once = touched.clone();
    once.sort_unstable();
    once.dedup();
    if once.len() != touched.len() || away.len() > AWAY_MAX || active().filter(|fault| fault.is_cut()).count() > 1 {
        return false;
    }
    let left = |zone: Option<usize>, is_inside: bool| {
        let here = |&&member: &&usize| zone.is_none_or(|zone| (zone_of(member) == zone) == is_inside);
        members.iter().filter(here).filter(|member| !away.contains(member)).count()
    };
    let cut = active().find_map(|fault| if let Fault::CutZone(zone) = fault { Some(zone) } else { None });
    left(cut, true) >= w && left(cut, false) >= w
}

/// The zone that a node is in, as the cluster lays them out.
fn zone_of(node: usize) -> usize {
    let founders = usize::from(FOUNDERS);
    if node < founders { node * 3 / founders } else { (node - founders) % 3 }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "carts with w={} and durability {}", self.w, self.durability)?;
        for (number, round) in self.rounds.iter().enumerate() {
            for ConfigVersion { begin, end, fault } in round {
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
            Self::CutOneWay(node, other) => write!(f, "what {} sends to {} lost", name(node), name(other)),
            Self::FillDisk => write!(f, "disk of {} filled to the last byte", name(SMALL_DISK)),
            Self::Wipe(node) => write!(f, "{} loses its disk, then renewed", name(node)),
            Self::HotCopy(node) => write!(f, "{} copied while it runs, then killed and the copy put back", name(node)),
            Self::Damage(node) => write!(f, "blocks of {} damaged, then renewed", name(node)),
            Self::Clock(node, ms) => write!(f, "clock of {} {ms:+} ms", name(node)),
            Self::AllClocks(ms) => write!(f, "all clocks {ms:+} ms"),
            Self::Weight(node, weight) => write!(f, "weight of {} {weight}", name(node)),
            Self::Replicas(n) => write!(f, "n of the carts {n}"),
            Self::Replace(node, with) => write!(f, "{} killed for good and replaced by {}", name(node), name(with)),
            Self::Add(node) => write!(f, "{} added", name(node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(begin: u64, end: u64, fault: Fault) -> ConfigVersion {
        ConfigVersion { begin: Duration::from_secs(begin), end: Duration::from_secs(end), fault }
    }

    #[test]
    fn a_seed_draws_the_same_again_and_another_seed_something_else() {
        assert_eq!(Plan::draw(7), Plan::draw(7));
        assert_ne!(Plan::draw(7).rounds, Plan::draw(8).rounds);
    }

    #[test]
    fn every_kind_of_fault_is_drawn_and_what_is_drawn_is_borne() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..2_000 {
            let plan = Plan::draw(seed);
            for round in &plan.rounds {
                kinds.extend(round.iter().map(|step| {
                    let name = format!("{:?}", step.fault);
                    name.split('(').next().unwrap_or_default().to_owned()
                }));
                let disks = round.iter().filter(|step| step.fault.loses_disk()).count();
                assert!(disks < usize::from(plan.w), "seed {seed}: {plan}");
            }
        }
        assert_eq!(kinds.len(), 15, "{kinds:?}");
    }

    #[test]
    fn what_no_cluster_can_bear_is_not_drawn() {
        let members: Vec<usize> = (0..5).collect();
        let two = [step(0, 5, Fault::Kill(0)), step(1, 5, Fault::Pause(2))];
        assert!(is_borne(&two, &members, 2));
        let in_a_cut = [step(0, 5, Fault::Kill(0)), step(1, 5, Fault::CutZone(0))];
        assert!(!is_borne(&in_a_cut, &members, 2), "one node of the zone is left");
        assert!(!is_borne(&[step(0, 5, Fault::CutZone(2))], &members, 2), "there is one node in the zone");
        assert!(!is_borne(&[step(0, 5, Fault::CutZone(0))], &members, 3), "there are two nodes in the zone");
        let disks = [step(0, 5, Fault::Wipe(0)), step(20, 25, Fault::Damage(2))];
        assert!(!is_borne(&disks, &members, 2) && is_borne(&disks, &members, 3));
        assert!(!is_borne(&disks[..1], &members, 1), "the only copy of a cart may be there");
    }
}
