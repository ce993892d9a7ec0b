//! The disk reserve: free space kept back, so that client writes never use up what the engine needs for its own work.
//!
//! An engine whose journal or merge runs out of disk stops, and may have left a write half done. So writes are refused earlier, while their
//! outcome is certain.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cartwheel_core::value::time::Instant;
use tracing::{error, info, warn};

/// How much disk space is kept free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReserveOptions {
    /// This many bytes. They must suffice for the engine's background merges; what it holds in memory is added.
    pub bytes: u64,
    /// But at most this share of the file system, so that small disks can be used.
    pub percent_max: u8,
    /// How many stores share the file system and check it separately. Keys are spread evenly, so each store takes its share.
    pub shares: u32,
}

impl Default for ReserveOptions {
    fn default() -> Self {
        Self { bytes: 256 << 20, percent_max: 10, shares: 1 }
    }
}

/// How long the result of a check counts.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How often a full disk is checked while no write arrives.
const CHECK_FULL_EVERY: Duration = Duration::from_secs(1);
/// How often each byte is written before it is in its place: to the journal, then in order. Merges use the reserve.
const WRITTEN_TIMES: u64 = 2;

/// The space on a file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// The space that this process may still use.
    pub free: u64,
    /// The size of the file system.
    pub total: u64,
}

