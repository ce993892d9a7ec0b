//! Which incarnations of its peers a node talks to and in which versions of the protocol, and whether they talk to it.
//!
//! An incarnation that was replaced never returns. Nor does a data directory that lacks what a peer knows it to have had: it was put back from a
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

/// Of how many incarnations of one node the boots are remembered. More than one is there only while the news of a replacement travels.
const INCARNATIONS_MAX: usize = 8;
/// Of how many shards of a node marks are remembered.
const SHARDS_MAX: usize = 1024;
/// How often it is saved how far peers have come. Until then only this process knows, so an old copy goes unnoticed if it dies meanwhile.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a node is watched that seems to run while its directory is to be served elsewhere, and in what part of that, the last, it must
/// have said something: what it said before it died may arrive later.
const WATCHED: Duration = Duration::from_millis(2_500);
const SILENT: Duration = Duration::from_millis(1_250);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long it may take to record where a peer is.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// The versions of the protocol that members speak, as they last said; none of those that have said nothing yet.
pub type PeersSpeak = BTreeMap<NodeId, Spoken>;

/// What a node knows of its peers' incarnations. Clones are one; the default knows nothing and takes everybody for what he says he is.
#[derive(Clone, Debug, Default)]
pub struct Acquaintances(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    view: Option<watch::Receiver<Arc<View>>>,
    file: Option<SeenFile>,
    seen: Mutex<SeenBoots>,
    /// The highest marks of those that are in `seen`, as they were heard since the last save.
    marks: std::sync::Mutex<BTreeMap<(NodeId, Incarnation), Vec<Mark>>>,
    /// Who has connections here.
    live: std::sync::Mutex<BTreeMap<(NodeId, Incarnation), Arc<Live>>>,
    retired: watch::Sender<Option<Retired>>,
    /// The lowest version of the protocol that is spoken, if it is not the build's own.
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

/// A connection that a peer has dialled, as long as this is kept.
#[derive(Debug)]
pub(super) struct Connected {
    live: Arc<Live>,
    acquaintances: Acquaintances,
    of: (NodeId, Incarnation),
}

impl Connected {
    /// The peer has said something.
    pub(super) fn heard(&self) {
        self.live.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// The peer has synced a commit of one of its shards' stores.
    pub(super) fn marked(&self, shard: u32, mark: Mark) {
        let shard = shard as usize;
        let mut marks = self.acquaintances.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut live = self.acquaintances.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            live.remove(&self.of);
        }
    }
}

/// Why a data directory must not be served any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retired {
    /// It is an old copy: a peer has seen a later boot of it.
    OldCopy,
    /// The node has a new incarnation in another directory, or was removed.
    Replaced,
}

impl Acquaintances {
    /// What is known from now on, to begin with `seen`, and kept in `file`.
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

    /// From now on no version below `oldest` is spoken: what came with it is in use, and none may be told of it who does not know it.
    pub fn speak_from(&self, oldest: Protocol) {
        self.0.oldest.send_if_modified(|spoken| {
            let is_later = spoken.unwrap_or(Protocol::OLDEST) < oldest;
            *spoken = (*spoken).max(Some(oldest.max(Protocol::OLDEST)));
            is_later
        });
    }

    /// What the members speak, as they last said.
    pub fn peers_speak(&self) -> watch::Receiver<PeersSpeak> {
        self.0.spoken.subscribe()
    }

    /// From now on, who asks to be let in is told this.
    pub fn welcome_with(&self, welcome: Welcome) {
        let _ = self.0.welcome.set(welcome);
    }

    pub(super) fn welcome(&self) -> Option<&Welcome> {
        self.0.welcome.get()
    }

    /// A peer that was admitted says where it is found: if that is news, the cluster is to know. It may not be able to say so itself, for the
    /// answers to what it says go to where it was before.
    pub(super) fn is_found_at(&self, remote: &Remote) {
        let (Some(welcome), Some(view)) = (self.welcome(), &self.0.view) else { return };
        let Remote { node, incarnation, ref peer_addr, ref http_addr, opens, .. } = *remote;
        let Some(moved) = view.borrow().moved(node, incarnation, peer_addr, http_addr) else { return };
        let is_place = |addr: &str| addr.parse::<ListenAddr>().is_ok_and(|addr| addr.is_one_place());
        if opens || !is_place(peer_addr) || !is_place(http_addr) {
            return;
        }
        info!("{} is at {peer_addr} for peers and at {http_addr} for HTTP, as it says itself", remote.name);
        let (control, change) =
            (welcome.control.clone(), MembersChange { changes: vec![moved], planned_on: None, timeout: NOTED_WITHIN });
        // If it comes to nothing, the peer says so again when it next connects.
        tokio::spawn(async move { drop(control.change_members(change).await) });
    }

