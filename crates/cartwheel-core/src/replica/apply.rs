//! Execution of tasks on a record.

use super::turn::Task;
use super::{Done, Mint, MintRefused, Minted, Replica, ReplicaCalls, Stamp};
use crate::cluster::losses::Loss;
use crate::event::Event;
use crate::message::{Confirm, Failure, ReplicaResponse, Want};
use crate::mutation::Mutation;
use crate::outbox::Outbox;
use crate::replica::gc;
use crate::store::record::Record;
use crate::value::digest::ContentDigest;
use crate::value::hlc::Hlc;
use crate::value::key::Key;
use crate::value::state::{Known, Seen, Sibling, State};
use crate::value::time::Now;
use crate::value::write_id::WriteId;

/// The timestamp that a write must exceed: that of what it replaces, or of everything held.
pub(super) fn highest_replaced(record: &Record, seen: &Seen, everything: bool) -> Hlc {
    let replaced = record.state.siblings().filter(|held| everything || is_replaced(held, seen));
    replaced.map(|held| held.hlc).max().unwrap_or_default().max(seen.hlc)
}

/// Whether a write that has seen `seen` replaces a sibling.
pub(super) fn is_replaced(held: &Sibling, seen: &Seen) -> bool {
    seen.clock.contains(held.dot) || seen.ids.contains_key(&held.write_id)
}

pub(super) fn confirmation(record: &Record, sent: &State, confirm: Confirm) -> ReplicaResponse {
    match confirm {
        Confirm::Stored => ReplicaResponse::Stored,
        Confirm::Exactly => ReplicaResponse::Holds {
            digest: record.state.digest(),
            state: (record.state != *sent).then(|| record.state.clone()),
            loss: record.header.recovering,
        },
    }
}

impl Replica {
    pub(super) fn carry_out(
        &mut self,
        now: Now,
        key: &Key,
        record: &mut Record,
        task: Task,
        changed: &mut bool,
        out: &mut Outbox<ReplicaCalls>,
    ) -> Done {
        match task {
            Task::Read { caller, want } => Done::Response(caller, self.holds(record, want)),
            Task::Merge { caller, state, heals, confirm, stands_in_for } => {
                let home = self.hint_home(key, stands_in_for);
                if home.is_some() && record.header.owed.is_empty() && self.hints.takes_no_more() {
                    return Done::Response(caller, ReplicaResponse::Failed(Failure::HintsFull));
                }
                *changed |= self.merge(key, record, &state, heals, out);
                *changed |= self.owe(record, home);
                Done::Response(caller, confirmation(record, &state, confirm))
            }
            Task::Mint { request_id, mint } => {
                let home = self.hint_home(key, mint.stands_in_for);
                if home.is_some() && record.header.owed.is_empty() && self.hints.takes_no_more() {
                    return Done::Mint(request_id, Err(MintRefused::Failed(Failure::HintsFull)));
                }
                let made = self.mint_dot(now, record, *mint, changed, out);
                if made.is_ok() {
                    *changed |= self.owe(record, home);
                }
                Done::Mint(request_id, made)
            }
            Task::HandedOver(handed) => {
                *changed |= self.settle_debt(record, &handed);
                Done::HandedOver
            }
            Task::Drop => {
                *changed |= self.is_superseded(key) || !self.is_kept(key, record) && *record != Record::default();
                Done::Dropped(key.clone(), true)
            }
            Task::Index => {
                *changed = true;
                Done::Indexed(true)
            }
            Task::Collect { deleted, .. } => {
                *changed = true;
                Done::Collected(deleted)
            }
        }
    }

    pub(super) fn holds(&self, record: &Record, want: Want) -> ReplicaResponse {
        let loss = record.header.recovering;
        match want {
            Want::State => ReplicaResponse::State { state: record.state.clone(), epoch: self.epoch, loss },
            Want::Digest => ReplicaResponse::Digest { digest: record.state.digest(), loss },
        }
    }

    pub(super) fn merge(
        &mut self,
        key: &Key,
        record: &mut Record,
        state: &State,
        heals: Option<Loss>,
        out: &mut Outbox<ReplicaCalls>,
    ) -> bool {
        let kept = if self.broken.is(Mutation::DueStored) { None } else { gc::without_due(state, &self.rules(key)) };
        if record.state.is_empty() && heals.is_none() && kept.as_ref().is_some_and(|kept| kept.siblings().len() == 0) {
            // Every replica collects the tombstones now, and they would replace nothing here.
            return false;
        }
        let state = kept.as_ref().unwrap_or(state);
        self.minter.check_memory(record, state.clock());
        let merged = record.state.merge(state);
        for _ in 0..merged.collisions {
            out.events.push(Event::DotCollision(key.clone()));
        }
        let healed = heals.is_some() && record.header.recovering == heals;
        if healed {
            record.header.recovering = None;
        }
        self.broken.after_merge(&mut record.state, state);
        merged.changed || healed
    }

