//! How soon reads of a bucket see a write.

use serde::{Deserialize, Serialize};

use crate::{Client, Error, http};

/// Predictions of how soon reads see a write, made by one node from what it has measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Staleness {
    /// The name of the node that answered, which is taken as the coordinator of the writes.
    pub node: String,
    /// How many homes each key has.
    pub n: u8,
    /// The bucket's r.
    pub r: u8,
    /// The bucket's w.
    pub w: u8,
    /// How often a read after a write was simulated for each r and w; 0 if the node has measured no writes yet.
    pub trials: usize,
    /// One for each r and w from 1 to n.
    pub predictions: Vec<StalenessPrediction>,
    /// What the predictions were made of.
    pub peers: Vec<MeasuredPeer>,
}

/// The prediction for one r and w, for a read through another home than the write's coordinator.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StalenessPrediction {
    /// How many homes answer a read.
    pub r: usize,
    /// How many homes acknowledge a write.
    pub w: usize,
    /// Whether these are the bucket's settings.
    pub current: bool,
    /// The probability to see the write, for each time after its acknowledgement.
    pub fresh: Vec<Freshness>,
    /// The time after which 99% of reads see the write, in milliseconds.
    pub p99_ms: f64,
    /// The time after which 99.9% of reads see the write, in milliseconds.
    pub p999_ms: f64,
}

/// The probability that a read sees the write.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Freshness {
    /// The time from the acknowledgement of the write to the read, in milliseconds.
    pub after_ms: f64,
    /// From 0 to 1.
    pub probability: f64,
}

/// The round trips from a node to a peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MeasuredPeer {
    /// The peer's name.
    pub node: String,
    /// Of reads of a replica there.
    pub reads: MeasuredTimes,
    /// Of writes of a replica there, until they are durable.
    pub writes: MeasuredTimes,
}

/// Times that a node has measured of late.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct MeasuredTimes {
    /// How many.
    pub count: u32,
    /// Their median in milliseconds.
    pub p50_ms: Option<f64>,
    /// Their 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
}

impl Client {
    /// Predicts how soon reads of a bucket see a write: at some times after its acknowledgement, or `after_ms` milliseconds after it.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bucket's name or the time is invalid, [`Error::Unavailable`] if no node could answer.
    pub async fn staleness(&self, bucket: impl AsRef<[u8]>, after_ms: Option<f64>) -> Result<Staleness, Error> {
        let after = after_ms.map_or_else(String::new, |after_ms| format!("?after_ms={after_ms}"));
        self.fetch(format!("{}/staleness{after}", http::bucket_path(bucket.as_ref()))).await
    }
}
