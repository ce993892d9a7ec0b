//! Which of the other nodes are there: SWIM (Das, Gupta, Motivala, DSN 2002) by the `foca` crate, and what this node makes of it.
//!
//! Each second a node probes another, in turn. Who does not answer in time is probed by up to three others as well. Who answers
//! nobody is suspect; everyone hears of that, and who cannot refute it in time is down. A node that is suspect or down is called
//! every second until it answers, if it was down by a new name, for SWIM takes nothing back.
//!
//! SWIM says who is there for anyone; a coordinator wants to know who is there for *it*. So first-hand knowledge comes before what
//! others say:
//!
//! - Whoever answers others' probes but not this node's is suspect here (one direction of a link is cut, or both), and never down.
//! - Whoever answers late is suspect until it answers, and not down: a slow node. Again and again makes it suspect for longer.
//! - A connection that breaks makes its node suspect at once; it is the probes that say whether it is down.
//! - A node that stood still itself gives everyone the time that it slept.
//!
//! A dead node and a paused one look alike to probes. The connection tells them apart: the dead one's breaks.
//!
//! Members come from the view alone, and only a node itself says which boot of it is there: no other can put a node in that does
//! not exist, or a boot that has yet to be. What others say of a node it can refute.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroUsize};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{AccumulatingRuntime, Config, Foca, Member, Message, NoCustomBroadcast, OwnedNotification, State, Timer};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::ControlConfig;
use super::opinion::Opinion;
use super::swim::{Identity, PACKET_BYTES_MAX, Packet, PacketCodec};
use crate::dot::{Life, NodeId};
use crate::liveness::{Liveness, Standing, Status, Why};
use crate::membership::View;
use crate::mutation::{Broken, Mutation};
use crate::time::{Instant, Now};

/// How often a node probes another.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long it waits for the answer before it asks others to probe as well. An answer may be at work behind a large value.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// How many others it asks.
const HELPERS: usize = 3;
/// How long a suspect has to speak up.
const CONFIRM_AFTER: Duration = Duration::from_secs(4);
/// How often something new is passed on.
const TELLINGS: u8 = 10;
/// How often a node calls those that owe it an answer beside its probes, and how many at once.
const KNOCK_EVERY: Duration = Duration::from_secs(1);
const KNOCKS: usize = 3;
/// How often a node takes a new name. Somebody else who goes by its id, under a later one, would have it do so without end.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A timer that is late by this means that this node stood still.
const STOOD_STILL: Duration = Duration::from_millis(700);

type Swim = Foca<Identity, PacketCodec, ChaCha8Rng, NoCustomBroadcast>;
type Runtime = AccumulatingRuntime<Identity>;

/// What a step of the detector wants done.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Packets.
    pub(super) sends: Vec<(NodeId, Bytes)>,
}

/// One probe.
#[derive(Debug)]
struct Probe {
    of: Identity,
    answered: bool,
}

/// The failure detector of one node.
pub(super) struct Detector {
    swim: Swim,
    broken: Broken,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    timers_set: u64,
    peers: BTreeMap<NodeId, Opinion>,
    probe: Option<Probe>,
    /// Whether SWIM probes: it rests while it knows of nobody that is there, or has to be heard under a new name.
    probes: bool,
    next_knock: Instant,
    knocked_last: NodeId,
    next_introduction: Instant,
    introduction_due: bool,
    next_renewal: Instant,
    liveness: Arc<Liveness>,
}

impl Detector {
    pub(super) fn new(config: &ControlConfig) -> Self {
        let ControlConfig { node, life, boot, .. } = *config;
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        // What the control draws for itself is of another stream.
        random.set_stream(1);
        Self {
            swim: Foca::new(
                Identity { node, generation: 0, life, boot, renewal: 0 },
                swim_config(),
                random,
                PacketCodec,
            ),
            broken: config.broken,
            timers: BTreeMap::new(),
            timers_set: 0,
            peers: BTreeMap::new(),
            probe: None,
            probes: false,
            next_knock: Instant::default(),
            knocked_last: node,
            next_introduction: Instant::default(),
            introduction_due: true,
            next_renewal: Instant::default(),
            liveness: Arc::default(),
        }
    }

