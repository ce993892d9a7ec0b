//! The check that each node's index of keys matches its records.

use std::collections::BTreeSet;

use bytes::Bytes;
use cartwheel_core::store::key_index;
use cartwheel_core::store::record::Record;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;

use crate::world::World;

/// The first node whose index lacks a live key, or has one that is not there, as a message.
pub fn judge(world: &World) -> Option<String> {
    world.members().into_iter().find_map(|index| judge_node(world, index))
}

fn judge_node(world: &World, index: usize) -> Option<String> {
    let name = world.cluster().name(index);
    let Some(node) = world.machine(index).node() else { return Some(format!("{name} is down")) };
    let image = world.machine(index).disk().current();
    let is_live = |(storage_key, bytes): (&Bytes, &Bytes)| {
        let record = Record::decode(bytes, storage_key).ok()?;
        let key = Key::from_storage_key(storage_key).ok()?;
        let has_value = record.state.siblings().any(|held| matches!(held.content, Content::Value { .. }));
        (has_value && node.view().form(key.bucket()).is_indexed).then(|| key_index::entry(&key))
    };
    let expected: BTreeSet<Bytes> = image.records.iter().filter_map(is_live).collect();
    let entries: BTreeSet<Bytes> =
        image.index.iter().filter(|entry| key_index::parse(entry).is_some()).cloned().collect();
    let text = |entry: &Bytes| key_index::parse(entry).map_or_else(String::new, |key| format!("{key:?}"));
    if let Some(missing) = expected.difference(&entries).next() {
        return Some(format!("the index of {name} lacks {}", text(missing)));
    }
    // A node may have listed a key before it heard that the generation has no index.
    let is_of_index =
        |entry: &&Bytes| key_index::parse(entry).is_some_and(|key| node.view().form(key.bucket()).is_indexed);
    let stray = entries.difference(&expected).find(is_of_index)?;
    Some(format!("the index of {name} has {}, which has no value", text(stray)))
}
