//! The code under test: a node's [`Reconfiguration`], created anew for each of its actions.
//!
//! The partition state is all that a node must not lose. What it has heard since it started (ended exchanges, homes
//! that reported to be synced) is given to it again here. So between two actions, the model's state is the only state.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::admission::Admission;
use cartwheel_core::anti_entropy::Compared;
use cartwheel_core::cluster::configuration::{ConfigStamp, ConfigVersion, Home};
use cartwheel_core::cluster::counts::Group;
use cartwheel_core::cluster::holdings::Holdings;
use cartwheel_core::cluster::liveness::{Liveness, PeerStatus, Status, Why};
use cartwheel_core::cluster::membership::Durability;
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::cluster::sizes::TreeId;
use cartwheel_core::config::{Limits, NodeConfig, Timing};
use cartwheel_core::message::Message;
use cartwheel_core::message::reconfiguration::ReconfigurationMessage;
use cartwheel_core::mutation::Broken;
use cartwheel_core::outbox::Outbox;
use cartwheel_core::reconfiguration::transfer::Transfers;
use cartwheel_core::reconfiguration::{Comparisons, Reconfiguration, ReconfigurationCalls, ReconfigurationContext};
use cartwheel_core::replica::Replica;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::command::{StoreCommand, StoreResult};
use cartwheel_core::store::record::{ActorsSince, Minter};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{NodeId, Since};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::{HlcClock, WallMs};
use cartwheel_core::value::time::Instant;
use cartwheel_core::wire::context::ClusterKey;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::model::Machine;
use super::setup::Setup;

/// The time of all actions. An exchange began before or after it.
const NOW: Instant = Instant(1_000_000_000);

/// What a node remembers of an exchange with a home, until it crashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seen {
    /// The other home's version when it began.
    pub version: ConfigVersion,
    /// Whether the other was synced.
    pub synced: bool,
    /// Whether it began after this node had retired as a home.
    pub is_since_left: bool,
}

/// The remembered exchanges. For keys of other buckets, exchanges have always succeeded.
struct Remembered<'a> {
    group: Group,
    seen: &'a BTreeMap<NodeId, Seen>,
}

impl Comparisons for Remembered<'_> {
    fn compared(&self, tree: TreeId, peer: NodeId) -> Option<Compared> {
        let ended = |version: ConfigVersion, synced: bool, is_since_left: bool| Compared {
            begun: if is_since_left { NOW + Duration::from_secs(1) } else { Instant(0) },
            is_recovered: synced,
            config_stamp: ConfigStamp { version, is_syncing: !synced, ..ConfigStamp::default() },
        };
        if tree.group != self.group {
            return Some(ended(ConfigVersion(u64::MAX), true, true));
        }
        self.seen.get(&peer).map(|seen| ended(seen.version, seen.synced, seen.is_since_left))
    }

    fn compare_soon(&mut self, _: Instant, _: TreeId, _: NodeId) {}

    fn hold_back(&mut self, _: Instant, _: PartitionId, _: bool) {}
}

thread_local! {
    /// It only gives numbers to store commands.
    static REPLICA: RefCell<Option<(NodeConfig, Replica, Admission)>> = const { RefCell::new(None) };
}

fn idle_replica(held: &Holdings) -> (NodeConfig, Replica, Admission) {
    let Home { node, incarnation } = held.me();
    let config = NodeConfig {
        cluster: ClusterId(1),
        cluster_key: ClusterKey::derive(b"secret"),
        node,
        incarnation,
        boot: 1,
        shard_id: ShardId::ONLY,
        loss_floor: Since(0),
        durability: Durability::Fsync,
        actors: ActorsSince { boot: 1, drawn: 1 },
        seed: 1,
        timing: Timing::default(),
        limits: Limits::default(),
        partition_states: Vec::new(),
        losses: cartwheel_core::store::loss_book::LossBook::default(),
        epoch: Epoch::FIRST,
        all_speak: cartwheel_core::wire::Protocol::NEWEST,
        broken: Broken::default(),
    };
    let minter = Minter::new(node, incarnation, 1, config.actors);
    let replica = Replica::new(minter, HlcClock::new(), &config, Arc::new(held.clone()));
    let admission = Admission::new(config.timing.background_p99_target);
    (config, replica, admission)
}

/// All that decides what a node does when it attends to the partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Situation {
    pub slot: usize,
    pub view: u8,
    pub partition_state: Arc<PartitionState>,
    pub compared: BTreeMap<NodeId, Seen>,
    pub synced: Arc<BTreeSet<(Home, u64)>>,
}

/// The result of an action.
#[derive(Debug)]
pub struct Done {
    /// The new partition state.
    pub partition_state: PartitionState,
    /// Whether it has adopted a state that it had not saved.
    pub is_unsaved: bool,
    /// The messages that it has sent.
    pub said: Vec<(NodeId, ReconfigurationMessage)>,
}

