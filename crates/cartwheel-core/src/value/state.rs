//! The state of a key at a replica (a clock, siblings and notes of replaced writes), and the merge of two states.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::value::clock::Clock;
use crate::value::digest::{StateDigest, fingerprint};
use crate::value::dot::{Actor, Dot};
pub use crate::value::epoch::Epoch;
use crate::value::hlc::{Hlc, WallMs};
pub use crate::value::notes::{Note, Notes};
use crate::value::write_id::WriteId;

/// The most notes of replaced writes that a put leaves on a key.
pub const NOTES_MAX: usize = 64;

/// The size of a sibling besides its content: its dot, ids and times, and its entry in the clock.
const SIBLING_BYTES: usize = 128;

/// The size of a key's siblings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weight {
    /// The number of siblings.
    pub siblings: usize,
    /// Their size in bytes.
    pub bytes: usize,
}

/// The content of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A value.
    Value {
        /// Its bytes.
        bytes: Bytes,
        /// Its media type, as the client gave it.
        content_type: String,
        /// Its encoding, as HTTP's `Content-Encoding` states it (RFC 9110, 8.4). Empty: none.
        content_encoding: String,
    },
    /// The marker of a delete.
    Tombstone,
}

impl Content {
    /// A value without a media type.
    pub fn untyped(bytes: impl Into<Bytes>) -> Self {
        Self::typed(bytes, "")
    }

    /// A value of this media type, without an encoding.
    pub fn typed(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self::Value { bytes: bytes.into(), content_type: content_type.into(), content_encoding: String::new() }
    }

    /// Its size in a state in bytes, possibly a few bytes too high.
    pub const fn weight(&self) -> usize {
        match self {
            Self::Value { bytes, content_type, content_encoding } => {
                bytes.len() + content_type.len() + content_encoding.len()
            }
            Self::Tombstone => 0,
        }
    }
}

/// A write that no other write known here has replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The write's identity in clocks.
    pub dot: Dot,
    /// The content of the write.
    pub content: Content,
    /// The write's timestamp, above everything that the write replaced.
    pub hlc: Hlc,
    /// The epoch in which it was made.
    pub epoch: Epoch,
    /// The write's identity across retries.
    pub write_id: WriteId,
    /// When the value expires, if it does.
    pub expires: Option<WallMs>,
}

impl Sibling {
    /// Whether a reader at `wall` sees no value here: a tombstone or an expired value.
    pub fn is_deleted(&self, wall: WallMs) -> bool {
        matches!(self.content, Content::Tombstone) || self.expires.is_some_and(|expires| expires <= wall)
    }

    /// Its size in a state in bytes, possibly a few bytes too high.
    pub const fn weight(&self) -> usize {
        SIBLING_BYTES + self.content.weight()
    }

    /// The order of last write wins: the later timestamp, and among equal ones the greater dot.
    pub const fn recency(&self) -> (Hlc, Dot) {
        (self.hlc, self.dot)
    }
}

/// What a write has seen: it replaces exactly this.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// The dots seen.
    pub clock: Clock,
    /// The highest timestamp seen.
    pub hlc: Hlc,
    /// The ids of the writes shown, each with a timestamp by which the oldest notes are trimmed.
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

/// The result of [`State::merge`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// Whether the state has changed.
    pub changed: bool,
    /// The number of contents that arrived under a dot that had another content here. Both are siblings from now on. Each is a sign of a broken
    /// disk or a forged message, and is to be reported.
    pub collisions: usize,
}

/// The replicated state of one key.
///
/// Invariants: every sibling's dot is in the clock; no sibling's write is noted as shown to the write that replaced it.
///
/// Two siblings have the same dot only if it was made twice, which sound nodes do not do. Then neither value is known to have replaced the
/// other, so both are kept.
///
/// A clone shares everything, the remembered digest included, until one of the two is changed.
#[derive(Clone, Default)]
pub struct State(Arc<Parts>);

/// The siblings of a state. A single one lies within it, where a read finds it without another access to memory.
type Siblings = SmallVec<[Sibling; 1]>;

#[derive(Clone, Default)]
struct Parts {
    clock: Clock,
    /// Ascending by dot, and within one dot by fingerprint. Usually there is one, and a map would take the space of eleven.
    siblings: Siblings,
    notes: Notes,
    /// Its digest, once that was asked for. Whatever changes the state takes it away.
    digest: OnceLock<StateDigest>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || {
            let (a, b) = (&*self.0, &*other.0);
            (&a.clock, &a.siblings, &a.notes) == (&b.clock, &b.siblings, &b.notes)
        }
    }
}

impl Eq for State {}

/// How the state knows a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// It is a sibling under this dot.
    Live(Dot),
    /// It was replaced by a later write.
    Replaced,
}

impl Parts {
    /// Whether a sibling's write is noted as shown to the one that replaced it.
    fn is_noted(&self, sibling: &Sibling) -> bool {
        self.notes.get(sibling.write_id).is_some_and(|note| note.shown)
    }

