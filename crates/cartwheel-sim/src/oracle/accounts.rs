//! Which writes account for which: a write is not lost if another that had been shown it replaced it.

use std::collections::BTreeMap;

use cartwheel_core::value::state::State;
use cartwheel_core::value::write_id::WriteId;

use crate::history::{KeyHistory, Shown, Write, WriteSet};

/// For each write of a key, the writes that it replaces.
#[derive(Debug)]
pub struct Accounts {
    certain: Vec<WriteSet>,
    potential: Vec<WriteSet>,
}

impl Accounts {
    /// Makes the accounts of a key. `end` is what its replicas hold at the end, if they are equal.
    pub fn new(history: &KeyHistory, end: Option<&State>) -> Self {
        let indices = places_by_name(history, end);
        let (mut certain, mut potential) = (Vec::new(), Vec::new());
        for write in &history.writes {
            let (sure, possible) = match &write.shown {
                Shown::Writes(writes) => (*writes, *writes),
                // If it was carried out more than once, each time replaced what it saw, but the response names only one time.
                Shown::Names(_) if write.forwards > 0 => (WriteSet::EMPTY, before_response(history, write)),
                Shown::Names(names) => {
                    let known = names.iter().filter_map(|name| indices.get(name).copied()).collect();
                    // An unknown name may be that of an unnamed write that no read ever showed.
                    let complete = names.iter().all(|name| indices.contains_key(name));
                    (known, if complete { known } else { before_response(history, write) })
                }
                Shown::Unknown => (WriteSet::EMPTY, before_response(history, write)),
            };
            certain.push(sure);
            potential.push(possible);
        }
        Self { certain, potential }
    }

    /// The writes that `write` certainly replaces once it takes effect.
    pub fn replaced_by(&self, write: usize) -> WriteSet {
        self.certain[write]
    }

    /// Whether it is known exactly what `write` replaces.
    pub fn is_exact(&self, write: usize) -> bool {
        self.certain[write] == self.potential[write]
    }

    /// All writes that `shown` accounts for: those shown, those that these replaced, and so on.
    pub fn accounted(&self, shown: WriteSet) -> WriteSet {
        let mut accounted = shown;
        loop {
            let more = accounted
                .iter()
                .filter_map(|write| self.potential.get(write))
                .fold(accounted, |set, replaced| set.union(*replaced));
            if more == accounted {
                return accounted;
            }
            accounted = more;
        }
    }

    /// All writes that are gone for good once the writes of `effective` took effect.
    pub fn gone(&self, effective: WriteSet) -> WriteSet {
        effective
            .iter()
            .filter_map(|write| self.certain.get(write))
            .fold(WriteSet::EMPTY, |set, replaced| set.union(*replaced))
    }
}

/// All that `write` can have seen: the writes that were invoked before its response.
fn before_response(history: &KeyHistory, write: &Write) -> WriteSet {
    let Some(answered) = write.answered() else { return WriteSet::ALL };
    let earlier = history.writes.iter().enumerate().filter(|(_, other)| other.invoked < answered);
    earlier.map(|(index, _)| index).collect()
}

/// The writes by name, as given by the client or shown by a reply.
fn places_by_name(history: &KeyHistory, end: Option<&State>) -> BTreeMap<WriteId, usize> {
    let mut indices: BTreeMap<WriteId, usize> = BTreeMap::new();
    let named = history.writes.iter().enumerate().filter_map(|(index, write)| Some((write.id?, index)));
    indices.extend(named);
    let shown = history.reads.iter().flat_map(|read| &read.siblings).chain(end.into_iter().flat_map(State::siblings));
    for sibling in shown {
        if let Some(index) = history.write_of(sibling) {
            indices.insert(sibling.write_id, index);
        }
    }
    indices
}
