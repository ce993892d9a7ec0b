//! What clients asked and were told, key by key: the oracle's evidence.

use bytes::Bytes;
use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Sibling};
use cartwheel_core::value::write_id::WriteId;

/// How many writes a key gets at most in a run.
///
/// A key's state keeps notes of 64 replaced writes, and a context names 64 shown ones; with more, a late retry may leave a
/// superfluous sibling. Below that, the oracle needs no exception.
pub const WRITES_MAX: usize = 60;

/// A set of writes of one key, by their places in [`KeyHistory::writes`].
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

    /// The writes of either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The writes of this one that are not in the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The writes of both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The writes, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |&write| self.contains(write))
    }
}

impl FromIterator<usize> for WriteSet {
    fn from_iter<I: IntoIterator<Item = usize>>(writes: I) -> Self {
        writes.into_iter().fold(Self::EMPTY, |set, write| set.union(Self::of(write)))
    }
}

/// A point in a run. Of two in one microsecond, `order` tells which came first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment {
    /// Its place among all that clients did and were told.
    pub order: u64,
    /// When, in microseconds of simulated time.
    pub at_us: u64,
}

/// Which writes a write had been shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// These: the client knew.
    Writes(WriteSet),
    /// The ones with these names: a delete without a context, which deletes what its coordinator sees, was answered.
    Names(Vec<WriteId>),
    /// Nobody knows: such a delete was not answered, or tried more than once.
    Unknown,
}

/// How a write ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It may have happened or may yet happen.
    Unknown,
    /// It did not happen and never will.
    Refused,
    /// It was a delete and found nothing.
    FoundNothing {
        /// When the client was told.
        at: Moment,
    },
    /// It is stored.
    Acknowledged {
        /// When the client was told.
        at: Moment,
        /// By how many home replicas at least.
        w: u8,
        /// Its timestamp, as its reply's context has it. None if it had been replaced when this attempt came: then the
        /// context says nothing of it.
        hlc: Option<Hlc>,
    },
}

/// A client's write, with all its attempts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// What was written.
    pub content: Content,
    /// When it expires.
    pub expires: Option<WallMs>,
    /// Its name, if the client named it.
    pub id: Option<WriteId>,
    /// What it had been shown.
    pub shown: Shown,
    /// The highest timestamp that it had been shown.
    pub shown_hlc: Hlc,
    /// When it was first asked for.
    pub invoked: Moment,
    /// How often it was asked for.
    pub attempts: u32,
    /// How it ended.
    pub fate: Fate,
    /// The earliest timestamp that it was stored under, where a write that was tried more than once has several: one that
    /// replaced it under one of them has replaced it under all.
    pub earliest: Option<Hlc>,
    /// The latest timestamp that it was stored under, likewise: under that it has replaced what is earlier, wherever it was.
    pub latest: Option<Hlc>,
    /// From when on it may be forgotten, if it is a delete.
    pub forgotten_from_us: Option<u64>,
    /// Whether only homes of the key gave it its dots, and the key's homes were the same all the time: each knew what all homes had acknowledged.
    pub made_at_homes: bool,
    /// How often one node asked another to carry it out. A write that was carried out more than once may have replaced more than
    /// its client was told; a client cannot see that, the simulator can.
    pub forwards: usize,
}

impl Write {
    /// How often it may have been carried out, if each time it was asked for it was handed to one node at most.
    pub const fn tries(&self) -> usize {
        self.attempts as usize
    }

    /// When the client was told that it is done, if it was.
    pub const fn answered(&self) -> Option<Moment> {
        match self.fate {
            Fate::Acknowledged { at, .. } | Fate::FoundNothing { at } => Some(at),
            Fate::Unknown | Fate::Refused => None,
        }
    }

    /// Whether it is a delete that may be forgotten at this time.
    pub fn may_be_forgotten(&self, at_us: u64) -> bool {
        self.forgotten_from_us.is_some_and(|from_us| from_us <= at_us)
    }

