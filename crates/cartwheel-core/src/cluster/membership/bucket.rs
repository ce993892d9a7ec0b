//! Settings of a bucket.

use std::fmt;

use crate::ring::N_MAX;
use crate::value::key::Generation;

/// The upper limit of `max_value_bytes`. A key with many siblings must still fit into one message.
pub const VALUE_BYTES_MAX: u32 = 16 << 20;

/// What readers see of concurrent writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Conflict {
    /// All of them, as siblings.
    #[default]
    Siblings,
    /// The one with the greatest timestamp: last write wins.
    Lww,
}

/// When a replica acknowledges a write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Durability {
    /// The node's own setting.
    #[default]
    NodeDefault,
    /// When it is synced to disk.
    Fsync,
    /// When it is handed to the operating system.
    Os,
}

/// The settings of a bucket.
///
/// In a cluster of fewer than `n` nodes, keys have fewer homes, but the settings stay: `r` and `w` still count that many nodes, so a request
/// that needs more nodes than there are fails.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketSettings {
    /// The number of homes of each key: the paper's N, from 1 to [`N_MAX`].
    pub n: u8,
    /// The number of nodes that must answer a get: the paper's R, from 1 to `n`.
    pub r: u8,
    /// The number of nodes that must acknowledge a put: the paper's W, from 1 to `n`.
    pub w: u8,
    /// What readers see of concurrent writes.
    pub conflict: Conflict,
    /// Whether stand-ins take writes for homes that cannot be reached.
    pub sloppy: bool,
    /// When a replica acknowledges a write.
    pub durability: Durability,
    /// The largest value, in bytes, from 1 to [`VALUE_BYTES_MAX`].
    pub max_value_bytes: u32,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self {
            n: 3,
            r: 2,
            w: 2,
            conflict: Conflict::default(),
            sloppy: true,
            durability: Durability::default(),
            max_value_bytes: 1 << 20,
        }
    }
}

/// Why settings are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSettings {
    /// `n` is not from 1 to [`N_MAX`].
    N(u8),
    /// `r`, the first number, is not from 1 to `n`, the second.
    R(u8, u8),
    /// `w`, the first number, is not from 1 to `n`, the second.
    W(u8, u8),
    /// `max_value_bytes` is not from 1 to [`VALUE_BYTES_MAX`].
    MaxValueBytes(u32),
}

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::N(n) => write!(f, "n must be from 1 to {N_MAX}, not {n}"),
            Self::R(r, n) => write!(f, "r must be from 1 to n, which is {n}, not {r}"),
            Self::W(w, n) => write!(f, "w must be from 1 to n, which is {n}, not {w}"),
            Self::MaxValueBytes(bytes) => write!(f, "max_value_bytes must be from 1 to {VALUE_BYTES_MAX}, not {bytes}"),
        }
    }
}

impl std::error::Error for BadSettings {}

/// What holds for a bucket as long as it is not emptied: its generation, and whether its keys are indexed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketForm {
    /// Its generation.
    pub generation: Generation,
    /// Whether nodes keep an index of its keys. Without one its keys cannot be listed, and a new key costs a little less.
    pub is_indexed: bool,
    /// Whether any earlier generation had no index, so that what is left of it is found only by reading all records.
    pub was_unindexed: bool,
}

impl BucketForm {
    /// The form of a bucket that was never emptied.
    pub const FIRST: Self = Self { generation: Generation::FIRST, is_indexed: true, was_unindexed: false };
}

/// The bucket of the Redis API's database 0. That of database n is called the same with `-n` after it.
pub const REDIS_BUCKET: &str = "redis";

