//! Notes of replaced writes, by which late retries of them are recognized.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use crate::value::hlc::Hlc;
use crate::value::write_id::WriteId;

/// What is remembered of a replaced write, so that a late retry under another dot is recognized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note {
    /// The smallest timestamp under which the write arrived.
    pub hlc: Hlc,
    /// Whether the write was shown to the write that replaced it. Then it is dropped under every dot, since no two writes can have been shown
    /// each other.
    ///
    /// Otherwise last write wins replaced it unseen. Two retried writes may have replaced each other in that way, on two nodes, and must not
    /// both disappear. Such a note only says that the write need not be made again.
    pub shown: bool,
}

impl Note {
    /// The note that says what both say of one write.
    fn united(self, other: Self) -> Self {
        Self { hlc: self.hlc.min(other.hlc), shown: self.shown || other.shown }
    }
}

const ID_BYTES: usize = size_of::<WriteId>();
const ENTRY_BYTES: usize = ID_BYTES + 9;

/// A note as it is stored and sent: the write's id, the timestamp (big-endian), and 1 if it was shown, otherwise 0.
type Entry = [u8; ENTRY_BYTES];

/// The notes of a key, at most one for each write.
///
/// They stay in their stored and sent form, with entries ascending by write id. A busy key has dozens, each of its reads carries them, and
/// hardly any read inspects them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Notes(Bytes);

impl Notes {
    /// No notes.
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// Decodes the stored or sent form; `None` if `bytes` do not have it.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        let ascend = entries.is_sorted_by(|a, b| id_bytes(a) < id_bytes(b));
        let flags = entries.iter().all(|entry| entry[ENTRY_BYTES - 1] <= 1);
        (rest.is_empty() && ascend && flags).then_some(Self(bytes))
    }

    /// Their stored and sent form, which is the same for equal notes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The number of notes.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The note of the write called `id`.
    pub fn get(&self, id: WriteId) -> Option<Note> {
        let at = self.entries().binary_search_by(|entry| id_bytes(entry).cmp(&id.to_bytes())).ok()?;
        Some(decoded(&self.entries()[at]).1)
    }

    /// The notes in the order of their writes' ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (WriteId, Note)> + '_ {
        self.entries().iter().map(decoded)
    }

    /// Adds the notes of `other`. Returns whether that changed anything.
    pub fn unite(&mut self, other: &Self) -> bool {
        if other.is_empty() || self == other {
            return false;
        }
        if self.is_empty() {
            self.0 = other.0.clone();
            return true;
        }
        let united = union(self.entries(), other.entries());
        let changed = united != self.0;
        if changed {
            self.0 = united.into();
        }
        changed
    }

    /// Removes the oldest notes beyond `max`.
    pub fn trim_oldest(&mut self, max: usize) {
        let Some(surplus) = self.len().checked_sub(max).filter(|&surplus| surplus > 0) else { return };
        let mut by_age: Vec<(Hlc, WriteId)> = self.iter().map(|(id, note)| (note.hlc, id)).collect();
        by_age.sort_unstable();
        let youngest_gone = by_age[surplus - 1];
        *self = self.iter().filter(|(id, note)| (note.hlc, *id) > youngest_gone).collect();
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_chunks().0
    }
}

/// Two notes of one write become one that says both.
impl FromIterator<(WriteId, Note)> for Notes {
    fn from_iter<I: IntoIterator<Item = (WriteId, Note)>>(notes: I) -> Self {
        let mut notes: Vec<(WriteId, Note)> = notes.into_iter().collect();
        notes.sort_by_key(|(id, _)| *id);
        notes.dedup_by(|(id, note), (kept_id, kept)| {
            let same = id == kept_id;
            if same {
                *kept = kept.united(*note);
            }
            same
        });
        Self(notes.iter().flat_map(|(id, note)| encoded(*id, *note)).collect())
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (id, note)) in self.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{id:?}{}", if note.shown { "" } else { "?" })?;
        }
        Ok(())
    }
}

fn id_bytes(entry: &Entry) -> &[u8] {
    &entry[..ID_BYTES]
}

fn decoded(entry: &Entry) -> (WriteId, Note) {
    let (mut id, mut hlc) = ([0; ID_BYTES], [0; 8]);
    id.copy_from_slice(id_bytes(entry));
    hlc.copy_from_slice(&entry[ID_BYTES..ENTRY_BYTES - 1]);
    let note = Note { hlc: Hlc::from_bits(u64::from_be_bytes(hlc)), shown: entry[ENTRY_BYTES - 1] != 0 };
    (WriteId::from_bytes(id), note)
}

