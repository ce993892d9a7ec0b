//! The cost of many partitions, many buckets and pending moves to a node that does something else.
//!
//! Times are the best of several rounds. Only their ratios within one run matter.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench reads a clock")]

#[path = "../tests/it/pair/mod.rs"]
mod pair;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_core::cluster::configuration::{ConfigPhase, Configuration, Home};
use cartwheel_core::cluster::membership::{ChangeKind, SettingsPatch, View};
use cartwheel_core::message::client::{ClientId, Operation, Put, Request};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::image::Image;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::state::Content;
use cartwheel_core::value::time::{self, Now};

use pair::{EVERY, config, history, id, key, member};

/// A kind of cluster.
#[derive(Clone, Copy)]
struct Kind {
    nodes: usize,
    partitions: u32,
    buckets: usize,
    /// Nodes that were added and hold no partition yet.
    added: usize,
}

const SMALL: Kind = Kind { nodes: 1, partitions: 256, buckets: 0, added: 0 };
const LARGE: Kind = Kind { partitions: 16_384, buckets: 1_000, ..SMALL };

fn main() {
    // Few partitions first, then many: the first of each pair is the divisor.
    let unsettled = |kind: Kind| Kind { added: 3, ..kind };
    let [small, large, small_unsettled, large_unsettled] = [SMALL, LARGE, unsettled(SMALL), unsettled(LARGE)].map(puts);
    println!(
        "a put of 200 bytes, in the core alone, of a node with 256 partitions and no bucket's settings: {small:?}"
    );
    println!("  with 16,384 partitions and 1,000 buckets: x{:.2}", ratio(large, small));
    println!("  256 partitions, all of which are to move: x{:.2}", ratio(small_unsettled, small));
    println!("  16,384 partitions, all of which are to move: x{:.2}", ratio(large_unsettled, large));
    let [small, large] = [SMALL, LARGE].map(|kind| partition_states(Kind { nodes: 3, ..kind }));
    println!("\na partition state that changes, among 256 partitions: {small:?}");
    println!("  among 16,384, with 1,000 buckets: x{:.2}", ratio(large, small));
    let [small, large] = [SMALL, LARGE].map(|kind| settings(Kind { nodes: 3, ..kind }));
    println!("\na bucket's settings that change, among 256 partitions: {small:?}");
    println!("  among 16,384, with 1,000 buckets: x{:.2}", ratio(large, small));
    println!("\nof a core, in a cluster of three whose other nodes are silent, a node that has nothing to do takes");
    for (what, kind) in [("256 partitions", SMALL), ("16,384 partitions, 1,000 buckets", LARGE)] {
        println!("  {:.3}% with {what}", 100.0 * idle(Kind { nodes: 3, ..kind }));
    }
    println!("and one all of whose partitions are to move");
    for (what, kind) in [("256 partitions", SMALL), ("16,384 partitions, 1,000 buckets", LARGE)] {
        println!("  {:.3}% with {what}", 100.0 * idle(Kind { nodes: 3, ..unsettled(kind) }));
    }
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn view(kind: Kind) -> View {
    let mut history = history(kind.nodes, kind.partitions);
    let now = |at: u64| Hlc::at(WallMs(at));
    for bucket in 0..kind.buckets {
        let settings =
            SettingsPatch { n: Some(1 + (bucket % 3) as u8), r: Some(1), w: Some(1), ..SettingsPatch::default() };
        let what = ChangeKind::Bucket { name: format!("bucket-{bucket}").into(), settings };
        history.record(now(2), id(1), what);
    }
    for added in 0..kind.added {
        history.record(now(3), id(1), ChangeKind::Add(member(kind.nodes + 1 + added)));
    }
    history.view().expect("a history with its bootstrap")
}

/// A node alone, and its inputs.
struct Alone {
    node: Node,
    view: Arc<View>,
    disk: Image,
    now: u64,
    wake_at: u64,
    puts: u64,
}

impl Alone {
    fn new(kind: Kind) -> Self {
        Self::with(kind, EVERY)
    }

    /// A node with this interval of exchanges.
    fn with(kind: Kind, every: Duration) -> Self {
        let before = Arc::new(view(Kind { added: 0, ..kind }));
        let view = Arc::new(view(kind));
        let node = Node::new(config(1, 1, Some(every)), before);
        let mut alone = Self { node, view: view.clone(), disk: Image::default(), now: 1, wake_at: 1, puts: 0 };
        alone.pass(Duration::from_secs(20));
        alone.step(Input::View(view));
        alone.pass(Duration::from_secs(20));
        alone
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let now = Now { instant: time::Instant(self.now), wall: WallMs(1_000_000 + self.now / 1_000) };
            let effects = black_box(self.node.step(now, input));
            self.wake_at = effects.wake_at.map_or(u64::MAX, |at| at.0);
            for (id, command) in effects.stores {
                inputs.push(Input::Stored(id, self.disk.execute(&command)));
            }
        }
    }

    /// Lets time pass, and wakes the node when it wants to be woken.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time.as_micros() as u64;
        while self.wake_at.max(self.now + 1) < until {
            self.now = self.wake_at.max(self.now + 1);
            self.step(Input::Tick);
        }
        self.now = until;
    }

    fn put(&mut self) {
        self.puts += 1;
        self.now += 100;
        let content = Content::untyped(vec![self.puts as u8; 200]);
        let put = Put { w: Some(1), ..Put::blind(key(self.puts as usize % 10_000), content) };
        let request = Request { operation: Operation::Put(put), timeout: Duration::from_secs(1) };
        self.step(Input::Client(ClientId(self.puts), request));
    }
}

