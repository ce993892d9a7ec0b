//! The requests and responses of clients, by key. This is the evidence that the oracle judges.

use bytes::Bytes;
use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Sibling};
use cartwheel_core::value::write_id::WriteId;

/// The most writes of one key in a run.
///
/// A key's state keeps notes of 64 replaced writes, and a context names 64 shown ones. With more writes, a late retry may leave a superfluous
/// sibling; with fewer, the oracle needs no exception.
pub const WRITES_MAX: usize = 60;

/// A set of writes of one key, by their indexes in [`KeyHistory::writes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WriteSet(u64);

impl WriteSet {
    /// No write.
    pub const EMPTY: Self = Self(0);
    /// Every write.
    pub const ALL: Self = Self(u64::MAX);

    /// The set of this write alone.
    pub const fn of(write: usize) -> Self {
        Self(1 << write)
    }

    /// Whether `write` is in it.
    pub const fn contains(self, write: usize) -> bool {
        self.0 >> write & 1 == 1
    }

    /// Whether no write is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The writes in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The writes in this set and not in the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The writes in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The indexes of the writes, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |&write| self.contains(write))
    }
}

impl FromIterator<usize> for WriteSet {
    fn from_iter<I: IntoIterator<Item = usize>>(writes: I) -> Self {
        writes.into_iter().fold(Self::EMPTY, |set, write| set.union(Self::of(write)))
    }
}

/// A point in a run. `order` decides between two in the same microsecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment {
    /// The position among all requests and responses.
    pub order: u64,
    /// The simulated time in microseconds.
    pub at_us: u64,
}

/// The writes that a write had been shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// Exactly these: the client knew them.
    Writes(WriteSet),
    /// The writes with these names. It was a delete without a context, which deletes what its coordinator sees, and it had a response.
    Names(Vec<WriteId>),
    /// Not known: such a delete had no response, or more than one attempt.
    Unknown,
}

/// The end of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It may have been stored, or may yet be.
    Unknown,
    /// It was not stored and never will be.
    Refused,
    /// It was a delete and found nothing to delete.
    FoundNothing {
        /// When the client got the response.
        at: Moment,
    },
    /// It is stored.
    Acknowledged {
        /// When the client got the response.
        at: Moment,
        /// The number of home replicas that are known to have stored it.
        w: u8,
        /// Its timestamp by its reply's context. `None` if it had been replaced before this attempt: then the context does not name it.
        hlc: Option<Hlc>,
    },
}

/// A client's write, with all its attempts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The value or tombstone.
    pub content: Content,
    /// When it expires.
    pub expires: Option<WallMs>,
    /// Its name, if the client gave it one.
    pub id: Option<WriteId>,
    /// The writes that it had been shown.
    pub shown: Shown,
    /// The highest timestamp that it had been shown.
    pub shown_hlc: Hlc,
    /// The timestamp of the value that it changes in part, if it does ([`Put::rewrites`](cartwheel_core::message::client::Put::rewrites)).
    pub rewrites: Option<Hlc>,
    /// When its first attempt was made.
    pub invoked: Moment,
    /// The number of attempts.
    pub attempts: u32,
    /// How it ended, as far as its client knows.
    pub fate: Fate,
    /// The earliest timestamp under which it was stored. A write with several attempts may have several: a write that replaced it under one of them
    /// has replaced it under all.
    pub earliest: Option<Hlc>,
    /// The latest timestamp under which it was stored. Under that it has replaced everything earlier, wherever that was.
    pub latest: Option<Hlc>,
    /// From when on it may be garbage collected, if it is a delete.
    pub collected_from_us: Option<u64>,
    /// Whether all its dots were made by homes of the key, and the homes never changed: then each had everything that all homes had acknowledged.
    pub made_at_homes: bool,
    /// How often a node forwarded it to another. A write that was carried out more than once may have replaced more than its client knows. Only
    /// the simulator can see that, not a client.
    pub forwards: usize,
}

impl Write {
    /// The most times that it can have been carried out, if each attempt reached at most one node.
    pub const fn tries(&self) -> usize {
        self.attempts as usize
    }

    /// When the client got a successful response, if it did.
    pub const fn answered(&self) -> Option<Moment> {
        match self.fate {
            Fate::Acknowledged { at, .. } | Fate::FoundNothing { at } => Some(at),
            Fate::Unknown | Fate::Refused => None,
        }
    }

    /// Whether it is a delete that may have been garbage collected at this time.
    pub fn may_be_collected(&self, at_us: u64) -> bool {
        self.collected_from_us.is_some_and(|from_us| from_us <= at_us)
    }

