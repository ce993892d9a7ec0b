//! Encoding of the messages of an exchange.

use bytes::Bytes;

use super::{WireError, fixed};
use crate::cluster::counts::Group;
use crate::cluster::sizes::TreeId;
use crate::message::anti_entropy::{Finding, KeyRange, ListPage, Question, Refused, Sum};
use crate::ring::PartitionId;
use crate::value::digest::ContentDigest;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbCompare {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(fixed64, tag = "5")]
    group: u64,
    #[prost(oneof = "PbQuestion", tags = "3, 4")]
    question: Option<PbQuestion>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PbQuestion {
    #[prost(message, tag = "3")]
    Nodes(PbNodes),
    #[prost(message, tag = "4")]
    Keys(PbRange),
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbNodes {
    #[prost(uint32, tag = "1")]
    level: u32,
    #[prost(uint32, repeated, tag = "2")]
    nodes: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbRange {
    #[prost(bytes = "bytes", tag = "1")]
    from: Bytes,
    #[prost(bytes = "bytes", optional, tag = "2")]
    upto: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbCompared {
    #[prost(oneof = "PbFinding", tags = "1, 2, 3")]
    finding: Option<PbFinding>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PbFinding {
    #[prost(message, tag = "1")]
    Sums(PbSums),
    #[prost(message, tag = "2")]
    Keys(PbKeys),
    #[prost(uint32, tag = "3")]
    Refused(u32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSums {
    #[prost(uint32, tag = "1")]
    depth: u32,
    #[prost(bool, tag = "2")]
    is_recovered: bool,
    /// 16 bytes each.
    #[prost(bytes = "bytes", tag = "3")]
    digests: Bytes,
    #[prost(uint64, repeated, tag = "4")]
    keys: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbKeys {
    #[prost(bool, tag = "1")]
    is_recovered: bool,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<PbEntry>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    next: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbEntry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    digest: Bytes,
}

const REFUSALS: [Refused; 4] = [Refused::NotAHome, Refused::NotReady, Refused::Busy, Refused::Nonsense];

pub(super) fn refused_to_pb(why: Refused) -> u32 {
    REFUSALS.iter().position(|&refusal| refusal == why).map_or(0, |place| place as u32)
}

pub(super) fn refused_from_pb(why: u32) -> Result<Refused, WireError> {
    REFUSALS.get(why as usize).copied().ok_or(WireError::Field("refused"))
}

pub(super) fn range_to_pb(range: &KeyRange) -> PbRange {
    PbRange { from: range.from.clone(), upto: range.upto.clone() }
}

pub(super) fn range_from_pb(range: PbRange) -> KeyRange {
    KeyRange { from: range.from, upto: range.upto }
}

pub(super) fn question_to_pb(question: &Question) -> PbCompare {
    let (tree, question) = match question {
        Question::Nodes { tree, level, nodes } => {
            (tree, PbQuestion::Nodes(PbNodes { level: (*level).into(), nodes: nodes.clone() }))
        }
        Question::Keys { tree, range } => (tree, PbQuestion::Keys(range_to_pb(range))),
    };
    PbCompare { partition: tree.partition.0, group: tree.group.0, question: Some(question) }
}

pub(super) fn question_from_pb(compare: PbCompare) -> Result<Question, WireError> {
    let tree = TreeId { partition: PartitionId(compare.partition), group: Group(compare.group) };
    Ok(match compare.question.ok_or(WireError::Field("question"))? {
        PbQuestion::Nodes(PbNodes { level, nodes }) => {
            Question::Nodes { tree, level: u8::try_from(level).map_err(|_| WireError::Field("level"))?, nodes }
        }
        PbQuestion::Keys(range) => Question::Keys { tree, range: range_from_pb(range) },
    })
}

pub(super) fn finding_to_pb(finding: &Finding) -> PbCompared {
    let finding = match finding {
        Finding::Sums { depth, is_recovered, sums } => PbFinding::Sums(PbSums {
            depth: (*depth).into(),
            is_recovered: *is_recovered,
            digests: sums.iter().flat_map(|sum| sum.digests.to_le_bytes()).collect(),
            keys: sums.iter().map(|sum| sum.keys).collect(),
        }),
        Finding::Keys { is_recovered, page } => {
            let entry = |(key, digest): (&Bytes, &ContentDigest)| PbEntry {
                key: key.clone(),
                digest: Bytes::copy_from_slice(&digest.0),
            };
            PbFinding::Keys(PbKeys {
                is_recovered: *is_recovered,
                entries: page.entries.iter().map(entry).collect(),
                next: page.next.clone(),
            })
        }
        Finding::Refused(why) => PbFinding::Refused(refused_to_pb(*why)),
    };
    PbCompared { finding: Some(finding) }
}

pub(super) fn finding_from_pb(compared: PbCompared) -> Result<Finding, WireError> {
    Ok(match compared.finding.ok_or(WireError::Field("finding"))? {
        PbFinding::Sums(PbSums { depth, is_recovered, digests, keys }) => {
            let (parts, rest) = digests.as_chunks::<16>();
            if !rest.is_empty() || parts.len() != keys.len() {
                return Err(WireError::Field("sums"));
            }
            let sum = |(part, keys): (&[u8; 16], u64)| Sum { digests: u128::from_le_bytes(*part), keys };
            let depth = u8::try_from(depth).map_err(|_| WireError::Field("depth"))?;
            Finding::Sums { depth, is_recovered, sums: parts.iter().zip(keys).map(sum).collect() }
        }
        PbFinding::Keys(PbKeys { is_recovered, entries, next }) => {
            let entry = |entry: PbEntry| Ok((entry.key, ContentDigest(fixed(&entry.digest, "digest")?)));
            let entries = entries.into_iter().map(entry).collect::<Result<_, WireError>>()?;
            Finding::Keys { is_recovered, page: ListPage { entries, next } }
        }
        PbFinding::Refused(why) => Finding::Refused(refused_from_pb(why)?),
    })
}