fn encoded(id: WriteId, note: Note) -> Entry {
    let mut entry = [0; ENTRY_BYTES];
    entry[..ID_BYTES].copy_from_slice(&id.to_bytes());
    entry[ID_BYTES..ENTRY_BYTES - 1].copy_from_slice(&note.hlc.to_bits().to_be_bytes());
    entry[ENTRY_BYTES - 1] = u8::from(note.shown);
    entry
}

fn union(mut ours: &[Entry], mut theirs: &[Entry]) -> Vec<u8> {
    let mut united = Vec::with_capacity((ours.len() + theirs.len()) * ENTRY_BYTES);
    while let ([our, our_rest @ ..], [their, their_rest @ ..]) = (ours, theirs) {
        match id_bytes(our).cmp(id_bytes(their)) {
            Ordering::Less => {
                united.extend_from_slice(our);
                ours = our_rest;
            }
            Ordering::Greater => {
                united.extend_from_slice(their);
                theirs = their_rest;
            }
            Ordering::Equal => {
                let (id, note) = decoded(our);
                united.extend_from_slice(&encoded(id, note.united(decoded(their).1)));
                (ours, theirs) = (our_rest, their_rest);
            }
        }
    }
    united.extend_from_slice(ours.as_flattened());
    united.extend_from_slice(theirs.as_flattened());
    united
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> WriteId {
        WriteId::from_bytes([number; ID_BYTES])
    }

    fn some_notes() -> impl Strategy<Value = Vec<(WriteId, Note)>> {
        let note = (0u8..9, 0u64..5, any::<bool>());
        let note = note.prop_map(|(number, hlc, shown)| (id(number), Note { hlc: Hlc::from_bits(hlc), shown }));
        prop::collection::vec(note, 0..8)
    }

    /// The same notes as a map, added one by one.
    fn model(notes: &[(WriteId, Note)]) -> BTreeMap<WriteId, Note> {
        let mut model: BTreeMap<WriteId, Note> = BTreeMap::new();
        for &(id, note) in notes {
            let known = model.entry(id).or_insert(note);
            *known = Note { hlc: known.hlc.min(note.hlc), shown: known.shown | note.shown };
        }
        model
    }

    fn same(notes: &Notes, model: &BTreeMap<WriteId, Note>) -> bool {
        notes.iter().eq(model.iter().map(|(&id, &note)| (id, note)))
            && notes.len() == model.len()
            && notes.is_empty() == model.is_empty()
            && (0..9).all(|number| notes.get(id(number)) == model.get(&id(number)).copied())
    }

    #[test]
    fn bytes_of_another_form_are_refused() {
        let [low, high] = [1, 2].map(|number| encoded(id(number), Note { hlc: Hlc::from_bits(7), shown: true }));
        let read = |entries: &[&[u8]]| Notes::from_bytes(entries.concat().into());
        assert_eq!(read(&[&low, &high]).map(|notes| notes.len()), Some(2));
        assert_eq!(read(&[]), Some(Notes::new()));
        assert_eq!(read(&[&high, &low]), None, "not ascending");
        assert_eq!(read(&[&low, &low]), None, "twice the same write");
        assert_eq!(read(&[&low, &high[..ENTRY_BYTES - 1]]), None, "half an entry");
        let mut flag = low;
        flag[ENTRY_BYTES - 1] = 2;
        assert_eq!(read(&[&flag]), None, "neither shown nor unseen");
    }

    proptest! {
        #[test]
        fn notes_behave_as_a_map(a in some_notes(), b in some_notes(), max in 0usize..6) {
            let mut notes: Notes = a.iter().copied().collect();
            prop_assert!(same(&notes, &model(&a)));
            prop_assert_eq!(Notes::from_bytes(notes.as_bytes().clone()), Some(notes.clone()));

            let both = model(&[a.clone(), b.clone()].concat());
            let changed = notes.unite(&b.iter().copied().collect());
            prop_assert_eq!(changed, both != model(&a));
            prop_assert!(same(&notes, &both));

            notes.trim_oldest(max);
            let mut by_age: Vec<_> = both.iter().map(|(&id, note)| (note.hlc, id)).collect();
            by_age.sort_unstable();
            let kept: BTreeMap<_, _> = by_age.iter().rev().take(max).map(|(_, id)| (*id, both[id])).collect();
            prop_assert!(same(&notes, &kept));
        }
    }
}
