//! Settings of buckets.

use serde::{Deserialize, Serialize};

/// How a bucket's keys are kept and served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketSettings {
    /// How many nodes keep each key.
    pub n: u8,
    /// How many nodes answer a get.
    pub r: u8,
    /// How many nodes acknowledge a put.
    pub w: u8,
    /// What readers see of concurrent writes: `siblings`, all of them, or `lww`, the last.
    pub conflict: String,
    /// Whether stand-ins take writes for homes that cannot be reached.
    pub sloppy: bool,
    /// When a node acknowledges a write: `fsync` or `os`.
    pub durability: String,
    /// The largest value, in bytes.
    pub max_value_bytes: u32,
    /// What the cluster, as it is, cannot give of this, and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Settings to change; those that are none stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct BucketChange {
    /// See [`BucketSettings::n`]. Replicas of keys that are there follow in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u8>,
    /// See [`BucketSettings::r`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r: Option<u8>,
    /// See [`BucketSettings::w`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub w: Option<u8>,
    /// See [`BucketSettings::conflict`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// See [`BucketSettings::sloppy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sloppy: Option<bool>,
    /// See [`BucketSettings::durability`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// See [`BucketSettings::max_value_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_value_bytes: Option<u32>,
}

/// A bucket and its settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name, percent-encoded.
    pub bucket: String,
    /// Its settings.
    #[serde(flatten)]
    pub settings: BucketSettings,
}

/// The buckets whose settings were changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buckets {
    /// What every other bucket has.
    pub defaults: BucketSettings,
    /// By name.
    pub buckets: Vec<Bucket>,
}
