//! Encoding of copies of records, as backups keep them: without the header, which is true of one node only.
//!
//! Copies are kept for years. So a field never changes its meaning, and what a build does not know it refuses by the version in front.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::WireError;
use super::value::{PbState, state_from_pb, state_to_pb};
use crate::value::epoch::Epoch;
use crate::value::key::Key;
use crate::value::state::{Sibling, State};

/// What encoded copies begin with; the last byte is the version.
const HEAD: [u8; 4] = *b"CWR\x01";

/// The copy of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopiedRecord {
    /// The key, in the generation that its bucket had.
    pub key: Key,
    /// Its state.
    pub state: State,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbCopy {
    /// [`Key::storage_key`].
    #[prost(bytes = "bytes", tag = "1")]
    storage_key: Bytes,
    #[prost(message, required, tag = "2")]
    state: PbState,
}

impl CopiedRecord {
    /// The record for another cluster than the one that it was copied from. Epochs of different clusters have nothing to do with each other, so its
    /// writes count as made in the first. So a delete is collected, with what it replaces, at once or in the cluster's first five epochs.
    #[must_use]
    pub fn for_another_cluster(self) -> Self {
        let siblings: Vec<Sibling> =
            self.state.siblings().map(|held| Sibling { epoch: Epoch::FIRST, ..held.clone() }).collect();
        let state = State::from_parts(self.state.clock().clone(), siblings, self.state.notes().clone());
        Self { key: self.key, state }
    }
}

/// Encodes copies one after another, each behind its length.
pub fn encode_copies<'a>(copies: impl IntoIterator<Item = (&'a [u8], &'a State)>) -> Bytes {
    let mut bytes = BytesMut::from(&HEAD[..]);
    for (storage_key, state) in copies {
        let copy = PbCopy { storage_key: Bytes::copy_from_slice(storage_key), state: state_to_pb(state) };
        bytes.put_u32(copy.encoded_len() as u32);
        bytes.extend_from_slice(&copy.encode_to_vec());
    }
    bytes.freeze()
}

/// Decodes copies.
///
/// # Errors
/// If the bytes are not those of [`encode_copies`], or of a later version.
pub fn decode_copies(mut bytes: Bytes) -> Result<Vec<CopiedRecord>, WireError> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(WireError::Field("head"))?;
    match head {
        [b'C', b'W', b'R', version] if *version != HEAD[3] => return Err(WireError::Version(u32::from(*version))),
        head if *head != HEAD => return Err(WireError::Field("head")),
        _ => bytes = bytes.slice_ref(rest),
    }
    let mut copies = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.try_get_u32().map_err(|_| WireError::Field("length"))? as usize;
        if length > bytes.len() {
            return Err(WireError::Field("length"));
        }
        let copy = PbCopy::decode(bytes.split_to(length))?;
        let key = Key::from_storage_key(&copy.storage_key).map_err(|_| WireError::Field("storage key"))?;
        copies.push(CopiedRecord { key, state: state_from_pb(copy.state)? });
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::clock::Clock;
    use crate::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
    use crate::value::hlc::{Hlc, WallMs};
    use crate::value::state::{Content, Notes};
    use crate::value::write_id::WriteId;

    fn copies() -> Vec<CopiedRecord> {
        let copy = |number: u64| {
            let actor = Actor { node: NodeId::new(number), incarnation: Incarnation(2), since: Since(3) };
            let sibling = |counter: u64, content: Content| Sibling {
                dot: Dot { actor, counter },
                content,
                hlc: Hlc::at(WallMs(number)),
                epoch: Epoch(9),
                write_id: WriteId::from_bytes([counter as u8; 16]),
                expires: (counter == 3).then_some(WallMs(5)),
            };
            let siblings = [sibling(2, Content::Tombstone), sibling(3, Content::typed("milk", "text/plain"))];
            let key = Key::new("carts".into(), number.to_be_bytes().to_vec().into()).unwrap();
            CopiedRecord { key, state: State::from_parts(Clock::new(), siblings, Notes::new()) }
        };
        (1..=3).map(copy).collect()
    }

    fn encoded(copies: &[CopiedRecord]) -> Bytes {
        let keys: Vec<Bytes> = copies.iter().map(|copy| copy.key.storage_key()).collect();
        encode_copies(keys.iter().zip(copies).map(|(key, copy)| (&key[..], &copy.state)))
    }

    #[test]
    fn copies_are_decoded_as_they_were_and_any_cut_is_refused() {
        let bytes = encoded(&copies());
        assert_eq!(decode_copies(bytes.clone()).unwrap(), copies());
        let whole: Vec<usize> = (0..=3).map(|count| encoded(&copies()[..count]).len()).collect();
        for len in (0..bytes.len()).filter(|len| !whole.contains(len)) {
            assert!(decode_copies(bytes.slice(..len)).is_err(), "{len} bytes");
        }
        let later = [b"CWR\x02", &bytes[4..]].concat();
        assert_eq!(decode_copies(later.into()), Err(WireError::Version(2)));
    }

    #[test]
    fn in_another_cluster_only_the_epochs_are_others() {
        let copy = copies().remove(0);
        let other = copy.clone().for_another_cluster();
        assert!(other.state.siblings().all(|held| held.epoch == Epoch::FIRST));
        let back = other.state.siblings().map(|held| Sibling { epoch: Epoch(9), ..held.clone() });
        let back = State::from_parts(other.state.clock().clone(), back, other.state.notes().clone());
        assert_eq!((other.key, back), (copy.key, copy.state));
    }
}
