//! Encoding of questions for lists, and of their answers.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::WireError;
use crate::cluster::sizes::Size;
use crate::message::listing::{KEYS_MAX, ListAnswer, ListFound, ListQuestion, Listing};
use crate::ring::PartitionSet;
use crate::value::hlc::Hlc;
use crate::value::key::{Generation, Placement};
use crate::value::position::Position;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbList {
    /// A bit for each partition, in 64-bit numbers.
    #[prost(bytes = "bytes", tag = "1")]
    partitions: Bytes,
    /// Absent: the sizes of all buckets.
    #[prost(message, optional, tag = "2")]
    keys: Option<PbKeysWanted>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbKeysWanted {
    #[prost(bytes = "bytes", tag = "1")]
    bucket: Bytes,
    #[prost(fixed64, tag = "2")]
    since: u64,
    #[prost(uint32, tag = "3")]
    placement: u32,
    #[prost(bytes = "bytes", tag = "4")]
    after: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    prefix: Bytes,
    #[prost(uint32, tag = "6")]
    keys_max: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbListed {
    #[prost(bytes = "bytes", tag = "1")]
    covered: Bytes,
    /// Absent: sizes.
    #[prost(message, optional, tag = "2")]
    keys: Option<PbNames>,
    #[prost(message, repeated, tag = "3")]
    sizes: Vec<PbBucketSize>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbNames {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    names: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    next: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbBucketSize {
    #[prost(bytes = "bytes", tag = "1")]
    bucket: Bytes,
    #[prost(uint64, tag = "2")]
    keys: u64,
    #[prost(uint64, tag = "3")]
    bytes: u64,
}

pub(super) fn question_to_pb(question: &ListQuestion) -> PbList {
    let keys = match &question.listing {
        Listing::Sizes => None,
        Listing::Keys { bucket, generation, after, prefix, keys_max } => Some(PbKeysWanted {
            bucket: bucket.clone(),
            since: generation.since.to_bits(),
            placement: generation.placement.number(),
            after: after.as_bytes().clone(),
            prefix: prefix.clone(),
            keys_max: *keys_max,
        }),
    };
    PbList { partitions: question.partitions.to_bytes(), keys }
}

pub(super) fn question_from_pb(question: PbList) -> Result<ListQuestion, WireError> {
    let listing = match question.keys {
        None => Listing::Sizes,
        Some(wanted) => Listing::Keys {
            bucket: wanted.bucket,
            generation: Generation {
                since: Hlc::from_bits(wanted.since),
                placement: Placement::from_number(wanted.placement).ok_or(WireError::Field("placement"))?,
            },
            after: Position::from_bytes(wanted.after),
            prefix: wanted.prefix,
            keys_max: wanted.keys_max,
        },
    };
    Ok(ListQuestion { partitions: partitions_from_pb(&question.partitions)?, listing })
}

pub(super) fn answer_to_pb(answer: &ListAnswer) -> PbListed {
    let covered = answer.covered.to_bytes();
    match &answer.found {
        ListFound::Keys { names, next } => {
            let next = next.as_ref().map(|next| next.as_bytes().clone());
            PbListed { covered, keys: Some(PbNames { names: names.clone(), next }), sizes: Vec::new() }
        }
        ListFound::Sizes(sizes) => {
            let size = |(bucket, size): (&Bytes, &Size)| PbBucketSize {
                bucket: bucket.clone(),
                keys: size.keys,
                bytes: size.bytes,
            };
            PbListed { covered, keys: None, sizes: sizes.iter().map(size).collect() }
        }
    }
}

pub(super) fn answer_from_pb(answer: PbListed) -> Result<ListAnswer, WireError> {
    let found = match answer.keys {
        Some(keys) if keys.names.len() > KEYS_MAX as usize => return Err(WireError::Field("names")),
        Some(keys) => ListFound::Keys { names: keys.names, next: keys.next.map(Position::from_bytes) },
        None => {
            let size = |size: PbBucketSize| (size.bucket, Size { keys: size.keys, bytes: size.bytes });
            ListFound::Sizes(answer.sizes.into_iter().map(size).collect::<BTreeMap<_, _>>())
        }
    };
    Ok(ListAnswer { covered: partitions_from_pb(&answer.covered)?, found })
}

fn partitions_from_pb(partitions: &[u8]) -> Result<PartitionSet, WireError> {
    PartitionSet::from_bytes(partitions).ok_or(WireError::Field("partitions"))
}
