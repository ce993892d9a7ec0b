//! Encoding of transfers of records to a new home, and of their progress.

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::WireError;
use super::anti_entropy::{PbRange, range_from_pb, range_to_pb, refused_from_pb, refused_to_pb};
use super::value::{PbState, state_from_pb, state_to_pb};
use crate::cluster::counts::Group;
use crate::message::transfer::{Fetch, Fetched, Page};
use crate::ring::PartitionId;
use crate::store::saved_transfer::Saved;
use crate::value::dot::Since;
use crate::value::state::Epoch;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbFetch {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(message, required, tag = "3")]
    range: PbRange,
    #[prost(fixed64, repeated, tag = "4")]
    groups: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbFetched {
    #[prost(oneof = "PbFetchResult", tags = "1, 2")]
    result: Option<PbFetchResult>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PbFetchResult {
    #[prost(message, tag = "1")]
    Page(PbChecked),
    #[prost(uint32, tag = "2")]
    Refused(u32),
}

/// An encoded page with its XXH3 checksum.
#[derive(Clone, PartialEq, prost::Message)]
struct PbChecked {
    #[prost(bytes = "bytes", tag = "1")]
    page: Bytes,
    #[prost(fixed64, tag = "2")]
    checksum: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbPage {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(message, repeated, tag = "2")]
    records: Vec<PbHeld>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    next: Option<Bytes>,
    #[prost(uint64, tag = "4")]
    bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbHeld {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(message, required, tag = "2")]
    state: PbState,
}

pub(super) fn fetch_to_pb(fetch: &Fetch) -> PbFetch {
    let groups = fetch.groups.iter().map(|group| group.0).collect();
    PbFetch { partition: fetch.partition.0, groups, range: range_to_pb(&fetch.range) }
}

pub(super) fn fetch_from_pb(fetch: PbFetch) -> Fetch {
    let groups = fetch.groups.into_iter().map(Group).collect();
    Fetch { partition: PartitionId(fetch.partition), groups, range: range_from_pb(fetch.range) }
}

pub(super) fn fetched_to_pb(fetched: &Fetched) -> PbFetched {
    let result = match fetched {
        Fetched::Page(page) => PbFetchResult::Page(page_to_pb(page)),
        Fetched::Refused(why) => PbFetchResult::Refused(refused_to_pb(*why)),
    };
    PbFetched { result: Some(result) }
}

pub(super) fn fetched_from_pb(fetched: PbFetched) -> Result<Fetched, WireError> {
    Ok(match fetched.result.ok_or(WireError::Field("result"))? {
        PbFetchResult::Page(page) => Fetched::Page(page_from_pb(page)?),
        PbFetchResult::Refused(why) => Fetched::Refused(refused_from_pb(why)?),
    })
}

fn page_to_pb(page: &Page) -> PbChecked {
    let held = |(key, state): &(Bytes, _)| PbHeld { key: key.clone(), state: state_to_pb(state) };
    let records = page.records.iter().map(held).collect();
    let page = PbPage { epoch: page.epoch.0, records, next: page.next.clone(), bytes: page.bytes }.encode_to_vec();
    PbChecked { checksum: xxh3_64(&page), page: page.into() }
}

fn page_from_pb(checked: PbChecked) -> Result<Page, WireError> {
    if xxh3_64(&checked.page) != checked.checksum {
        return Err(WireError::Field("checksum"));
    }
    let page = PbPage::decode(checked.page)?;
    let held = |held: PbHeld| Ok((held.key, state_from_pb(held.state)?));
    let records = page.records.into_iter().map(held).collect::<Result<_, WireError>>()?;
    Ok(Page { epoch: Epoch(page.epoch), records, next: page.next, bytes: page.bytes })
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbTransfer {
    #[prost(fixed64, tag = "1")]
    floor: u64,
    #[prost(message, repeated, tag = "3")]
    left: Vec<PbRange>,
    #[prost(fixed64, repeated, tag = "4")]
    groups: Vec<u64>,
}

/// Encodes the progress of a transfer for the store.
pub(crate) fn encode_transfer(saved: &Saved) -> Bytes {
    let left = saved.left.iter().map(range_to_pb).collect();
    let form = PbTransfer { floor: saved.floor.0, left, groups: saved.groups.iter().map(|group| group.0).collect() };
    form.encode_to_vec().into()
}

/// Decodes the stored progress of a transfer. `None` if there is none, or if it cannot be read: then the transfer starts again.
pub(crate) fn decode_transfer(bytes: &[u8]) -> Option<Saved> {
    if bytes.is_empty() {
        return None;
    }
    let form = PbTransfer::decode(bytes).ok()?;
    Some(Saved {
        floor: Since(form.floor),
        groups: form.groups.into_iter().map(Group).collect(),
        left: form.left.into_iter().map(range_from_pb).collect(),
    })
}
