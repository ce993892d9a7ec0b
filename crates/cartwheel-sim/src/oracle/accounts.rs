//! Which writes account for which: a write that was replaced by one that had been shown it is not lost.

use std::collections::BTreeMap;

use cartwheel_core::value::state::State;
use cartwheel_core::value::write_id::WriteId;

use crate::history::{KeyHistory, Shown, Write, WriteSet};

/// Of each write of a key, what it replaces.
#[derive(Debug)]
pub struct Accounts {
    surely: Vec<WriteSet>,
    perhaps: Vec<WriteSet>,
}

impl Accounts {
    /// The accounts of a key.
    pub fn new(history: &KeyHistory, end: Option<&State>) -> Self {
        let places = places_by_name(history, end);
        let (mut surely, mut perhaps) = (Vec::new(), Vec::new());
        for write in &history.writes {
            let (sure, possible) = match &write.shown {
                Shown::Writes(writes) => (*writes, *writes),
                // Carried out more than once, it replaced what each time saw, and the client was told of one.
                Shown::Names(_) if write.forwards > 0 => (WriteSet::EMPTY, before_answer(history, write)),
                Shown::Names(names) => {
                    let known = names.iter().filter_map(|name| places.get(name).copied()).collect();
                    // A write that nobody named and nobody was ever shown may be behind an unknown name.
                    let complete = names.iter().all(|name| places.contains_key(name));
                    (known, if complete { known } else { before_answer(history, write) })
                }
                Shown::Unknown => (WriteSet::EMPTY, before_answer(history, write)),
            };
            surely.push(sure);
            perhaps.push(possible);
        }
        Self { surely, perhaps }
    }

    /// What `write` had been shown for sure: once it took effect, these are replaced.
    pub fn replaced_by(&self, write: usize) -> WriteSet {
        self.surely[write]
    }

    /// Whether it is known what `write` had been shown.
    pub fn is_exact(&self, write: usize) -> bool {
        self.surely[write] == self.perhaps[write]
    }

    /// All writes that `shown` accounts for: those shown, those that they had been shown, and so on.
    pub fn accounted(&self, shown: WriteSet) -> WriteSet {
        let mut accounted = shown;
        loop {
            let more = accounted
                .iter()
                .filter_map(|write| self.perhaps.get(write))
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
            .filter_map(|write| self.surely.get(write))
            .fold(WriteSet::EMPTY, |set, replaced| set.union(*replaced))
    }
}

/// All that `write` could have seen: nothing that was first asked for when it had been answered already.
fn before_answer(history: &KeyHistory, write: &Write) -> WriteSet {
    let Some(answered) = write.answered() else { return WriteSet::ALL };
    let earlier = history.writes.iter().enumerate().filter(|(_, other)| other.invoked < answered);
    earlier.map(|(place, _)| place).collect()
}

/// The writes by name: as the client named them, or as a reply showed them.
fn places_by_name(history: &KeyHistory, end: Option<&State>) -> BTreeMap<WriteId, usize> {
    let mut places: BTreeMap<WriteId, usize> = BTreeMap::new();
    let named = history.writes.iter().enumerate().filter_map(|(place, write)| Some((write.id?, place)));
    places.extend(named);
    let shown = history.reads.iter().flat_map(|read| &read.siblings).chain(end.into_iter().flat_map(State::siblings));
    for sibling in shown {
        if let Some(place) = history.write_of(sibling) {
            places.insert(sibling.write_id, place);
        }
    }
    places
}
