//! What a key's replicas hold: a clock, siblings and notes of replaced writes, and how two such states become one.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::value::clock::Clock;
use crate::value::digest::fingerprint;
use crate::value::dot::{Actor, Dot};
pub use crate::value::epoch::Epoch;
use crate::value::hlc::{Hlc, WallMs};
pub use crate::value::notes::{Note, Notes};
use crate::value::write_id::WriteId;

/// How many notes of replaced writes a put leaves on a key.
pub const NOTES_MAX: usize = 64;

/// What a sibling takes besides its content: its dot, its names and times, and its entry in the clock.
const SIBLING_BYTES: usize = 128;

/// How large a key's siblings are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weight {
    /// How many there are.
    pub siblings: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What a client wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A value.
    Value {
        /// Its bytes.
        bytes: Bytes,
        /// Its media type, as the client gave it.
        content_type: String,
        /// How it is encoded, as HTTP's `Content-Encoding` says it (RFC 9110, 8.4); empty: not at all.
        content_encoding: String,
    },
    /// The mark of a delete.
    Tombstone,
}

impl Content {
    /// A value of which nobody has said the media type.
    pub fn untyped(bytes: impl Into<Bytes>) -> Self {
        Self::typed(bytes, "")
    }

    /// A value of this media type, which is not encoded.
    pub fn typed(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self::Value { bytes: bytes.into(), content_type: content_type.into(), content_encoding: String::new() }
    }

    /// The bytes that it takes in a state, at most a few too many.
    pub const fn weight(&self) -> usize {
        match self {
            Self::Value { bytes, content_type, content_encoding } => {
                bytes.len() + content_type.len() + content_encoding.len()
            }
            Self::Tombstone => 0,
        }
    }
}

/// One write that no other write known here has replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The write's name in clocks.
    pub dot: Dot,
    /// What was written.
    pub content: Content,
    /// When: above everything that the write replaced.
    pub hlc: Hlc,
    /// The epoch in which it was made.
    pub epoch: Epoch,
    /// The write's name for retries.
    pub write_id: WriteId,
    /// When the value expires, if it does.
    pub expires: Option<WallMs>,
}

impl Sibling {
    /// Whether a reader at `wall` sees nothing here: a tombstone or an expired value.
    pub fn is_deleted(&self, wall: WallMs) -> bool {
        matches!(self.content, Content::Tombstone) || self.expires.is_some_and(|expires| expires <= wall)
    }

    /// The bytes that it takes in a state, at most a few too many.
    pub const fn weight(&self) -> usize {
        SIBLING_BYTES + self.content.weight()
    }

    /// The order of last write wins: the later timestamp, and among equal ones the greater dot.
    pub const fn recency(&self) -> (Hlc, Dot) {
        (self.hlc, self.dot)
    }
}

/// What a write has seen: it replaces this much and no more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// The dots seen.
    pub clock: Clock,
    /// The highest timestamp seen.
    pub hlc: Hlc,
    /// The names of the writes shown, each with a timestamp by which the oldest notes are trimmed.
    pub ids: BTreeMap<WriteId, Hlc>,
}

impl Seen {
    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.clock.merge(&other.clock);
        self.hlc = self.hlc.max(other.hlc);
        self.ids.extend(&other.ids);
    }
}

/// What [`State::merge`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// Whether the state is another one now.
    pub changed: bool,
    /// How many contents came under a dot that had another one here: both are siblings from now on. Each is the mark of a broken disk or
    /// a forged message and is to be reported.
    pub collisions: usize,
}

/// The replicated state of one key.
///
/// Invariants: every sibling's dot is in the clock; no sibling's write is noted as shown to its replacer.
///
/// Two siblings have one dot only where it was made twice, which sound nodes do not do. Then none of the two values is known to have
/// replaced the other, so both are kept.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct State {
    clock: Clock,
    /// Ascending by their dots, and those of one dot by their fingerprints. As a rule there is one, and a map would take the room of eleven.
    siblings: Vec<Sibling>,
    notes: Notes,
}

/// Whether a write was met before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// It is a sibling under this dot.
    Live(Dot),
    /// It was replaced by a later write.
    Replaced,
}

impl State {
    /// The state of these parts. Siblings outside the clock extend it, and siblings that the notes drop are left out, so that
    /// the invariants hold for whatever a peer sent.
    pub fn from_parts(mut clock: Clock, siblings: impl IntoIterator<Item = Sibling>, notes: Notes) -> Self {
        let siblings = ascending(siblings.into_iter().collect());
        siblings.iter().for_each(|sibling| clock.insert(sibling.dot));
        let mut state = Self { clock, siblings, notes };
        state.drop_noted();
        state
    }

