//! All options of a run, drawn from one seed (swarm testing: each kind of fault is on or off, with its own rate).

use std::collections::BTreeSet;
use std::time::Duration;

use cartwheel_core::cluster::membership::{Conflict, Durability};
use cartwheel_core::config::{Limits, Timing};

use crate::cluster::{BucketSpec, ClusterSpec, NodeSpec};
use crate::rng::{Rng, Stream};
use crate::topology::CHANGES_MAX;

/// What a run does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes, partitions, buckets.
    pub cluster: ClusterSpec,
    /// How long messages take and how they get lost.
    pub network: NetworkOptions,
    /// How stores behave.
    pub disks: DiskOptions,
    /// How far clocks are off.
    pub clocks: ClockOptions,
    /// What strikes now and then.
    pub faults: FaultOptions,
    /// What clients do.
    pub workload: Workload,
    /// How members change, if they do.
    pub topology: Option<TopologyOptions>,
}

/// How messages travel.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// The shortest way.
    pub delay_min_us: u64,
    /// The mean of what comes on top, exponentially spread, so that messages overtake each other.
    pub delay_mean_us: u64,
    /// How many of a thousand messages take up to `tail_max_us` more.
    pub tail_per_mille: u32,
    /// The longest extra delay.
    pub tail_max_us: u64,
    /// How many of a thousand messages are lost.
    pub loss_per_mille: u32,
    /// How many of a thousand messages come twice.
    pub duplicate_per_mille: u32,
    /// Whether a cut also drops what is under way.
    pub cut_drops_in_flight: bool,
}

/// How stores behave.
#[derive(Clone, Debug, Default)]
pub struct DiskOptions {
    /// The shortest command.
    pub delay_min_us: u64,
    /// The mean of what comes on top.
    pub delay_mean_us: u64,
    /// What a sync takes on top, at most.
    pub sync_max_us: u64,
    /// How many of a thousand commands take up to `stall_max_us` more.
    pub stall_per_mille: u32,
    /// The longest stall.
    pub stall_max_us: u64,
    /// How many of a thousand reads fail.
    pub read_fail_per_mille: u32,
    /// How many of a thousand writes fail, stored or not.
    pub write_fail_per_mille: u32,
}

/// How far clocks are off.
#[derive(Clone, Debug, Default)]
pub struct ClockOptions {
    /// The most that a clock is off from the start.
    pub skew_max_ms: u64,
    /// The most that a jump changes.
    pub jump_max_ms: u64,
}

/// How often a fault strikes and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The mean time between two.
    pub every_us: u64,
    /// The mean time until it ends.
    pub lasts_us: u64,
}

/// Which faults strike; `None`: never.
#[derive(Clone, Debug, Default)]
pub struct FaultOptions {
    /// One direction between two nodes is cut.
    pub cut: Option<Rate>,
    /// The nodes fall into two groups.
    pub partition: Option<Rate>,
    /// A node crashes, and starts again.
    pub crash: Option<Rate>,
    /// A node stands still.
    pub pause: Option<Rate>,
    /// A clock jumps.
    pub clock_jump: Option<Rate>,
    /// A stored record is damaged.
    pub damage: Option<Rate>,
    /// A disk is full for a while.
    pub full_disk: Option<Rate>,
    /// A node loses its disk, and comes back as a new incarnation.
    pub wipe: Option<Rate>,
    /// All nodes crash at once.
    pub outage: Option<Rate>,
    /// A running node's disk is copied, and after a while the copy is put in its place.
    pub hot_copy: Option<Rate>,
    /// All homes of a key are down for a while, and those who stand in for them restart meanwhile.
    pub stand_ins: Option<Rate>,
    /// How many of a thousand crashes are orderly stops instead.
    pub orderly_per_mille: u32,
}

/// What clients do. The shares are weights.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Clients, each with one request at a time.
    pub clients: usize,
    /// Requests of all clients together, retries not counted.
    pub operations: usize,
    /// Keys of each bucket: few, so that writes conflict.
    pub keys: usize,
    /// The shortest and the longest time that a client waits.
    pub timeout: (Duration, Duration),
    /// The mean time between an answer and the next request.
    pub think_us: u64,
    /// How many of a thousand requests go to the client's own node.
    pub sticky_per_mille: u32,
    /// How many of a thousand unanswered writes are tried again under the same name.
    pub retry_per_mille: u32,
    /// How many of a thousand requests on an eventual bucket are strong all the same.
    pub strong_per_mille: u32,
    /// How many of a thousand requests override r or w.
    pub override_per_mille: u32,
    /// How many of a thousand values expire while a run lasts, and within what time at the latest.
    pub expires_per_mille: u32,
    /// See there.
    pub expires_within: Duration,
    /// Weights of what is asked.
    pub shares: Shares,
}

