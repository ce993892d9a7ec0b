//! Which incarnations of its peers a node talks to, in which versions of the protocol, and which of them are connected to it.
//!
//! An incarnation that was replaced never returns. Nor does a data directory that lacks what a peer knows it had: it was restored from a
//! copy ([`crate::data_dir::lineage`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use cartwheel_core::cluster::membership::View;
use cartwheel_core::control::MembersChange;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::wire::{Protocol, Spoken};
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::Welcome;
use super::hello::{HelloError, Remote};
use crate::config::ListenAddr;
use crate::data_dir::lineage::{Known, Mark};
use crate::data_dir::{SeenBoots, SeenFile};

/// For how many incarnations of a node boots are kept. There is more than one only while the change to a new one travels.
const INCARNATIONS_MAX: usize = 8;
/// For how many shards of a node marks are kept.
const SHARDS_MAX: usize = 1024;
/// How often the peers' marks are saved. Until then only this process knows them, so a crash may let an old copy pass.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long to watch a node that seems to run while its directory is to be served elsewhere, and the last part of that time in which it must
/// have sent something: what it sent before it died may arrive late.
const WATCHED: Duration = Duration::from_millis(2_500);
const SILENT: Duration = Duration::from_millis(1_250);
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// How long recording a peer's address may take.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// The versions of the protocol that members speak, as they last reported; members that have not reported are absent.
pub type PeersSpeak = BTreeMap<NodeId, Spoken>;

/// What a node knows of its peers' incarnations. Clones share it; the default knows nothing and accepts every peer.
#[derive(Clone, Debug, Default)]
pub struct KnownPeers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    view: Option<watch::Receiver<Arc<View>>>,
    file: Option<SeenFile>,
    seen: Mutex<SeenBoots>,
    /// The highest marks of the incarnations in `seen` since the last save.
    marks: std::sync::Mutex<BTreeMap<(NodeId, Incarnation), Vec<Mark>>>,
    /// The incarnations that are connected to this node.
    live: std::sync::Mutex<BTreeMap<(NodeId, Incarnation), Arc<Live>>>,
    retired: watch::Sender<Option<Retired>>,
    /// The lowest version of the protocol that this node accepts, if it is not the build's own.
    oldest: watch::Sender<Option<Protocol>>,
    spoken: watch::Sender<PeersSpeak>,
    welcome: OnceLock<Welcome>,
}

/// An incarnation of a node that has connections to this one.
#[derive(Debug, Default)]
struct Live {
    connections: AtomicUsize,
    frames: AtomicU64,
}

/// A connection that a peer has dialled, until this is dropped.
#[derive(Debug)]
pub(super) struct Connected {
    live: Arc<Live>,
    known_peers: KnownPeers,
    of: (NodeId, Incarnation),
}

impl Connected {
    /// Records that the peer sent something.
    pub(super) fn received(&self) {
        self.live.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the peer has synced a commit of one of its shards' stores.
    pub(super) fn marked(&self, shard: u32, mark: Mark) {
        let shard = shard as usize;
        let mut marks = self.known_peers.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = marks.get_mut(&self.of).filter(|_| shard < SHARDS_MAX) {
            if known.len() <= shard {
                known.resize(shard + 1, Mark::default());
            }
            known[shard] = known[shard].max(mark);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut live = self.known_peers.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            live.remove(&self.of);
        }
    }
}

/// Why a data directory must not be served again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retired {
    /// It is an old copy: a peer has seen a later boot of it.
    OldCopy,
    /// The node has a new incarnation in another directory, or was removed.
    Replaced,
}

impl KnownPeers {
    /// Starts with `seen`, and saves changes to `file`.
    pub fn new(view: watch::Receiver<Arc<View>>, file: SeenFile, seen: SeenBoots) -> Self {
        let marks = seen.iter().map(|(&of, known)| (of, known.marks.clone())).collect();
        let (seen, marks, live) = (Mutex::new(seen), std::sync::Mutex::new(marks), std::sync::Mutex::default());
        Self(Arc::new(Inner {
            view: Some(view),
            file: Some(file),
            seen,
            marks,
            live,
            retired: watch::Sender::default(),
            oldest: watch::Sender::default(),
            spoken: watch::Sender::default(),
            welcome: OnceLock::new(),
        }))
    }

    /// The versions of the protocol that this node speaks.
    pub fn spoken(&self) -> Spoken {
        let oldest = self.0.oldest.borrow().unwrap_or(Protocol::OLDEST);
        Spoken { oldest, ..Spoken::BY_THIS_BUILD }
    }

