//! Versions of the protocol between nodes.
//!
//! A build supports a range of versions, so that a cluster can be upgraded node by node. On each connection, two nodes use the highest version
//! that both support. A feature of a new version, sent or stored, is used once all members support that version.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use super::WireError;

/// The latest version of the protocol between nodes, and of everything that they store.
///
/// 2: a replica or coordinator may report a full disk. 3: notes are one field of a state; digests have another form. 4: nodes probe each other;
/// homes compare their Merkle trees; a node may be requested to stand in for a home. 5: nodes send the changes of the history since a version, and
/// epochs with a digest of the members and marks for them; partitions have configurations, and messages carry a configuration stamp; a syncing
/// home fetches records in pages. 6: messages, records and configurations carry more of what an acknowledgement depends on, so nodes of earlier
/// builds are refused. 7: buckets can be emptied, and keys carry the generation of their bucket; nodes keep an index of their keys by bucket, and
/// list them for each other; a moved node records its address for RESP clients too. 8: the history has users.
pub const PROTOCOL_VERSION: u32 = 8;
/// The lowest version that is still supported.
const OLDEST_VERSION: u32 = 6;

/// Whether this build pretends to support one version more, which differs from the latest only in the form of frames and records.
///
/// It is only for tests of upgrades, and not a feature of the crate, because `--all-features` would enable it: set `CARTWHEEL_PRETEND_NEXT` when
/// compiling.
pub const PRETENDS: bool = option_env!("CARTWHEEL_PRETEND_NEXT").is_some();

/// A version of the protocol between nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Protocol(pub u32);

impl Protocol {
    /// The lowest version that this build supports.
    pub const OLDEST: Self = Self(OLDEST_VERSION);
    /// The first version in which buckets have generations and indexes.
    pub const KEY_INDEX: Self = Self(7);
    /// The first version in which the history has users.
    pub const USERS: Self = Self(8);
    /// The highest version that this build supports.
    pub const NEWEST: Self = Self(PROTOCOL_VERSION + PRETENDS as u32);

    /// Whether this is the version that this build pretends to support.
    pub(crate) const fn is_pretended(self) -> bool {
        PRETENDS && self.0 == Self::NEWEST.0
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a node supports: all from `oldest` to `newest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoken {
    /// The lowest.
    pub oldest: Protocol,
    /// The highest.
    pub newest: Protocol,
}

impl Spoken {
    /// The versions of this build.
    pub const BY_THIS_BUILD: Self = Self { oldest: Protocol::OLDEST, newest: Protocol::NEWEST };

    /// Whether `protocol` is in the range.
    pub fn has(self, protocol: Protocol) -> bool {
        (self.oldest..=self.newest).contains(&protocol)
    }

    /// The version that two nodes use: the highest that both support.
    pub fn in_common(self, other: Self) -> Option<Protocol> {
        Some(self.newest.min(other.newest)).filter(|&highest| self.has(highest) && other.has(highest))
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest { write!(f, "version {newest}") } else { write!(f, "versions {oldest} to {newest}") }
    }
}

/// A frame of the pretended version: the frame of the latest version as a field of another message, which only a build that also pretends can
/// read.
#[derive(Clone, PartialEq, prost::Message)]
struct PbPretended {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    frame: Bytes,
}

/// The bytes to send for `frame` in the version `protocol`.
pub(super) fn framed(frame: Bytes, protocol: Protocol) -> Bytes {
    if !protocol.is_pretended() {
        return frame;
    }
    PbPretended { version: protocol.0, frame }.encode_to_vec().into()
}

/// The inverse of [`framed`], for any version.
pub(super) fn unframed(sent: Bytes) -> Result<Bytes, WireError> {
    // Every frame begins with its version, a field of one byte.
    if !PRETENDS || sent.get(1).copied().map(u32::from) != Some(Protocol::NEWEST.0) {
        return Ok(sent);
    }
    Ok(PbPretended::decode(sent)?.frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(oldest: u32, newest: u32) -> Spoken {
        Spoken { oldest: Protocol(oldest), newest: Protocol(newest) }
    }

    #[test]
    fn two_nodes_use_the_highest_version_that_both_support() {
        for (ours, theirs, common) in [
            (spoken(5, 5), spoken(5, 5), Some(5)),
            (spoken(5, 6), spoken(5, 5), Some(5)),
            (spoken(3, 6), spoken(5, 9), Some(6)),
            (spoken(3, 9), spoken(5, 6), Some(6)),
            (spoken(6, 7), spoken(4, 5), None),
            (spoken(7, 7), spoken(6, 6), None),
        ] {
            assert_eq!(ours.in_common(theirs), common.map(Protocol), "{ours} and {theirs}");
            assert_eq!(theirs.in_common(ours), common.map(Protocol), "{theirs} and {ours}");
        }
    }
}
