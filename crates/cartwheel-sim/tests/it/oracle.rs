//! Each check of the oracle, on histories written by hand: one that it accepts, and one with a minimal change that it must reject.

use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::value::clock::Clock;
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::state::{Content, Epoch, Notes, Sibling, State};
use cartwheel_core::value::write_id::WriteId;
use cartwheel_sim::cluster::key;
use cartwheel_sim::history::{Fate, KeyHistory, Moment, Read, Shown, Write, WriteSet};
use cartwheel_sim::oracle::judge;

/// A history under construction. Each request takes one unit of time, or two if it is answered.
struct Story {
    history: KeyHistory,
    order: u64,
}

impl Story {
    fn new(conflict: Conflict, strong_only: bool) -> Self {
        Self { history: KeyHistory::new(key("b", "k"), 0, conflict, strong_only, 3), order: 0 }
    }

    fn siblings() -> Self {
        Self::new(Conflict::Siblings, false)
    }

    fn moment(&mut self) -> Moment {
        self.order += 1;
        Moment { order: self.order, at_us: self.order }
    }

    /// A write, acknowledged by two of three homes, that had been shown `shown`.
    fn write(&mut self, shown: &[usize]) -> usize {
        let place = self.ask(shown);
        let at = self.moment();
        self.history.writes[place].fate = Fate::Acknowledged { at, w: 2, hlc: Some(hlc(place)) };
        place
    }

    /// A write without an answer.
    fn ask(&mut self, shown: &[usize]) -> usize {
        let place = self.history.writes.len();
        let write = Write {
            content: Content::untyped(self.history.value(place)),
            expires: None,
            id: Some(id(place)),
            shown: Shown::Writes(shown.iter().copied().collect()),
            rewrites: None,
            shown_hlc: shown.iter().map(|&place| hlc(place)).max().unwrap_or_default(),
            invoked: self.moment(),
            attempts: 1,
            fate: Fate::Unknown,
            earliest: None,
            latest: None,
            collected_from_us: None,
            made_at_homes: false,
            forwards: 0,
        };
        self.history.writes.push(write);
        place
    }

    /// A read at two of three homes.
    fn read(&mut self, shows: &[usize]) -> &mut Read {
        let (invoked, answered) = (self.moment(), self.moment());
        let siblings = shows.iter().map(|&place| self.sibling(place)).collect();
        let (seen, seen_hlc) = (WriteSet::EMPTY, Hlc::ZERO);
        self.history.reads.push(Read { invoked, answered, r: 2, strong: true, seen, seen_hlc, siblings });
        self.history.reads.last_mut().expect("it was just pushed")
    }

    fn sibling(&self, place: usize) -> Sibling {
        let actor = Actor { node: NodeId::new(1), incarnation: Incarnation(1), since: Since(1) };
        Sibling {
            dot: Dot { actor, counter: place as u64 + 1 },
            content: Content::untyped(self.history.value(place)),
            hlc: hlc(place),
            epoch: Epoch(0),
            write_id: id(place),
            expires: None,
        }
    }

    fn end(&self, present: &[usize]) -> State {
        State::from_parts(Clock::new(), present.iter().map(|&place| self.sibling(place)), Notes::new())
    }

    /// The name of the check that fails, if one does.
    fn fails(&self, end: Option<&[usize]>) -> Option<&'static str> {
        judge(&self.history, end.map(|end| self.end(end)).as_ref()).failure.map(|failure| failure.check)
    }
}

fn hlc(place: usize) -> Hlc {
    Hlc::from_bits(100 + place as u64)
}

fn id(place: usize) -> WriteId {
    WriteId::from_bytes([place as u8; 16])
}

#[test]
fn an_acknowledged_write_is_present_or_replaced_by_one_that_saw_it() {
    let mut story = Story::siblings();
    story.write(&[]);
    story.write(&[]);
    assert_eq!(story.fails(Some(&[0, 1])), None);
    assert_eq!(story.fails(Some(&[1])), Some("no acknowledged write is lost"));
    story.ask(&[0]);
    assert_eq!(story.fails(Some(&[1, 2])), None, "an unanswered write may have replaced an acknowledged one");
    assert_eq!(story.fails(Some(&[0, 1])), None, "or it may not have been stored");
    assert_eq!(story.fails(Some(&[2])), Some("no acknowledged write is lost"));
}

