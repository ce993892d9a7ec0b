//! The failure detector: SWIM (Das, Gupta, Motivala, DSN 2002) by the `foca` crate, combined with this node's own
//! observations.
//!
//! Each second a node probes another, in turn. If that does not answer in time, up to three others probe it as well. If
//! it answers none of them it is suspect. The suspicion is gossiped, and a node that does not refute it in time is
//! down. A suspect or down node is probed every second until it answers. A node that was down then takes a new identity
//! (a renewal), because in SWIM "down" is final.
//!
//! SWIM tells whether a node is alive for the cluster; a coordinator needs to know whether it is reachable *from here*.
//! So first-hand observations override reports of others:
//!
//! - A node that answers others' probes but not this node's is suspect here (one or both directions of a link are cut),
//!   and never down.
//! - A node that answers late is suspect until it answers, and not down: it is slow. If this happens repeatedly, it
//!   stays suspect for longer.
//! - A node whose connection breaks is suspect at once. Only probes tell whether it is down.
//! - A node that was itself paused extends all its timers by the length of the pause.
//!
//! Probes cannot tell a dead node from a paused one. The connection can: that of the dead one breaks.
//!
//! Members come from the view alone, and a boot of a node is believed only from that node itself. So no node can add a
//! node that does not exist, or a boot that has not begun. A node can refute whatever others say about it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{
    AccumulatingRuntime, Codec, Config, Foca, Member, Message, NoCustomBroadcast, OwnedNotification, State, Timer,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::ControlConfig;
use super::spread::SMALL_CLUSTER_MAX;
use super::swim::{Identity, PACKET_BYTES_MAX, Packet, PacketCodec};
use super::swim_members::{ListedMember, SwimMembers};
use super::verdict::Verdict;
use super::verdicts::Verdicts;
use crate::cluster::liveness::{Liveness, Why};
use crate::cluster::membership::View;
use crate::mutation::{Broken, Mutation};
use crate::value::dot::{Incarnation, NodeId};
use crate::value::time::{Instant, Now};

/// How often a node probes another.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long a probe waits for its response before other nodes probe too. A response may be queued behind a large
/// value.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// How many other nodes probe as well (SWIM's indirect probes).
const HELPERS: usize = 3;
/// How long a suspect has to refute in a cluster of less than a hundred nodes; as long again for each further digit of
/// their number. The suspicion must reach it and its refutation must reach others, and gossip takes longer in a larger
/// cluster.
const CONFIRM_AFTER: Duration = Duration::from_secs(4);
/// How often an update is passed on.
const TRANSMISSIONS: u8 = 10;
/// How often a node re-probes nodes that owe it a response, in addition to its regular probes, and how many at once.
const REPROBE_EVERY: Duration = Duration::from_secs(1);
const REPROBES: usize = 3;
/// How many nodes it introduces itself to at once, as often as that. In a large cluster each response has a cost.
const INTRODUCTIONS: usize = 32;
/// How many nodes the response to an introduction lists. Their boots must be heard from themselves, so more would be of
/// little use.
const FEED_MAX: usize = 8;
/// How often a node takes a new identity. Another process with the same node id and a later boot would otherwise make
/// it do so without end.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A timer that is late by more than this means that this node was paused.
const STOOD_STILL: Duration = Duration::from_millis(700);

type Swim = Foca<Identity, PacketCodec, ChaCha8Rng, NoCustomBroadcast>;
type Runtime = AccumulatingRuntime<Identity>;

/// What a step of the detector wants sent.
#[derive(Debug, Default)]
pub(super) struct DetectorOutput {
    /// SWIM packets.
    pub(super) sends: Vec<(NodeId, Bytes)>,
}

/// A probe under way.
#[derive(Debug)]
struct Probe {
    of: Identity,
    answered: bool,
}

