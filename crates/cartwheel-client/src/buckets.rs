//! The settings of buckets.

use serde::{Deserialize, Serialize};

/// The settings of a bucket: how its keys are replicated and served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketSettings {
    /// The number of home replicas of each key.
    pub n: u8,
    /// The number of replicas that must answer a get.
    pub r: u8,
    /// The number of replicas that must store a put.
    pub w: u8,
    /// How concurrent writes are shown: `siblings` returns all of them, `lww` only the last.
    pub conflict: String,
    /// Whether stand-ins store writes for homes that cannot be reached (the paper's sloppy quorum, section 4.6).
    pub sloppy: bool,
    /// When a node acknowledges a write: `fsync` (after it has synced its disk) or `os` (once the operating system has it).
    pub durability: String,
    /// The size of the largest value that the bucket takes, in bytes.
    pub max_value_bytes: u32,
    /// Which part of a key's name decides its place on the ring.
    #[serde(default)]
    pub placement: Placement,
    /// Whether nodes keep an index of the bucket's keys, without which they cannot be listed.
    #[serde(default = "kept")]
    pub index: bool,
    /// Settings that the cluster cannot provide with its current members, and what to do about them. Ignored in a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a node means that does not say whether it keeps an index.
const fn kept() -> bool {
    true
}

/// Which part of a key's name decides its place on the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// The whole name: keys are spread evenly.
    #[default]
    Name,
    /// The hash slot of Redis Cluster, for clients that follow slots.
    Slot,
    /// So many first bytes: keys that begin alike lie side by side.
    Prefix(u16),
}

/// A change of a bucket's settings. A field that is `None` stays as it is.
///
/// ```no_run
/// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
/// use cartwheel_client::BucketChange;
///
/// let change = BucketChange { n: Some(5), r: Some(3), w: Some(3), ..BucketChange::default() };
/// let settings = client.set_bucket("carts", &change).await?;
/// for warning in &settings.warnings {
///     eprintln!("{warning}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct BucketChange {
    /// See [`BucketSettings::n`]. The cluster adds or removes replicas of existing keys in the background: see
    /// [`Client::transfers`](crate::Client::transfers).
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
    /// See [`BucketSettings::placement`]. It can be changed only while the bucket holds no keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// See [`BucketSettings::index`]. It can be changed only while the bucket holds no keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<bool>,
}

/// A bucket and its settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// The name, percent-encoded.
    pub bucket: String,
    /// The bucket's settings, the defaults included that it has not changed.
    #[serde(flatten)]
    pub settings: BucketSettings,
    /// How many keys have a value; `None` while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// The bytes of these keys and their values, counted once however many replicas there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// The buckets that hold data or have settings of their own, and the defaults of all others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buckets {
    /// The settings of every bucket that is not listed.
    pub defaults: BucketSettings,
    /// In the order of their names.
    pub buckets: Vec<Bucket>,
}