    pub(super) fn mint_dot(
        &mut self,
        now: Now,
        record: &mut Record,
        mint: Mint,
        changed: &mut bool,
        out: &mut Outbox<ReplicaCalls>,
    ) -> Result<Minted, MintRefused> {
        if now.instant >= mint.deadline {
            return Err(MintRefused::Late);
        }
        if let Some(base) = &mint.base {
            *changed |= self.merge(&mint.key, record, base, None, out);
        }
        if let Some(known) = record.state.knows(mint.write_id) {
            return Ok(self.already_made(record, mint.write_id, known));
        }
        let seen = mint.seen;
        let is_fixed = matches!(mint.stamp, Stamp::Fixed(_)) && !self.broken.is(Mutation::LateForwardRaised);
        let above = highest_replaced(record, &seen, mint.base.is_some() || (mint.covers_held && !is_fixed));
        let stamp = match mint.stamp {
            Stamp::Fixed(stamp) | Stamp::Here(Some(stamp)) => stamp,
            Stamp::Here(None) => self.clock.tick(now.wall),
        };
        // A write that rewrites a value, and nothing else, may come directly after it.
        let is_rewrite = mint.stamp == Stamp::Fixed(above.next());
        let hlc = if is_rewrite { above.next() } else { stamp.max(above.after()) };
        if is_fixed && mint.covers_held && !self.broken.is(Mutation::ForwardStoredBelow) {
            let held = record.state.siblings().filter(|held| !is_replaced(held, &seen)).map(|held| held.hlc).max();
            if let Some(held) = held.filter(|&held| held >= hlc) {
                return Err(MintRefused::StampTooLow(held));
            }
        }
        self.clock.observe(hlc, now.wall);
        self.ahead_ms = self.ahead_ms.max(hlc.wall().0.saturating_sub(now.wall.0));
        self.minter.check_memory(record, &seen.clock);
        let own = record.header.own;
        let dot = self.broken.dot(self.minter.mint(record, &seen.clock), &mut self.node_wide_count);
        let sibling = Sibling {
            dot,
            content: mint.content,
            hlc,
            epoch: self.epoch,
            write_id: mint.write_id,
            expires: mint.expires,
        };
        if let Err(refused) = self.add(&mut record.state, sibling, &seen, mint.covers_held) {
            // No write has the dot, and a skipped counter would be a gap in every clock from now on.
            record.header.own = own;
            return Err(refused);
        }
        self.broken.after_put(&mut record.state, dot);
        *changed = true;
        Ok(Minted { state: record.state.clone(), made: Some((dot, hlc)), epoch: self.epoch })
    }

    /// Adds a write to a state, unless the state would exceed its limits. A write that replaces as much as it adds is always accepted, however
    /// large the state has become by merging.
    pub(super) fn add(
        &self,
        state: &mut State,
        sibling: Sibling,
        seen: &Seen,
        covers_held: bool,
    ) -> Result<(), MintRefused> {
        let put = |state: &mut State, sibling| match covers_held {
            true => state.put_over(sibling, seen),
            false => state.put(sibling, seen),
        };
        let (before, bytes_max) = (state.weight(), self.sibling_bytes_max);
        // Few keys are near their limits, and only for those is the state copied.
        if before.siblings < self.siblings_max && before.bytes + sibling.weight() <= bytes_max {
            put(state, sibling);
            return Ok(());
        }
        let mut larger = state.clone();
        put(&mut larger, sibling);
        let after = larger.weight();
        if after.siblings > before.siblings.max(self.siblings_max) {
            return Err(MintRefused::TooManySiblings(u32::try_from(before.siblings).unwrap_or(u32::MAX)));
        }
        if after.bytes > before.bytes.max(bytes_max) {
            return Err(MintRefused::TooManyBytes(after.bytes as u64, bytes_max as u64));
        }
        *state = larger;
        Ok(())
    }

    pub(super) fn already_made(&self, record: &Record, write_id: WriteId, known: Known) -> Minted {
        let made = match known {
            Known::Live(dot) => {
                let is_it = |held: &&Sibling| held.dot == dot && held.write_id == write_id;
                record.state.siblings().find(is_it).map(|held| (dot, held.hlc))
            }
            Known::Replaced => None,
        };
        Minted { state: record.state.clone(), made, epoch: self.epoch }
    }

    pub(super) fn digest(&self, key: &Key, record: &Record) -> Option<ContentDigest> {
        self.keeps_trees.then(|| ContentDigest::of(&key.storage_key(), &record.state))
    }
}