/// The failure detector of one node.
pub(super) struct Detector {
    swim: Swim,
    broken: Broken,
    confirm_after: Duration,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    timers_set: u64,
    swim_members: SwimMembers,
    verdicts: Verdicts,
    probe: Option<Probe>,
    /// Whether SWIM probes. It does not while it knows of no live node, or while its new identity is not known to
    /// others.
    probes: bool,
    next_reprobe: Instant,
    reprobed_last: NodeId,
    next_introduction: Instant,
    /// The nodes to which it has yet to introduce itself by its current identity.
    strangers: BTreeSet<NodeId>,
    next_renewal: Instant,
}

impl Detector {
    pub(super) fn new(config: &ControlConfig) -> Self {
        let ControlConfig { node, incarnation, boot, .. } = *config;
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        // The control draws from another stream of the same seed.
        random.set_stream(1);
        Self {
            swim: Foca::new(
                Identity { node, generation: 0, incarnation, boot, renewal: 0 },
                swim_config(CONFIRM_AFTER),
                random,
                PacketCodec,
            ),
            broken: config.broken,
            confirm_after: CONFIRM_AFTER,
            timers: BTreeMap::new(),
            timers_set: 0,
            swim_members: SwimMembers::default(),
            verdicts: Verdicts::default(),
            probe: None,
            probes: false,
            next_reprobe: Instant::default(),
            reprobed_last: node,
            next_introduction: Instant::default(),
            strangers: BTreeSet::new(),
            next_renewal: Instant::default(),
        }
    }

    /// The liveness of the other nodes.
    pub(super) const fn liveness(&self) -> &Arc<Liveness> {
        self.verdicts.liveness()
    }

    fn me(&self) -> NodeId {
        self.swim.identity().node
    }

    /// Adopts the members of a view.
    pub(super) fn set_members(&mut self, now: Now, view: &View, output: &mut DetectorOutput) {
        let me = self.me();
        let gone: Vec<Identity> = self.known().filter(|known| view.member(known.node).is_none()).collect();
        let come: Vec<Member<Identity>> = view
            .members()
            .map(|known| &known.member)
            .map(|member| Identity::unheard(member.id, view.incarnations_ended(member.id), member.incarnation))
            .filter(|id| id.node != me && self.current(id.node).is_none_or(|known| known.incarnation != id.incarnation))
            .map(Member::alive)
            .collect();
        self.confirm_after = confirm_after(view.members().len());
        // SWIM refuses only to switch on a feature that was off, which this does not.
        let _ = self.swim.set_config(swim_config(self.confirm_after));
        self.verdicts.retain(now, |node| view.member(node).is_some());
        self.strangers.retain(|&node| view.member(node).is_some());
        for id in gone {
            self.drive(now, output, |swim, out| {
                swim.apply_many([Member::down(id)].into_iter(), false, &mut *out)?;
                swim.handle_timer(Timer::RemoveDown(id), out)
            });
        }
        for member in &come {
            self.verdicts.insert(now, member.id().node);
            self.strangers.insert(member.id().node);
        }
        if !come.is_empty() {
            self.drive(now, output, |swim, out| swim.apply_many(come.into_iter(), false, out));
        }
    }