    /// Whether the other side of a connection is to be talked to. A boot that is new is remembered before it hears anything.
    pub(super) async fn admit(&self, remote: &Remote) -> Result<(), HelloError> {
        let Some(view) = self.0.view.as_ref().map(|view| view.borrow().clone()) else { return Ok(()) };
        let Remote { node, incarnation, boot, opens, .. } = *remote;
        if view.is_gone(node, incarnation) {
            return Err(HelloError::Replaced { name: remote.name.clone() });
        }
        // An original that runs is told from one that has died before anything is decided on what it has said.
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

    /// How far an incarnation has come at the least.
    fn known(&self, seen: &SeenBoots, node: NodeId, incarnation: Incarnation) -> Option<Known> {
        let known = seen.get(&(node, incarnation))?.clone();
        let marks = self.marks().get(&(node, incarnation)).cloned().unwrap_or(known.marks);
        Some(Known { marks, ..known })
    }

    /// A peer has a connection to this node, as long as what this returns is kept.
    pub(super) fn connected(&self, remote: &Remote) -> Connected {
        let of = (remote.node, remote.incarnation);
        let mut all = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let live = all.entry(of).or_default().clone();
        live.connections.fetch_add(1, Ordering::Relaxed);
        Connected { live, acquaintances: self.clone(), of }
    }

    /// Whether a node is there, and goes on speaking. A connection whose other end has died breaks, or falls silent.
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
            tokio::time::sleep(LOOK_EVERY).await;
        }
        live.frames.load(Ordering::Relaxed) > frames
    }

    /// Saves from time to time how far peers have come, and once more when `stop` is true.
    pub async fn keep_marks(self, mut stop: watch::Receiver<bool>) {
        loop {
            let stops = tokio::time::timeout(SAVE_EVERY, stop.wait_for(|stop| *stop)).await.is_ok();
            self.save_marks().await;
            if stops {
                return;
            }
        }
    }

    /// Saves how far peers have come, if that is news.
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

    /// Only of members: whoever reaches the port may claim to be as many as he likes.
    fn note_spoken(&self, view: &View, remote: &Remote) {
        self.0.spoken.send_if_modified(|spoken| {
            spoken.retain(|&node, _| view.member(node).is_some());
            view.member(remote.node).is_some() && spoken.insert(remote.node, remote.spoken) != Some(remote.spoken)
        });
    }

    /// Waits until a peer that was admitted is refused: its incarnation, or what it speaks.
    pub(super) async fn refused(&self, remote: &Remote) {
        tokio::select! {
            () = self.incarnation_refused(remote) => {}
            () = self.outgrows(remote.spoken) => {}
        }
    }

    /// Waits until nothing of what a peer speaks is spoken here any more.
    async fn outgrows(&self, spoken: Spoken) {
        let mut oldest = self.0.oldest.subscribe();
        let outgrown = oldest.wait_for(|oldest| oldest.is_some_and(|oldest| oldest > spoken.newest)).await.is_ok();
        // The sender is in here.
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
            // It serves all the same, and remembers until its own next boot.
            Ok(Err(error)) => warn!("which boots of its peers this node has seen could not be saved: {error}"),
            Err(_) => warn!("which boots of its peers this node has seen could not be saved"),
        }
    }

    /// A peer has said that this node's own directory must not be served.
    pub(super) fn retire(&self, why: Retired, who_says_so: &str) {
        let told = self.0.retired.send_if_modified(|retired| retired.replace(why).is_none());
        if told {
            warn!("{who_says_so} refuses this node: {}", why.told());
        }
    }

    /// Waits until this node's own directory must not be served any more.
    pub async fn retired(&self) -> Retired {
        let mut retired = self.0.retired.subscribe();
        let found = retired.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        // The sender is in here.
        match found {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}

impl Retired {
    /// What an operator is told.
    pub const fn told(self) -> &'static str {
        match self {
            Self::OldCopy => "its data directory is an old copy, for it lacks what another node knows it to have had",
            Self::Replaced => "its data directory was replaced by another one, or the node was removed",
        }
    }
}

/// Only members are remembered, and of each a few incarnations: whoever reaches the port may claim as many as he likes.
fn has_room(seen: &SeenBoots, view: &View, node: NodeId, incarnation: Incarnation) -> bool {
    let incarnations = seen.range((node, Incarnation(0))..=(node, Incarnation(u64::MAX))).count();
    view.member(node).is_some() && (seen.contains_key(&(node, incarnation)) || incarnations < INCARNATIONS_MAX)
}
