//! Background work on many records is done a few records at a time. On a disk that answers at once, work that does not
//! yield runs to its end before the node takes any other input.

use std::collections::BTreeSet;
use std::time::Duration;

use cartwheel_core::cluster::configuration::{ConfigPhase, Configuration, Home};
use cartwheel_core::cluster::counts::ReplicaCounts;
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::event::Event;
use cartwheel_core::node::Node;
use cartwheel_core::replica::hint;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::image::Image;
use cartwheel_core::store::record::{LocalHeader, Record};
use cartwheel_core::value::dot::Incarnation;
use cartwheel_core::value::state::Epoch;

use crate::pair::{Pair, config, disk, id, key, state, view};

const RECORDS: usize = 5_000;
/// Far more store commands than one turn may cause.
const COMMANDS_MAX: usize = RECORDS / 5;

/// A disk with hints for node 2.
fn hints() -> Image {
    let mut image = Image::default();
    for number in 0..RECORDS {
        let storage_key = key(number).storage_key();
        let header = LocalHeader { owed: [(id(2), Epoch::FIRST)].into(), ..LocalHeader::default() };
        let record = Record { header, state: state(number, 1) };
        image.records.insert(storage_key.clone(), record.encode(&storage_key));
        image.index.insert(hint::entry(id(2), &storage_key));
    }
    image
}

fn home(node: usize) -> Home {
    Home { node: id(node), incarnation: Incarnation(node as u64) }
}

#[test]
fn hints_are_counted_in_many_turns_after_a_start() {
    let mut pair = Pair::on([(id(1), hints())].into());
    pair.start(Node::new(config(1, 1, None), view(2, 1)), 1);
    assert!(pair.stores < COMMANDS_MAX, "{} commands in the first turn", pair.stores);
    let counted = |pair: &Pair| {
        let records = |event: &Event| match event {
            Event::HintsHeld { now, .. } => Some(now.records),
            _ => None,
        };
        pair.events.iter().filter_map(|(_, event)| records(event)).max()
    };
    for _ in 0..600 {
        if counted(&pair) == Some(RECORDS as u64) {
            return;
        }
        pair.pass(Duration::from_secs(1));
    }
    panic!("only {:?} hints are counted after ten minutes", counted(&pair));
}

#[test]
fn a_partition_that_moved_away_is_purged_in_many_turns() {
    let mut pair = Pair::on([(id(1), disk(RECORDS))].into());
    let configuration = |number: u64, homes: &[Home]| {
        let counts = ReplicaCounts::default();
        Configuration { number, homes: homes.to_vec(), choosers: homes.len() as u8, counts }
    };
    let now = configuration(1, &[home(2)]);
    let mut partition_state = PartitionState::bootstrap(configuration(0, &[home(1), home(2)]), home(1));
    (partition_state.phase, partition_state.synced, partition_state.has_stale_data) =
        (ConfigPhase::Stable(now), BTreeSet::new(), true);
    let mut config = config(1, 1, None);
    config.partition_states = vec![(PartitionId(0), partition_state)];
    pair.start(Node::new(config, view(2, 1)), 1);
    assert!(pair.stores < COMMANDS_MAX, "{} commands in the first turn", pair.stores);
    for _ in 0..600 {
        if pair.disks[&id(1)].records.is_empty() {
            return;
        }
        pair.pass(Duration::from_secs(1));
    }
    panic!("{} records are left after ten minutes", pair.disks[&id(1)].records.len());
}