    /// Takes in a packet of this boot of a node; false if it makes no sense.
    pub(super) fn on_packet(
        &mut self,
        now: Now,
        sender: (NodeId, Incarnation, u32),
        bytes: &[u8],
        output: &mut DetectorOutput,
    ) -> bool {
        let Ok(mut packet) = Packet::decode(bytes) else { return false };
        packet.each_identity(|id| id.generation = self.generation(*id));
        let (from, to, message) = (packet.header.src, packet.header.dst, packet.header.message.clone());
        let Some(known) = self.current(from.node) else { return false };
        if (from.node, from.incarnation, from.boot) != sender
            || known.incarnation != from.incarnation
            || to.node != self.me()
        {
            return false;
        }
        self.verdicts.edit(now.instant, from.node, |peer| peer.heard = true);
        if message == Message::Announce {
            // The response introduces this node.
            self.strangers.remove(&from.node);
        }
        let own = *self.swim.identity();
        if to != own && message != Message::Announce {
            // The sender does not know this node's current identity.
            self.drive_unchanged(now, output, |swim, out| swim.announce(from, out));
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
        if known != from {
            // SWIM learns of the new boot, but does not pass it on: others believe only the node itself.
            let alive = Member::new(from, packet.header.src_incarnation, State::Alive);
            self.drive(now, output, |swim, out| swim.apply_many([alive].into_iter(), false, out));
        }
        let bytes = packet.encode();
        if self.has_news(&packet) {
            self.drive(now, output, |swim, out| swim.handle_data(&bytes, out));
        } else {
            self.drive_unchanged(now, output, |swim, out| swim.handle_data(&bytes, out));
        }
        let is_response = matches!(message, Message::Ack(_) | Message::IndirectAck { .. } | Message::Feed);
        if is_response && self.current(from.node) == Some(from) {
            self.on_response(now.instant, from);
        }
        true
    }

    /// Whether a packet may change what SWIM knows of any node.
    fn has_news(&self, packet: &Packet) -> bool {
        let all_known = self.swim_members.is_known((packet.header.src, State::Alive))
            && packet.updates.iter().all(|update| self.swim_members.is_known((*update.id(), update.state())));
        !all_known || packet.header.message == Message::TurnUndead
    }

    /// A response shows that both directions of the link work.
    fn on_response(&mut self, now: Instant, from: Identity) {
        if let Some(probe) = &mut self.probe
            && probe.of == from
        {
            probe.answered = true;
        }
        self.verdicts.edit(now, from.node, Verdict::on_response);
    }

    /// A node has said in this boot whether it drains.
    pub(super) fn drains(&mut self, now: Now, node: NodeId, boot: u32, drains: bool) {
        self.verdicts.drains(now.instant, node, boot, drains);
    }

    /// A connection to a node was made, or broke, or cannot be made.
    pub(super) fn connected(&mut self, now: Now, node: NodeId, connected: bool, output: &mut DetectorOutput) {
        self.verdicts.edit(now.instant, node, |peer| peer.link_lost = !connected);
        if connected && let Some(id) = self.current(node) {
            self.drive_unchanged(now, output, |swim, out| swim.announce(id, out));
        }
    }

    /// Does what is due, and returns the liveness of the others if it has changed.
    pub(super) fn tick(&mut self, now: Now, output: &mut DetectorOutput) -> Option<Arc<Liveness>> {
        self.extend_timers(now.instant);
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now.instant) {
            let timer = timer.remove();
            if self.is_wanted(now.instant, &timer) {
                self.drive(now, output, |swim, out| swim.handle_timer(timer, out));
            }
        }
        if !self.strangers.is_empty() && now.instant >= self.next_introduction {
            self.next_introduction = now.instant + REPROBE_EVERY;
            let chosen = self.next_to_introduce();
            self.announce(now, chosen, output);
        }
        if self.wants_to_reprobe() && now.instant >= self.next_reprobe {
            self.next_reprobe = now.instant + REPROBE_EVERY;
            let chosen = self.next_to_reprobe();
            self.announce(now, chosen, output);
        }
        self.verdicts.judge(now, self.broken.is(Mutation::SwimNeverSuspects))
    }

