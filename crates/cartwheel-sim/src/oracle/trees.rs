//! The check that each node's Merkle trees match its records.

use std::collections::{BTreeMap, BTreeSet};

use cartwheel_core::anti_entropy::merkle::{BucketSizes, Tree};
use cartwheel_core::cluster::sizes::TreeId;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::record::Record;
use cartwheel_core::store::share::Share;
use cartwheel_core::value::key::Key;

use crate::world::World;

/// The first tree that is not ready or does not match, as a message.
pub fn judge(world: &World) -> Option<String> {
    world.members().into_iter().find_map(|index| judge_node(world, index))
}

fn judge_node(world: &World, index: usize) -> Option<String> {
    let name = world.cluster().name(index);
    let Some(node) = world.machine(index).node() else { return Some(format!("{name} is down")) };
    let trees = node.exchange().trees();
    let (mut expected, mut sizes) = (BTreeMap::new(), BTreeMap::<PartitionId, BucketSizes>::new());
    for id in trees.ids() {
        let Some(tree) = trees.get(id) else { return Some(format!("{name} has no tree of {id:?}")) };
        expected.insert(id, Tree::new(tree.depth()));
    }
    for (storage_key, bytes) in &world.machine(index).disk().current().records {
        let (Ok(key), Ok(record)) = (Key::from_storage_key(storage_key), Record::decode(bytes, storage_key)) else {
            return Some(format!("{name} has a damaged record"));
        };
        let id: TreeId = trees.id_of(&key);
        if let (Some(tree), Some(grid)) = (expected.get_mut(&id), trees.grid(id.partition)) {
            let share = Share::of(storage_key, &record.state);
            tree.fold(grid.cell(key.token()), Share::NOTHING, share);
            sizes.entry(id.partition).or_default().fold_in(key.bucket(), key.generation(), Share::NOTHING, share);
        }
    }
    let partitions: BTreeSet<PartitionId> = expected.keys().map(|id| id.partition).collect();
    let none = BucketSizes::default();
    let miscounted =
        |partition: &&PartitionId| trees.bucket_sizes(**partition) != Some(sizes.get(*partition).unwrap_or(&none));
    if let Some(partition) = partitions.iter().find(miscounted) {
        return Some(format!("{name}'s sizes of buckets in {partition:?} do not match its records"));
    }
    let wrong = expected.iter().find(|(id, tree)| trees.get(**id) != Some(*tree));
    wrong.map(|(id, _)| format!("{name}'s tree of {id:?} does not match its records"))
}