    /// When it was acknowledged, if it was.
    pub const fn acknowledged(&self) -> Option<Moment> {
        match self.fate {
            Fate::Acknowledged { at, .. } => Some(at),
            _ => None,
        }
    }
}

/// A read with a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// When it was sent.
    pub invoked: Moment,
    /// When its response came.
    pub answered: Moment,
    /// The number of home replicas that are known to have responded. The body that a put returns counts as a read with none.
    pub r: u8,
    /// Whether it belongs to the key's linearizable history.
    pub strong: bool,
    /// What it had to show or account for: the writes that its context covers.
    pub seen: WriteSet,
    /// The highest timestamp that its context covers.
    pub seen_hlc: Hlc,
    /// The values that it showed.
    pub siblings: Vec<Sibling>,
}

/// All requests on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyHistory {
    /// The key.
    pub key: Key,
    /// The key's index in the run.
    pub number: usize,
    /// How its bucket shows concurrent writes.
    pub conflict: Conflict,
    /// Whether all requests on it were strong.
    pub strong_only: bool,
    /// The largest number of home replicas that it has.
    pub replicas: u8,
    /// In the order of their first attempts.
    pub writes: Vec<Write>,
    /// In the order of their responses.
    pub reads: Vec<Read>,
    /// Whether one of its records was damaged or lost at some time.
    pub damaged: bool,
    /// The most by which the timestamps of two simultaneous writes can differ, in microseconds: the largest difference of two nodes' clocks, and
    /// what the protocol adds. `None` if it is not known.
    pub clocks_within_us: Option<u64>,
}

impl KeyHistory {
    /// An empty history.
    pub const fn new(key: Key, number: usize, conflict: Conflict, strong_only: bool, replicas: u8) -> Self {
        Self {
            key,
            number,
            conflict,
            strong_only,
            replicas,
            writes: Vec::new(),
            reads: Vec::new(),
            damaged: false,
            clocks_within_us: None,
        }
    }

    /// The value of the write with this index. It is unique in the run.
    pub fn value(&self, index: usize) -> Bytes {
        format!("k{}w{index}", self.number).into()
    }

    /// The write that a sibling shows; `None` if it was never written.
    pub fn write_of(&self, sibling: &Sibling) -> Option<usize> {
        let index = match &sibling.content {
            Content::Value { bytes, .. } => {
                let index = std::str::from_utf8(bytes).ok()?.strip_prefix(&format!("k{}w", self.number))?;
                index.parse().ok()?
            }
            Content::Tombstone => self.writes.iter().position(|write| write.id == Some(sibling.write_id))?,
        };
        let write = self.writes.get(index)?;
        let same = write.content == sibling.content
            && write.expires == sibling.expires
            && write.id.is_none_or(|id| id == sibling.write_id);
        same.then_some(index)
    }

    /// The writes that siblings show. Siblings that were never written are left out.
    pub fn writes_of<'a>(&self, siblings: impl IntoIterator<Item = &'a Sibling>) -> WriteSet {
        siblings.into_iter().filter_map(|sibling| self.write_of(sibling)).collect()
    }

    /// A write's name in messages.
    pub fn name(&self, write: usize) -> String {
        match self.writes.get(write).map(|write| &write.content) {
            Some(Content::Tombstone) => format!("k{}w{write} (a delete)", self.number),
            _ => format!("k{}w{write}", self.number),
        }
    }

    /// The names of several writes in messages.
    pub fn names(&self, writes: WriteSet) -> String {
        let names: Vec<String> = writes.iter().map(|write| self.name(write)).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }

    /// A line for each write: what it had been shown, and how it ended.
    pub fn describe_writes(&self) -> String {
        let line = |index: usize| {
            let write = &self.writes[index];
            let shown = match &write.shown {
                Shown::Writes(shown) => self.names(*shown),
                Shown::Names(names) => format!("{names:?}"),
                Shown::Unknown => "it is not known what".to_owned(),
            };
            let id = write.id.map_or("unnamed".to_owned(), |id| format!("{id:?}"));
            let fate = match write.fate {
                Fate::Unknown => "no definite answer".to_owned(),
                Fate::Refused => "refused".to_owned(),
                Fate::FoundNothing { .. } => "found nothing".to_owned(),
                Fate::Acknowledged { at, w, hlc } => {
                    format!("acknowledged at {}.{:06}, w={w}, {hlc:?}", at.at_us / 1_000_000, at.at_us % 1_000_000)
                }
            };
            format!(
                "    {} {id}, shown {shown}, {} attempts, {} forwards: {fate}",
                self.name(index),
                write.attempts,
                write.forwards
            )
        };
        (0..self.writes.len()).map(line).collect::<Vec<_>>().join("\n")
    }
}