/// Weights of what is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares {
    /// A plain get.
    pub get: u32,
    /// A get that wants to see what the client has seen.
    pub get_seen: u32,
    /// A blind put.
    pub put_blind: u32,
    /// A put with the context of the client's last get.
    pub put_got: u32,
    /// A put with the context of the client's last put.
    pub put_own: u32,
    /// A delete with a context.
    pub delete_seen: u32,
    /// A delete without a context.
    pub delete_blind: u32,
    /// A put with the context of another key.
    pub borrowed: u32,
    /// A put with a damaged context.
    pub forged: u32,
}

impl Workload {
    /// About how long the clients work, in microseconds, if every request is answered at once.
    pub const fn lasts_us(&self) -> u64 {
        self.operations as u64 * self.think_us / self.clients as u64
    }
}

impl Shares {
    /// All weights together.
    pub const fn total(&self) -> u32 {
        self.get
            + self.get_seen
            + self.put_blind
            + self.put_got
            + self.put_own
            + self.delete_seen
            + self.delete_blind
            + self.borrowed
            + self.forged
    }
}

/// How members change.
#[derive(Clone, Debug)]
pub struct TopologyOptions {
    /// How often, in microseconds.
    pub every_us: u64,
    /// Whether any are removed or replaced.
    pub removes: bool,
}

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Rng::new(seed, Stream::Options);
        let cluster = draw_cluster(rng);
        let mut options = Self {
            network: draw_network(rng),
            disks: draw_disks(rng),
            clocks: draw_clocks(rng),
            faults: draw_faults(rng),
            workload: draw_workload(rng),
            topology: None,
            cluster,
        };
        if rng.chance(120) {
            options.crowd_one_strong_key(rng);
        }
        // Drawn apart, so that the seeds of runs without them are what they were.
        options.leave_to_the_os(&mut Rng::new(seed, Stream::Power));
        options.have_others_stand_in(&mut Rng::new(seed, Stream::StandIns));
        let rng = &mut Rng::new(seed, Stream::Room);
        if rng.chance(250) {
            let (every_us, lasts_us) = (rng.magnitude(20_000, 3_000_000), rng.magnitude(5_000, 3_000_000));
            options.faults.full_disk = Some(Rate { every_us, lasts_us });
        }
        let rng = &mut Rng::new(seed, Stream::Wipe);
        if rng.chance(250) {
            let (every_us, lasts_us) = (rng.magnitude(20_000, 3_000_000), rng.magnitude(5_000, 2_000_000));
            options.faults.wipe = Some(Rate { every_us, lasts_us });
        }
        options.compare_replicas(&mut Rng::new(seed, Stream::Exchange));
        let rng = &mut Rng::new(seed, Stream::Epochs);
        if rng.chance(100) {
            options.take_long(rng);
        }
        options.let_expire(&mut Rng::new(seed, Stream::Expiry));
        options.let_members_change(&mut Rng::new(seed, Stream::Topology));
        let rng = &mut Rng::new(seed, Stream::Copies);
        if rng.chance(250) {
            let (every_us, lasts_us) = (rng.magnitude(20_000, 3_000_000), rng.magnitude(5_000, 3_000_000));
            options.faults.hot_copy = Some(Rate { every_us, lasts_us });
        }
        options.outlive_the_founder(&mut Rng::new(seed, Stream::Founders));
        options
    }

    /// In some runs no founder is left, the homes of keys are down together now and then, and those who stand in for them restart.
    fn outlive_the_founder(&mut self, rng: &mut Rng) {
        if !rng.chance(60) {
            return;
        }
        let zones = rng.range(1, 3);
        let node = |number: u64| {
            let (name, zone, host) = (format!("n{number}"), format!("z{}", number % zones), format!("h{number}"));
            NodeSpec { name, zone, host }
        };
        self.cluster.nodes = (1..=rng.range(6, 7)).map(node).collect();
        (self.cluster.spares, self.cluster.outlives_founder, self.topology) = (0, true, None);
        self.cluster.partitions = self.cluster.nodes.len() as u32;
        for bucket in self.cluster.buckets.iter_mut() {
            (bucket.n, bucket.r, bucket.w, bucket.sloppy) = (3, 2, 2, true);
        }
        self.faults.wipe = None;
        self.faults.stand_ins =
            Some(Rate { every_us: rng.magnitude(300_000, 3_000_000), lasts_us: rng.magnitude(100_000, 2_000_000) });
        let workload = &mut self.workload;
        workload.operations = workload.operations.max(100);
        workload.think_us = workload.think_us.max(20_000);
        workload.shares.put_blind += 5;
    }

    /// In some runs nodes come and go.
    fn let_members_change(&mut self, rng: &mut Rng) {
        if !rng.chance(350) {
            return;
        }
        let spares = rng.range(1, 3) as usize;
        for _ in 0..spares {
            let number = self.cluster.nodes.len() as u64 + 1;
            let (name, zone, host) = (format!("n{number}"), format!("z{}", number % 3), format!("h{number}"));
            self.cluster.nodes.push(NodeSpec { name, zone, host });
        }
        self.cluster.spares = spares;
        let mut every_us = rng.magnitude(100_000, 10_000_000).max(self.workload.think_us / 4);
        if rng.chance(300) {
            self.faults.outage =
                Some(Rate { every_us: rng.magnitude(300_000, 5_000_000), lasts_us: rng.magnitude(5_000, 1_000_000) });
        }
        if rng.chance(300) {
            self.crowd_few_keys(rng);
            every_us = (self.workload.lasts_us() / u64::from(CHANGES_MAX)).max(30_000);
        }
        // Whoever is removed unheard takes along what it alone acknowledged.
        let removes = self.cluster.buckets.iter().all(|bucket| bucket.w >= 2 || bucket.strong_only);
        self.topology = Some(TopologyOptions { every_us, removes });
    }

    /// All clients at few keys, whose reads ask few homes, or whose writes do: what a home does not hold shows.
    fn crowd_few_keys(&mut self, rng: &mut Rng) {
        let nodes_len = (self.cluster.nodes.len() - self.cluster.spares) as u8;
        for bucket in &mut self.cluster.buckets {
            bucket.n = bucket.n.min(nodes_len);
            (bucket.r, bucket.w) = *rng.pick(&[(1, bucket.n), (1, bucket.n), (bucket.n, 1), (bucket.r, bucket.w)]);
        }
        self.cluster.partitions = self.cluster.nodes.len() as u32;
        let workload = &mut self.workload;
        (workload.clients, workload.keys, workload.sticky_per_mille) = (6, 1, 0);
        workload.operations = rng.range(150, 300) as usize;
        workload.think_us = rng.magnitude(5_000, 300_000);
        workload.shares = Shares { get: 12, put_blind: 3, put_got: 3, ..Shares::default() };
    }

    /// In some runs values expire.
    fn let_expire(&mut self, rng: &mut Rng) {
        if rng.chance(300) {
            self.workload.expires_per_mille = *rng.pick(&[100, 300, 800]);
            self.workload.expires_within = Duration::from_micros(rng.magnitude(10_000, 90_000_000));
            if rng.chance(300) {
                // What a clock says that is far ahead must not count.
                self.clocks.jump_max_ms = 90_000;
                self.faults.clock_jump = Some(Rate { every_us: rng.magnitude(1_000_000, 30_000_000), lasts_us: 0 });
            }
        }
    }

    /// Replicas are compared often enough for what goes on in a run, and their trees grow deep over few keys.
    fn compare_replicas(&mut self, rng: &mut Rng) {
        if rng.chance(200) && self.cluster.buckets.iter().all(|bucket| bucket.name != "crowd") {
            // Many keys to a tree.
            self.cluster.partitions = self.cluster.nodes.len() as u32;
            self.workload.keys = rng.range(4, 10) as usize;
        }
        let timing = &mut self.cluster.timing;
        // Many partitions are many comparisons.
        let low = 300_000 + u64::from(self.cluster.partitions) * 100_000;
        timing.exchange_every = Some(Duration::from_micros(rng.magnitude(low, 20_000_000)));
        timing.scan_pause = Duration::from_micros(rng.magnitude(100, 20_000));
        timing.scrub_every = Duration::from_micros(rng.magnitude(4_000_000, 30_000_000));
        self.cluster.limits.leaf_keys_max = *rng.pick(&[1, 1, 1, 2, 64]);
        self.faults.orderly_per_mille = *rng.pick(&[0, 300, 300, 700]);
    }

    /// The options of a seed for a run of about a day: everything takes hours that takes seconds elsewhere, and nodes are away for long.
    pub fn draw_a_day(seed: u64) -> Self {
        const MINUTE_US: u64 = 60 * 1_000_000;
        let mut options = Self::draw(seed);
        let rng = &mut Rng::new(seed, Stream::Days);
        let founders = options.cluster.nodes.len() - options.cluster.spares;
        options.cluster.nodes.truncate(founders.min(4));
        // No more answers are wanted than there are nodes.
        let nodes_len = options.cluster.nodes.len() as u8;
        for bucket in &mut options.cluster.buckets {
            (bucket.r, bucket.w) = (bucket.r.min(nodes_len), bucket.w.min(nodes_len));
        }
        (options.cluster.spares, options.topology) = (0, None);
        options.take_long(rng);
        options.cluster.timing.exchange_every = Some(Duration::from_secs(20));
        options.cluster.timing.scrub_every = Duration::from_secs(6 * 60 * 60);
        let workload = &mut options.workload;
        (workload.clients, workload.operations) = (workload.clients.min(3), 100);
        workload.think_us = 25 * MINUTE_US;
        options.network.tail_max_us = rng.magnitude(MINUTE_US, 6 * 60 * MINUTE_US);
        let faults = &mut options.faults;
        (faults.outage, faults.stand_ins, options.cluster.outlives_founder) = (None, None, false);
        let often = Rate { every_us: 180 * MINUTE_US, lasts_us: rng.magnitude(MINUTE_US, 600 * MINUTE_US) };
        (faults.crash, faults.pause, faults.partition) = (Some(often), Some(often), Some(often));
        for rate in
            [&mut faults.cut, &mut faults.wipe, &mut faults.clock_jump, &mut faults.damage, &mut faults.full_disk]
                .into_iter()
                .flatten()
        {
            *rate = Rate { every_us: 240 * MINUTE_US, lasts_us: rng.magnitude(MINUTE_US, 120 * MINUTE_US) };
        }
        options
    }

    /// In some runs many epochs go by: clients think long, deletes are many, faults last, and some messages are so late that what they
    /// carry was deleted and forgotten long ago.
    fn take_long(&mut self, rng: &mut Rng) {
        self.cluster.partitions = self.cluster.nodes.len() as u32;
        let timing = &mut self.cluster.timing;
        timing.exchange_every = Some(Duration::from_micros(rng.range(1_000_000, 1_500_000)));
        timing.scrub_every = Duration::from_secs(60);
        let workload = &mut self.workload;
        workload.operations = workload.operations.min(rng.range(30, 100) as usize);
        workload.think_us = rng.magnitude(1_000_000, 10_000_000);
        workload.keys = workload.keys.min(3);
        if workload.shares.put_got + workload.shares.put_blind > 0 {
            workload.shares.delete_seen += rng.range(1, 6) as u32;
            workload.shares.delete_blind += rng.range(0, 3) as u32;
        }
        self.network.tail_per_mille = *rng.pick(&[5, 20, 50]);
        self.network.tail_max_us = rng.magnitude(10_000_000, 60_000_000);
        let faults = &mut self.faults;
        let rates = [&mut faults.cut, &mut faults.partition, &mut faults.crash, &mut faults.pause, &mut faults.wipe];
        for rate in rates.into_iter().flatten() {
            *rate =
                Rate { every_us: rng.magnitude(10_000_000, 100_000_000), lasts_us: rng.magnitude(100_000, 30_000_000) };
        }
        for rate in [&mut faults.clock_jump, &mut faults.damage, &mut faults.full_disk].into_iter().flatten() {
            rate.every_us = rng.magnitude(10_000_000, 100_000_000);
        }
    }

    /// In some runs, some buckets acknowledge writes that are not synced.
    fn leave_to_the_os(&mut self, rng: &mut Rng) {
        if rng.chance(250) {
            for bucket in self.cluster.buckets.iter_mut().filter(|_| rng.chance(700)) {
                bucket.durability = Durability::Os;
            }
        }
    }

    /// In some runs there are more nodes than keys need, and in some buckets none of them stands in for another.
    fn have_others_stand_in(&mut self, rng: &mut Rng) {
        if rng.chance(500) {
            let zones = self.cluster.nodes.iter().map(|node| node.zone.clone()).collect::<BTreeSet<_>>().len() as u64;
            for _ in 0..rng.range(1, 3) {
                let number = self.cluster.nodes.len() as u64 + 1;
                let (name, zone, host) = (format!("n{number}"), format!("z{}", number % zones), format!("h{number}"));
                self.cluster.nodes.push(NodeSpec { name, zone, host });
            }
            self.cluster.partitions = self.cluster.partitions.max(self.cluster.nodes.len() as u32);
        }
        for bucket in self.cluster.buckets.iter_mut().filter(|_| rng.chance(150)) {
            bucket.sloppy = false;
        }
    }

    /// All clients at one key that is read and written strongly, over links whose delays vary much: two writes reach different
    /// replicas first and two reads meet in between, which is where a strong read can go wrong.
    fn crowd_one_strong_key(&mut self, rng: &mut Rng) {
        let n = *rng.pick(&[3, 3, 4, 5]).min(&(self.cluster.nodes.len() as u8));
        let conflict = *rng.pick(&[Conflict::Siblings, Conflict::Siblings, Conflict::Lww]);
        let (name, durability) = ("crowd".to_owned(), Durability::Fsync);
        let crowd = BucketSpec { name, n, r: 1, w: 1, conflict, durability, sloppy: true, strong_only: true };
        self.cluster.buckets = vec![crowd];
        self.network.delay_min_us = 100;
        self.network.delay_mean_us = rng.magnitude(2_000, 20_000);
        let workload = &mut self.workload;
        (workload.clients, workload.keys, workload.sticky_per_mille) = (6, 1, 0);
        workload.operations = rng.range(60, 200) as usize;
        workload.think_us = rng.magnitude(100, 10_000);
        workload.timeout = (Duration::from_secs(1), Duration::from_secs(2));
        workload.shares = Shares { get: 12, put_blind: 4, put_got: rng.range(0, 3) as u32, ..Shares::default() };
    }
}