    /// Raises the lowest accepted version to `oldest`: its features are in use, and a node that does not know them must not receive them.
    pub fn speak_from(&self, oldest: Protocol) {
        self.0.oldest.send_if_modified(|spoken| {
            let is_later = spoken.unwrap_or(Protocol::OLDEST) < oldest;
            *spoken = (*spoken).max(Some(oldest.max(Protocol::OLDEST)));
            is_later
        });
    }

    /// The versions that the members speak, as they last reported.
    pub fn peers_speak(&self) -> watch::Receiver<PeersSpeak> {
        self.0.spoken.subscribe()
    }

    /// Sets the response to nodes that ask to join.
    pub fn welcome_with(&self, welcome: Welcome) {
        let _ = self.0.welcome.set(welcome);
    }

    pub(super) fn welcome(&self) -> Option<&Welcome> {
        self.0.welcome.get()
    }

    /// Records the addresses of an admitted peer for the whole cluster, if they have changed. The peer may not be able to do that itself:
    /// responses go to its old address.
    pub(super) fn record_address(&self, remote: &Remote) {
        let (Some(welcome), Some(view)) = (self.welcome(), &self.0.view) else { return };
        let Remote { node, incarnation, ref peer_addr, ref http_addr, opens, .. } = *remote;
        let Some(moved) = view.borrow().moved(node, incarnation, peer_addr, http_addr, None) else { return };
        let is_place = |addr: &str| addr.parse::<ListenAddr>().is_ok_and(|addr| addr.is_specific());
        if opens || !is_place(peer_addr) || !is_place(http_addr) {
            return;
        }
        info!(peer = %remote.name, peer_addr, http_addr, "peer reports new addresses");
        let (control, change) =
            (welcome.control.clone(), MembersChange { changes: vec![moved], planned_on: None, timeout: NOTED_WITHIN });
        // If it fails, the peer reports its addresses again when it next connects.
        tokio::spawn(async move { drop(control.change_members(change).await) });
    }

    /// Checks whether to talk to the other side of a connection. A new boot is saved before the peer gets any response.
    pub(super) async fn admit(&self, remote: &Remote) -> Result<(), HelloError> {
        let Some(view) = self.0.view.as_ref().map(|view| view.borrow().clone()) else { return Ok(()) };
        let Remote { node, incarnation, boot, opens, .. } = *remote;
        if view.is_gone(node, incarnation) {
            return Err(HelloError::Replaced { name: remote.name.clone() });
        }
        // A running original is told apart from a dead one before its marks are judged.
        if opens && self.is_served_elsewhere(node, incarnation).await {
            return Err(HelloError::Runs { name: remote.name.clone() });
        }
        let mut seen = self.0.seen.lock().await;
        let known = self.known(&seen, node, incarnation);
        if let Some(known) = &known
            && let Err(why) = remote.lineage.judge(boot, known)
        {
            return Err(HelloError::OldCopy { name: remote.name.clone(), why });
        }
        if opens {
            return Ok(());
        }
        self.note_spoken(&view, remote);
        let drawn = remote.lineage.boots().last().map_or(0, |begun| begun.drawn);
        if known.as_ref().is_some_and(|known| (known.boot, known.drawn) == (boot, drawn)) {
            return Ok(());
        }
        seen.retain(|&(node, incarnation), _| !view.is_gone(node, incarnation));
        if has_room(&seen, &view, node, incarnation) {
            let marks = known.map(|known| known.marks).unwrap_or_default();
            seen.insert((node, incarnation), Known { boot, drawn, marks: marks.clone() });
            self.marks().entry((node, incarnation)).or_insert(marks);
            self.save(&seen).await;
        }
        self.marks().retain(|of, _| seen.contains_key(of));
        Ok(())
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, Incarnation), Vec<Mark>>> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The least that an incarnation must have.
    fn known(&self, seen: &SeenBoots, node: NodeId, incarnation: Incarnation) -> Option<Known> {
        let known = seen.get(&(node, incarnation))?.clone();
        let marks = self.marks().get(&(node, incarnation)).cloned().unwrap_or(known.marks);
        Some(Known { marks, ..known })
    }

    /// Registers a connection of a peer until the result is dropped.
    pub(super) fn connected(&self, remote: &Remote) -> Connected {
        let of = (remote.node, remote.incarnation);
        let mut all = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let live = all.entry(of).or_default().clone();
        live.connections.fetch_add(1, Ordering::Relaxed);
        Connected { live, known_peers: self.clone(), of }
    }