/// The time for a put.
fn puts(kind: Kind) -> Duration {
    const PUTS: u32 = 2_000;
    let mut alone = Alone::new(kind);
    best(|| (0..PUTS).for_each(|_| alone.put())) / PUTS
}

/// The time to adopt another partition state.
fn partition_states(kind: Kind) -> Duration {
    const STATES: u64 = 100;
    let mut alone = Alone::new(kind);
    let mut number = 0;
    let round = || {
        for place in 0..STATES {
            number += u64::from(place == 0);
            let partition = PartitionId(place as u32);
            let first = alone.view.first_configuration(partition);
            let homes: Vec<Home> = first.homes.clone();
            let phase = ConfigPhase::Stable(Configuration {
                number,
                homes,
                choosers: first.choosers,
                counts: first.counts.clone(),
            });
            alone.now += 10;
            alone.step(Input::Phases(vec![(partition, phase)]));
        }
    };
    best(round) / STATES as u32
}

/// The time to adopt other settings of one bucket.
fn settings(kind: Kind) -> Duration {
    let mut alone = Alone::new(kind);
    let mut history = history(kind.nodes, kind.partitions);
    for bucket in 0..kind.buckets {
        let settings =
            SettingsPatch { n: Some(1 + (bucket % 3) as u8), r: Some(1), w: Some(1), ..SettingsPatch::default() };
        let what = ChangeKind::Bucket { name: format!("bucket-{bucket}").into(), settings };
        history.record(Hlc::at(WallMs(2)), id(1), what);
    }
    let mut views: Vec<Arc<View>> = Vec::new();
    for place in 0..12 {
        let settings = SettingsPatch { sloppy: Some(place % 2 == 0), ..SettingsPatch::default() };
        history.record(Hlc::at(WallMs(4)), id(1), ChangeKind::Bucket { name: Bytes::from_static(b"carts"), settings });
        views.push(Arc::new(history.view().expect("a history with its bootstrap")));
    }
    let mut views = views.into_iter();
    best(|| alone.step(Input::View(views.next().expect("one a round"))))
}

/// The share of a core that an idle node takes, on average over two turns of all exchanges. Its peers do not answer
/// these.
fn idle(kind: Kind) -> f64 {
    const PASSES: Duration = Duration::from_secs(120);
    let mut alone = Alone::with(kind, Duration::from_secs(60));
    let begun = Instant::now();
    alone.pass(PASSES);
    begun.elapsed().as_secs_f64() / PASSES.as_secs_f64()
}

/// The shortest of some rounds.
fn best(mut round: impl FnMut()) -> Duration {
    let rounds = (0..12).map(|_| {
        let begun = Instant::now();
        round();
        begun.elapsed()
    });
    rounds.min().unwrap_or_default()
}