/// One of `usual` mostly, otherwise one of `low..=high`.
fn biased(rng: &mut Rng, usual: u64, low: u64, high: u64) -> u64 {
    if rng.chance(600) { usual.clamp(low, high) } else { rng.range(low, high) }
}

fn draw_cluster(rng: &mut Rng) -> ClusterSpec {
    let nodes_len = biased(rng, 3, 1, 7);
    let (zones, hosts) = (rng.range(1, 3), rng.range(1, nodes_len));
    let nodes = (1..=nodes_len)
        .map(|number| NodeSpec {
            name: format!("n{number}"),
            zone: format!("z{}", number % zones),
            host: format!("h{}", number % hosts),
        })
        .collect();
    // Every node owns a partition: one that owns none is on no preference list.
    let partitions = rng.magnitude(nodes_len, 64) as u32;
    let mut buckets = Vec::new();
    for (conflict, name) in [(Conflict::Siblings, "cart"), (Conflict::Lww, "last")] {
        for strong_only in [false, true] {
            // At most as many replicas as nodes, or as many as leave a majority among the nodes.
            let n_max = if rng.chance(100) { 2 * nodes_len - 1 } else { nodes_len };
            let n = biased(rng, 3, 1, n_max.min(5));
            let name = if strong_only { format!("{name}-strong") } else { name.to_owned() };
            let (r, w) = (biased(rng, 2, 1, n.min(nodes_len)) as u8, biased(rng, 2, 1, n.min(nodes_len)) as u8);
            let (durability, sloppy) = (Durability::Fsync, true);
            buckets.push(BucketSpec { name, n: n as u8, r, w, conflict, durability, sloppy, strong_only });
        }
    }
    // Every run leaves some buckets out, so that the others' keys see more traffic.
    while buckets.len() > 1 && rng.chance(400) {
        buckets.remove(rng.index(buckets.len()));
    }
    let mut limits = Limits::default();
    if rng.chance(100) {
        limits.siblings_max = rng.range(1, 6) as usize;
    }
    if rng.chance(50) {
        limits.operations_max = rng.range(1, 4) as usize;
    }
    // In every second run contexts leave out what a long chain of writes would make them leave out. Not drawn, so that seeds stay what they
    // were.
    if (partitions / 2).is_multiple_of(2) {
        limits.idle_actors_max = 0;
    }
    if partitions.is_multiple_of(2) {
        limits.context_singles_max = partitions as usize / 2 % 3;
    }
    let timing = if rng.chance(300) {
        Timing {
            hedge_after: Duration::from_micros(rng.magnitude(1_000, 200_000)),
            resend_after: Duration::from_micros(rng.magnitude(5_000, 1_000_000)),
            forward_after: Duration::from_micros(rng.magnitude(5_000, 2_000_000)),
            ..Timing::default()
        }
    } else {
        Timing::default()
    };
    ClusterSpec { nodes, spares: 0, outlives_founder: false, partitions, buckets, limits, timing }
}

