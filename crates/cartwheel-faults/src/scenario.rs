//! The scenarios: faults of a cluster while clients in all zones write.

use std::time::Duration;

use crate::cluster::NodeCounts;
use crate::traffic::Workload;

/// A fault or a sequence of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Kill one node and restart it.
    KillOne,
    /// Kill two nodes of different zones at once: many keys have only one home left.
    KillTwo,
    /// Cut off a zone of two nodes, with writes on both sides.
    CutZone,
    /// Drop all packets from one node to one other.
    CutOneWay,
    /// Drop all packets from one node into other zones; the other direction works.
    MuteNode,
    /// Pause a node.
    Pause,
    /// Fill a node's disk to the last byte.
    FullDisk,
    /// Wipe a node's disk and renew the node.
    WipeDisk,
    /// Stop and restart all nodes, one after another.
    RollingRestart,
    /// Cut off a zone while clients on both sides make strong requests: the minority side must refuse them.
    CutStrong,
    /// Kill all nodes of a zone at once, and wipe their disks.
    LoseZone,
    /// Grow from three nodes to six; during the transfers kill a node that hands over and one that joins.
    Grow,
    /// Shrink from six nodes to three; during the transfers kill a node that leaves and one that stays.
    Shrink,
    /// Kill a node for good, replace it with a new one, and kill that during the transfers.
    ReplaceDead,
    /// Replace the only initial node, then restart stand-ins that alone hold writes.
    RestartStandins,
    /// Kill a node again and again in a bucket where the last write wins.
    CrashLoop,
    /// Restore a snapshot of a running node's directory after a crash.
    HotCopy,
    /// Give a node a weight with which it could take all replicas, and kill another node.
    HeavyWeight,
    /// Cut off a zone of two nodes while partitions are in transfer.
    CutTransfer,
    /// Kill all nodes but one. Writes must be refused, and the checks must detect that.
    KillMost,
    /// Wipe the disk of a node that alone acknowledged writes. Adds must be lost, and the checks must detect that.
    LoseOnlyCopy,
}

impl Scenario {
    /// The scenarios that must have no violations.
    pub const ALL: [Self; 19] = [
        Self::KillOne,
        Self::KillTwo,
        Self::CutZone,
        Self::CutOneWay,
        Self::MuteNode,
        Self::Pause,
        Self::FullDisk,
        Self::WipeDisk,
        Self::RollingRestart,
        Self::CutStrong,
        Self::LoseZone,
        Self::Grow,
        Self::Shrink,
        Self::ReplaceDead,
        Self::RestartStandins,
        Self::CrashLoop,
        Self::HotCopy,
        Self::HeavyWeight,
        Self::CutTransfer,
    ];

    /// The scenarios that every commit is tested with, a few seconds each.
    pub const SHORT: [Self; 14] = [
        Self::KillOne,
        Self::KillTwo,
        Self::CutZone,
        Self::CutOneWay,
        Self::MuteNode,
        Self::Pause,
        Self::FullDisk,
        Self::WipeDisk,
        Self::RollingRestart,
        Self::CutStrong,
        Self::LoseZone,
        Self::Grow,
        Self::Shrink,
        Self::ReplaceDead,
    ];

