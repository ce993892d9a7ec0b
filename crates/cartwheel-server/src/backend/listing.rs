//! Lists of keys, sizes of buckets, and emptying, over all shards of the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_core::cluster::sizes::Size;
use cartwheel_core::control::{Changed, NewForm, SettingsChange};
use cartwheel_core::message::client::{Consistency, Get, Operation, Refusal, Reply, Request};
use cartwheel_core::message::listing::{KEYS_MAX, ListRequest, Listed, ListedKey, Listing, earlier, page};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::position::Position;
use cartwheel_core::wire::Protocol;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Backend, NotDone};
use crate::os::clock;

/// How many keys on which replicas differ are read at once.
const READS_AT_ONCE: usize = 16;

/// Which keys of a bucket are wanted.
#[derive(Clone, Debug)]
pub struct KeysWanted {
    /// The bucket.
    pub bucket: Bytes,
    /// Where the page begins.
    pub after: Position,
    /// What the names begin with.
    pub prefix: Bytes,
    /// The most keys, at most [`KEYS_MAX`].
    pub limit: usize,
    /// How many replicas of each partition are asked.
    pub r: u8,
    /// How long the client waits.
    pub timeout: Duration,
}

/// A page of a bucket's keys, in the order of their tokens.
#[derive(Clone, Debug)]
pub struct KeysPage {
    /// The keys.
    pub keys: Vec<Key>,
    /// Where the next page begins; none after the last.
    pub next: Option<Position>,
}

impl Backend {
    /// A page of a bucket's keys.
    ///
    /// # Errors
    /// If too few homes answer, the bucket keeps no index, or the node stops.
    pub async fn keys(&self, wanted: KeysWanted) -> Result<KeysPage, NotDone> {
        let begun = Instant::now();
        let KeysWanted { bucket, after, prefix, limit, r, timeout } = wanted;
        let limit = limit.clamp(1, KEYS_MAX as usize);
        let generation = self.view.borrow().form(&bucket).generation;
        let listing = Listing::Keys { bucket, generation, after, prefix, keys_max: limit as u32 };
        let (mut keys, mut next) = (Vec::new(), None::<Position>);
        for listed in self.list(ListRequest { listing, r, timeout }).await? {
            if let Listed::Keys { keys: more, next: upto } = listed {
                keys.extend(more);
                next = earlier(next, upto);
            }
        }
        keys.sort_unstable_by(|a: &ListedKey, b| a.key.cmp(&b.key));
        let next = page(&mut keys, next, limit);
        let left = timeout.saturating_sub(begun.elapsed());
        let live = |listed: ListedKey| async move {
            let is_live = listed.is_agreed || self.has_value(&listed.key, r, left).await?;
            Ok::<_, NotDone>(is_live.then_some(listed.key))
        };
        let live: Vec<Option<Key>> = stream::iter(keys).map(live).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(KeysPage { keys: live.into_iter().flatten().collect(), next })
    }

    /// Whether a get of a key shows a value.
    async fn has_value(&self, key: &Key, r: u8, timeout: Duration) -> Result<bool, NotDone> {
        let get =
            Get { key: key.clone(), consistency: Consistency::Eventual, r: Some(r), seen: None, wants_context: false };
        let request = Request { operation: Operation::Get(get), timeout };
        match self.request(request, None).await? {
            Reply::Got(got) => Ok(got.live(clock::wall()).next().is_some()),
            Reply::Put(_) | Reply::Inspected(_) => Ok(true),
        }
    }

    /// The sizes of all buckets that hold data: of one replica of each partition. Values that have expired count until they are collected.
    ///
    /// # Errors
    /// If no home of some partition has counted its keys, or the node stops.
    pub async fn bucket_sizes(&self, timeout: Duration) -> Result<BTreeMap<Bytes, Size>, NotDone> {
        let mut all = BTreeMap::<Bytes, Size>::new();
        for listed in self.list(ListRequest { listing: Listing::Sizes, r: 1, timeout }).await? {
            if let Listed::Sizes(sizes) = listed {
                sizes.into_iter().for_each(|(bucket, size)| *all.entry(bucket).or_default() += size);
            }
        }
        Ok(all)
    }

    async fn list(&self, request: ListRequest) -> Result<Vec<Listed>, NotDone> {
        let listed = self.shards.list(&request).await.map_err(|_| NotDone::Stopped)?;
        listed.into_iter().map(|listed| listed.map_err(NotDone::from)).collect()
    }

    /// Changes a bucket's settings, and empties it if the change says so.
    ///
    /// # Errors
    /// If the change is refused, or not saved in time.
    pub async fn change_bucket(&self, change: SettingsChange) -> Result<Changed, NotDone> {
        if change.empties.is_some() && self.upgrade.borrow().all_speak < Protocol::KEY_INDEX {
            let why = "some nodes run a build that cannot empty buckets: finish the upgrade, then try again";
            return Err(Refusal::unavailable(why).into());
        }
        let changed = self.control.change(change).await.map_err(|_| NotDone::Stopped)?;
        Ok(changed?)
    }

    /// Empties a bucket, which keeps its settings.
    ///
    /// # Errors
    /// If the change is refused, or not saved in time.
    pub async fn empty_bucket(&self, bucket: Bytes, timeout: Duration) -> Result<Changed, NotDone> {
        let form = self.view.borrow().form(&bucket);
        let empties = Some(NewForm { placement: form.generation.placement, is_indexed: form.is_indexed });
        self.change_bucket(SettingsChange { bucket, settings: Default::default(), empties, timeout }).await
    }
}