    /// Drops siblings whose write is noted as shown, under whatever dot they came.
    fn drop_noted(&mut self) {
        let notes = &self.notes;
        self.siblings.retain(|held| notes.get(held.write_id).is_none_or(|note| !note.shown));
    }

    /// Where the sibling with this dot is, or would be.
    fn place(&self, dot: Dot) -> Result<usize, usize> {
        self.siblings.binary_search_by_key(&dot, |held| held.dot)
    }

    /// Whether at most one sibling has this dot.
    fn is_stable(&self, dot: Dot) -> bool {
        let first = self.siblings.partition_point(|held| held.dot < dot);
        self.siblings.get(first + 1).is_none_or(|next| next.dot != dot)
    }

    fn put(&mut self, sibling: Sibling, seen: &Seen) {
        // If a dot has two contents, the clock cannot say which was shown.
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
}

impl State {
    /// The state of these parts. Siblings outside the clock extend it, and siblings that the notes drop are left out, so the invariants hold for
    /// any parts that a peer sent.
    pub fn from_parts(mut clock: Clock, siblings: impl IntoIterator<Item = Sibling>, notes: Notes) -> Self {
        let siblings = ascending(siblings.into_iter().collect());
        siblings.iter().for_each(|sibling| clock.insert(sibling.dot));
        let mut parts = Parts { clock, siblings, notes, digest: OnceLock::new() };
        parts.drop_noted();
        Self(parts.into())
    }

    /// Its parts, to be changed: they are no longer shared, and the digest is no longer known.
    fn change(&mut self) -> &mut Parts {
        let parts = Arc::make_mut(&mut self.0);
        parts.digest.take();
        parts
    }

    /// All dots that this state knows.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The siblings in the order of their dots.
    pub fn siblings(&self) -> impl ExactSizeIterator<Item = &Sibling> {
        self.0.siblings.iter()
    }

    /// The same state, whose values share no buffer with anything else.
    #[must_use]
    pub fn detached(&self) -> Self {
        let mut parts = Parts::clone(&self.0);
        for sibling in &mut parts.siblings {
            if let Content::Value { bytes, .. } = &mut sibling.content {
                *bytes = Bytes::copy_from_slice(bytes);
            }
        }
        Self(parts.into())
    }

    /// Its digest, remembered until the state changes.
    pub fn digest(&self) -> StateDigest {
        let digest = *self.0.digest.get_or_init(|| StateDigest::of(self));
        // In builds for tests a digest that was kept too long is an error.
        assert!(!cfg!(feature = "mutations") || digest == StateDigest::of(self), "the digest of an earlier state");
        digest
    }

    /// The size of its siblings.
    pub fn weight(&self) -> Weight {
        Weight { siblings: self.0.siblings.len(), bytes: self.0.siblings.iter().map(Sibling::weight).sum() }
    }

    /// The ids of replaced writes that are kept, so that a late retry of one is recognized.
    pub fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// Whether no write ever reached it.
    pub fn is_empty(&self) -> bool {
        self.0.clock.is_empty() && self.0.siblings.is_empty() && self.0.notes.is_empty()
    }

    /// How the write called `id` is known here, if it is.
    pub fn knows(&self, id: WriteId) -> Option<Known> {
        let live = self.0.siblings.iter().find(|sibling| sibling.write_id == id);
        let replaced = self.0.notes.get(id).map(|_| Known::Replaced);
        live.map(|sibling| Known::Live(sibling.dot)).or(replaced)
    }

    /// The highest timestamp among the siblings.
    pub fn hlc(&self) -> Hlc {
        self.0.siblings.iter().map(|sibling| sibling.hlc).max().unwrap_or_default()
    }

    /// What a reader that was shown all of this state has seen.
    pub fn seen(&self) -> Seen {
        Seen {
            clock: self.0.clock.clone(),
            hlc: self.hlc(),
            ids: self.0.siblings.iter().map(|sibling| (sibling.write_id, sibling.hlc)).collect(),
        }
    }

    /// Adds a new write that has seen `seen`: it replaces the siblings that `seen` covers, and no others (paper,
    /// section 4.4).
    ///
    /// The ids of the replaced writes are kept as notes, the newest [`NOTES_MAX`] of them. Trimming a note can only cost a superfluous sibling,
    /// if a retry of that write is still under way.
    pub fn put(&mut self, sibling: Sibling, seen: &Seen) {
        self.change().put(sibling, seen);
    }

    /// Adds a new write that replaces what it has seen and everything older that is held here (last write wins).
    pub fn put_over(&mut self, sibling: Sibling, seen: &Seen) {
        let (parts, hlc) = (self.change(), sibling.hlc);
        let older = parts.siblings.iter().filter(|held| held.hlc < hlc);
        let notes: Notes = older.map(|held| (held.write_id, Note { hlc: held.hlc, shown: false })).collect();
        parts.notes.unite(&notes);
        parts.siblings.retain(|held| held.hlc >= hlc);
        parts.put(sibling, seen);
    }

    /// Removes siblings as if later writes had replaced them: their dots stay in the clock. True if there were any.
    pub fn drop_siblings(&mut self, is_gone: impl Fn(&Sibling) -> bool) -> bool {
        if !self.0.siblings.iter().any(&is_gone) {
            return false;
        }
        self.change().siblings.retain(|held| !is_gone(held));
        true
    }

