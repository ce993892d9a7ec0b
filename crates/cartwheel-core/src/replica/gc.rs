//! The rules of garbage collection: what a replica collects of a key, and when.
//!
//! A tombstone is collected [`KEPT_FOR`](crate::value::epoch::KEPT_FOR) epochs after it was made. An expired value is collected as many epochs
//! after this replica first found it expired. Notes of replaced writes, and clock entries without siblings, are collected once the record has
//! not changed for as many epochs. By then no state that could bring back the writes that they keep away is under way or on any disk, and such
//! state is not accepted any more ([`Epoch::is_stale`]).
//!
//! A record that changes all the time never gets there. So if it has many actors without siblings, those are collected one by one: five epochs
//! after they were noted, those go from which no new dot has come. Every home has meanwhile learnt that their writes are replaced. Another home
//! may collect them later and send them back meanwhile, as may an old context, so those collected last are removed again.
//!
//! Where the last write wins, values that lost against a delete are collected with it: without the delete the latest of them would win.
//!
//! Records with anything to collect have an entry in the index, by which they are found when it is due.

use crate::cluster::membership::Conflict;
use crate::mutation::{Broken, Mutation};
use crate::store::gc_due::GcDue;
use crate::store::record::{Minter, Record};
use crate::value::epoch::Epoch;
use crate::value::hlc::WallMs;
use crate::value::state::{Content, Sibling, State};

/// The result of a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Whether anything was collected.
    pub any: bool,
    /// The number of tombstones and expired values collected.
    pub deleted: u64,
}

/// The rules by which a replica collects garbage.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The present epoch.
    pub now: Epoch,
    /// The bucket's conflict policy.
    pub conflict: Conflict,
    /// The most actors without siblings that a constantly changing record may have.
    pub idle_max: usize,
    /// The rule that is broken on purpose, if any.
    pub broken: Broken,
}

impl Rules {
    /// Removes the siblings for which `is_due` is true, with the values that lost against them. Returns whether there were any.
    fn drop(&self, state: &mut State, is_due: impl Fn(&Sibling) -> bool) -> bool {
        let last = state.siblings().filter(|held| is_due(held)).map(Sibling::recency).max();
        // A delete that lost has its own due time: it may have been made an epoch later.
        let lost = |held: &Sibling| {
            self.conflict == Conflict::Lww && held.content != Content::Tombstone && Some(held.recency()) < last
        };
        last.is_some() && state.drop_siblings(|held| is_due(held) || lost(held))
    }

    fn is_due_tombstone(&self, held: &Sibling) -> bool {
        held.content == Content::Tombstone && held.epoch.is_over(self.now, self.broken)
    }
}

/// Collects the due garbage of a record. A record that does not count is left alone; so are expired values if `wall` is `None`, because the
/// clock cannot be trusted.
pub fn collect(record: &mut Record, minter: &Minter, wall: Option<WallMs>, rules: &Rules) -> Collected {
    let &Rules { now, broken, idle_max, .. } = rules;
    if record.header.recovering.is_some() {
        return Collected::default();
    }
    let before = record.state.siblings().len();
    let tombstones = rules.drop(&mut record.state, |held| rules.is_due_tombstone(held));
    if let Some(wall) = wall {
        collect_expired(record, wall, rules);
    }
    let deleted = (before - record.state.siblings().len()) as u64;
    let mut any = tombstones || deleted > 0;
    if record.header.changed.is_over(now, broken) && record.state.collect_replaced() {
        // Dots that no clock contains any more must not be made again.
        let clock = record.state.clock();
        record.header.own = record.header.own.filter(|&own| clock.highest(minter.actor(own)) > 0);
        record.header.idle = None;
        any = true;
    }
    if record.header.idle.is_some() || record.state.clock().actors_len() > idle_max {
        collect_idle(record, minter, rules);
    }
    Collected { any, deleted }
}

/// Collects actors without a sibling from which nothing has come since they were noted, if that is long enough ago, and those that were
/// collected before and have come back.
fn collect_idle(record: &mut Record, minter: &Minter, rules: &Rules) {
    let &Rules { now, broken, idle_max, .. } = rules;
    let mut idle = record.state.idle();
    let mut notes = record.header.idle.take().unwrap_or_default();
    let mut ended = idle.actors_within(&notes.gone);
    if notes.since.is_over(now, broken) {
        let noted = std::mem::take(&mut notes.noted);
        ended.extend(idle.actors_within(&noted));
        notes.gone = noted;
        idle.retain_actors(|actor| !ended.contains(&actor));
        if idle.actors_len() > idle_max {
            notes.noted = idle;
        }
        notes.since = now;
    }
    record.state.collect_actors(&ended);
    // Dots that no clock contains any more must not be made again.
    record.header.own = record.header.own.filter(|&own| !ended.contains(&minter.actor(own)));
    record.header.idle = Some(notes).filter(|notes| !notes.noted.is_empty() || !notes.gone.is_empty());
}

