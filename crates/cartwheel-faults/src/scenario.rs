//! The scenarios: what happens to the cluster while clients in all zones write.

use std::time::Duration;

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
    /// All nodes but one are killed: writes must be refused. Shows that refusals are noticed.
    KillMost,
    /// A node that alone acknowledged writes loses its disk: adds must be lost. Shows that losses are noticed.
    LoseOnlyCopy,
}

impl Scenario {
    /// Those in which nothing may go wrong.
    pub const ALL: [Self; 9] = [
        Self::KillOne,
        Self::KillTwo,
        Self::CutZone,
        Self::CutOneWay,
        Self::MuteNode,
        Self::Pause,
        Self::FullDisk,
        Self::WipeDisk,
        Self::RollingRestart,
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
        Writing { replicas, within: pace.write }
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
}

impl Pace {
    /// Long enough for a cluster to settle down with the fault.
    pub const LONG: Self = Self::of_secs(5, 15, 30, 20, 5);
    /// Short enough for every commit.
    pub const SHORT: Self = Self::of_secs(1, 5, 5, 5, 2);

    const fn of_secs(calm: u64, fault: u64, cut: u64, pause: u64, write: u64) -> Self {
        let (calm, fault, cut) = (Duration::from_secs(calm), Duration::from_secs(fault), Duration::from_secs(cut));
        Self { calm, fault, cut, pause: Duration::from_secs(pause), write: Duration::from_secs(write) }
    }
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
