//! The links between nodes: the delay, loss and duplication of messages.

use crate::options::NetworkOptions;
use crate::rng::Rng;

/// All links of a cluster. A link has one direction.
#[derive(Debug)]
pub struct Network {
    options: NetworkOptions,
    rng: Rng,
    /// The number of cuts in effect, by sender and receiver.
    cuts: Vec<Vec<u32>>,
}

impl Network {
    /// A network of `nodes` nodes, all connected.
    pub fn new(options: NetworkOptions, nodes: usize, rng: Rng) -> Self {
        Self { options, rng, cuts: vec![vec![0; nodes]; nodes] }
    }

    /// The delay of each copy of a message from `from` to `to`, in microseconds. Without a copy the message is lost.
    pub fn send(&mut self, from: usize, to: usize) -> Vec<u64> {
        if self.is_cut(from, to) { Vec::new() } else { delays_us(&self.options, &mut self.rng) }
    }

    /// As [`Self::send`], with the caller's random generator.
    pub fn send_by(&self, rng: &mut Rng, from: usize, to: usize) -> Vec<u64> {
        if self.is_cut(from, to) { Vec::new() } else { delays_us(&self.options, rng) }
    }

    /// Whether a message in flight still arrives.
    pub fn arrives(&self, from: usize, to: usize) -> bool {
        !(self.options.cut_drops_in_flight && self.is_cut(from, to))
    }

    /// Whether no message passes from `from` to `to`.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to] > 0
    }

    /// Cuts one direction. Cuts add up, and each is healed by itself.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from][to] += 1;
    }

    /// Removes one cut of one direction.
    pub fn heal(&mut self, from: usize, to: usize) {
        let cuts = &mut self.cuts[from][to];
        *cuts = cuts.saturating_sub(1);
    }

    /// Removes all cuts. From now on every message arrives once, without long delays.
    pub fn become_reliable(&mut self) {
        self.heal_all();
        self.options.loss_per_mille = 0;
        self.options.duplicate_per_mille = 0;
        self.options.tail_per_mille = 0;
    }

    /// Removes all cuts.
    pub fn heal_all(&mut self) {
        self.cuts.iter_mut().flatten().for_each(|cuts| *cuts = 0);
    }
}

fn delays_us(options: &NetworkOptions, rng: &mut Rng) -> Vec<u64> {
    if rng.chance(options.loss_per_mille) {
        return Vec::new();
    }
    let copies = if rng.chance(options.duplicate_per_mille) { 2 } else { 1 };
    (0..copies).map(|_| delay_us(options, rng)).collect()
}

fn delay_us(options: &NetworkOptions, rng: &mut Rng) -> u64 {
    let tail = if rng.chance(options.tail_per_mille) { rng.below(options.tail_max_us) } else { 0 };
    options.delay_min_us + rng.waiting_us(options.delay_mean_us) + tail
}