    /// The scenarios that must have violations; otherwise the checks detect nothing.
    pub const CANARIES: [Self; 2] = [Self::KillMost, Self::LoseOnlyCopy];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillOne => "kill-one",
            Self::KillTwo => "kill-two",
            Self::CutZone => "cut-zone",
            Self::CutOneWay => "cut-one-way",
            Self::MuteNode => "mute-node",
            Self::Pause => "pause",
            Self::FullDisk => "full-disk",
            Self::WipeDisk => "wipe-disk",
            Self::RollingRestart => "rolling-restart",
            Self::CutStrong => "cut-strong",
            Self::LoseZone => "lose-zone",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::ReplaceDead => "replace-dead",
            Self::RestartStandins => "restart-standins",
            Self::CrashLoop => "crash-loop",
            Self::HotCopy => "hot-copy",
            Self::HeavyWeight => "heavy-weight",
            Self::CutTransfer => "cut-transfer",
            Self::KillMost => "kill-most",
            Self::LoseOnlyCopy => "lose-only-copy",
        }
    }

    /// The scenario with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::CANARIES).find(|scenario| scenario.name() == name)
    }

    /// The clients' workload during the scenario.
    pub(crate) const fn workload(self, pace: Pace) -> Workload {
        let replicas = if matches!(self, Self::LoseOnlyCopy) { Some(1) } else { None };
        Workload { replicas, within: pace.write, with_strong: self.is_strong(), round: 0 }
    }

    /// Whether clients make strong requests too.
    const fn is_strong(self) -> bool {
        matches!(self, Self::CutStrong | Self::LoseZone) || self.changes_members()
    }

    /// Whether the scenario adds, removes or replaces members.
    pub const fn changes_members(self) -> bool {
        matches!(self, Self::Grow | Self::Shrink | Self::ReplaceDead)
    }

    /// Whether the cluster holds carts beforehand, so that there is data to transfer.
    pub(crate) const fn has_stock(self) -> bool {
        self.changes_members() || matches!(self, Self::CutTransfer)
    }

    /// Whether a cut must make the minority side refuse strong requests, while the majority side goes on.
    pub const fn cuts_strong_requests(self) -> bool {
        matches!(self, Self::CutStrong)
    }

    /// The numbers of nodes. `nodes` applies to scenarios without a fixed number.
    pub(crate) fn node_counts(self, nodes: u8) -> NodeCounts {
        let (initial, joiners) = match self {
            Self::Grow => (3, 3),
            Self::Shrink => (6, 0),
            // Each zone has more than one node to lose.
            Self::LoseZone => (nodes.max(6), 0),
            Self::ReplaceDead => (nodes, 1),
            // Once that node is replaced, none of the homes of the first configurations is left.
            Self::RestartStandins => (1, 5),
            Self::HeavyWeight => (3, 0),
            _ => (nodes, 0),
        };
        NodeCounts { initial, joiners }
    }

    /// Whether the scenario must have violations.
    pub const fn is_canary(self) -> bool {
        matches!(self, Self::KillMost | Self::LoseOnlyCopy)
    }
}

/// The durations of a scenario's parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Undisturbed writes before and after the fault.
    pub calm: Duration,
    /// The time for which a node is dead, or its disk full.
    pub fault: Duration,
    /// The time for which the network is cut.
    pub cut: Duration,
    /// The time for which a node is paused.
    pub pause: Duration,
    /// How long one node may take for a write.
    pub write: Duration,
    /// The time for which a node is dead during transfers.
    pub death: Duration,
    /// How long a change of the members may take.
    pub change: Duration,
    /// The number of carts stored before a change of the members.
    pub stock: usize,
}

impl Pace {
    /// Long enough for a cluster to adapt to the fault.
    pub const LONG: Self = Self {
        calm: Duration::from_secs(5),
        fault: Duration::from_secs(15),
        cut: Duration::from_secs(30),
        pause: Duration::from_secs(20),
        write: Duration::from_secs(5),
        death: Duration::from_secs(5),
        change: Duration::from_secs(300),
        stock: 20_000,
    };
    /// Short enough for every commit.
    pub const SHORT: Self = Self {
        calm: Duration::from_secs(1),
        fault: Duration::from_secs(5),
        cut: Duration::from_secs(5),
        pause: Duration::from_secs(5),
        write: Duration::from_secs(3),
        death: Duration::from_secs(1),
        change: Duration::from_secs(90),
        stock: 1_000,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_found_by_their_names() {
        for scenario in Scenario::ALL.into_iter().chain(Scenario::CANARIES) {
            assert_eq!(Scenario::of_name(scenario.name()), Some(scenario));
        }
        assert_eq!(Scenario::of_name("peace"), None);
    }
}
