//! How many live keys of each bucket a partition holds, counted beside its trees: from the same scans and changes, and trusted as they are.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Share;
use super::saved::Reader;
use crate::cluster::sizes::Size;
use crate::value::hlc::Hlc;
use crate::value::key::{BUCKET_BYTES_MAX, Generation, Key};

/// The sizes of a partition's live keys, by bucket and by the time when its generation began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BucketSizes(BTreeMap<Bytes, BTreeMap<Hlc, Size>>);

impl BucketSizes {
    /// Replaces the share `old` of a key by `new`.
    pub fn fold(&mut self, storage_key: &[u8], old: Share, new: Share) {
        let parts = Key::bucket_of_storage_key(storage_key).zip(Key::generation_of_storage_key(storage_key));
        if let Some((bucket, generation)) = parts {
            self.fold_in(bucket, generation, old, new);
        }
    }

    /// Replaces the share `old` of a key in a bucket's generation by `new`.
    pub fn fold_in(&mut self, bucket: &[u8], generation: Generation, old: Share, new: Share) {
        if !old.is_live && !new.is_live {
            return;
        }
        if !self.0.contains_key(bucket) {
            // A copy: a slice would keep the request in memory in which the name came.
            self.0.insert(Bytes::copy_from_slice(bucket), BTreeMap::new());
        }
        let Some(generations) = self.0.get_mut(bucket) else { return };
        let size = generations.entry(generation.since).or_default();
        let (less, more) = (size_of(old), size_of(new));
        size.keys = (size.keys + more.keys).saturating_sub(less.keys);
        size.bytes = (size.bytes + more.bytes).saturating_sub(less.bytes);
        if size.keys == 0 {
            generations.remove(&generation.since);
            if generations.is_empty() {
                self.0.remove(bucket);
            }
        }
    }

    /// The size of a bucket's generation.
    pub fn size(&self, bucket: &[u8], generation: Generation) -> Size {
        self.0.get(bucket).and_then(|generations| generations.get(&generation.since)).copied().unwrap_or_default()
    }

    /// All buckets, with the time of their generation.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, Hlc, Size)> {
        self.0
            .iter()
            .flat_map(|(bucket, generations)| generations.iter().map(move |(&since, &size)| (bucket, since, size)))
    }

    /// Appends the stored form.
    pub(super) fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend((self.iter().count() as u32).to_le_bytes());
        for (bucket, since, size) in self.iter() {
            bytes.push(bucket.len() as u8);
            bytes.extend_from_slice(bucket);
            for number in [since.to_bits(), size.keys, size.bytes] {
                bytes.extend(number.to_le_bytes());
            }
        }
    }

    /// Takes the stored form off the beginning of `bytes`; `None` if it is malformed.
    pub(super) fn decode_from(contents: &mut Reader<'_>) -> Option<Self> {
        let count = u32::from_le_bytes(contents.take()?);
        let mut sizes = BTreeMap::<Bytes, BTreeMap<Hlc, Size>>::new();
        for _ in 0..count {
            let [bucket_len] = contents.take()?;
            let (bucket, rest) = contents.0.split_at_checked(bucket_len.into())?;
            contents.0 = rest;
            let mut number = || contents.take().map(u64::from_le_bytes);
            let (since, keys, size) = (number()?, number()?, number()?);
            if bucket.is_empty() || bucket.len() > BUCKET_BYTES_MAX {
                return None;
            }
            let generations = sizes.entry(Bytes::copy_from_slice(bucket)).or_default();
            generations.insert(Hlc::from_bits(since), Size { keys, bytes: size });
        }
        Some(Self(sizes))
    }
}

fn size_of(share: Share) -> Size {
    if share.is_live { Size { keys: 1, bytes: share.bytes } } else { Size::default() }
}