    /// When the next timer is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|&(at, _)| at);
        let reprobe = self.wants_to_reprobe().then_some(self.next_reprobe);
        let introduction = (!self.strangers.is_empty()).then_some(self.next_introduction);
        self.verdicts.wake_at().into_iter().chain(timer).chain(reprobe).chain(introduction).min()
    }

    /// Extends all timers if this node was paused: it cannot blame others for its own delay.
    fn extend_timers(&mut self, now: Instant) {
        let Some((&(first, _), _)) = self.timers.first_key_value() else { return };
        let late = now.since(first);
        if late > STOOD_STILL {
            let timers = std::mem::take(&mut self.timers);
            let later = |((at, number), timer)| ((at + late + PROBE_TIMEOUT, number), timer);
            self.timers = timers.into_iter().map(later).collect();
        }
    }

    /// Whether a timer still counts: a node that has answered since it was suspected is not declared down, even if it
    /// is suspected again.
    fn is_wanted(&self, now: Instant, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, .. } = timer else { return true };
        let is_suspect = self.verdicts.get(member_id.node).is_some_and(|peer| {
            let is_confirmed = now.since(peer.suspected_at) >= self.confirm_after;
            is_confirmed && matches!(peer.suspicion, Some(Why::ProbeUnanswered | Why::SuspectedByOthers))
        });
        is_suspect && self.current(member_id.node) == Some(*member_id)
    }

    /// Lets SWIM act, and adopts the resulting changes of members' states.
    fn drive(
        &mut self,
        now: Now,
        output: &mut DetectorOutput,
        act: impl FnOnce(&mut Swim, &mut Runtime) -> Result<(), foca::Error>,
    ) {
        self.run(now, output, act, true);
    }

    /// Lets SWIM act in a way that does not change members' states.
    fn drive_unchanged(
        &mut self,
        now: Now,
        output: &mut DetectorOutput,
        act: impl FnOnce(&mut Swim, &mut Runtime) -> Result<(), foca::Error>,
    ) {
        self.run(now, output, act, false);
    }

    fn run(
        &mut self,
        now: Now,
        output: &mut DetectorOutput,
        act: impl FnOnce(&mut Swim, &mut Runtime) -> Result<(), foca::Error>,
        may_change: bool,
    ) {
        let mut out = Runtime::new();
        // An error here is caused by what a peer sent, and is ignored.
        let _ = act(&mut self.swim, &mut out);
        let failed = self.set_timers(now.instant, &mut out);
        if may_change {
            let changed = self.swim_members.update(self.swim.iter_membership_state());
            self.adopt_states(now.instant, &changed, failed.is_none());
        }
        let mut probe = None;
        while let Some((to, bytes)) = out.to_send() {
            let header = PacketCodec.decode_header(&bytes[..]);
            let message = header.map_or(Message::Gossip, |header| header.message);
            if matches!(message, Message::Ping(_)) {
                probe = Some(Probe { of: to, answered: false });
            }
            // SWIM may still address an earlier identity of this node.
            if to.node != self.me() {
                let is_feed = message == Message::Feed;
                output.sends.push((to.node, if is_feed { shortened(&bytes).unwrap_or(bytes) } else { bytes }));
            }
        }
        if let Some(ended) = probe.and_then(|probe| self.probe.replace(probe)) {
            self.probe_ended(now.instant, &ended, failed);
        }
        while let Some(notification) = out.to_notify() {
            match notification {
                OwnedNotification::Active => self.probes = true,
                OwnedNotification::Idle | OwnedNotification::Defunct => self.stop_probing(),
                OwnedNotification::Rejoin(_) => {
                    self.stop_probing();
                    self.next_renewal = now.instant + RENEW_EVERY;
                    self.strangers = self.known().map(|known| known.node).collect();
                }
                _ => {}
            }
        }
    }

    /// Sets SWIM's timers, and returns the node whose probe has failed.
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

    /// Adopts SWIM's changes of members' states into the verdicts.
    fn adopt_states(&mut self, now: Instant, changed: &[(ListedMember, ListedMember)], is_hearsay: bool) {
        for &((previous, was), (id, state)) in changed {
            self.verdicts.edit(now, id.node, |peer| {
                if previous != id {
                    peer.restarted();
                }
                match (was, state) {
                    (State::Alive, State::Suspect) if is_hearsay => peer.suspect(now, Why::SuspectedByOthers),
                    (State::Alive | State::Suspect, State::Down) => {
                        let own = peer.suspicion == Some(Why::ProbeUnanswered);
                        peer.down = Some(if own { Why::SuspicionConfirmed } else { Why::DeclaredDownByOthers });
                    }
                    // It has refuted the suspicion.
                    (State::Suspect, State::Alive) if peer.suspicion != Some(Why::OnlyOthersReachIt) => {
                        peer.on_response()
                    }
                    _ => {}
                }
            });
        }
    }

    fn probe_ended(&mut self, now: Instant, probe: &Probe, failed: Option<Identity>) {
        if probe.answered || self.current(probe.of.node) != Some(probe.of) {
            return;
        }
        let why = if failed == Some(probe.of) { Why::ProbeUnanswered } else { Why::OnlyOthersReachIt };
        self.verdicts.edit(now, probe.of.node, |peer| peer.suspect(now, why));
    }

    fn stop_probing(&mut self) {
        self.probes = false;
        self.probe = None;
    }

    fn announce(&mut self, now: Now, to: Vec<Identity>, output: &mut DetectorOutput) {
        for id in to {
            self.drive_unchanged(now, output, |swim, out| swim.announce(id, out));
        }
    }

    fn wants_to_reprobe(&self) -> bool {
        self.verdicts.len() > 0 && (!self.probes || self.verdicts.any_unresponsive())
    }

    /// The next nodes to re-probe: those that owe a response, or any while this node does not probe; each in turn. In a
    /// large cluster a node that only others suspect is left to them: otherwise all members would probe it at once.
    fn next_to_reprobe(&mut self) -> Vec<Identity> {
        let is_large = self.verdicts.len() > SMALL_CLUSTER_MAX;
        let is_left_to_others = |peer: &Verdict| {
            is_large && self.probes && peer.down.is_none() && peer.suspicion == Some(Why::SuspectedByOthers)
        };
        let silent = self.verdicts.in_turn(self.reprobed_last, !self.probes);
        let silent = silent.filter(|&node| !self.verdicts.get(node).is_some_and(is_left_to_others));
        let chosen: Vec<Identity> = silent.filter_map(|node| self.current(node)).take(REPROBES).collect();
        if let Some(last) = chosen.last() {
            self.reprobed_last = last.node;
        }
        chosen
    }

    /// The next nodes to introduce itself to, beginning after its own id, so that not all nodes begin with the same
    /// ones.
    fn next_to_introduce(&mut self) -> Vec<Identity> {
        let me = self.me();
        let turn = self.strangers.range(me..).chain(self.strangers.range(..me));
        let chosen: Vec<NodeId> = turn.copied().take(INTRODUCTIONS).collect();
        self.strangers.retain(|node| !chosen.contains(node));
        chosen.into_iter().filter_map(|node| self.current(node)).collect()
    }

    /// The members that SWIM knows, without this node.
    fn known(&self) -> impl Iterator<Item = Identity> + '_ {
        let me = self.me();
        self.swim_members.iter().filter(move |known| known.node != me)
    }

    /// The generation of an incarnation; 0 if it is not the current one, or this node's own.
    fn generation(&self, id: Identity) -> u32 {
        self.current(id.node).filter(|known| known.incarnation == id.incarnation).map_or(0, |known| known.generation)
    }

    fn current(&self, node: NodeId) -> Option<Identity> {
        self.swim_members.get(node).filter(|_| node != self.me())
    }
}

/// The packet with at most [`FEED_MAX`] updates.
fn shortened(bytes: &[u8]) -> Option<Bytes> {
    let mut packet = Packet::decode(bytes).ok()?;
    packet.updates.truncate(FEED_MAX);
    Some(packet.encode().into())
}

/// How long a suspect has to refute in a cluster of so many members.
fn confirm_after(members: usize) -> Duration {
    CONFIRM_AFTER * members.checked_ilog10().unwrap_or_default().max(1)
}

fn swim_config(confirm_after: Duration) -> Config {
    Config {
        probe_period: PROBE_EVERY,
        probe_rtt: PROBE_TIMEOUT,
        num_indirect_probes: NonZeroUsize::new(HELPERS).expect("not zero"),
        max_transmissions: NonZeroU8::new(TRANSMISSIONS).expect("not zero"),
        suspect_to_down_after: confirm_after,
        // A member is removed only when the view says so.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).expect("not zero"),
        notify_down_members: true,
        // The detector announces itself: SWIM does not while it knows of no live node.
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: None,
    }
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("verdicts", &self.verdicts).finish_non_exhaustive()
    }
}
