//! The losses that other nodes have reported to a node.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::cluster::configuration::Home;
use crate::cluster::losses::Losses;
use crate::ring::PartitionId;
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::value::dot::{Incarnation, NodeId, Since};
use crate::value::epoch::{Epoch, KEPT_FOR};
use crate::value::time::Instant;

/// The name under which the store keeps the losses.
pub const NAME: &str = "losses";
const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 36;

/// The most homes of a partition for which losses are noted.
const HOMES_MAX: usize = 64;
/// The delay before a failed save is tried again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// A loss that was reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Noted {
    since: Since,
    /// The epoch in which it was noted. Operations that counted the home before the loss have ended some epochs later.
    epoch: Epoch,
    /// The version of the book in which this last changed.
    version: u64,
}

impl Noted {
    const fn is_over(self, now: Epoch) -> bool {
        self.epoch.0 != Epoch::UNKNOWN.0 && self.epoch.0.saturating_add(KEPT_FOR) <= now.0
    }
}

/// The reported losses, by partition.
#[derive(Clone, Debug, Default)]
pub struct LossBook {
    noted: BTreeMap<(PartitionId, Home), Noted>,
    /// Incremented with each change.
    version: u64,
    saved: u64,
    saving: Option<(StoreId, u64)>,
    retry_at: Instant,
}

impl LossBook {
    /// Decodes the book from its stored form.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, LossesDamaged> {
        let Some((&version, entries)) = bytes.split_first() else { return Ok(Self::default()) };
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        if version != VERSION || !rest.is_empty() {
            return Err(LossesDamaged);
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let entry = |bytes: &[u8; ENTRY_BYTES]| {
            let home =
                Home { node: NodeId::new(number(&bytes[4..12])), incarnation: Incarnation(number(&bytes[12..20])) };
            let noted = Noted { since: Since(number(&bytes[20..28])), epoch: Epoch(number(&bytes[28..])), version: 0 };
            ((PartitionId(number(&bytes[..4]) as u32), home), noted)
        };
        Ok(Self { noted: entries.iter().map(entry).collect(), ..Self::default() })
    }

    fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        for ((partition, home), noted) in &self.noted {
            bytes.extend(partition.0.to_be_bytes());
            for number in [home.node.get(), home.incarnation.0, noted.since.0, noted.epoch.0] {
                bytes.extend(number.to_be_bytes());
            }
        }
        bytes.into()
    }

    /// The known losses of a partition's homes.
    pub fn of(&self, partition: PartitionId, now: Epoch) -> Losses {
        let first = Home { node: NodeId::new(0), incarnation: Incarnation(0) };
        let from_here = self.noted.range((partition, first)..);
        let known = from_here.take_while(|((of, _), _)| *of == partition).filter(|(_, noted)| !noted.is_over(now));
        known.map(|((_, home), noted)| (*home, noted.since)).collect()
    }

    /// The time since which a home has lost nothing, by the latest loss noted for any partition.
    pub fn latest_of(&self, home: Home) -> Since {
        let of_home = self.noted.iter().filter(|((_, noted), _)| *noted == home);
        of_home.map(|(_, noted)| noted.since).max().unwrap_or_default()
    }

    /// Whether a loss of this home can be noted. A healthy cluster never reaches the limit.
    pub fn has_room(&self, partition: PartitionId, home: Home) -> bool {
        let first = Home { node: NodeId::new(0), incarnation: Incarnation(0) };
        let of_partition = self.noted.range((partition, first)..).take_while(|((of, _), _)| *of == partition);
        self.noted.contains_key(&(partition, home)) || of_partition.take(HOMES_MAX).count() < HOMES_MAX
    }

    /// Notes that a home of a partition has lost records before `since`. True if that is already durable.
    pub fn note(&mut self, partition: PartitionId, home: Home, since: Since, now: Epoch) -> bool {
        let known = self.noted.get(&(partition, home)).filter(|noted| noted.since >= since && !noted.is_over(now));
        if let Some(known) = known {
            return known.version <= self.saved;
        }
        self.version += 1;
        self.noted.insert((partition, home), Noted { since, epoch: now, version: self.version });
        false
    }

    /// Notes all losses that another node knows. True if all of them are already durable.
    pub fn absorb(&mut self, partition: PartitionId, losses: &Losses, now: Epoch) -> bool {
        let mut is_durable = true;
        for (home, since) in losses.iter() {
            is_durable &= self.has_room(partition, home) && self.note(partition, home, since, now);
        }
        is_durable
    }

    /// The version of the book. What is noted now is durable once [`Self::stored`] returns this version or a later one.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Begins to save what is not durable, unless a save is under way.
    pub fn save(
        &mut self,
        now: Instant,
        epoch: Epoch,
        next_store: impl FnOnce() -> StoreId,
    ) -> Option<(StoreId, StoreCommand)> {
        if self.saving.is_some() || self.version == self.saved || now < self.retry_at {
            return None;
        }
        self.noted.retain(|_, noted| !noted.is_over(epoch));
        for noted in self.noted.values_mut().filter(|noted| noted.epoch == Epoch::UNKNOWN) {
            noted.epoch = epoch;
        }
        let id = next_store();
        self.saving = Some((id, self.version));
        Some((id, StoreCommand::Remember { name: NAME.into(), value: self.encode() }))
    }

    /// When the next save is due.
    pub fn wake_at(&self) -> Option<Instant> {
        (self.saving.is_none() && self.version > self.saved).then_some(self.retry_at)
    }

    /// Whether the book waits for the result of this store command.
    pub fn waits_for(&self, id: StoreId) -> bool {
        self.saving.is_some_and(|(saving, _)| saving == id)
    }

    /// Takes the result of a save. Returns the version up to which everything is durable; `None` if the save failed.
    pub fn stored(&mut self, now: Instant, result: &StoreResult) -> Option<u64> {
        let (_, version) = self.saving.take()?;
        if *result != StoreResult::Written(Ok(())) {
            self.retry_at = now + RETRY_AFTER;
            return None;
        }
        self.saved = version;
        Some(version)
    }
}

