//! A store's contents as plain maps: a simple model that simulators and tests use in place of a disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::store::command::{IndexChange, ScanLimit, Scanned, StoreCommand, StoreResult};

/// The contents of a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    /// Records by storage key.
    pub records: BTreeMap<Bytes, Bytes>,
    /// The index.
    pub index: BTreeSet<Bytes>,
    /// Values by name.
    pub named: BTreeMap<Bytes, Bytes>,
}

impl Image {
    /// Executes a command. No command fails here.
    pub fn execute(&mut self, command: &StoreCommand) -> StoreResult {
        self.change(command);
        self.read(command).unwrap_or(StoreResult::Written(Ok(())))
    }

    /// Applies a command that writes. Any other command changes nothing.
    pub fn change(&mut self, command: &StoreCommand) {
        match command {
            StoreCommand::Write { storage_key, record, index, sync: _ } => {
                match record {
                    Some(record) => drop(self.records.insert(storage_key.clone(), record.clone())),
                    None => drop(self.records.remove(storage_key)),
                }
                for change in index {
                    match change {
                        IndexChange::Add(entry) => drop(self.index.insert(entry.clone())),
                        IndexChange::Remove(entry) => drop(self.index.remove(entry)),
                    }
                }
            }
            StoreCommand::Remember { name, value } => drop(self.named.insert(name.clone(), value.clone())),
            StoreCommand::Read { .. }
            | StoreCommand::Scan { .. }
            | StoreCommand::ScanIndex { .. }
            | StoreCommand::Recall { .. } => {}
        }
    }

    /// The result of a command that reads; `None` for one that writes.
    pub fn read(&self, command: &StoreCommand) -> Option<StoreResult> {
        Some(match command {
            StoreCommand::Read { storage_key } => StoreResult::Read(Ok(self.records.get(storage_key).cloned())),
            StoreCommand::Recall { name } => StoreResult::Read(Ok(self.named.get(name).cloned())),
            StoreCommand::Scan { from, upto, at_most } => {
                let is_in = |key: &Bytes| upto.as_ref().is_none_or(|upto| key < upto);
                let following = self.records.range(from.clone()..).take_while(|(key, _)| is_in(key));
                StoreResult::Scanned(Ok(first(following.map(|(key, record)| (key.clone(), record.clone())), *at_most)))
            }
            StoreCommand::ScanIndex { from, upto, entries_max } => {
                let entries = self.index.range(from.clone()..).take_while(|entry| *entry < upto).take(*entries_max);
                StoreResult::Listed(Ok(entries.cloned().collect()))
            }
            StoreCommand::Write { .. } | StoreCommand::Remember { .. } => return None,
        })
    }
}

/// As many of `records` as one scan may read.
fn first(records: impl Iterator<Item = (Bytes, Bytes)>, at_most: ScanLimit) -> Scanned {
    let mut scanned = Scanned { is_all: true, ..Scanned::default() };
    let mut bytes = 0;
    for (key, record) in records {
        bytes += record.len();
        let is_full = scanned.records.len() >= at_most.records.max(1);
        if is_full || (bytes > at_most.bytes && !scanned.records.is_empty()) {
            scanned.is_all = false;
            break;
        }
        scanned.records.push((key, record));
    }
    scanned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &'static str, record: Option<&'static str>, index: Vec<IndexChange>) -> StoreCommand {
        StoreCommand::Write { storage_key: key.into(), record: record.map(Bytes::from), index, sync: true }
    }

    #[test]
    fn scans_honour_their_range_and_limits() {
        let mut image = Image::default();
        for key in ["a", "b", "c", "d"] {
            image.execute(&write(key, Some("four"), vec![IndexChange::Add(key.into())]));
        }
        image.execute(&write("c", None, vec![IndexChange::Remove("c".into())]));
        let scan = |from: &'static str, upto: Option<&'static str>, records, bytes| {
            let at_most = ScanLimit { records, bytes };
            let command = StoreCommand::Scan { from: from.into(), upto: upto.map(Bytes::from), at_most };
            let Some(StoreResult::Scanned(Ok(scanned))) = image.read(&command) else { panic!("a scan is a read") };
            (scanned.records.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), scanned.is_all)
        };
        assert_eq!(scan("a", None, 9, 99), (vec!["a".into(), "b".into(), "d".into()], true));
        assert_eq!(scan("a", None, 2, 99), (vec!["a".into(), "b".into()], false));
        assert_eq!(scan("b", Some("d"), 9, 1), (vec!["b".into()], true), "one that is too large is read alone");
        assert_eq!(scan("a", None, 9, 7), (vec!["a".into()], false));
        let list = StoreCommand::ScanIndex { from: "b".into(), upto: "e".into(), entries_max: 9 };
        assert_eq!(image.read(&list), Some(StoreResult::Listed(Ok(vec!["b".into(), "d".into()]))));
    }
}
