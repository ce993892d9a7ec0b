//! Limits how often logins may fail: for each address, and for each user.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How many logins of one address may fail at once, and after what time one more.
const OF_ADDRESS: Rate = Rate { burst: 10, every: Duration::from_secs(6) };
/// How many logins of one user may fail at once, from all addresses, and after what time one more.
const OF_USER: Rate = Rate { burst: 30, every: Duration::from_secs(2) };
/// The most addresses that are counted at once.
const ADDRESSES_MAX: usize = 16_384;
/// The most pairs of a user and an address from which it has logged in.
const KNOWN_MAX: usize = 4_096;

/// The failed logins of late.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    addresses: HashMap<Option<IpAddr>, Bucket>,
    users: HashMap<String, Bucket>,
    /// From where users have logged in. There the limit of the user does not hold, so that others cannot lock it out.
    known: HashSet<(String, Option<IpAddr>)>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// When a bucket of failures will be empty again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    empty_at: Instant,
}

impl Throttle {
    /// Counts a login, which fails unless it is said to have succeeded.
    ///
    /// # Errors
    /// If too many failed: how long to wait.
    pub(super) fn begin(&mut self, from: Option<IpAddr>, user: Option<&str>) -> Result<(), Duration> {
        self.begin_at(Instant::now(), from, user)
    }

    fn begin_at(&mut self, now: Instant, from: Option<IpAddr>, user: Option<&str>) -> Result<(), Duration> {
        let from = from.map(network);
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.retain(|_, bucket| bucket.empty_at > now);
            // Those of an attack from very many addresses are forgotten, but the limit of the user holds.
            if self.addresses.len() >= ADDRESSES_MAX {
                self.addresses.clear();
            }
        }
        wait(&self.addresses, &from, OF_ADDRESS, now)?;
        let limited = user.filter(|user| !self.known.contains(&((*user).to_owned(), from)));
        if let Some(user) = limited {
            wait(&self.users, &user.to_owned(), OF_USER, now)?;
            count(&mut self.users, user.to_owned(), OF_USER, now);
        }
        count(&mut self.addresses, from, OF_ADDRESS, now);
        Ok(())
    }

    /// Takes back what was counted for a login that has succeeded, or could not be checked.
    pub(super) fn succeeded(&mut self, from: Option<IpAddr>, user: Option<&str>) {
        let from = from.map(network);
        take_back(&mut self.addresses, &from, OF_ADDRESS);
        let Some(user) = user else { return };
        let key = (user.to_owned(), from);
        if !self.known.contains(&key) {
            take_back(&mut self.users, &key.0, OF_USER);
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(key);
        }
    }
}

/// An address of IPv6 stands for its network of 64 bits, all of which one client may have.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

/// Whether one more may fail.
fn wait<K: Eq + Hash>(buckets: &HashMap<K, Bucket>, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
    let Some(bucket) = buckets.get(key) else { return Ok(()) };
    let filled = bucket.empty_at.saturating_duration_since(now);
    let room = rate.every * (rate.burst - 1);
    if filled > room { Err(filled - room) } else { Ok(()) }
}

fn count<K: Eq + Hash>(buckets: &mut HashMap<K, Bucket>, key: K, rate: Rate, now: Instant) {
    let bucket = buckets.entry(key).or_insert(Bucket { empty_at: now });
    bucket.empty_at = bucket.empty_at.max(now) + rate.every;
}

fn take_back<K: Eq + Hash>(buckets: &mut HashMap<K, Bucket>, key: &K, rate: Rate) {
    if let Some(bucket) = buckets.get_mut(key) {
        bucket.empty_at = bucket.empty_at.checked_sub(rate.every).unwrap_or(bucket.empty_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn an_address_may_fail_some_times_and_then_once_in_a_while() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..OF_ADDRESS.burst {
            assert_eq!(throttle.begin_at(now, address(1), None), Ok(()));
        }
        assert_eq!(throttle.begin_at(now, address(1), None), Err(OF_ADDRESS.every));
        assert_eq!(throttle.begin_at(now, address(2), None), Ok(()), "another address");
        let later = now + OF_ADDRESS.every;
        assert_eq!(throttle.begin_at(later, address(1), None), Ok(()));
        assert_eq!(throttle.begin_at(later, address(1), None), Err(OF_ADDRESS.every));
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_together() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let from = |last: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        let failed = (0..100).filter(|&last| throttle.begin_at(now, from(last), None).is_ok()).count();
        assert_eq!(failed, OF_ADDRESS.burst as usize);
    }

    #[test]
    fn successes_do_not_count() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(throttle.begin_at(now, address(1), Some("ann")), Ok(()));
            throttle.succeeded(address(1), Some("ann"));
        }
    }

    #[test]
    fn a_user_cannot_be_locked_out_from_where_it_has_logged_in() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.begin_at(now, address(1), Some("ann")).unwrap();
        throttle.succeeded(address(1), Some("ann"));
        let failed = (2..200).filter(|&last| throttle.begin_at(now, address(last), Some("ann")).is_ok()).count();
        assert_eq!(failed, OF_USER.burst as usize, "from many addresses");
        assert!(throttle.begin_at(now, address(250), Some("ann")).is_err());
        assert_eq!(throttle.begin_at(now, address(1), Some("ann")), Ok(()));
        assert_eq!(throttle.begin_at(now, address(250), Some("bob")), Ok(()), "another user");
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..3 * ADDRESSES_MAX as u32 {
            let _ = throttle.begin_at(now, Some(IpAddr::from(number.to_be_bytes())), None);
        }
        assert!(throttle.addresses.len() <= ADDRESSES_MAX);
    }
}