fn draw_network(rng: &mut Rng) -> NetworkOptions {
    let mut network = NetworkOptions {
        delay_min_us: rng.magnitude(10, 2_000),
        delay_mean_us: rng.magnitude(50, 20_000),
        cut_drops_in_flight: rng.chance(500),
        ..NetworkOptions::default()
    };
    if rng.chance(400) {
        network.loss_per_mille = rng.magnitude(1, 200) as u32;
    }
    if rng.chance(400) {
        network.duplicate_per_mille = rng.magnitude(1, 300) as u32;
    }
    if rng.chance(400) {
        network.tail_per_mille = rng.magnitude(1, 100) as u32;
        network.tail_max_us = rng.magnitude(50_000, 8_000_000);
    }
    network
}

fn draw_disks(rng: &mut Rng) -> DiskOptions {
    let mut disks = DiskOptions {
        delay_min_us: rng.magnitude(1, 200),
        delay_mean_us: rng.magnitude(1, 2_000),
        sync_max_us: rng.magnitude(100, 20_000),
        ..DiskOptions::default()
    };
    if rng.chance(300) {
        disks.stall_per_mille = rng.magnitude(1, 100) as u32;
        disks.stall_max_us = rng.magnitude(20_000, 3_000_000);
    }
    if rng.chance(300) {
        disks.read_fail_per_mille = rng.magnitude(1, 100) as u32;
    }
    if rng.chance(300) {
        disks.write_fail_per_mille = rng.magnitude(1, 200) as u32;
    }
    disks
}

