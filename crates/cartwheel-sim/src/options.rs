//! The options of a run, all drawn from one seed. This is swarm testing: each kind of fault is on or off, with a rate of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use cartwheel_core::cluster::membership::{Conflict, Durability};
use cartwheel_core::config::{Limits, Timing};

use crate::cluster::{BucketSpec, ClusterSpec, NodeSpec};
use crate::rng::{Rng, Stream};
use crate::topology::CHANGES_MAX;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes, partitions and buckets.
    pub cluster: ClusterSpec,
    /// Delays and losses of messages.
    pub network: NetworkOptions,
    /// Delays and failures of stores.
    pub disks: DiskOptions,
    /// Errors of clocks.
    pub clocks: ClockOptions,
    /// The rates of faults.
    pub faults: FaultOptions,
    /// The requests of clients.
    pub workload: Workload,
    /// The changes of members, if there are any.
    pub topology: Option<TopologyOptions>,
}

/// The behaviour of links.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// The least delay.
    pub delay_min_us: u64,
    /// The mean of the additional delay. It is exponentially distributed, so that messages overtake each other.
    pub delay_mean_us: u64,
    /// The share of messages with a long delay, in a thousand.
    pub tail_per_mille: u32,
    /// The most additional delay of those.
    pub tail_max_us: u64,
    /// The share of messages that are lost, in a thousand.
    pub loss_per_mille: u32,
    /// The share of messages that arrive twice, in a thousand.
    pub duplicate_per_mille: u32,
    /// Whether a cut also drops messages in flight.
    pub cut_drops_in_flight: bool,
}

/// The behaviour of stores.
#[derive(Clone, Debug, Default)]
pub struct DiskOptions {
    /// The least time of a command.
    pub delay_min_us: u64,
    /// The mean of the additional time.
    pub delay_mean_us: u64,
    /// The most additional time of a sync.
    pub sync_max_us: u64,
    /// The share of commands that stall, in a thousand.
    pub stall_per_mille: u32,
    /// The longest stall.
    pub stall_max_us: u64,
    /// The share of reads that fail, in a thousand.
    pub read_fail_per_mille: u32,
    /// The share of writes that fail, stored or not, in a thousand.
    pub write_fail_per_mille: u32,
}

/// The errors of clocks.
#[derive(Clone, Debug, Default)]
pub struct ClockOptions {
    /// The largest initial error.
    pub skew_max_ms: u64,
    /// The largest jump.
    pub jump_max_ms: u64,
}

/// How often a fault strikes and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The mean time between two faults.
    pub every_us: u64,
    /// The mean duration.
    pub lasts_us: u64,
}

/// The faults of a run; a kind that is `None` never strikes.
#[derive(Clone, Debug, Default)]
pub struct FaultOptions {
    /// One direction between two nodes is cut.
    pub cut: Option<Rate>,
    /// The nodes are split into two groups.
    pub partition: Option<Rate>,
    /// A node crashes and restarts.
    pub crash: Option<Rate>,
    /// A node is paused.
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
    /// A running node's disk is copied, and the copy is restored after a while.
    pub hot_copy: Option<Rate>,
    /// All homes of a key crash, and their stand-ins restart before the homes do.
    pub stand_ins: Option<Rate>,
    /// The share of crashes that are orderly stops instead, in a thousand.
    pub orderly_per_mille: u32,
}

/// The requests of clients.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The number of clients, each with one request at a time.
    pub clients: usize,
    /// The number of requests of all clients together, without retries.
    pub operations: usize,
    /// The number of keys of each bucket: few, so that writes conflict.
    pub keys: usize,
    /// The shortest and the longest timeout of a request.
    pub timeout: (Duration, Duration),
    /// The mean time between a response and the client's next request.
    pub think_us: u64,
    /// The share of requests that go to the client's own node, in a thousand.
    pub sticky_per_mille: u32,
    /// The share of unanswered writes that are sent again under the same name, in a thousand.
    pub retry_per_mille: u32,
    /// The share of strong requests on buckets for eventual ones, in a thousand.
    pub strong_per_mille: u32,
    /// The share of requests that override r or w, in a thousand.
    pub override_per_mille: u32,
    /// The share of values that expire during the run, in a thousand.
    pub expires_per_mille: u32,
    /// The longest lifetime of those.
    pub expires_within: Duration,
    /// The mix of requests.
    pub shares: Shares,
}

/// The weights of the kinds of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares {
    /// A get without a context.
    pub get: u32,
    /// A get that must cover what the client has seen.
    pub get_seen: u32,
    /// A put without a context.
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
    /// The sum of all weights.
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

/// The changes of members.
#[derive(Clone, Debug)]
pub struct TopologyOptions {
    /// The mean time between two changes, in microseconds.
    pub every_us: u64,
    /// Whether members are removed or replaced.
    pub removes: bool,
}