    /// All dots that this state has taken in.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The siblings in the order of their dots.
    pub fn siblings(&self) -> impl ExactSizeIterator<Item = &Sibling> {
        self.siblings.iter()
    }

    /// How large its siblings are.
    pub fn weight(&self) -> Weight {
        Weight { siblings: self.siblings.len(), bytes: self.siblings.iter().map(Sibling::weight).sum() }
    }

    /// The names of replaced writes that are kept, so that a late retry of one is known.
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Whether nothing was ever written here.
    pub fn is_empty(&self) -> bool {
        self.clock.is_empty() && self.siblings.is_empty() && self.notes.is_empty()
    }

    /// Whether the write called `id` was met before.
    pub fn knows(&self, id: WriteId) -> Option<Known> {
        let live = self.siblings.iter().find(|sibling| sibling.write_id == id);
        let replaced = self.notes.get(id).map(|_| Known::Replaced);
        live.map(|sibling| Known::Live(sibling.dot)).or(replaced)
    }

    /// The highest timestamp among the siblings.
    pub fn hlc(&self) -> Hlc {
        self.siblings.iter().map(|sibling| sibling.hlc).max().unwrap_or_default()
    }

    /// What a reader who was shown all of this state has seen.
    pub fn seen(&self) -> Seen {
        Seen {
            clock: self.clock.clone(),
            hlc: self.hlc(),
            ids: self.siblings.iter().map(|sibling| (sibling.write_id, sibling.hlc)).collect(),
        }
    }

    /// Takes in a new write that has seen `seen`: it replaces the siblings that `seen` covers, and no others (paper,
    /// section 4.4).
    ///
    /// The names of what it replaces are kept as notes, the newest [`NOTES_MAX`] of them: one that is trimmed can only cost a
    /// superfluous sibling, if a retry of that write is still on its way.
    pub fn put(&mut self, sibling: Sibling, seen: &Seen) {
        // Of two contents of one dot, a clock cannot say which was shown.
        let was_shown = |held: &&Sibling| self.is_stable(held.dot) || seen.ids.contains_key(&held.write_id);
        let covered = self.siblings.iter().filter(|held| seen.clock.contains(held.dot)).filter(was_shown);
        let shown = covered.map(|held| (held.write_id, held.hlc)).chain(seen.ids.iter().map(|(&id, &hlc)| (id, hlc)));
        self.notes.unite(&shown.map(|(id, hlc)| (id, Note { hlc, shown: true })).collect());
        self.drop_noted();
        self.notes.trim_oldest(NOTES_MAX);
        self.clock.merge(&seen.clock);
        self.clock.insert(sibling.dot);
        match self.place(sibling.dot) {
            Ok(at) => self.siblings[at] = sibling,
            Err(at) => self.siblings.insert(at, sibling),
        }
    }

    /// Takes in a new write that replaces everything older that is held here besides what it has seen (last write wins).
    pub fn put_over(&mut self, sibling: Sibling, seen: &Seen) {
        let hlc = sibling.hlc;
        let older = self.siblings.iter().filter(|held| held.hlc < hlc);
        let notes: Notes = older.map(|held| (held.write_id, Note { hlc: held.hlc, shown: false })).collect();
        self.notes.unite(&notes);
        self.siblings.retain(|held| held.hlc >= hlc);
        self.put(sibling, seen);
    }

    /// Whether a sibling's write is noted as shown to the one that replaced it.
    fn is_noted(&self, sibling: &Sibling) -> bool {
        self.notes.get(sibling.write_id).is_some_and(|note| note.shown)
    }

    /// A sibling whose write is noted as shown goes, under whichever dot it came.
    fn drop_noted(&mut self) {
        let notes = &self.notes;
        self.siblings.retain(|held| notes.get(held.write_id).is_none_or(|note| !note.shown));
    }

    /// Takes out siblings, as if later writes had replaced them: their dots stay in the clock. True if there were any.
    pub fn drop_siblings(&mut self, is_gone: impl Fn(&Sibling) -> bool) -> bool {
        let before = self.siblings.len();
        self.siblings.retain(|held| !is_gone(held));
        self.siblings.len() < before
    }

    /// Forgets what only keeps replaced writes away: notes, and the dots of actors of which no sibling is left. True if there was
    /// any. To be done when nothing can bring those writes back ([`crate::value::epoch`]).
    pub fn forget_replaced(&mut self) -> bool {
        let remembers = self.remembers_replaced();
        if remembers {
            let siblings = &self.siblings;
            self.clock.retain_actors(|actor| siblings.iter().any(|held| held.dot.actor == actor));
            self.notes = Notes::new();
        }
        remembers
    }