    /// Drops the notes and the dots of actors without a sibling, which only keep replaced writes away. Returns true if there were any. Call it
    /// only when nothing can bring those writes back ([`crate::value::epoch`]).
    pub fn collect_replaced(&mut self) -> bool {
        let has_replaced = self.has_replaced();
        if has_replaced {
            let Parts { clock, siblings, notes, .. } = self.change();
            clock.retain_actors(|actor| siblings.iter().any(|held| held.dot.actor == actor));
            *notes = Notes::new();
        }
        has_replaced
    }

    /// Whether [`Self::collect_replaced`] would collect anything.
    pub fn has_replaced(&self) -> bool {
        let has_sibling = |actor| self.0.siblings.iter().any(|held| held.dot.actor == actor);
        !self.0.notes.is_empty() || self.0.clock.actors().any(|actor| !has_sibling(actor))
    }

    /// The dots of actors without a sibling.
    pub fn idle(&self) -> Clock {
        let mut idle = self.0.clock.clone();
        idle.retain_actors(|actor| self.0.siblings.iter().all(|held| held.dot.actor != actor));
        idle
    }

    /// Drops the dots of these actors, which have no sibling. Call it only when nothing can bring their writes back.
    pub fn collect_actors(&mut self, actors: &[Actor]) {
        self.change().clock.retain_actors(|actor| !actors.contains(&actor));
    }

    /// Merges everything that `other` knows. Commutative, associative and idempotent, whatever a bucket's settings say.
    ///
    /// A sibling stays if both hold it, or if one holds it and the other's clock lacks its dot: a dot in the clock without a sibling was
    /// replaced. Notes drop the siblings they name, which were replaced under another dot. If both hold a dot with different contents, all of
    /// them stay.
    pub fn merge(&mut self, other: &Self) -> Merged {
        let mut merged = Merged::default();
        if Arc::ptr_eq(&self.0, &other.0) {
            return merged;
        }
        let (ours, other) = (self.change(), &*other.0);
        let before = ours.siblings.len();
        ours.siblings.retain(|held| other.place(held.dot).is_ok() || !other.clock.contains(held.dot));
        merged.changed |= ours.siblings.len() != before;
        let mut fresh = Vec::new();
        for theirs in &other.siblings {
            match ours.place(theirs.dot) {
                Ok(_) if ours.siblings.contains(theirs) || ours.is_noted(theirs) => {}
                Ok(_) => {
                    merged.collisions += 1;
                    fresh.push(theirs.clone());
                }
                Err(_) if ours.clock.contains(theirs.dot) => {}
                Err(_) => fresh.push(theirs.clone()),
            }
        }
        if !fresh.is_empty() {
            ours.siblings.extend(fresh);
            ours.siblings = ascending(std::mem::take(&mut ours.siblings));
            merged.changed = true;
        }
        if !ours.clock.covers(&other.clock) {
            ours.clock.merge(&other.clock);
            merged.changed = true;
        }
        merged.changed |= ours.notes.unite(&other.notes);
        let before = ours.siblings.len();
        ours.drop_noted();
        merged.changed |= ours.siblings.len() != before;
        merged
    }

    /// The siblings that a reader of a `siblings` bucket sees. A write that got two dots is shown once; both contents of a dot that was made
    /// twice are shown.
    pub fn distinct_siblings(&self) -> Vec<&Sibling> {
        let mut latest = BTreeMap::new();
        for sibling in &self.0.siblings {
            let latest = latest.entry(sibling.write_id).or_insert(sibling.recency());
            *latest = sibling.recency().max(*latest);
        }
        let is_shown = |held: &&Sibling| latest.get(&held.write_id).is_none_or(|&(_, dot)| held.dot == dot);
        self.0.siblings.iter().filter(is_shown).collect()
    }

    /// The sibling that a reader of an `lww` bucket sees.
    pub fn latest(&self) -> Option<&Sibling> {
        self.0.siblings.iter().max_by_key(|sibling| sibling.recency())
    }
}

/// Sorts by dot and then by content, and removes duplicates.
fn ascending(mut siblings: Siblings) -> Siblings {
    if siblings.is_sorted_by(|a, b| a.dot < b.dot) {
        return siblings;
    }
    siblings.sort_by(|a, b| a.dot.cmp(&b.dot).then_with(|| fingerprint(a).cmp(&fingerprint(b))));
    siblings.dedup();
    siblings
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.clock)?;
        for sibling in self.0.siblings.iter() {
            write!(f, " {:?}=", sibling.dot)?;
            match &sibling.content {
                Content::Value { bytes, .. } => write!(f, "{}", bytes.escape_ascii())?,
                Content::Tombstone => f.write_str("deleted")?,
            }
            write!(f, "@{:?}", sibling.hlc)?;
        }
        if !self.0.notes.is_empty() {
            write!(f, " replaced {:?}", self.0.notes)?;
        }
        Ok(())
    }
}