/// The value under [`NAME`] is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LossesDamaged;

impl std::fmt::Display for LossesDamaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the stored losses of other nodes are damaged and cannot be read")
    }
}

impl std::error::Error for LossesDamaged {}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home { node: NodeId::new(1), incarnation: Incarnation(7) };
    const OF: PartitionId = PartitionId(3);

    fn written() -> StoreResult {
        StoreResult::Written(Ok(()))
    }

    #[test]
    fn a_loss_is_durable_once_a_save_that_began_after_it_has_ended() {
        let mut book = LossBook::default();
        let now = Instant::default();
        assert!(!book.note(OF, HOME, Since(5), Epoch(1)));
        let noted = book.version();
        let (_, command) = book.save(now, Epoch(1), || StoreId(1)).expect("it is not durable");
        assert!(!book.note(OF, HOME, Since(6), Epoch(1)), "a save is under way that lacks it");
        assert!(book.save(now, Epoch(1), || StoreId(2)).is_none());
        assert_eq!(book.stored(now, &written()), Some(noted));
        assert!(!book.note(OF, HOME, Since(6), Epoch(1)));
        let StoreCommand::Remember { value, .. } = command else { panic!("it is remembered") };
        let read = LossBook::decode(&value).expect("what was saved");
        assert_eq!(read.of(OF, Epoch(1)), [(HOME, Since(5))].into_iter().collect());
        assert!(read.of(PartitionId(2), Epoch(1)).is_empty() && read.of(PartitionId(4), Epoch(1)).is_empty());
        assert!(book.save(now, Epoch(1), || StoreId(3)).is_some());
        let failed = StoreResult::Written(Err(crate::store::command::WriteFailed::Uncertain));
        assert!(book.stored(now, &failed).is_none() && book.save(now, Epoch(1), || StoreId(4)).is_none());
        assert!(book.save(now + RETRY_AFTER, Epoch(1), || StoreId(4)).is_some());
        book.stored(now, &written());
        assert!(book.note(OF, HOME, Since(6), Epoch(1)));
    }

    #[test]
    fn a_loss_is_forgotten_once_all_operations_that_counted_the_home_have_ended() {
        let mut book = LossBook::default();
        book.note(OF, HOME, Since(5), Epoch(1));
        assert!(!book.of(OF, Epoch(KEPT_FOR)).is_empty() && book.of(OF, Epoch(KEPT_FOR + 1)).is_empty());
        assert!(LossBook::decode(b"nonsense").is_err() && LossBook::decode(b"").is_ok());
    }
}