    /// What this node thinks of every other.
    pub(super) const fn liveness(&self) -> &Arc<Liveness> {
        &self.liveness
    }

    fn me(&self) -> NodeId {
        self.swim.identity().node
    }

    /// Goes by the members of a view.
    pub(super) fn set_members(&mut self, now: Now, view: &View, told: &mut Told) {
        let me = self.me();
        let gone: Vec<Identity> =
            self.known().filter(|known| view.member(known.id().node).is_none()).map(|known| *known.id()).collect();
        let come: Vec<Member<Identity>> = view
            .members()
            .map(|known| &known.member)
            .map(|member| Identity::unheard(member.id, view.lives_ended(member.id), member.life))
            .filter(|id| id.node != me && self.current(id.node).is_none_or(|known| known.life != id.life))
            .map(Member::alive)
            .collect();
        self.peers.retain(|&node, _| view.member(node).is_some());
        for id in gone {
            self.drive(now, told, |swim, out| {
                swim.apply_many([Member::down(id)].into_iter(), false, &mut *out)?;
                swim.handle_timer(Timer::RemoveDown(id), out)
            });
        }
        for member in &come {
            self.peers.insert(member.id().node, Opinion::new(now.wall));
        }
        self.introduction_due |= !come.is_empty();
        self.drive(now, told, |swim, out| swim.apply_many(come.into_iter(), false, out));
    }

    /// Takes in a packet of this boot of a node; false if it makes no sense.
    pub(super) fn heard(&mut self, now: Now, sender: (NodeId, Life, u32), bytes: &[u8], told: &mut Told) -> bool {
        let Ok(mut packet) = Packet::decode(bytes) else { return false };
        packet.each_identity(|id| id.generation = self.generation(*id));
        let (from, to, message) = (packet.header.src, packet.header.dst, packet.header.message.clone());
        let Some(known) = self.current(from.node) else { return false };
        if (from.node, from.life, from.boot) != sender || known.life != from.life || to.node != self.me() {
            return false;
        }
        if let Some(peer) = self.peers.get_mut(&from.node) {
            peer.heard = true;
        }
        let own = *self.swim.identity();
        if to != own && message != Message::Announce {
            // It does not know under which name this node is here now.
            self.drive(now, told, |swim, out| swim.announce(from, out));
            return true;
        }
        let may_renew = now.instant >= self.next_renewal;
        if message == Message::TurnUndead && !may_renew {
            return true;
        }
        packet.updates.retain(|update| {
            let about = update.id();
            let asks_for_renewal = update.state() == State::Down || update.incarnation() == u16::MAX;
            *about == own && (may_renew || !asks_for_renewal)
                || about.node != own.node && self.current(about.node) == Some(*about)
        });
        let bytes = packet.encode();
        self.drive(now, told, |swim, out| swim.handle_data(&bytes, out));
        let is_answer = matches!(message, Message::Ack(_) | Message::IndirectAck { .. } | Message::Feed);
        if is_answer && self.current(from.node) == Some(from) {
            self.answered(from);
        }
        true
    }

    /// An answer shows that both ways are open.
    fn answered(&mut self, from: Identity) {
        if let Some(probe) = &mut self.probe
            && probe.of == from
        {
            probe.answered = true;
        }
        if let Some(peer) = self.peers.get_mut(&from.node) {
            peer.answered();
        }
    }