fn collect_expired(record: &mut Record, wall: WallMs, rules: &Rules) {
    let &Rules { now, broken, .. } = rules;
    let has_expired = |held: &Sibling| held.content != Content::Tombstone && held.is_deleted(wall);
    if !record.state.siblings().any(has_expired) {
        record.header.expired_since = None;
        return;
    }
    let since = *record.header.expired_since.get_or_insert(now);
    let is_over = since.is_over(now, broken) || broken.is(Mutation::ExpiredByClock);
    if is_over && rules.drop(&mut record.state, has_expired) {
        // Homes with slower clocks have yet to learn of it.
        (record.header.changed, record.header.expired_since) = (now, None);
    }
}

/// The state without its due tombstones, which are neither sent nor stored; `None` if it has none.
pub fn without_due(state: &State, rules: &Rules) -> Option<State> {
    if !state.siblings().any(|held| rules.is_due_tombstone(held)) {
        return None;
    }
    let mut kept = state.clone();
    rules.drop(&mut kept, |held| rules.is_due_tombstone(held)).then_some(kept)
}

/// When a record that was just collected is due next; `None` if it has nothing to collect.
pub fn next_due(record: &Record, now: Epoch) -> Option<GcDue> {
    let (header, state) = (&record.header, &record.state);
    let tombstones = state.siblings().filter(|held| held.content == Content::Tombstone);
    let is_bare = state.siblings().len() == 0;
    let has_old = header.recovering.is_some() || is_bare || state.has_replaced();
    let expired = header.expired_since.map(Epoch::end);
    let ends = tombstones.map(|held| held.epoch.end()).chain(has_old.then(|| header.changed.end())).chain(expired);
    // Not before the next epoch.
    let soonest = ends.min().map(|end| GcDue::In(end.max(now.next())));
    soonest.or_else(|| state.siblings().filter_map(|held| held.expires).min().map(GcDue::At))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::ActorsSince;
    use crate::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
    use crate::value::hlc::Hlc;
    use crate::value::state::Notes;
    use crate::value::write_id::WriteId;

    fn rules(now: u64, conflict: Conflict) -> Rules {
        Rules { now: Epoch(now), conflict, idle_max: 2, broken: Broken::default() }
    }

    fn sibling(number: u64, content: Content, expires: Option<u64>) -> Sibling {
        let actor = Actor { node: NodeId::new(number), incarnation: Incarnation(1), since: Since(1) };
        let (dot, write_id) = (Dot { actor, counter: 1 }, WriteId::from_bytes([number as u8; 16]));
        let (hlc, expires) = (Hlc::at(WallMs(number)), expires.map(WallMs));
        Sibling { dot, content, hlc, epoch: Epoch(1), write_id, expires }
    }

    fn value() -> Content {
        Content::untyped("socks")
    }

    fn record(siblings: Vec<Sibling>) -> Record {
        let state = State::from_parts(crate::value::clock::Clock::new(), siblings, Notes::new());
        let mut record = Record { state, ..Record::default() };
        record.header.changed = Epoch(1);
        record
    }

    fn minter() -> Minter {
        Minter::new(NodeId::new(1), Incarnation(1), 1, ActorsSince { boot: 0, drawn: 0 })
    }

    fn numbers(record: &Record) -> Vec<u64> {
        record.state.siblings().map(|held| held.dot.actor.node.get()).collect()
    }

    #[test]
    fn values_that_lost_against_a_delete_are_collected_with_it_under_last_write_wins() {
        let siblings =
            || vec![sibling(1, value(), None), sibling(2, Content::Tombstone, None), sibling(3, value(), None)];
        for (conflict, kept) in [(Conflict::Siblings, vec![1, 3]), (Conflict::Lww, vec![3])] {
            let mut record = record(siblings());
            assert!(!collect(&mut record, &minter(), Some(WallMs(9)), &rules(5, conflict)).any);
            assert!(collect(&mut record, &minter(), Some(WallMs(9)), &rules(6, conflict)).any);
            assert_eq!(numbers(&record), kept);
        }
    }

    #[test]
    fn a_delete_that_lost_against_an_older_one_is_kept_until_its_own_due_time() {
        let later = Sibling { epoch: Epoch(2), ..sibling(1, Content::Tombstone, None) };
        let mut record = record(vec![later, sibling(2, Content::Tombstone, None)]);
        collect(&mut record, &minter(), Some(WallMs(9)), &rules(6, Conflict::Lww));
        assert_eq!(numbers(&record), [1]);
        collect(&mut record, &minter(), Some(WallMs(9)), &rules(7, Conflict::Lww));
        assert_eq!(numbers(&record), Vec::<u64>::new());
    }

    #[test]
    fn an_expired_value_is_collected_five_epochs_after_it_was_found_expired() {
        let mut record = record(vec![sibling(1, value(), Some(1_000))]);
        assert_eq!(next_due(&record, Epoch(1)), Some(GcDue::At(WallMs(1_000))));
        // A clock that is far behind finds nothing expired, however many epochs pass.
        collect(&mut record, &minter(), Some(WallMs(999)), &rules(50, Conflict::Siblings));
        assert_eq!((numbers(&record), record.header.expired_since), (vec![1], None));
        collect(&mut record, &minter(), Some(WallMs(1_000)), &rules(60, Conflict::Siblings));
        assert_eq!(next_due(&record, Epoch(60)), Some(GcDue::In(Epoch(65))));
        // A clock that jumps far ahead does not speed it up, nor does one that is not trusted.
        assert!(!collect(&mut record, &minter(), None, &rules(66, Conflict::Siblings)).any);
        assert!(!collect(&mut record, &minter(), Some(WallMs(u64::MAX)), &rules(64, Conflict::Siblings)).any);
        assert_eq!(collect(&mut record, &minter(), Some(WallMs(1_000)), &rules(65, Conflict::Siblings)).deleted, 1);
        assert_eq!(numbers(&record), Vec::<u64>::new());
        assert!(!record.state.is_empty(), "the clock stays five more epochs, so that slower nodes learn of it");
        collect(&mut record, &minter(), Some(WallMs(1_000)), &rules(70, Conflict::Siblings));
        assert!(record.state.is_empty());
    }

    fn dot(actor: u64, counter: u64) -> Dot {
        Dot { actor: Actor { node: NodeId::new(9), incarnation: Incarnation(1), since: Since(actor) }, counter }
    }

    fn actors(record: &Record) -> Vec<u64> {
        record.state.clock().actors().map(|actor| actor.since.0).collect()
    }

    /// A record that knows actors 1 to `actors`, of which the last made its only sibling, and that changes in every epoch.
    fn changing(actors: u64) -> Record {
        let mut record = record(vec![Sibling { dot: dot(actors, 1), ..sibling(1, value(), None) }]);
        (1..actors)
            .for_each(|actor| record.state.merge(&knows(dot(actor, 2))).changed.then_some(()).expect("it is new"));
        record
    }

    fn knows(dot: Dot) -> State {
        State::from_parts((1..=dot.counter).map(|counter| Dot { counter, ..dot }).collect(), Vec::new(), Notes::new())
    }

    #[test]
    fn ended_actors_of_a_constantly_changing_record_are_collected() {
        let mut record = changing(6);
        record.header.own = Some(crate::store::record::OwnActor { since: Since(3), count: 2 });
        let sweep = |record: &mut Record, epoch: u64| {
            record.header.changed = Epoch(epoch);
            let own = Minter::new(NodeId::new(9), Incarnation(1), 1, ActorsSince { boot: 1, drawn: 0 });
            collect(record, &own, None, &rules(epoch, Conflict::Siblings));
        };
        sweep(&mut record, 10);
        // One of them makes a new dot after they were noted, and another actor appears.
        record.state.merge(&knows(dot(2, 3)));
        record.state.merge(&knows(dot(7, 1)));
        sweep(&mut record, 14);
        assert_eq!(actors(&record), [1, 2, 3, 4, 5, 6, 7]);
        sweep(&mut record, 15);
        assert_eq!(actors(&record), [2, 6, 7], "no more than may stay, and the sibling's");
        // They come back, and one of them with a new dot.
        for dot in [dot(1, 2), dot(3, 1), dot(4, 3)] {
            record.state.merge(&knows(dot));
        }
        sweep(&mut record, 16);
        assert_eq!(actors(&record), [2, 4, 6, 7]);
        assert_eq!(record.state.siblings().len(), 1);
        // In the end no more than the limit are left.
        (17..40).for_each(|epoch| sweep(&mut record, epoch));
        assert!(actors(&record).len() <= 3 && record.header.idle.is_none(), "{:?}", record.header.idle);
    }

    #[test]
    fn a_collected_actor_makes_no_more_dots() {
        let own = minter();
        let mut record = changing(6);
        let mine = crate::store::record::OwnActor { since: Since(1), count: 1 };
        record.state.merge(&knows(Dot { actor: own.actor(mine), counter: 1 }));
        record.header.own = Some(mine);
        for epoch in [10, 15] {
            record.header.changed = Epoch(epoch);
            collect(&mut record, &own, None, &rules(epoch, Conflict::Siblings));
        }
        assert_eq!((record.header.own, record.state.clock().actors_len()), (None, 1));
    }

    #[test]
    fn a_record_that_does_not_count_is_not_collected() {
        let mut lost = record(vec![sibling(2, Content::Tombstone, None)]);
        lost.header.recovering = Some(crate::cluster::losses::Loss(1));
        assert_eq!(
            collect(&mut lost, &minter(), Some(WallMs(9)), &rules(60, Conflict::Siblings)),
            Collected::default()
        );
        assert_eq!(next_due(&lost, Epoch(60)), Some(GcDue::In(Epoch(61))));
    }
}