/// Whether a bucket is one of the Redis API's databases.
pub fn is_redis_bucket(bucket: &[u8]) -> bool {
    match bucket.strip_prefix(REDIS_BUCKET.as_bytes()) {
        Some([]) => true,
        Some([b'-', b'1'..=b'9', rest @ ..]) => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

impl BucketSettings {
    /// The settings of a bucket before any change. Redis has no siblings, so in its databases the last write wins.
    pub fn initial(bucket: &[u8]) -> Self {
        let conflict = if is_redis_bucket(bucket) { Conflict::Lww } else { Conflict::default() };
        Self { conflict, ..Self::default() }
    }

    /// The patch that sets all fields.
    pub fn as_patch(&self) -> SettingsPatch {
        let Self { n, r, w, conflict, sloppy, durability, max_value_bytes } = *self;
        SettingsPatch {
            n: Some(n),
            n_by_versions: true,
            r: Some(r),
            w: Some(w),
            conflict: Some(conflict),
            sloppy: Some(sloppy),
            durability: Some(durability),
            max_value_bytes: Some(max_value_bytes),
        }
    }

    /// Checks that a cluster can serve these settings.
    pub fn check(self) -> Result<Self, BadSettings> {
        let Self { n, r, w, max_value_bytes, .. } = self;
        if n == 0 || usize::from(n) > N_MAX {
            Err(BadSettings::N(n))
        } else if r == 0 || r > n {
            Err(BadSettings::R(r, n))
        } else if w == 0 || w > n {
            Err(BadSettings::W(w, n))
        } else if max_value_bytes == 0 || max_value_bytes > VALUE_BYTES_MAX {
            Err(BadSettings::MaxValueBytes(max_value_bytes))
        } else {
            Ok(self)
        }
    }
}

/// A change of some fields of a bucket's settings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SettingsPatch {
    /// See [`BucketSettings::n`].
    pub n: Option<u8>,
    /// Whether each partition adopts the n by a reconfiguration. Earlier builds changed the n only of buckets without data, and their
    /// configurations did not contain it. Such an n is in force from each partition's first configuration.
    pub n_by_versions: bool,
    /// See [`BucketSettings::r`].
    pub r: Option<u8>,
    /// See [`BucketSettings::w`].
    pub w: Option<u8>,
    /// See [`BucketSettings::conflict`].
    pub conflict: Option<Conflict>,
    /// See [`BucketSettings::sloppy`].
    pub sloppy: Option<bool>,
    /// See [`BucketSettings::durability`].
    pub durability: Option<Durability>,
    /// See [`BucketSettings::max_value_bytes`].
    pub max_value_bytes: Option<u32>,
}

impl SettingsPatch {
    /// `settings` with these fields changed; refused if the result is not valid.
    pub fn apply(&self, settings: BucketSettings) -> Result<BucketSettings, BadSettings> {
        BucketSettings {
            n: self.n.unwrap_or(settings.n),
            r: self.r.unwrap_or(settings.r),
            w: self.w.unwrap_or(settings.w),
            conflict: self.conflict.unwrap_or(settings.conflict),
            sloppy: self.sloppy.unwrap_or(settings.sloppy),
            durability: self.durability.unwrap_or(settings.durability),
            max_value_bytes: self.max_value_bytes.unwrap_or(settings.max_value_bytes),
        }
        .check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_wins_in_the_databases_of_redis() {
        for (name, conflict) in [
            ("redis", Conflict::Lww),
            ("redis-1", Conflict::Lww),
            ("redis-15", Conflict::Lww),
            ("redis-", Conflict::Siblings),
            ("redis-0", Conflict::Siblings),
            ("redis-1a", Conflict::Siblings),
            ("redis1", Conflict::Siblings),
            ("carts", Conflict::Siblings),
        ] {
            assert_eq!(BucketSettings::initial(name.as_bytes()).conflict, conflict, "{name}");
        }
    }

    #[test]
    fn quorums_must_lie_between_1_and_n() {
        let patch = |n, r, w| SettingsPatch { n, r, w, ..SettingsPatch::default() }.apply(BucketSettings::default());
        assert_eq!(patch(None, None, None), Ok(BucketSettings::default()));
        assert_eq!(
            patch(Some(5), Some(5), Some(1)).map(|settings| (settings.n, settings.r, settings.w)),
            Ok((5, 5, 1))
        );
        assert_eq!(patch(Some(16), None, None).map(|settings| settings.n), Ok(16));
        assert_eq!(patch(Some(17), None, None), Err(BadSettings::N(17)));
        assert_eq!(patch(Some(0), None, None), Err(BadSettings::N(0)));
        assert_eq!(patch(None, Some(4), None), Err(BadSettings::R(4, 3)));
        assert_eq!(patch(None, Some(0), None), Err(BadSettings::R(0, 3)));
        assert_eq!(patch(None, None, Some(0)), Err(BadSettings::W(0, 3)));
        assert_eq!(
            patch(Some(1), Some(1), None),
            Err(BadSettings::W(2, 1)),
            "a patch is checked together with the fields that it keeps"
        );
        let bytes = |bytes| SettingsPatch { max_value_bytes: Some(bytes), ..SettingsPatch::default() };
        assert_eq!(bytes(0).apply(BucketSettings::default()), Err(BadSettings::MaxValueBytes(0)));
        assert!(bytes(VALUE_BYTES_MAX).apply(BucketSettings::default()).is_ok());
        assert!(bytes(VALUE_BYTES_MAX + 1).apply(BucketSettings::default()).is_err());
    }
}
