//! The scenarios: what happens to the cluster while clients in all zones write.

use std::time::Duration;

use crate::cluster::Cast;
use crate::traffic::Writing;

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// One node is killed and started again.
    KillOne,
    /// Two nodes in different zones are killed at once: of many keys only one home is left.
    KillTwo,
    /// A zone of two nodes is cut off, and written to on both sides.
    CutZone,
    /// What one node sends to one other is lost.
    CutOneWay,
    /// What one node sends into other zones is lost, but it hears them.
    MuteNode,
    /// A node is paused.
    Pause,
    /// Something else fills a node's disk to the last byte.
    FullDisk,
    /// A node loses its disk and comes back empty.
    WipeDisk,
    /// All nodes are stopped and started again, one after the other.
    RollingRestart,
    /// A zone is cut off while clients on both sides make strong requests: the minority must refuse them.
    CutStrong,
    /// All nodes of a zone are killed at once, and lose their disks.
    LoseZone,
    /// Three nodes become six; one that hands over and one that comes are killed meanwhile.
    Grow,
    /// Six nodes become three; one that leaves and one that stays are killed meanwhile.
    Shrink,
    /// A node is dead for good, and a fresh one takes its place and is killed meanwhile.
    ReplaceDead,
    /// The only founder is replaced; then stand-ins that alone hold writes are restarted.
    RestartStandins,
    /// A node is killed again and again, and the last write wins.
    CrashLoop,
    /// A snapshot of a running node's directory is put in the directory's place after a crash.
    HotCopy,
    /// A node gets a weight with which it could take all replicas, and another node dies.
    HeavyWeight,
    /// A zone of two nodes is cut off while partitions are on their way.
    CutMoving,
    /// All nodes but one are killed: writes must be refused. Shows that refusals are noticed.
    KillMost,
    /// A node that alone acknowledged writes loses its disk: adds must be lost. Shows that losses are noticed.
    LoseOnlyCopy,
}

impl Scenario {
    /// Those in which nothing may go wrong.
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
        Self::CutMoving,
    ];

    /// Those of them that every commit is tried with, a few seconds each.
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

    /// Those in which something must go wrong, or whoever looks for it is blind.
    pub const CANARIES: [Self; 2] = [Self::KillMost, Self::LoseOnlyCopy];

    /// Its name.
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
            Self::CutMoving => "cut-moving",
            Self::KillMost => "kill-most",
            Self::LoseOnlyCopy => "lose-only-copy",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::CANARIES).find(|scenario| scenario.name() == name)
    }

    /// How the clients write meanwhile.
    pub(crate) const fn writing(self, pace: Pace) -> Writing {
        let replicas = if matches!(self, Self::LoseOnlyCopy) { Some(1) } else { None };
        Writing { replicas, within: pace.write, strongly_too: self.is_strong(), round: 0 }
    }

    /// Whether clients make strong requests too.
    const fn is_strong(self) -> bool {
        matches!(self, Self::CutStrong | Self::LoseZone) || self.changes_members()
    }

    /// Whether nodes come or go for good.
    pub const fn changes_members(self) -> bool {
        matches!(self, Self::Grow | Self::Shrink | Self::ReplaceDead)
    }

    /// Whether there is a stock of carts to move.
    pub(crate) const fn has_stock(self) -> bool {
        self.changes_members() || matches!(self, Self::CutMoving)
    }

    /// Whether strong requests must be refused on the smaller side of a cut, and go on on the other.
    pub const fn cuts_strong_requests(self) -> bool {
        matches!(self, Self::CutStrong)
    }

    /// Who is in it, if there are so many nodes where that does not matter.
    pub(crate) fn cast(self, nodes: u8) -> Cast {
        let (founders, comers) = match self {
            Self::Grow => (3, 3),
            Self::Shrink => (6, 0),
            // Each zone has more than one node to lose.
            Self::LoseZone => (nodes.max(6), 0),
            Self::ReplaceDead => (nodes, 1),
            // Of its partitions' first configurations nothing is left once that one is replaced.
            Self::RestartStandins => (1, 5),
            Self::HeavyWeight => (3, 0),
            _ => (nodes, 0),
        };
        Cast { founders, comers }
    }

    /// Whether something must go wrong.
    pub const fn is_canary(self) -> bool {
        matches!(self, Self::KillMost | Self::LoseOnlyCopy)
    }
}

/// How long things take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Writes before and after the fault.
    pub calm: Duration,
    /// A node is dead, or its disk is full.
    pub fault: Duration,
    /// The network is cut.
    pub cut: Duration,
    /// A node is paused.
    pub pause: Duration,
    /// One node may take so long over a write.
    pub write: Duration,
    /// A node is dead in the middle of the moves.
    pub death: Duration,
    /// A change of the members may take so long.
    pub change: Duration,
    /// How many carts are there before a change of the members.
    pub stock: usize,
}

impl Pace {
    /// Long enough for a cluster to settle down with the fault.
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
