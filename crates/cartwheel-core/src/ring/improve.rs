//! Mends clashes between neighbours by exchanging owners, without moving more than a change must.

use super::layout::{FREE, Layout, mix};

/// For this many partitions that must move anyway, one more may move to mend clashes.
const MOVES_PER_EXTRA: u32 = 16;
/// The most exchanges that are tried for one clashing partition, and the most partitions they are tried with.
const TRIES: usize = 256;
/// The number of passes over all clashes.
const ROUNDS: usize = 3;
/// A bound on the work: examining a partition costs 1, trying an exchange costs `TRY`. It limits a change to some milliseconds on the largest
/// rings, where most clashes, if there are many, cannot be mended anyway.
const WORK: usize = 1 << 21;
const TRY: usize = 32;

/// Exchanges owners of pairs of partitions as long as that lowers the cost of clashes.
///
/// `before` are the earlier owners (`FREE`: the owner has left). An exchange that leaves more partitions with a new owner is paid from a budget
/// in proportion to `moves`, the number that must move.
pub(super) fn improve(layout: &mut Layout<'_>, before: &[u32], moves: u32) {
    let mut budget = moves / MOVES_PER_EXTRA;
    let mut work = WORK;
    for round in 0..ROUNDS {
        let mut changed = false;
        for at in focus(layout, before, budget) {
            if work == 0 {
                return;
            }
            if layout.cost_at(at) == 0 {
                continue;
            }
            if let Some((other, extra)) = best_exchange(layout, before, at, budget, &mut work, round as u64) {
                layout.owner.swap(at, other);
                budget = budget.saturating_add_signed(-extra);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// The clashing partitions to examine: those that moved; with a budget, others too, with neighbours of moved ones first.
fn focus(layout: &Layout<'_>, before: &[u32], budget: u32) -> Vec<usize> {
    let moved = |at: usize| layout.owner[at] != before[at];
    let near = |at: usize| moved(at) || layout.neighbours(at).any(|(other, _)| moved(other));
    let clashing = (0..layout.len()).filter(|at| (budget > 0 || moved(*at)) && layout.cost_at(*at) > 0);
    let mut focus: Vec<_> = clashing.map(|at| (!near(at), u32::MAX - layout.cost_at(at), at)).collect();
    focus.sort_unstable();
    focus.into_iter().map(|(_, _, at)| at).collect()
}

/// The exchange with `at` that gains most, and how many more partitions it moves; `None` if none gains.
fn best_exchange(
    layout: &mut Layout<'_>,
    before: &[u32],
    at: usize,
    budget: u32,
    work: &mut usize,
    round: u64,
) -> Option<(usize, i32)> {
    let moves = |owner: u32, at: usize| i32::from(before[at] != FREE && owner != before[at]);
    let len = layout.len();
    let start = mix(at as u64, round) as usize % len;
    let mut best: Option<(i64, usize, i32)> = None;
    let mut tries = 0;
    for other in (start..len).chain(0..start) {
        if tries == TRIES || *work == 0 {
            break;
        }
        *work -= 1;
        let (mine, others) = (layout.owner[at], layout.owner[other]);
        if mine == others {
            continue;
        }
        let extra = moves(others, at) + moves(mine, other) - moves(mine, at) - moves(others, other);
        if extra > budget as i32 {
            continue;
        }
        let gain = layout.swap_gain(at, other);
        // A small gain is not worth moving data for.
        if gain > 0 && best.is_none_or(|(most, _, least)| (gain, -extra) > (most, -least)) {
            best = Some((gain, other, extra));
        }
        tries += 1;
        *work = work.saturating_sub(TRY);
    }
    best.map(|(_, other, extra)| (other, extra))
}
