//! An administrator who changes buckets' settings while the cluster works.

use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::control::SettingsChange;
use cartwheel_core::membership::SettingsPatch;

use crate::rng::{Rng, Stream};
use crate::run::Alarm;
use crate::world::World;

/// Changes R and W of a random bucket through a random node, now and then. They never fall below those of the run's options, so
/// that what every answer must at least stand on stays known.
#[derive(Debug)]
pub struct Administrator {
    rng: Rng,
    every_us: u64,
    left: u32,
}

/// How many changes there are at most: each goes to every node, and every history has all of them.
const CHANGES_MAX: u32 = 60;

impl Administrator {
    /// The administrator of a run; most runs have none.
    pub fn draw(rng: &mut Rng) -> Option<Self> {
        let own = Rng::new(rng.bits(), Stream::Settings);
        let every_us = rng.magnitude(50_000, 3_000_000);
        rng.chance(350).then_some(Self { rng: own, every_us, left: CHANGES_MAX })
    }

    /// Plans the next change, if there is to be one.
    pub fn start(&mut self, world: &mut World) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let after_us = 1 + self.rng.waiting_us(self.every_us);
        world.alarm(after_us, Alarm::Settings.number());
    }

    /// Makes a change, and plans the next.
    pub fn change(&mut self, world: &mut World) {
        self.start(world);
        let buckets = &world.cluster().spec().buckets;
        let bucket = &buckets[self.rng.index(buckets.len())];
        let quorum_max = u64::from(bucket.n).min(world.cluster().founders() as u64);
        let mut quorum = |least: u8| Some(self.rng.range(u64::from(least), quorum_max) as u8);
        let (r, w) = (quorum(bucket.r), quorum(bucket.w));
        let settings = SettingsPatch { r, w, ..SettingsPatch::default() };
        let bucket = Bytes::copy_from_slice(bucket.name.as_bytes());
        let timeout = Duration::from_micros(self.rng.magnitude(10_000, 5_000_000));
        let node = self.rng.index(world.cluster().len());
        world.change_settings(node, SettingsChange { bucket, settings, timeout });
    }
}