#[test]
fn a_replaced_write_does_not_come_back() {
    let mut story = Story::siblings();
    story.write(&[]);
    story.write(&[0]);
    assert_eq!(story.fails(Some(&[1])), None);
    assert_eq!(story.fails(Some(&[0, 1])), Some("a replaced write does not come back"));
    story.read(&[0, 1]);
    assert_eq!(story.fails(None), Some("a replaced write is not shown again"));
}

#[test]
fn a_read_whose_quorum_overlaps_a_writes_shows_it() {
    let mut story = Story::siblings();
    story.write(&[]);
    story.read(&[]);
    assert_eq!(story.fails(None), Some("a read shows acknowledged writes"));
    story.history.reads[0].r = 1;
    assert_eq!(story.fails(None), None, "one home need not be among two of three");
    story.history.reads[0].r = 2;
    story.history.reads[0].invoked = Moment::default();
    assert_eq!(story.fails(None), None, "it began before the write was acknowledged");
}

#[test]
fn nothing_is_required_of_writes_below_a_majority_on_a_damaged_key() {
    let mut story = Story::siblings();
    story.write(&[]);
    if let Fate::Acknowledged { w, .. } = &mut story.history.writes[0].fate {
        *w = 1;
    }
    story.read(&[]).r = 3;
    assert_eq!(story.fails(None), Some("a read shows acknowledged writes"));
    story.history.damaged = true;
    assert_eq!(story.fails(None), None);
}

#[test]
fn only_written_values_are_shown() {
    let mut story = Story::siblings();
    story.ask(&[]);
    story.read(&[0]);
    assert_eq!(story.fails(None), None);
    story.history.writes[0].fate = Fate::Refused;
    assert_eq!(story.fails(None), Some("a refused write is not stored"));
    story.history.writes[0].fate = Fate::Unknown;
    story.history.reads[0].siblings[0].content = Content::untyped("made up");
    assert_eq!(story.fails(None), Some("only written values are shown"));
}

#[test]
fn a_write_is_shown_once() {
    let mut story = Story::siblings();
    story.ask(&[]);
    story.read(&[0, 0]);
    assert_eq!(story.fails(None), Some("a write is shown once"));
}

#[test]
fn a_read_covers_its_context() {
    for conflict in [Conflict::Siblings, Conflict::Lww] {
        let mut story = Story::new(conflict, false);
        story.ask(&[]);
        story.read(&[0]);
        let read = story.read(&[]);
        (read.seen, read.seen_hlc) = (WriteSet::of(0), hlc(0));
        assert_eq!(story.fails(None), Some("a read covers its context"), "{conflict:?}");
    }
}

#[test]
fn a_writes_timestamp_is_above_those_that_it_has_seen() {
    let mut story = Story::siblings();
    story.write(&[]);
    story.write(&[0]);
    assert_eq!(story.fails(None), None);
    story.history.writes[1].shown_hlc = hlc(7);
    assert_eq!(story.fails(None), Some("a write's timestamp is above those that it has seen"));
}

#[test]
fn the_last_write_wins() {
    let mut story = Story::new(Conflict::Lww, false);
    story.write(&[]);
    story.write(&[]);
    // By timestamps alone, as if it were not known how far apart the clocks were.
    story.history.clocks_within_us = None;
    assert_eq!(story.fails(Some(&[1])), None);
    assert_eq!(story.fails(Some(&[0])), Some("the last write wins"));
    assert_eq!(story.fails(Some(&[])), Some("a later write replaces an earlier one"));
    // By the order in which the writes were made, whatever their timestamps are.
    story.history.clocks_within_us = Some(0);
    assert_eq!(story.fails(Some(&[1])), None);
    assert_eq!(story.fails(Some(&[0])), Some("a later write replaces an earlier one"));
    assert_eq!(story.fails(Some(&[])), Some("a later write replaces an earlier one"));
    story.history.clocks_within_us = None;
    story.read(&[0]);
    assert_eq!(story.fails(None), Some("a read shows acknowledged writes"));
    story.read(&[0, 1]);
    story.history.reads.remove(0);
    assert_eq!(story.fails(None), Some("an lww read shows one value"));
}

