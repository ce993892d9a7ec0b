//! An administrator that changes the settings of buckets while the cluster works.

use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::SettingsPatch;
use cartwheel_core::control::SettingsChange;

use crate::cluster::{BucketSpec, Cluster};
use crate::rng::{Rng, Stream};
use crate::run::Alarm;
use crate::world::World;

/// Changes R and W of a random bucket through a random node now and then, and in some runs n, up and down. R and W never fall below those of the
/// run's options, so that the least number of replicas behind each response stays known.
#[derive(Debug)]
pub struct Administrator {
    rng: Rng,
    every_us: u64,
    left: u32,
    changes_n: bool,
}

/// The most changes in a run: each goes to every node, and every history keeps all of them.
const CHANGES_MAX: u32 = 60;

impl Administrator {
    /// The administrator of a run; `None` in most runs.
    pub fn draw(rng: &mut Rng) -> Option<Self> {
        let own = Rng::new(rng.bits(), Stream::Settings);
        let every_us = rng.magnitude(50_000, 3_000_000);
        rng.chance(350).then_some(Self { rng: own, every_us, left: CHANGES_MAX, changes_n: false })
    }

    /// Draws whether n is changed too, and the range of n of each bucket. Where members change (`has_topology`), n is never above the run's
    /// options: a cluster that is to become smaller than n stays as it is.
    pub fn draw_ns(&mut self, cluster: &mut Cluster, has_topology: bool) {
        self.changes_n = self.rng.chance(500);
        if !self.changes_n {
            return;
        }
        let nodes = cluster.founders() as u8;
        let mut ns = |bucket: &BucketSpec| {
            let least = self.rng.range(bucket.r.max(bucket.w).into(), bucket.n.into()) as u8;
            let most = if has_topology { bucket.n } else { bucket.n.max(self.rng.range(1, nodes.into()) as u8) };
            (least, most)
        };
        let ns = cluster.spec().buckets.iter().map(&mut ns).collect();
        cluster.set_ns(ns);
    }

    /// Schedules the next change, if changes are left.
    pub fn start(&mut self, world: &mut World) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let after_us = 1 + self.rng.waiting_us(self.every_us);
        world.alarm(after_us, Alarm::Settings.number());
    }

    /// Makes a change and schedules the next.
    pub fn change(&mut self, world: &mut World) {
        self.start(world);
        let buckets = &world.cluster().spec().buckets;
        let place = self.rng.index(buckets.len());
        let (bucket, (n_least, n_most)) = (&buckets[place], world.cluster().ns()[place]);
        let quorum_max = u64::from(n_least).min(world.cluster().founders() as u64);
        let mut quorum = |least: u8| Some(self.rng.range(u64::from(least), quorum_max) as u8);
        let (r, w) = (quorum(bucket.r), quorum(bucket.w));
        let n = (self.changes_n && self.rng.chance(500)).then(|| self.rng.range(n_least.into(), n_most.into()) as u8);
        // With one home left, no other can heal what that home's disk has damaged: the homes that are left are assumed to hold what their trees
        // say. So damage that happens before counts as if it had happened after the change.
        let n = n.filter(|&n| n > 1 || !world.has_damaged(bucket.name.as_bytes()));
        let settings = SettingsPatch { n, r, w, ..SettingsPatch::default() };
        let bucket = Bytes::copy_from_slice(bucket.name.as_bytes());
        let timeout = Duration::from_micros(self.rng.magnitude(10_000, 5_000_000));
        let node = self.rng.index(world.cluster().len());
        world.change_settings(node, SettingsChange { bucket, settings, empties: None, timeout });
    }
}
