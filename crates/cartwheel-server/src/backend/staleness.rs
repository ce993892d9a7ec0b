//! How soon reads see a write: probabilistically bounded staleness (Bailis et al., VLDB 2012), by simulation of their WARS model.
//!
//! A write is acknowledged when W homes have it, and reaches the others soon after. A read that asks R homes meanwhile may find none that has it.
//! For each home the model draws four times: a state takes W to get there, its acknowledgement A to come back, a read's request R to get there, its
//! response S to come back. The read is stale if its request is at all of the R homes that count before the state is.
//!
//! Where Cartwheel differs from the paper's model, this one follows Cartwheel:
//!
//! - The coordinator is a home: it has the write, durably, before it sends it to the others. So time begins there, and one home has W = A = 0.
//! - A read asks R homes, not all N. The node that reads is a home and asks itself first, with R = S = 0.
//! - A state can be read from the moment at which it arrives; a read waits for it to be durable. So the sync of a disk is part of A, not of W.
//!
//! The reader is another home than the coordinator: through the coordinator itself, a read always sees the write. Late replies, hedged reads and
//! read repair are left out: they only make reads fresher.

use cartwheel_core::cluster::latency::{Latencies, RoundTrips};
use fastrand::Rng;

/// How many times a read after a write is simulated, if N is at most 7. With more homes there are more pairs of R and W, and fewer trials.
const TRIALS: usize = 20_000;
/// The most trials, over all pairs of R and W.
const TRIALS_IN_ALL: usize = 1_000_000;

/// The times of one home other than the coordinator in one trial, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Draw {
    /// Until the state is there.
    pub write_ms: f64,
    /// Until its acknowledgement is back, counted from then.
    pub ack_ms: f64,
    /// Until a read's request is there.
    pub read_ms: f64,
}

/// How soon reads see a write, for each pair of R and W of one N.
#[derive(Clone, PartialEq, Debug)]
pub struct Prediction {
    n: usize,
    trials: usize,
    /// For each R and W, how long after the acknowledgement each trial's read had to begin to see the write, in milliseconds, ascending.
    needed_ms: Vec<Vec<f32>>,
}

impl Prediction {
    /// Predicts from the round trips that a coordinator has measured to its peers; none if it has measured no write.
    ///
    /// One-way times are not measured. A request takes half the round trip of a read, which no disk delays. A state takes the same way, and the rest
    /// of a write's round trip is its acknowledgement. Without measured reads, both ways of a write take half of it.
    pub fn of_measured(n: usize, peers: &[RoundTrips], seed: u64) -> Option<Self> {
        let peers: Vec<Peer> = peers.iter().filter_map(Peer::of).collect();
        if peers.is_empty() && n > 1 {
            return None;
        }
        let mut order: Vec<usize> = (0..peers.len()).collect();
        Some(Self::simulated(n, seed, |random, draws| {
            // Each key has its own homes: others of the peers each time, all of them equally often.
            random.shuffle(&mut order);
            for (draw, &peer) in draws.iter_mut().zip(order.iter().cycle()) {
                *draw = peers[peer].draw(random);
            }
        }))
    }

    /// Predicts from times that `draw` makes up for the homes other than the coordinator.
    pub fn simulated(n: usize, seed: u64, mut draw: impl FnMut(&mut Rng, &mut [Draw])) -> Self {
        let trials = TRIALS.min(TRIALS_IN_ALL / (n * n).max(1));
        let mut random = Rng::with_seed(seed);
        let mut needed_ms = vec![Vec::with_capacity(trials); n * n];
        let (mut draws, mut acks, mut asked) = (vec![Draw::default(); n], vec![0.0; n], Vec::with_capacity(n));
        for _ in 0..trials {
            draw(&mut random, &mut draws[1..]);
            for (ack, draw) in acks.iter_mut().zip(&draws) {
                *ack = draw.write_ms + draw.ack_ms;
            }
            acks.sort_unstable_by(f64::total_cmp);
            // The reader is home 1. It asks itself, then others in any order.
            asked.clear();
            asked.extend((0..n).filter(|&home| home != 1));
            random.shuffle(&mut asked);
            let reader = draws.get(1).map_or(0.0, |reader| reader.write_ms);
            let mut soonest_ms = reader;
            for r in 1..=n {
                if r > 1 {
                    let home = draws[asked[r - 2]];
                    soonest_ms = soonest_ms.min(home.write_ms - home.read_ms);
                }
                for w in 1..=n {
                    needed_ms[(r - 1) * n + w - 1].push((soonest_ms - acks[w - 1]).max(0.0) as f32);
                }
            }
        }
        needed_ms.iter_mut().for_each(|needed_ms| needed_ms.sort_unstable_by(f32::total_cmp));
        Self { n, trials, needed_ms }
    }