    /// Whether a node is running and goes on sending. A connection whose other end has died breaks or falls silent.
    async fn is_served_elsewhere(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let find = || self.0.live.lock().unwrap_or_else(PoisonError::into_inner).get(&(node, incarnation)).cloned();
        let Some(live) = find() else { return false };
        let begun = tokio::time::Instant::now();
        let mut frames = 0;
        while begun.elapsed() < WATCHED {
            if live.connections.load(Ordering::Relaxed) == 0 {
                return false;
            }
            if begun.elapsed() < WATCHED - SILENT {
                frames = live.frames.load(Ordering::Relaxed);
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
        live.frames.load(Ordering::Relaxed) > frames
    }

    /// Saves the peers' marks from time to time, and once more when `stop` is true.
    pub async fn keep_marks(self, mut stop: watch::Receiver<bool>) {
        loop {
            let stops = tokio::time::timeout(SAVE_EVERY, stop.wait_for(|stop| *stop)).await.is_ok();
            self.save_marks().await;
            if stops {
                return;
            }
        }
    }

    /// Saves the peers' marks, if they have changed.
    pub async fn save_marks(&self) {
        let mut seen = self.0.seen.lock().await;
        let mut is_news = false;
        for (of, marks) in self.marks().iter() {
            if let Some(known) = seen.get_mut(of).filter(|known| known.marks != *marks) {
                known.marks.clone_from(marks);
                is_news = true;
            }
        }
        if is_news {
            self.save(&seen).await;
        }
    }

    /// Records what a member speaks. Others are ignored: any program that reaches the port could claim any number of nodes.
    fn note_spoken(&self, view: &View, remote: &Remote) {
        self.0.spoken.send_if_modified(|spoken| {
            spoken.retain(|&node, _| view.member(node).is_some());
            view.member(remote.node).is_some() && spoken.insert(remote.node, remote.spoken) != Some(remote.spoken)
        });
    }

    /// Waits until an admitted peer must be refused, for its incarnation or its versions.
    pub(super) async fn refused(&self, remote: &Remote) {
        tokio::select! {
            () = self.incarnation_refused(remote) => {}
            () = self.outgrows(remote.spoken) => {}
        }
    }

    /// Waits until this node accepts no version that the peer speaks.
    async fn outgrows(&self, spoken: Spoken) {
        let mut oldest = self.0.oldest.subscribe();
        let outgrown = oldest.wait_for(|oldest| oldest.is_some_and(|oldest| oldest > spoken.newest)).await.is_ok();
        // The sender lives in `self`, so the channel cannot close.
        if !outgrown {
            std::future::pending().await
        }
    }

    async fn incarnation_refused(&self, remote: &Remote) {
        if let Some(mut view) = self.0.view.clone()
            && view.wait_for(|view| view.is_gone(remote.node, remote.incarnation)).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    async fn save(&self, seen: &SeenBoots) {
        let Some(file) = self.0.file.clone() else { return };
        let seen = seen.clone();
        match tokio::task::spawn_blocking(move || file.save(&seen)).await {
            Ok(Ok(())) => {}
            // The node serves all the same, and remembers the boots until its own next boot.
            Ok(Err(error)) => warn!(%error, "cannot save the boots of peers"),
            Err(_) => warn!("cannot save the boots of peers: the task failed"),
        }
    }

    /// Records that a peer refuses this node's own directory.
    pub(super) fn retire(&self, why: Retired, peer: &str) {
        let is_new = self.0.retired.send_if_modified(|retired| retired.replace(why).is_none());
        if is_new {
            warn!(peer, why = why.text(), "a peer refuses this node");
        }
    }

    /// Waits until this node's own directory must not be served again.
    pub async fn retired(&self) -> Retired {
        let mut retired = self.0.retired.subscribe();
        let found = retired.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        // The sender lives in `self`, so the channel cannot close.
        match found {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}

impl Retired {
    /// The reason, for operators.
    pub const fn text(self) -> &'static str {
        match self {
            Self::OldCopy => "its data directory is an old copy: it lacks writes that another node knows it had",
            Self::Replaced => "its data directory was replaced by another one, or the node was removed",
        }
    }
}

/// Whether a boot may be kept: only members' boots are, and a few incarnations of each. Any program that reaches the port could claim more.
fn has_room(seen: &SeenBoots, view: &View, node: NodeId, incarnation: Incarnation) -> bool {
    let incarnations = seen.range((node, Incarnation(0))..=(node, Incarnation(u64::MAX))).count();
    view.member(node).is_some() && (seen.contains_key(&(node, incarnation)) || incarnations < INCARNATIONS_MAX)
}