    /// The connection to a node broke or cannot be made, or is made.
    pub(super) fn connected(&mut self, now: Now, node: NodeId, connected: bool, told: &mut Told) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.link_lost = !connected;
        if connected && let Some(id) = self.current(node) {
            self.drive(now, told, |swim, out| swim.announce(id, out));
        }
    }

    /// Does what is due, and says what to think of the others if that has changed.
    pub(super) fn tick(&mut self, now: Now, told: &mut Told) -> Option<Arc<Liveness>> {
        self.forgive_lateness(now.instant);
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now.instant) {
            let timer = timer.remove();
            if self.is_wanted(now.instant, &timer) {
                self.drive(now, told, |swim, out| swim.handle_timer(timer, out));
            }
        }
        if self.introduction_due && now.instant >= self.next_introduction {
            self.introduction_due = false;
            self.next_introduction = now.instant + KNOCK_EVERY;
            let all: Vec<Identity> = self.known().map(|known| *known.id()).collect();
            self.announce(now, all, told);
        }
        if self.wants_to_knock() && now.instant >= self.next_knock {
            self.next_knock = now.instant + KNOCK_EVERY;
            let chosen = self.next_to_knock();
            self.announce(now, chosen, told);
        }
        self.judge(now)
    }

    /// When it wants to be ticked.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|&(at, _)| at);
        let knock = self.wants_to_knock().then_some(self.next_knock);
        let introduction = self.introduction_due.then_some(self.next_introduction);
        let held = self.peers.values().filter_map(|peer| peer.held_until);
        held.chain(timer).chain(knock).chain(introduction).min()
    }

    /// Whoever is late itself cannot say that others are.
    fn forgive_lateness(&mut self, now: Instant) {
        let Some((&(first, _), _)) = self.timers.first_key_value() else { return };
        let late = now.since(first);
        if late > STOOD_STILL {
            let timers = std::mem::take(&mut self.timers);
            let later = |((at, number), timer)| ((at + late + ANSWER_WITHIN, number), timer);
            self.timers = timers.into_iter().map(later).collect();
        }
    }

    /// Whoever has answered since it was suspected is not given up, though it may be suspected anew.
    fn is_wanted(&self, now: Instant, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, .. } = timer else { return true };
        let is_suspect = self.peers.get(&member_id.node).is_some_and(|peer| {
            let is_confirmed = now.since(peer.suspected_at) >= CONFIRM_AFTER;
            is_confirmed && matches!(peer.suspicion, Some(Why::ProbeUnanswered | Why::SuspectedByOthers))
        });
        is_suspect && self.current(member_id.node) == Some(*member_id)
    }

    /// Lets SWIM do something, and takes in what follows from it.
    fn drive(
        &mut self,
        now: Now,
        told: &mut Told,
        act: impl FnOnce(&mut Swim, &mut Runtime) -> Result<(), foca::Error>,
    ) {
        let before: Vec<(Identity, State)> = self.known().map(|known| (*known.id(), known.state())).collect();
        let mut out = Runtime::new();
        // What fails here is what a peer sent: it is left undone.
        let _ = act(&mut self.swim, &mut out);
        let failed = self.set_timers(now.instant, &mut out);
        self.take_in_states(now.instant, &before, failed.is_none());
        let mut probe = None;
        while let Some((to, bytes)) = out.to_send() {
            if let Ok(Packet { header, .. }) = Packet::decode(&bytes)
                && matches!(header.message, Message::Ping(_))
            {
                probe = Some(Probe { of: to, answered: false });
            }
            // SWIM may still talk to a former self.
            if to.node != self.me() {
                told.sends.push((to.node, bytes));
            }
        }
        if let Some(ended) = probe.and_then(|probe| self.probe.replace(probe)) {
            self.probe_ended(now.instant, &ended, failed);
        }
        while let Some(notification) = out.to_notify() {
            match notification {
                OwnedNotification::Active => self.probes = true,
                OwnedNotification::Idle | OwnedNotification::Defunct => self.rest(),
                OwnedNotification::Rejoin(_) => {
                    self.rest();
                    self.next_renewal = now.instant + RENEW_EVERY;
                    self.introduction_due = true;
                }
                _ => {}
            }
        }
    }

    /// Keeps the timers, and says who failed a probe.
    fn set_timers(&mut self, now: Instant, out: &mut Runtime) -> Option<Identity> {
        let mut failed = None;
        while let Some((after, timer)) = out.to_schedule() {
            if let Timer::ChangeSuspectToDown { member_id, .. } = timer {
                failed = Some(member_id);
            }
            self.timers_set += 1;
            self.timers.insert((now + after, self.timers_set), timer);
        }
        failed
    }

    /// Goes along with SWIM where it has changed its mind.
    fn take_in_states(&mut self, now: Instant, before: &[(Identity, State)], is_hearsay: bool) {
        let after: Vec<(Identity, State)> = self.known().map(|known| (*known.id(), known.state())).collect();
        for (id, state) in after {
            let Some(&(former, was)) = before.iter().find(|(former, _)| former.node == id.node) else { continue };
            let Some(peer) = self.peers.get_mut(&id.node) else { continue };
            if former != id {
                peer.started_anew();
            }
            match (was, state) {
                (State::Alive, State::Suspect) if is_hearsay => peer.suspect(now, Why::SuspectedByOthers),
                (State::Alive | State::Suspect, State::Down) => {
                    let own = peer.suspicion == Some(Why::ProbeUnanswered);
                    peer.down = Some(if own { Why::SuspicionConfirmed } else { Why::GivenUpByOthers });
                }
                // It has refuted it.
                (State::Suspect, State::Alive) if peer.suspicion != Some(Why::OnlyOthersReachIt) => peer.answered(),
                _ => {}
            }
        }
    }

    fn probe_ended(&mut self, now: Instant, probe: &Probe, failed: Option<Identity>) {
        let is_current = self.current(probe.of.node) == Some(probe.of);
        let Some(peer) = self.peers.get_mut(&probe.of.node).filter(|_| is_current && !probe.answered) else { return };
        let why = if failed == Some(probe.of) { Why::ProbeUnanswered } else { Why::OnlyOthersReachIt };
        peer.suspect(now, why);
    }

    fn rest(&mut self) {
        self.probes = false;
        self.probe = None;
    }

    fn announce(&mut self, now: Now, to: Vec<Identity>, told: &mut Told) {
        for id in to {
            self.drive(now, told, |swim, out| swim.announce(id, out));
        }
    }

    fn wants_to_knock(&self) -> bool {
        !self.peers.is_empty() && (!self.probes || self.peers.values().any(Opinion::owes_an_answer))
    }

    /// Those who owe an answer, or anyone while this node does not probe; each in turn.
    fn next_to_knock(&mut self) -> Vec<Identity> {
        let after = (Bound::Excluded(self.knocked_last), Bound::Unbounded);
        let turn = self.peers.range(after).chain(self.peers.range(..=self.knocked_last));
        let silent = turn.filter(|(_, peer)| !self.probes || peer.owes_an_answer());
        let chosen: Vec<Identity> = silent.filter_map(|(&node, _)| self.current(node)).take(KNOCKS).collect();
        if let Some(last) = chosen.last() {
            self.knocked_last = last.node;
        }
        chosen
    }

    fn judge(&mut self, now: Now) -> Option<Arc<Liveness>> {
        let never = self.broken.is(Mutation::SwimNeverSuspects);
        let standings = self.peers.iter_mut().map(|(&node, peer)| {
            let standing = peer.judge(now);
            let blind = Standing { status: Status::Alive, ..standing };
            (node, if never { blind } else { standing })
        });
        let liveness = Liveness::new(standings);
        (liveness != *self.liveness).then(|| {
            self.liveness = Arc::new(liveness);
            self.liveness.clone()
        })
    }

    /// What SWIM knows of members other than this node.
    fn known(&self) -> impl Iterator<Item = &Member<Identity>> {
        let me = self.me();
        self.swim.iter_membership_state().filter(move |known| known.id().node != me)
    }

    /// What is known here of the generation of a life; 0 of one that is not current, and of this node's own.
    fn generation(&self, id: Identity) -> u32 {
        self.current(id.node).filter(|known| known.life == id.life).map_or(0, |known| known.generation)
    }

    fn current(&self, node: NodeId) -> Option<Identity> {
        self.known().map(|known| *known.id()).find(|id| id.node == node)
    }
}

fn swim_config() -> Config {
    Config {
        probe_period: PROBE_EVERY,
        probe_rtt: ANSWER_WITHIN,
        num_indirect_probes: NonZeroUsize::new(HELPERS).expect("not zero"),
        max_transmissions: NonZeroU8::new(TELLINGS).expect("not zero"),
        suspect_to_down_after: CONFIRM_AFTER,
        // Members go when the view says so.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).expect("not zero"),
        notify_down_members: true,
        // The detector calls them itself: SWIM does not while it knows of nobody that is there.
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: None,
    }
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("liveness", &self.liveness).finish_non_exhaustive()
    }
}