    /// How many times a read was simulated for each pair of R and W.
    pub const fn trials(&self) -> usize {
        self.trials
    }

    /// The probability that a read that begins `after_ms` milliseconds after the acknowledgement sees the write.
    pub fn probability(&self, r: usize, w: usize, after_ms: f64) -> f64 {
        let needed_ms = self.of(r, w);
        let fresh = needed_ms.partition_point(|&needed_ms| f64::from(needed_ms) <= after_ms);
        fresh as f64 / needed_ms.len().max(1) as f64
    }

    /// How many milliseconds after the acknowledgement a read must begin to see the write with this probability, from 0 to 1.
    pub fn needed_ms(&self, r: usize, w: usize, probability: f64) -> f64 {
        let needed_ms = self.of(r, w);
        let rank = (probability * needed_ms.len() as f64).ceil() as usize;
        needed_ms.get(rank.clamp(1, needed_ms.len().max(1)) - 1).map_or(0.0, |&needed_ms| f64::from(needed_ms))
    }

    fn of(&self, r: usize, w: usize) -> &[f32] {
        let place = r.saturating_sub(1) * self.n + w.saturating_sub(1);
        self.needed_ms.get(place).map_or(&[], Vec::as_slice)
    }
}

/// What is drawn from for one peer.
struct Peer {
    reads: Option<Drawn>,
    writes: Drawn,
}

impl Peer {
    fn of(measured: &RoundTrips) -> Option<Self> {
        Some(Self { reads: Drawn::of(&measured.reads), writes: Drawn::of(&measured.writes)? })
    }

    fn draw(&self, random: &mut Rng) -> Draw {
        let round_trip_ms = self.writes.draw(random);
        let one_way_ms = |random: &mut Rng| match &self.reads {
            Some(reads) => reads.draw(random) / 2.0,
            None => self.writes.draw(random) / 2.0,
        };
        let write_ms = one_way_ms(random).min(round_trip_ms);
        Draw { write_ms, ack_ms: round_trip_ms - write_ms, read_ms: one_way_ms(random) }
    }
}

/// A measured distribution, as many of its quantiles.
struct Drawn(Vec<f64>);

impl Drawn {
    /// How many quantiles: the longest times are those that matter.
    const QUANTILES: usize = 4_096;

    fn of(latencies: &Latencies) -> Option<Self> {
        let quantile = |at: usize| latencies.quantile((at as f64 + 0.5) / Self::QUANTILES as f64);
        (0..Self::QUANTILES).map(|at| quantile(at).map(|micros| micros / 1_000.0)).collect::<Option<_>>().map(Self)
    }