#[test]
fn a_rewrite_loses_to_what_came_after_the_value_that_it_rewrites() {
    let mut story = Story::new(Conflict::Lww, false);
    story.history.clocks_within_us = Some(0);
    let first = story.write(&[]);
    (story.history.writes[first].earliest, story.history.writes[first].latest) = (Some(hlc(first)), Some(hlc(first)));
    let later = story.write(&[]);
    let rewrite = story.write(&[first]);
    story.history.writes[rewrite].rewrites = Some(hlc(first));
    assert_eq!(story.fails(Some(&[rewrite])), Some("a later write replaces an earlier one"));
    if let Fate::Acknowledged { hlc: stamp, .. } = &mut story.history.writes[rewrite].fate {
        *stamp = Some(hlc(first).next());
    }
    assert_eq!(story.fails(Some(&[later])), None, "though the rewrite was acknowledged after it");
    story.history.writes[later].fate = Fate::Unknown;
    assert_eq!(story.fails(Some(&[rewrite])), None);
}

#[test]
fn an_attempt_without_an_answer_may_have_replaced_a_later_write() {
    let mut story = Story::new(Conflict::Lww, false);
    story.write(&[]);
    let tried_twice = story.write(&[]);
    story.write(&[tried_twice]);
    if let Fate::Acknowledged { hlc: stamp, .. } = &mut story.history.writes[0].fate {
        *stamp = Some(hlc(5));
    }
    assert_eq!(story.fails(Some(&[2])), Some("the last write wins"));
    story.history.writes[tried_twice].earliest = Some(hlc(1));
    story.history.writes[tried_twice].latest = Some(hlc(6));
    assert_eq!(story.fails(Some(&[2])), None, "the other attempt replaced it, and was replaced itself");
    story.history.writes[tried_twice].latest = Some(hlc(4));
    assert_eq!(story.fails(Some(&[2])), Some("the last write wins"));
}

#[test]
fn strong_reads_do_not_go_back_in_time() {
    for conflict in [Conflict::Siblings, Conflict::Lww] {
        let mut story = Story::new(conflict, true);
        story.ask(&[]);
        story.read(&[0]);
        assert_eq!(story.fails(None), None);
        story.read(&[]).r = 0;
        assert_eq!(story.fails(None), Some("strong requests are linearizable"), "{conflict:?}");
    }
}

#[test]
fn a_delete_replaces_no_write_that_began_after_its_answer() {
    let mut story = Story::siblings();
    let delete = story.ask(&[]);
    let at = story.moment();
    let write = &mut story.history.writes[delete];
    write.content = Content::Tombstone;
    write.shown = Shown::Unknown;
    write.fate = Fate::Acknowledged { at, w: 2, hlc: Some(hlc(delete)) };
    story.write(&[]);
    let mut end = story.end(&[]);
    let tombstone = Sibling { content: Content::Tombstone, ..story.sibling(delete) };
    end.merge(&State::from_parts(Clock::new(), [tombstone], Notes::new()));
    let failure = judge(&story.history, Some(&end)).failure.map(|failure| failure.check);
    assert_eq!(failure, Some("no acknowledged write is lost"));
}

#[test]
fn a_write_that_only_a_delete_saw_counts_as_stored() {
    let mut story = Story::new(Conflict::Siblings, true);
    story.write(&[]);
    let unanswered = story.ask(&[0]);
    let delete = story.write(&[]);
    story.history.writes[delete].shown = Shown::Names(vec![id(unanswered)]);
    story.read(&[delete]);
    assert_eq!(story.fails(None), None, "the unanswered write replaced the first, and the delete replaced it");
    story.history.writes[delete].shown = Shown::Names(vec![]);
    assert_eq!(story.fails(None), Some("a read shows acknowledged writes"));
}