/// One node during one action.
pub struct Stage<'a> {
    setup: &'a Setup,
    held: Holdings,
    seen: &'a BTreeMap<NodeId, Seen>,
    liveness: Liveness,
    reconfiguration: Reconfiguration,
    random: ChaCha8Rng,
    /// The new partition state.
    pub partition_state: PartitionState,
    /// Whether it has adopted a state that it had not saved.
    pub is_unsaved: bool,
    /// The messages that it has sent.
    pub said: Vec<(NodeId, ReconfigurationMessage)>,
}

impl<'a> Stage<'a> {
    /// The node in a slot, which has heard which homes are synced, and considers these nodes down.
    pub fn new(
        setup: &'a Setup,
        slot: usize,
        machine: &'a Machine,
        synced: &BTreeSet<(Home, u64)>,
        down: &[NodeId],
    ) -> Self {
        let held = setup.held(slot, machine.view, &machine.partition_state);
        let peer_status = PeerStatus { status: Status::Down, since: WallMs(0), why: Why::SuspicionConfirmed };
        let mut stage = Self {
            setup,
            liveness: Liveness::new(down.iter().map(|&node| (node, peer_status))),
            reconfiguration: Reconfiguration::new(held.me(), [setup.partition]),
            held,
            seen: &machine.compared,
            random: ChaCha8Rng::seed_from_u64(1),
            partition_state: PartitionState::clone(&machine.partition_state),
            is_unsaved: false,
            said: Vec::new(),
        };
        stage.reconfiguration.review(NOW, &stage.held);
        let (me, partition) = (stage.held.me(), setup.partition);
        for &(home, number) in synced.iter().filter(|(home, _)| *home != me) {
            stage.act(|reconfiguration, cx| {
                reconfiguration.heard(cx, home, partition, ReconfigurationMessage::Synced(number))
            });
        }
        stage
    }

    /// The result of the action.
    pub fn done(self) -> Done {
        Done { partition_state: self.partition_state, is_unsaved: self.is_unsaved, said: self.said }
    }

    /// Delivers a message.
    pub fn hear(&mut self, from: Home, message: ReconfigurationMessage) {
        let partition = self.setup.partition;
        self.act(|reconfiguration, cx| reconfiguration.heard(cx, from, partition, message));
    }

    /// Attends to the partition.
    pub fn tick(&mut self) {
        self.act(|reconfiguration, cx| reconfiguration.tick(cx));
    }

    /// Runs an action, and saves what it wants to save.
    fn act(&mut self, act: impl FnOnce(&mut Reconfiguration, &mut ReconfigurationContext<'_>)) {
        let mut out = Outbox::default();
        self.with(&mut out, act);
        loop {
            let Outbox { sends, stores, calls, .. }: Outbox<ReconfigurationCalls> = std::mem::take(&mut out);
            self.said.extend(sends.into_iter().filter_map(|(to, _, message)| match message {
                Message::Reconfiguration(_, message) => Some((to, message)),
                _ => None,
            }));
            for (_, partition_state) in calls.adopted {
                self.is_unsaved = true;
                self.take(partition_state);
            }
            let mut partition_states =
                stores.iter().filter(|(_, command)| matches!(command, StoreCommand::Remember { .. }));
            let Some(&(id, _)) = partition_states.next() else { return };
            assert!(partition_states.next().is_none(), "one partition state is saved at a time");
            self.with(&mut out, |reconfiguration, cx| reconfiguration.stored(cx, id, StoreResult::Written(Ok(()))));
            for (_, partition_state) in std::mem::take(&mut out.calls.adopted) {
                self.is_unsaved = false;
                self.take(partition_state);
            }
        }
    }

    fn take(&mut self, partition_state: PartitionState) {
        self.held.take(self.setup.partition, partition_state.clone());
        self.partition_state = partition_state;
    }

    fn with(
        &mut self,
        out: &mut Outbox<ReconfigurationCalls>,
        act: impl FnOnce(&mut Reconfiguration, &mut ReconfigurationContext<'_>),
    ) {
        REPLICA.with_borrow_mut(|replica| {
            let (config, replica, admission) = replica.get_or_insert_with(|| idle_replica(&self.held));
            let mut cx = ReconfigurationContext {
                now: NOW,
                held: &self.held,
                liveness: &self.liveness,
                exchange: &mut Remembered { group: self.setup.group, seen: self.seen },
                // Transfers are not modelled: a candidate's report stands for an ended one.
                transfers: &mut Transfers::new(config),
                replica,
                admission,
                random: &mut self.random,
                broken: self.setup.broken(),
                out,
            };
            act(&mut self.reconfiguration, &mut cx);
        });
    }
}
