//! Which partitions keep a majority of their homes without some nodes.

use cartwheel_client::Ring;

/// How many partitions have fewer than a majority of their homes left without these members.
pub(super) fn short_without(ring: &Ring, without: &[&str]) -> usize {
    let is_left = |home: usize| ring.members.get(home).is_some_and(|member| !without.contains(&member.name.as_str()));
    let is_short = |homes: &&Vec<usize>| 2 * homes.iter().filter(|&&home| is_left(home)).count() <= homes.len();
    ring.homes.iter().filter(|homes| !homes.is_empty()).filter(is_short).count()
}
