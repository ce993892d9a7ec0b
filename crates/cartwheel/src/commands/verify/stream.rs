//! The records of one partition on one node's disk, in key order, with one page in memory.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cartwheel_client::DigestPage;

use super::held::Held;
use super::nodes::Node;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) storage_key: Vec<u8>,
    pub(super) n: u8,
    pub(super) held: Held,
}

pub(super) struct Stream<'a> {
    pub(super) node: &'a Node,
    partition: u32,
    entries: VecDeque<Entry>,
    rest: Rest,
    /// The last key received. Keys must ascend, so that a faulty node cannot send records without end.
    last: Option<Vec<u8>>,
}

/// The records after the entries in memory.
enum Rest {
    /// More pages, from this position on.
    From(Option<String>),
    /// No more pages. Every further key has this state: absent, unreadable or unreachable.
    Always(Held),
}

impl<'a> Stream<'a> {
    pub(super) fn new(node: &'a Node, partition: u32) -> Self {
        Self { node, partition, entries: VecDeque::new(), rest: Rest::From(None), last: None }
    }

    /// Fetches pages until the next entry is in memory or there are no more. Returns the last page fetched, without its records.
    pub(super) async fn fill(&mut self) -> Option<DigestPage> {
        let mut fetched = None;
        while self.entries.is_empty()
            && let Rest::From(from) = &self.rest
        {
            let Some(mut page) = self.node.page(self.partition, from.as_deref()).await else {
                self.rest = Rest::Always(Held::Unreachable);
                break;
            };
            if self.add_page(&mut page).is_none() {
                self.node.mark_unreachable::<()>("it sent a malformed page of records".to_owned());
                self.rest = Rest::Always(Held::Unreachable);
                self.entries.clear();
                break;
            }
            fetched = Some(page);
        }
        fetched
    }

    fn add_page(&mut self, page: &mut DigestPage) -> Option<()> {
        for record in page.records.drain(..) {
            let entry = Entry {
                storage_key: URL_SAFE_NO_PAD.decode(&record.storage_key).ok()?,
                n: record.n,
                held: Held::of(&record)?,
            };
            if self.last.as_ref().is_some_and(|last| *last >= entry.storage_key) {
                return None;
            }
            self.last = Some(entry.storage_key.clone());
            self.entries.push_back(entry);
        }
        self.rest = match page.next.take() {
            // An empty page that refers to a next one could repeat forever.
            Some(_) if self.entries.is_empty() => return None,
            Some(next) => Rest::From(Some(next)),
            None if page.unreadable => Rest::Always(Held::Unreadable),
            None => Rest::Always(Held::Absent),
        };
        Some(())
    }

    /// The key of the next entry.
    pub(super) fn front(&self) -> Option<&[u8]> {
        self.entries.front().map(|entry| entry.storage_key.as_slice())
    }

    /// Takes the contents that the node holds for a key, and the key's number of homes if the node has a record. The key must not be
    /// greater than that of the next entry.
    pub(super) fn take(&mut self, storage_key: &[u8]) -> (Held, Option<u8>) {
        match (self.entries.front(), &self.rest) {
            (Some(entry), _) if entry.storage_key == storage_key => {
                let taken = (entry.held, Some(entry.n));
                self.entries.pop_front();
                taken
            }
            (None, Rest::Always(held)) => (*held, None),
            _ => (Held::Absent, None),
        }
    }
}
