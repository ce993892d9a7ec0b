//! The serving side of a transfer: a home sends pages of the records that it holds.

use super::{TransferContext, Transfers};
use crate::admission::WorkClass;
use crate::anti_entropy::merkle::Grid;
use crate::cluster::counts::Group;
use crate::event::Event;
use crate::message::anti_entropy::Refused;
use crate::message::transfer::{Fetch, Fetched, Page};
use crate::message::{Message, RequestId};
use crate::store::command::{ScanLimit, Scanned, StoreCommand, StoreResult};
use crate::value::dot::NodeId;
use crate::value::key::Key;

/// How much is read for one page.
const PAGE: ScanLimit = ScanLimit { records: 256, bytes: 256 << 10 };
/// How many pages a shard reads at once. Further requests are refused as [`Refused::Busy`].
const SERVED_MAX: usize = 4;

/// A page that is being read.
#[derive(Debug)]
pub(super) struct Serving {
    to: NodeId,
    request_id: RequestId,
    fetch: Fetch,
}

impl Transfers {
    /// Handles a peer's request for a page.
    pub fn on_fetch(&mut self, cx: &mut TransferContext<'_>, from: NodeId, request_id: RequestId, fetch: Fetch) {
        match self.may_serve(cx, from, &fetch) {
            Ok(()) => {
                let id = cx.replica.next_store();
                let (from_key, upto) = (fetch.range.from.clone(), fetch.range.upto.clone());
                cx.out.stores.push((id, StoreCommand::Scan { from: from_key, upto, at_most: PAGE }));
                self.serving.insert(id, Serving { to: from, request_id, fetch });
            }
            Err(refused) => {
                if matches!(refused, Refused::Nonsense | Refused::NotAHome) {
                    cx.out.events.push(Event::ExchangeRefused(from));
                }
                cx.out.sends.push((from, fetch.partition, Message::Fetched(request_id, Fetched::Refused(refused))));
            }
        }
    }

    fn may_serve(&self, cx: &mut TransferContext<'_>, from: NodeId, fetch: &Fetch) -> Result<(), Refused> {
        let partition_state = cx.held.partition_state(fetch.partition).ok_or(Refused::NotAHome)?;
        let is_member = cx.held.view().member(from).is_some();
        let me = cx.held.me();
        let has = |&group: &Group| partition_state.phase.counts().has(group) && partition_state.shares(me, group);
        if !is_member || !fetch.groups.iter().all(has) {
            return Err(Refused::NotAHome);
        }
        if !Grid::of(cx.held.view().ring.partitions(), fetch.partition).whole().covers(&fetch.range) {
            return Err(Refused::Nonsense);
        }
        if !fetch.groups.iter().all(|&group| partition_state.holds_all(me, group)) {
            return Err(Refused::NotReady);
        }
        let has_room = self.serving.len() < SERVED_MAX && cx.admission.may_begin(WorkClass::Transfer, cx.now.instant);
        if has_room { Ok(()) } else { Err(Refused::Busy) }
    }

    /// A page has been read.
    pub(super) fn read(&self, cx: &mut TransferContext<'_>, serving: Serving, result: StoreResult) {
        let Serving { to, request_id, fetch } = serving;
        let partition = fetch.partition;
        let fetched = match result {
            StoreResult::Scanned(Ok(scanned)) => {
                cx.admission.has_read(WorkClass::Transfer, scanned.records.len(), cx.now.instant);
                let page = page(cx, &fetch, scanned);
                cx.out.events.push(Event::TransferSent { records: page.records.len() as u64, bytes: page.bytes });
                Fetched::Page(page)
            }
            _ => Fetched::Refused(Refused::NotReady),
        };
        cx.out.sends.push((to, partition, Message::Fetched(request_id, fetched)));
    }
}

/// The page to send. It leaves out records that are not durable yet, and what garbage collection would remove. The
/// exchange that follows the transfer finds what is missing.
fn page(cx: &TransferContext<'_>, fetch: &Fetch, scanned: Scanned) -> Page {
    let next = scanned.next();
    let mut page = Page { epoch: cx.replica.epoch(), records: Vec::new(), next, bytes: 0 };
    for (storage_key, record) in scanned.records {
        let Ok(key) = Key::from_storage_key(&storage_key) else { continue };
        let (_, group) = cx.held.group_of(&key);
        if !fetch.groups.contains(&group) || cx.replica.is_being_written(&key) {
            continue;
        }
        if let Some(state) = cx.replica.shown(cx.now, &key, &record) {
            page.bytes += (storage_key.len() + record.len()) as u64;
            page.records.push((storage_key, state));
        }
    }
    page
}