    /// Whether there is anything for [`Self::forget_replaced`].
    pub fn remembers_replaced(&self) -> bool {
        let has_sibling = |actor| self.siblings.iter().any(|held| held.dot.actor == actor);
        !self.notes.is_empty() || self.clock.actors().any(|actor| !has_sibling(actor))
    }

    /// The dots of actors of which no sibling is left.
    pub fn idle(&self) -> Clock {
        let mut idle = self.clock.clone();
        idle.retain_actors(|actor| self.siblings.iter().all(|held| held.dot.actor != actor));
        idle
    }

    /// Forgets the dots of these actors, of which no sibling is left. To be done when nothing can bring their writes back.
    pub fn forget_actors(&mut self, actors: &[Actor]) {
        self.clock.retain_actors(|actor| !actors.contains(&actor));
    }

    /// Where the sibling with this dot is, or would be.
    fn place(&self, dot: Dot) -> Result<usize, usize> {
        self.siblings.binary_search_by_key(&dot, |held| held.dot)
    }

    /// Takes in all that `other` knows. Commutative, associative and idempotent, whatever a bucket's settings say.
    ///
    /// A sibling stays if both hold it, or if one holds it and the other has not met its dot: a dot that was met and is no
    /// longer held was replaced. Notes drop the siblings they name, which have been replaced under another dot. If both hold a dot with
    /// different contents, all of those stay.
    pub fn merge(&mut self, other: &Self) -> Merged {
        let mut merged = Merged::default();
        let before = self.siblings.len();
        self.siblings.retain(|held| other.place(held.dot).is_ok() || !other.clock.contains(held.dot));
        merged.changed |= self.siblings.len() != before;
        let mut fresh = Vec::new();
        for theirs in &other.siblings {
            match self.place(theirs.dot) {
                Ok(_) if self.siblings.contains(theirs) || self.is_noted(theirs) => {}
                Ok(_) => {
                    merged.collisions += 1;
                    fresh.push(theirs.clone());
                }
                Err(_) if self.clock.contains(theirs.dot) => {}
                Err(_) => fresh.push(theirs.clone()),
            }
        }
        if !fresh.is_empty() {
            self.siblings.extend(fresh);
            self.siblings = ascending(std::mem::take(&mut self.siblings));
            merged.changed = true;
        }
        if !self.clock.covers(&other.clock) {
            self.clock.merge(&other.clock);
            merged.changed = true;
        }
        merged.changed |= self.notes.unite(&other.notes);
        let before = self.siblings.len();
        self.drop_noted();
        merged.changed |= self.siblings.len() != before;
        merged
    }

    /// Whether at most one sibling has this dot.
    fn is_stable(&self, dot: Dot) -> bool {
        let first = self.siblings.partition_point(|held| held.dot < dot);
        self.siblings.get(first + 1).is_none_or(|next| next.dot != dot)
    }

    /// The siblings as a reader of a `siblings` bucket sees them: of a write that was minted twice, one; of a dot that was made twice, both.
    pub fn distinct_siblings(&self) -> Vec<&Sibling> {
        let mut latest = BTreeMap::new();
        for sibling in &self.siblings {
            let latest = latest.entry(sibling.write_id).or_insert(sibling.recency());
            *latest = sibling.recency().max(*latest);
        }
        let is_shown = |held: &&Sibling| latest.get(&held.write_id).is_none_or(|&(_, dot)| held.dot == dot);
        self.siblings.iter().filter(is_shown).collect()
    }

    /// The sibling that a reader of an `lww` bucket sees.
    pub fn latest(&self) -> Option<&Sibling> {
        self.siblings.iter().max_by_key(|sibling| sibling.recency())
    }
}

/// In the order of their dots, and where a dot has several contents, of these; each once.
fn ascending(mut siblings: Vec<Sibling>) -> Vec<Sibling> {
    if siblings.is_sorted_by(|a, b| a.dot < b.dot) {
        return siblings;
    }
    siblings.sort_by(|a, b| a.dot.cmp(&b.dot).then_with(|| fingerprint(a).cmp(&fingerprint(b))));
    siblings.dedup();
    siblings
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.clock)?;
        for sibling in self.siblings.iter() {
            write!(f, " {:?}=", sibling.dot)?;
            match &sibling.content {
                Content::Value { bytes, .. } => write!(f, "{}", bytes.escape_ascii())?,
                Content::Tombstone => f.write_str("deleted")?,
            }
            write!(f, "@{:?}", sibling.hlc)?;
        }
        if !self.notes.is_empty() {
            write!(f, " replaced {:?}", self.notes)?;
        }
        Ok(())
    }
}