fn draw_clocks(rng: &mut Rng) -> ClockOptions {
    let skew_max_ms = if rng.chance(600) { rng.magnitude(1, 4_000) } else { 0 };
    // Over 10 s a node refuses writes: worth a look, but not in every run.
    let jump_max_ms = if rng.chance(100) { 60_000 } else { rng.magnitude(1, 4_000) };
    ClockOptions { skew_max_ms, jump_max_ms }
}

fn draw_faults(rng: &mut Rng) -> FaultOptions {
    let mut rate = |on_per_mille, lasts_max_us| {
        rng.chance(on_per_mille)
            .then(|| Rate { every_us: rng.magnitude(20_000, 3_000_000), lasts_us: rng.magnitude(5_000, lasts_max_us) })
    };
    FaultOptions {
        cut: rate(350, 2_000_000),
        partition: rate(350, 3_000_000),
        crash: rate(350, 2_000_000),
        pause: rate(250, 2_000_000),
        clock_jump: rate(250, 10_000),
        damage: rate(250, 10_000),
        full_disk: None,
        wipe: None,
        outage: None,
        hot_copy: None,
        stand_ins: None,
        orderly_per_mille: 0,
    }
}

fn draw_workload(rng: &mut Rng) -> Workload {
    let timeout_low = rng.magnitude(20_000, 1_000_000);
    let timeout_high = rng.magnitude(timeout_low, 5_000_000);
    Workload {
        clients: rng.range(1, 6) as usize,
        operations: rng.magnitude(20, 240) as usize,
        keys: rng.range(1, 3) as usize,
        timeout: (Duration::from_micros(timeout_low), Duration::from_micros(timeout_high)),
        think_us: rng.magnitude(100, 100_000),
        sticky_per_mille: *rng.pick(&[0, 500, 900, 1000]),
        retry_per_mille: *rng.pick(&[0, 500, 900]),
        strong_per_mille: *rng.pick(&[0, 0, 100, 400]),
        override_per_mille: *rng.pick(&[0, 0, 50, 300]),
        expires_per_mille: 0,
        expires_within: Duration::ZERO,
        shares: draw_shares(rng),
    }
}

fn draw_shares(rng: &mut Rng) -> Shares {
    let mut weight = |on_per_mille, max| if rng.chance(on_per_mille) { rng.range(1, max) as u32 } else { 0 };
    Shares {
        get: 1 + weight(900, 20),
        get_seen: weight(600, 10),
        put_blind: 1 + weight(800, 20),
        put_got: weight(800, 20),
        put_own: weight(600, 10),
        delete_seen: weight(400, 6),
        delete_blind: weight(150, 3),
        borrowed: weight(200, 2),
        forged: weight(100, 2),
    }
}
