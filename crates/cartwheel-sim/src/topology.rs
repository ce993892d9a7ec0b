//! An administrator that adds, removes, replaces, weighs and moves nodes while the cluster works.

use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::membership::ChangeKind;

use crate::options::TopologyOptions;
use crate::rng::Rng;
use crate::run::Alarm;
use crate::world::World;

/// The most changes in a run.
pub const CHANGES_MAX: u32 = 12;

/// The weights to choose from. The extreme ones demand more, or less, than a node can hold.
const WEIGHTS: [u32; 6] = [1, 50, 100, 200, 60_000, u32::MAX];

/// Changes the members through a random node now and then, and sometimes makes two changes at once through two nodes.
#[derive(Debug)]
pub struct Topology {
    rng: Rng,
    options: TopologyOptions,
    left: u32,
}

impl Topology {
    /// The administrator of a run.
    pub const fn new(options: TopologyOptions, rng: Rng) -> Self {
        Self { rng, options, left: CHANGES_MAX }
    }

    /// Schedules the next change, if changes are left.
    pub fn start(&mut self, world: &mut World) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let after_us = 1 + self.rng.waiting_us(self.options.every_us);
        world.alarm(after_us, Alarm::Topology.number());
    }

    /// Makes a change, or two at once, and schedules the next.
    pub fn change(&mut self, world: &mut World) {
        self.start(world);
        for _ in 0..if self.rng.chance(200) { 2 } else { 1 } {
            let through = self.rng.index(world.cluster().len());
            if let Some(change) = self.draw(world) {
                world.change_members(through, vec![change]);
            }
        }
    }

    fn draw(&mut self, world: &World) -> Option<ChangeKind> {
        let (members, spares) = (world.members(), world.spares());
        let member = members[self.rng.index(members.len())];
        let Home { node, incarnation } = world.home(member);
        let spare = (!spares.is_empty()).then(|| world.member_of(spares[self.rng.index(spares.len())]));
        match (self.rng.below(10), spare) {
            (0..4, Some(spare)) => Some(ChangeKind::Add(spare)),
            (4..6, Some(new)) if self.options.removes => Some(ChangeKind::Replace { old: node, new }),
            (4..8, _) if self.options.removes => Some(ChangeKind::Remove { node, incarnation }),
            (8, _) => Some(ChangeKind::Weight { node, weight: *self.rng.pick(&WEIGHTS) }),
            _ => {
                let (zone, host) = (format!("z{}", self.rng.below(3)), format!("h{}", self.rng.below(6)));
                Some(ChangeKind::Zone { node, zone, host })
            }
        }
    }
}