    /// The acknowledgement's moment, if there was one.
    pub const fn acknowledged(&self) -> Option<Moment> {
        match self.fate {
            Fate::Acknowledged { at, .. } => Some(at),
            _ => None,
        }
    }
}

/// A read that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// When it was asked for.
    pub invoked: Moment,
    /// When it was answered.
    pub answered: Moment,
    /// How many home replicas at least it stands on. The body that a put returns counts as a read that stands on none.
    pub r: u8,
    /// Whether it belongs to the key's linearizable history.
    pub strong: bool,
    /// What it had to show or account for: what the client had been shown under the context it gave.
    pub seen: WriteSet,
    /// The highest timestamp under that context.
    pub seen_hlc: Hlc,
    /// What it showed.
    pub siblings: Vec<Sibling>,
}

/// All that happened to one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyHistory {
    /// The key.
    pub key: Key,
    /// Its place among the run's keys.
    pub number: usize,
    /// How its bucket shows concurrent writes.
    pub conflict: Conflict,
    /// Whether it was written and read only strongly.
    pub strong_only: bool,
    /// How many home replicas it has.
    pub replicas: u8,
    /// The writes, in the order in which they were first asked for.
    pub writes: Vec<Write>,
    /// The reads, in the order in which they were answered.
    pub reads: Vec<Read>,
    /// Whether one of its records was damaged at some time.
    pub damaged: bool,
    /// By how much two timestamps can be apart at most, in microseconds, whose writes were made at the same time: as far apart as two nodes' clocks
    /// ever were, and what the protocol adds. None if that is not known.
    pub clocks_within_us: Option<u64>,
}

impl KeyHistory {
    /// A key that nothing has happened to.
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

    /// The value of the write at `place`: unlike that of any other write of the run.
    pub fn value(&self, place: usize) -> Bytes {
        format!("k{}w{place}", self.number).into()
    }

    /// Which write a sibling shows; none if nobody wrote it.
    pub fn write_of(&self, sibling: &Sibling) -> Option<usize> {
        let place = match &sibling.content {
            Content::Value { bytes, .. } => {
                let place = std::str::from_utf8(bytes).ok()?.strip_prefix(&format!("k{}w", self.number))?;
                place.parse().ok()?
            }
            Content::Tombstone => self.writes.iter().position(|write| write.id == Some(sibling.write_id))?,
        };
        let write = self.writes.get(place)?;
        let same = write.content == sibling.content
            && write.expires == sibling.expires
            && write.id.is_none_or(|id| id == sibling.write_id);
        same.then_some(place)
    }

    /// The writes that siblings show; what nobody wrote is left out.
    pub fn writes_of<'a>(&self, siblings: impl IntoIterator<Item = &'a Sibling>) -> WriteSet {
        siblings.into_iter().filter_map(|sibling| self.write_of(sibling)).collect()
    }

    /// The name of a write in messages.
    pub fn name(&self, write: usize) -> String {
        match self.writes.get(write).map(|write| &write.content) {
            Some(Content::Tombstone) => format!("k{}w{write} (a delete)", self.number),
            _ => format!("k{}w{write}", self.number),
        }
    }

    /// The names of writes in messages.
    pub fn names(&self, writes: WriteSet) -> String {
        let names: Vec<String> = writes.iter().map(|write| self.name(write)).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }

    /// The writes, a line each: what each had been shown and how it ended.
    pub fn describe_writes(&self) -> String {
        let line = |place: usize| {
            let write = &self.writes[place];
            let shown = match &write.shown {
                Shown::Writes(shown) => self.names(*shown),
                Shown::Names(names) => format!("{names:?}"),
                Shown::Unknown => "nobody knows what".to_owned(),
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
                self.name(place),
                write.attempts,
                write.forwards
            )
        };
        (0..self.writes.len()).map(line).collect::<Vec<_>>().join("\n")
    }
}
