//! The cost of anti-entropy: messages and bytes of an exchange, and the share of a put's CPU time that maintaining the
//! trees takes.
//!
//! Messages and bytes are exact and the same on every machine. Times are given as a ratio within one run.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench reads a clock")]

#[path = "../tests/it/pair/mod.rs"]
mod pair;

use std::hint::black_box;
use std::time::{Duration, Instant};

use cartwheel_core::message::client::{ClientId, Operation, Put, Request};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::store::image::Image;
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::state::Content;
use cartwheel_core::value::time::{self, Now};

use pair::{EVERY, Pair, config, disk, key, state, view};

fn main() {
    println!("two replicas of two partitions\n{:>10} {:>12} {:>10} {:>12}", "keys", "differences", "messages", "bytes");
    for keys in [10_000, 100_000, 1_000_000] {
        let mut pair = Pair::new(disk(keys), 2);
        pair.pass(EVERY);
        assert!(pair.exchanged(1) >= 2, "the trees are ready");
        for (version, differences) in (2..).zip([0, 1, 10, 100, 1_000, 10_000]) {
            let step = keys / differences.max(1);
            (0..differences).for_each(|nth| pair.merge(2, nth * step, state(nth * step, version)));
            pair.reset();
            pair.pass(EVERY);
            assert!(pair.exchanged(1) >= 2, "both exchanges have ended");
            println!("{keys:>10} {differences:>12} {:>10} {:>12}", pair.messages, pair.bytes);
        }
    }
    let mut rounds = (Writer::new(None), Writer::new(Some(EVERY)));
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..40 {
        best.0 = best.0.min(rounds.0.write(2_000));
        best.1 = best.1.min(rounds.1.write(2_000));
    }
    let share = 1.0 - best.0.as_secs_f64() / best.1.as_secs_f64();
    println!(
        "\nof the CPU that one node's core takes for a put of 200 bytes, keeping the trees takes {:.1}%",
        100.0 * share
    );
    println!("(2,000 puts: {:?} with, {:?} without; no HTTP, no disk, no other replica)", best.1, best.0);
}

/// A node alone, and its client.
struct Writer {
    node: Node,
    disk: Image,
    now: u64,
    puts: u64,
}

impl Writer {
    fn new(every: Option<Duration>) -> Self {
        let mut writer =
            Self { node: Node::new(config(1, 1, every), view(1, 256)), disk: Image::default(), now: 1, puts: 0 };
        for _ in 0..2_000 {
            writer.now += 1_000;
            writer.step(Input::Tick);
        }
        writer
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let now = Now { instant: time::Instant(self.now), wall: WallMs(1_000_000 + self.now / 1_000) };
            let effects = black_box(self.node.step(now, input));
            for (id, command) in effects.stores {
                inputs.push(Input::Stored(id, self.disk.execute(&command)));
            }
        }
    }

    /// The time for so many puts.
    fn write(&mut self, puts: usize) -> Duration {
        let begun = Instant::now();
        for _ in 0..puts {
            self.puts += 1;
            self.now += 10;
            let content = Content::untyped(vec![self.puts as u8; 200]);
            let put = Put { w: Some(1), ..Put::blind(key(self.puts as usize % 10_000), content) };
            let operation = Operation::Put(put);
            let request = Request { operation, timeout: Duration::from_secs(1) };
            self.step(Input::Client(ClientId(self.puts), request));
        }
        begun.elapsed()
    }
}