    /// A time in milliseconds.
    fn draw(&self, random: &mut Rng) -> f64 {
        self.0[random.usize(..self.0.len())]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Four standard deviations of a share that 20,000 trials estimate.
    const NEAR: f64 = 0.015;

    /// An exponentially distributed time.
    fn exponential(random: &mut Rng, mean: f64) -> f64 {
        -mean * (1.0 - random.f64()).ln()
    }

    fn choose(n: usize, k: usize) -> f64 {
        if k > n { 0.0 } else { (0..k).map(|i| (n - i) as f64 / (k - i) as f64).product() }
    }

    /// If acknowledgements and requests take no time, exactly W homes have the write when it is acknowledged. Then a read of R random homes misses it
    /// with the probability of equation 1 in the paper.
    #[test]
    fn a_read_at_once_misses_a_write_as_often_as_random_quorums_miss_each_other() {
        for n in [1, 2, 3, 5] {
            let prediction = Prediction::simulated(n, 1, |random, draws| {
                draws.iter_mut().for_each(|draw| draw.write_ms = exponential(random, 10.0));
            });
            for (r, w) in (1..=n).flat_map(|r| (1..=n).map(move |w| (r, w))) {
                // One read in N goes through the coordinator, and sees it.
                let stale = (1.0 - prediction.probability(r, w, 0.0)) * (n - 1) as f64 / n as f64;
                let expected = choose(n - w, r) / choose(n, r);
                assert!((stale - expected).abs() < NEAR, "N={n} R={r} W={w}: {stale}, not {expected}");
                assert_eq!(stale == 0.0, r + w > n, "N={n} R={r} W={w}");
            }
        }
    }

    /// The state takes 10 ms on average, a read's request 5 ms. Of three homes, the reader's own has it after t with the probability of an exponential
    /// distribution; the second that it asks is the coordinator every other time.
    #[test]
    fn exponential_times_give_the_probabilities_that_can_be_computed() {
        let prediction = Prediction::simulated(3, 2, |random, draws| {
            for draw in draws {
                *draw = Draw { write_ms: exponential(random, 10.0), ack_ms: 0.0, read_ms: exponential(random, 5.0) };
            }
        });
        for t in [0.0, 1.0, 5.0, 20.0] {
            let late = f64::exp(-t / 10.0);
            for (r, w, stale) in [
                (1, 1, late),
                // The other home has it before this one in half of all cases, and is then what was waited for.
                (1, 2, late / 2.0),
                // E[exp(-read / 10)] = 1 / (1 + 5 / 10).
                (2, 1, late * late / 2.0 / 1.5),
                (3, 1, 0.0),
            ] {
                let found = 1.0 - prediction.probability(r, w, t);
                assert!((found - stale).abs() < NEAR, "R={r} W={w} t={t}: {found}, not {stale}");
            }
        }
        let (p99, known) = (prediction.needed_ms(1, 1, 0.99), -10.0 * f64::ln(0.01));
        assert!((p99 / known - 1.0).abs() < 0.1, "{p99}, not {known}");
    }

    #[test]
    fn measured_reads_say_how_much_of_a_write_is_the_way() {
        let mut measured = RoundTrips::default();
        assert_eq!(Prediction::of_measured(3, &[measured.clone()], 3), None, "nothing was measured");
        (0..1_000).for_each(|_| measured.writes.record(Duration::from_millis(20)));
        let needed_ms = |measured: &RoundTrips| {
            Prediction::of_measured(3, &[measured.clone(), measured.clone()], 3).unwrap().needed_ms(1, 1, 0.5)
        };
        assert!((9.0..11.5).contains(&needed_ms(&measured)), "half of a write: {}", needed_ms(&measured));
        (0..1_000).for_each(|_| measured.reads.record(Duration::from_millis(2)));
        assert!((0.9..1.2).contains(&needed_ms(&measured)), "half of a read: {}", needed_ms(&measured));
        let prediction = Prediction::of_measured(3, &[measured], 3).unwrap();
        assert_eq!(prediction.probability(2, 2, 0.0), 1.0);
        assert_eq!(prediction.probability(1, 2, 0.0), 1.0, "the sync that is waited for takes longer than the way");
    }

    #[test]
    fn many_homes_take_fewer_trials() {
        let prediction = Prediction::simulated(16, 4, |random, draws| {
            draws.fill_with(|| Draw { write_ms: random.f64(), ..Draw::default() })
        });
        assert!(prediction.trials() * 256 <= TRIALS_IN_ALL && prediction.trials() > 1_000);
    }
}
