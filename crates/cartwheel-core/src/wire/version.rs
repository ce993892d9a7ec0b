//! Versions of the protocol between nodes, and what goes with them.
//!
//! A build speaks a range of versions, so that a cluster can be upgraded node by node: on each connection two nodes use the highest that
//! both speak. What came with a version, be it sent or stored, is used once all members speak that version.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use super::WireError;

/// The latest version of the protocol between nodes, and of all that they store.
///
/// 2: a replica or coordinator may say that its disk is full. 3: notes are one field of a state; digests are taken of another form.
/// 4: nodes probe each other; homes compare their Merkle trees; a node may be asked to stand in for a home. 5: nodes tell what came to
/// the history since a version, and of epochs with a digest of the members and marks on them; partitions have configurations, and
/// messages say on which of them they stand; who is to be a home fetches records in pages. 6: messages, records and configurations
/// carry more of what an acknowledgement rests on, so nodes of earlier builds are refused.
pub const PROTOCOL_VERSION: u32 = 6;
/// The lowest version that is still spoken.
const OLDEST_VERSION: u32 = 6;

/// Whether this build pretends to speak one version more, which differs from the latest in nothing but the form of frames and records.
///
/// It is for tests of upgrades alone, and so not a feature of the crate, which `--all-features` would switch on: set
/// `CARTWHEEL_PRETEND_NEXT` when compiling.
pub const PRETENDS: bool = option_env!("CARTWHEEL_PRETEND_NEXT").is_some();

/// A version of the protocol between nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Protocol(pub u32);

impl Protocol {
    /// The lowest that this build speaks.
    pub const OLDEST: Self = Self(OLDEST_VERSION);
    /// The highest that this build speaks.
    pub const NEWEST: Self = Self(PROTOCOL_VERSION + PRETENDS as u32);

    /// Whether this is the version that a build pretends to speak.
    pub(crate) const fn is_pretended(self) -> bool {
        PRETENDS && self.0 == Self::NEWEST.0
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a node speaks: all from `oldest` to `newest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoken {
    /// The lowest.
    pub oldest: Protocol,
    /// The highest.
    pub newest: Protocol,
}

impl Spoken {
    /// Those of this build.
    pub const BY_THIS_BUILD: Self = Self { oldest: Protocol::OLDEST, newest: Protocol::NEWEST };

    /// Whether `protocol` is one of them.
    pub fn has(self, protocol: Protocol) -> bool {
        (self.oldest..=self.newest).contains(&protocol)
    }

    /// The version in which two nodes talk: the highest that both speak.
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

/// A frame of the version that is only pretended: the frame of the version before as a field of another, which no build can read that
/// does not pretend, too.
#[derive(Clone, PartialEq, prost::Message)]
struct PbPretended {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    frame: Bytes,
}

/// What is sent for `frame` in the version `protocol`.
pub(super) fn framed(frame: Bytes, protocol: Protocol) -> Bytes {
    if !protocol.is_pretended() {
        return frame;
    }
    PbPretended { version: protocol.0, frame }.encode_to_vec().into()
}

/// The frame for which `sent` was sent, in whichever version.
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
    fn two_nodes_use_the_highest_version_that_both_speak() {
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