impl Options {
    /// Draws the options of a seed.
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
        // Drawn from streams of their own, so that runs of earlier seeds stay the same.
        options.leave_to_the_os(&mut Rng::new(seed, Stream::Power));
        options.add_stand_ins(&mut Rng::new(seed, Stream::StandIns));
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
        // None, one of a few records, and one of all records.
        options.cluster.limits.record_cache_bytes = *Rng::new(seed, Stream::Caches).pick(&[0, 0, 25_000, 16 << 20]);
        let rng = &mut Rng::new(seed, Stream::Epochs);
        if rng.chance(100) {
            options.slow_down(rng);
        }
        options.add_expiry(&mut Rng::new(seed, Stream::Expiry));
        options.add_member_changes(&mut Rng::new(seed, Stream::Topology));
        let rng = &mut Rng::new(seed, Stream::Copies);
        if rng.chance(250) {
            let (every_us, lasts_us) = (rng.magnitude(20_000, 3_000_000), rng.magnitude(5_000, 3_000_000));
            options.faults.hot_copy = Some(Rate { every_us, lasts_us });
        }
        options.remove_the_founder(&mut Rng::new(seed, Stream::Founders));
        options
    }

    /// In some runs the founder leaves before clients start. Now and then all homes of a key are down together, and their stand-ins restart.
    fn remove_the_founder(&mut self, rng: &mut Rng) {
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

    /// In some runs members change.
    fn add_member_changes(&mut self, rng: &mut Rng) {
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
        // A node that is removed while it is down takes along the writes that it alone has acknowledged.
        let removes = self.cluster.buckets.iter().all(|bucket| bucket.w >= 2 || bucket.strong_only);
        self.topology = Some(TopologyOptions { every_us, removes });
    }

    /// All clients use few keys, and reads or writes need few homes. Then it shows if a home lacks a write.
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
    fn add_expiry(&mut self, rng: &mut Rng) {
        if rng.chance(300) {
            self.workload.expires_per_mille = *rng.pick(&[100, 300, 800]);
            self.workload.expires_within = Duration::from_micros(rng.magnitude(10_000, 90_000_000));
            if rng.chance(300) {
                // The time of a clock that is far ahead must not count.
                self.clocks.jump_max_ms = 90_000;
                self.faults.clock_jump = Some(Rate { every_us: rng.magnitude(1_000_000, 30_000_000), lasts_us: 0 });
            }
        }
    }

    /// Makes exchanges frequent enough for a run's length, and Merkle trees deep though keys are few.
    fn compare_replicas(&mut self, rng: &mut Rng) {
        if rng.chance(200) && self.cluster.buckets.iter().all(|bucket| bucket.name != "crowd") {
            // Many keys in a tree.
            self.cluster.partitions = self.cluster.nodes.len() as u32;
            self.workload.keys = rng.range(4, 10) as usize;
        }
        let timing = &mut self.cluster.timing;
        // Many partitions have many exchanges.
        let low = 300_000 + u64::from(self.cluster.partitions) * 100_000;
        timing.exchange_every = Some(Duration::from_micros(rng.magnitude(low, 20_000_000)));
        timing.scan_pause = Duration::from_micros(rng.magnitude(100, 20_000));
        timing.scrub_every = Duration::from_micros(rng.magnitude(4_000_000, 30_000_000));
        self.cluster.limits.leaf_keys_max = *rng.pick(&[1, 1, 1, 2, 64]);
        self.faults.orderly_per_mille = *rng.pick(&[0, 300, 300, 700]);
    }

    /// Draws the options of a seed for a run of about a day: what takes seconds elsewhere takes hours, and nodes are away for long.
    pub fn draw_a_day(seed: u64) -> Self {
        const MINUTE_US: u64 = 60 * 1_000_000;
        let mut options = Self::draw(seed);
        let rng = &mut Rng::new(seed, Stream::Days);
        let founders = options.cluster.nodes.len() - options.cluster.spares;
        options.cluster.nodes.truncate(founders.min(4));
        // No request needs more responses than there are nodes.
        let nodes_len = options.cluster.nodes.len() as u8;
        for bucket in &mut options.cluster.buckets {
            (bucket.r, bucket.w) = (bucket.r.min(nodes_len), bucket.w.min(nodes_len));
        }
        (options.cluster.spares, options.topology) = (0, None);
        options.slow_down(rng);
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

    /// Makes many epochs pass: clients think long, deletes are many, and faults last. Some messages arrive after the garbage collection of what
    /// they carry.
    fn slow_down(&mut self, rng: &mut Rng) {
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

    /// In some runs, some buckets acknowledge writes before they are synced.
    fn leave_to_the_os(&mut self, rng: &mut Rng) {
        if rng.chance(250) {
            for bucket in self.cluster.buckets.iter_mut().filter(|_| rng.chance(700)) {
                bucket.durability = Durability::Os;
            }
        }
    }

    /// In some runs there are more nodes than homes, and in some buckets no node stands in for another.
    fn add_stand_ins(&mut self, rng: &mut Rng) {
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

    /// All clients use one key with strong requests, over links with widely varying delays. Two writes reach different replicas first and two reads
    /// come in between, which is where a strong read can go wrong.
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

/// `usual` in most cases, otherwise a number of `low..=high`.
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
    // Every node owns a partition, because a node without one is on no preference list.
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
    // Leave some buckets out, so that the others' keys get more traffic.
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
    // In every second run, contexts leave out what they would leave out after a long chain of writes. Derived instead of drawn, so that runs of
    // earlier seeds stay the same.
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
    // A node whose clock is more than 10 s off refuses writes. That is worth testing, but not in every run.
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
