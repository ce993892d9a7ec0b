//! Lists of the keys of a range, from a scan of the store.

use bytes::Bytes;

use crate::anti_entropy::merkle::Trees;
use crate::cluster::sizes::TreeId;
use crate::message::anti_entropy::{KeyRange, ListPage};
use crate::store::command::{ScanLimit, Scanned, StoreCommand};
use crate::store::share::Share;
use crate::value::digest::ContentDigest;
use crate::value::key::Key;

/// How much is read for one list. An entry takes some tens of bytes, and some thousands at most.
const LIST_LIMIT: ScanLimit = ScanLimit { records: 256, bytes: 1 << 20 };

/// The command that reads the first keys of `range`.
pub fn scan(range: &KeyRange) -> StoreCommand {
    StoreCommand::Scan { from: range.from.clone(), upto: range.upto.clone(), at_most: LIST_LIMIT }
}

/// The keys of `tree` that a scan of `range` has found, and the keys whose records cannot be read.
///
/// A record that is being written is listed as it was before: a list shows durable records only.
pub fn page<'a>(
    trees: &Trees,
    tree: TreeId,
    range: &KeyRange,
    scanned: &Scanned,
    being_written: impl Iterator<Item = (&'a Key, Share)>,
) -> (ListPage, Vec<Key>) {
    let next = scanned.next();
    let mut page = ListPage { next: next.clone(), ..ListPage::default() };
    let part = KeyRange { from: range.from.clone(), upto: next.or_else(|| range.upto.clone()) };
    let key_of = |storage_key: &Bytes| Key::from_storage_key(storage_key).ok();
    let mut damaged: Vec<Key> = scanned.damaged.iter().filter_map(key_of).collect();
    for (storage_key, record) in &scanned.records {
        match trees.held(storage_key, record) {
            Some(held) if held.group == tree.group => drop(page.entries.insert(storage_key.clone(), held.share.digest)),
            Some(_) => {}
            None => damaged.extend(key_of(storage_key)),
        }
    }
    for (key, share) in being_written.filter(|(key, _)| trees.id_of(key) == tree) {
        let storage_key = key.storage_key();
        if part.contains(&storage_key) {
            page.entries.insert(storage_key, share.digest);
        }
    }
    page.entries.retain(|_, content| *content != ContentDigest::NONE);
    (page, damaged)
}