/// The space on the file system that holds `dir`.
///
/// # Errors
/// If the system call fails.
pub fn space_of(dir: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// Measures the space.
pub type Probe = Box<dyn FnMut() -> io::Result<Space> + Send>;

/// Whether a store may take more.
pub struct Reserve {
    options: ReserveOptions,
    /// The directory, for logs.
    dir: String,
    probe: Probe,
    full: bool,
    /// The space above the reserve at the last check.
    left: u64,
    /// Bytes that were admitted since.
    since: u64,
    /// Those of them that are not committed, which the file system does not show.
    uncommitted: u64,
    /// And those in the commit under way, which it may not show yet.
    committing: u64,
    next_check: Instant,
    probe_failed: bool,
}

impl Reserve {
    /// The reserve of the file system that holds `dir`.
    pub fn of_dir(dir: PathBuf, options: ReserveOptions) -> Self {
        let name = dir.display().to_string();
        let probe = move || space_of(&dir);
        Self::new(name, options, Box::new(probe))
    }

    /// A reserve on the file system that `probe` measures.
    pub fn new(dir: String, options: ReserveOptions, probe: Probe) -> Self {
        Self {
            options,
            dir,
            probe,
            full: false,
            left: 0,
            since: 0,
            uncommitted: 0,
            committing: 0,
            next_check: Instant::default(),
            probe_failed: false,
        }
    }

    /// No reserve, for stores that use no disk.
    #[cfg(test)]
    pub fn none() -> Self {
        let probe = || Ok(Space { free: u64::MAX, total: u64::MAX });
        Self::new(String::new(), ReserveOptions { bytes: 0, percent_max: 0, shares: 1 }, Box::new(probe))
    }

    /// Whether there is room for `bytes` more, besides the `unflushed` ones that the engine has yet to write again.
    pub fn takes(&mut self, bytes: u64, unflushed: u64, now: Instant) -> bool {
        let wanted = |reserve: &Self| reserve.since.saturating_add(bytes).saturating_mul(WRITTEN_TIMES);
        if now >= self.next_check || (!self.full && wanted(self) > self.left) {
            self.check(unflushed, now);
        }
        if self.full || wanted(self) > self.left {
            // A write too large for the remaining space is refused, though a smaller one may fit.
            return false;
        }
        self.since += bytes;
        self.uncommitted += bytes;
        true
    }

    /// Records that a commit of this many of the admitted bytes begins. One is under way at a time.
    pub const fn commit_begins(&mut self, bytes: u64) {
        self.committing = bytes;
        self.uncommitted = self.uncommitted.saturating_sub(bytes);
    }

    /// Records that the commit under way has ended: the engine has its bytes, or they are dropped.
    pub const fn commit_ends(&mut self) {
        self.committing = 0;
    }

    /// Whether the disk was full at the last check.
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// When a full disk is to be checked again.
    pub fn wake_at(&self) -> Option<Instant> {
        self.full.then(|| self.next_check + CHECK_FULL_EVERY)
    }

    /// Checks the disk.
    pub fn check(&mut self, unflushed: u64, now: Instant) {
        self.next_check = now + CHECK_EVERY;
        let space = match (self.probe)() {
            Ok(space) => space,
            Err(source) => return self.log_probe_failure(&source),
        };
        self.probe_failed = false;
        let kept = self.options.bytes.min(space.total / 100 * u64::from(self.options.percent_max));
        let shares = u64::from(self.options.shares.max(1));
        let unflushed = unflushed.saturating_mul(shares);
        self.left = space.free.saturating_sub(unflushed).saturating_sub(kept) / shares;
        self.since = self.uncommitted + self.committing;
        // Hysteresis: a single write must not toggle the state.
        let enough = if self.full { kept / 4 / shares } else { 0 };
        let full = self.left <= enough && kept > 0;
        if full != self.full {
            self.full = full;
            self.log_state(space.free, kept);
        }
    }

    fn log_state(&self, free: u64, kept: u64) {
        let (free, kept, dir) = (free >> 20, kept >> 20, &self.dir);
        if self.full {
            error!(
            alarm = "disk_full",
            dir = %dir,
            free_mib = free,
            reserve_mib = kept,
            "disk full; storing no writes, serving reads: free space, or add nodes"
            );
        } else {
            info!(dir = %dir, free_mib = free, "disk has room again; storing writes");
        }
    }

    fn log_probe_failure(&mut self, source: &io::Error) {
        if !self.probe_failed {
            warn!(dir = %self.dir, error = %source, "cannot measure the free disk space");
        }
        self.probe_failed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A reserve of 10 MiB on a disk of 1000, and what is free there.
    fn reserve(free: u64) -> (Reserve, Arc<AtomicU64>) {
        let free = Arc::new(AtomicU64::new(free));
        let seen = free.clone();
        let probe = move || Ok(Space { free: seen.load(Ordering::Relaxed), total: 1_000 * MIB });
        let options = ReserveOptions { bytes: 10 * MIB, percent_max: 10, shares: 1 };
        (Reserve::new("here".to_owned(), options, Box::new(probe)), free)
    }

    #[test]
    fn a_fast_writer_does_not_use_up_the_reserve_between_two_checks() {
        let (mut reserve, free) = reserve(30 * MIB);
        let mut written = 0;
        // No time passes, and each write is in the journal as soon as it is committed.
        while reserve.takes(MIB, written, Instant(0)) {
            written += MIB;
            free.fetch_sub(MIB, Ordering::Relaxed);
            reserve.commit_begins(MIB);
            reserve.commit_ends();
        }
        assert_eq!(written, 10 * MIB, "20 MiB were left, and each byte is written twice");
    }

    #[test]
    fn an_uncommitted_batch_counts_before_the_disk_shows_it() {
        let (mut reserve, _) = reserve(30 * MIB);
        let let_through = (0..100).take_while(|_| reserve.takes(MIB, 0, Instant(0))).count();
        assert_eq!(let_through, 10);
    }

    #[test]
    fn a_commit_under_way_counts_until_it_has_ended() {
        let (mut reserve, _) = reserve(30 * MIB);
        (0..6).for_each(|_| assert!(reserve.takes(MIB, 0, Instant(0))));
        reserve.commit_begins(4 * MIB);
        // The disk shows the same free space as before.
        reserve.check(0, Instant(0));
        assert_eq!((0..100).take_while(|_| reserve.takes(MIB, 0, Instant(0))).count(), 4);
        reserve.commit_ends();
        reserve.check(0, Instant(0));
        assert_eq!((0..100).take_while(|_| reserve.takes(MIB, 0, Instant(0))).count(), 4, "two and four are left");
    }

    #[test]
    fn writes_resume_only_with_some_room_beyond_the_reserve() {
        let (mut reserve, free) = reserve(10 * MIB);
        assert!(!reserve.takes(1, 0, Instant(0)));
        assert!(reserve.is_full() && reserve.wake_at().is_some());
        for (mib, takes) in [(11, false), (12, false), (13, true), (11, true), (10, false), (12, false), (13, true)] {
            free.store(mib * MIB, Ordering::Relaxed);
            let later = reserve.next_check;
            assert_eq!(reserve.takes(1, 0, later), takes, "{mib} MiB");
        }
    }

    #[test]
    fn unflushed_bytes_need_room_too() {
        let (mut reserve, _) = reserve(30 * MIB);
        assert!(!reserve.takes(1, 20 * MIB, Instant(0)));
    }

    #[test]
    fn stores_that_share_a_disk_take_a_share_each() {
        let probe = || Ok(Space { free: 30 * MIB, total: 1_000 * MIB });
        let options = ReserveOptions { bytes: 10 * MIB, percent_max: 10, shares: 4 };
        let mut one_of_four = Reserve::new(String::new(), options, Box::new(probe));
        assert_eq!(
            (0..100).take_while(|_| one_of_four.takes(MIB / 2, 0, Instant(0))).count(),
            5,
            "5 MiB are its share"
        );
    }

    #[test]
    fn a_small_disk_reserves_only_a_share() {
        let probe = || Ok(Space { free: 7 * MIB, total: 64 * MIB });
        let mut small = Reserve::new(String::new(), ReserveOptions::default(), Box::new(probe));
        assert!(small.takes(1, 0, Instant(0)), "a tenth of 64 MiB is kept");
    }

    #[test]
    fn a_real_directory_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let options = ReserveOptions { bytes: 1, percent_max: 10, shares: 1 };
        assert!(Reserve::of_dir(dir.path().to_path_buf(), options).takes(1, 0, Instant(0)));
        let options = ReserveOptions { bytes: u64::MAX, percent_max: 100, shares: 1 };
        assert!(!Reserve::of_dir(dir.path().to_path_buf(), options).takes(1, 0, Instant(0)));
    }
}
