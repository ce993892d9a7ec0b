//! Which lives of its peers a node talks to and in which versions of the protocol, and whether they talk to it.
//!
//! A life that was replaced never returns. Nor does a boot that is over: a data directory that says a lower boot than a peer has
//! seen was put back from a copy.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use cartwheel_core::dot::{Life, NodeId};
use cartwheel_core::membership::View;
use cartwheel_core::wire::{Protocol, Spoken};
use tokio::sync::{Mutex, watch};
use tracing::warn;

use super::Welcome;
use super::hello::{HelloError, Remote};
use crate::data_dir::{SeenBoots, SeenFile};

/// Of how many lives of one node the boots are remembered. More than one is there only while the news of a replacement travels.
const LIVES_MAX: usize = 8;

/// The versions of the protocol that members speak, as they last said; none of those that have said nothing yet.
pub type PeersSpeak = BTreeMap<NodeId, Spoken>;

/// What a node knows of its peers' lives. Clones are one; the default knows nothing and takes everybody for what he says he is.
#[derive(Clone, Debug, Default)]
pub struct Acquaintances(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    view: Option<watch::Receiver<Arc<View>>>,
    file: Option<SeenFile>,
    seen: Mutex<SeenBoots>,
    retired: watch::Sender<Option<Retired>>,
    /// The lowest version of the protocol that is spoken, if it is not the build's own.
    oldest: watch::Sender<Option<Protocol>>,
    spoken: watch::Sender<PeersSpeak>,
    welcome: OnceLock<Welcome>,
}

/// Why a data directory must not be served any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retired {
    /// It is an old copy: a peer has seen a later boot of it.
    OldCopy,
    /// The node has a new life in another directory, or was removed.
    Replaced,
}

impl Acquaintances {
    /// What is known from now on, to begin with `seen`, and kept in `file`.
    pub fn new(view: watch::Receiver<Arc<View>>, file: SeenFile, seen: SeenBoots) -> Self {
        let seen = Mutex::new(seen);
        Self(Arc::new(Inner {
            view: Some(view),
            file: Some(file),
            seen,
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

    /// Whether the other side of a connection is to be talked to. A boot that is new is remembered before it hears anything.
    pub(super) async fn admit(&self, remote: &Remote) -> Result<(), HelloError> {
        let Some(view) = self.0.view.as_ref().map(|view| view.borrow().clone()) else { return Ok(()) };
        let Remote { node, life, boot, .. } = *remote;
        if view.is_gone(node, life) {
            return Err(HelloError::Replaced { name: remote.name.clone() });
        }
        let mut seen = self.0.seen.lock().await;
        let latest = seen.get(&(node, life)).copied();
        if let Some(latest) = latest.filter(|&latest| boot < latest) {
            return Err(HelloError::OldCopy { name: remote.name.clone(), boot, latest });
        }
        self.note_spoken(&view, remote);
        if latest == Some(boot) {
            return Ok(());
        }
        seen.retain(|&(node, life), _| !view.is_gone(node, life));
        if has_room(&seen, &view, node, life) {
            seen.insert((node, life), boot);
            self.save(&seen).await;
        }
        Ok(())
    }

    /// Only of members: whoever reaches the port may claim to be as many as he likes.
    fn note_spoken(&self, view: &View, remote: &Remote) {
        self.0.spoken.send_if_modified(|spoken| {
            spoken.retain(|&node, _| view.member(node).is_some());
            view.member(remote.node).is_some() && spoken.insert(remote.node, remote.spoken) != Some(remote.spoken)
        });
    }

    /// Waits until a peer that was admitted is refused: its life, or what it speaks.
    pub(super) async fn refused(&self, remote: &Remote) {
        tokio::select! {
            () = self.life_refused(remote) => {}
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

    async fn life_refused(&self, remote: &Remote) {
        if let Some(mut view) = self.0.view.clone()
            && view.wait_for(|view| view.is_gone(remote.node, remote.life)).await.is_ok()
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
            Self::OldCopy => "its data directory is an old copy, for a later boot of it has been seen",
            Self::Replaced => "its data directory was replaced by another one, or the node was removed",
        }
    }
}

/// Only members are remembered, and of each a few lives: whoever reaches the port may claim as many as he likes.
fn has_room(seen: &SeenBoots, view: &View, node: NodeId, life: Life) -> bool {
    let lives = seen.range((node, Life(0))..=(node, Life(u64::MAX))).count();
    view.member(node).is_some() && (seen.contains_key(&(node, life)) || lives < LIVES_MAX)
}
