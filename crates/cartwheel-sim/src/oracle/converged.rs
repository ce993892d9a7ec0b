//! Convergence: after all faults have ended, replicas come to hold the same content by themselves, and reads make them equal.

use cartwheel_core::replica::hint;
use cartwheel_core::store::record::Record;
use cartwheel_core::value::digest::ContentDigest;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::State;

use crate::show;
use crate::world::World;

/// The state that all homes of a key hold, if it is the same.
///
/// # Errors
/// The state of each home, if they differ or one cannot be read.
pub fn common_state(world: &World, key: &Key) -> Result<State, String> {
    let homes = world.homes(key);
    let mut states = Vec::new();
    for &home in &homes {
        match world.record(home, key) {
            None if counts(world, home, key, &Record::default()) => states.push(State::default()),
            Some(Ok(record)) if counts(world, home, key, &record) => states.push(record.state),
            None | Some(Ok(_) | Err(_)) => return Err(holdings(world, key)),
        }
    }
    match states.pop() {
        // Each home collects the notes of replaced writes in its own time, so only siblings are compared.
        Some(last) if states.iter().all(|state| state.siblings().eq(last.siblings())) => Ok(last),
        _ => Err(holdings(world, key)),
    }
}

/// Checks that no node holds a hint, or a record that it is not a home of.
///
/// # Errors
/// A node that does.
pub fn no_hint_is_left(world: &World) -> Result<(), String> {
    let cluster = world.cluster();
    for index in world.members() {
        let image = world.machine(index).disk().current();
        let (first, end) = hint::all();
        if let Some(entry) = image.index.range(first..end).next() {
            return Err(format!("the index of {} holds {}", cluster.name(index), entry.escape_ascii()));
        }
        for storage_key in image.records.keys() {
            let Ok(key) = Key::from_storage_key(storage_key) else { continue };
            if !world.homes(&key).contains(&index) {
                return Err(format!("{} holds {key:?} without being a home of it", cluster.name(index)));
            }
        }
    }
    Ok(())
}

/// Checks that all homes of a key hold the same content, and that it counts.
///
/// # Errors
/// The state of each home, if they differ or one cannot be read.
pub fn common_content(world: &World, key: &Key) -> Result<(), String> {
    let storage_key = key.storage_key();
    let content = |home| match world.record(home, key) {
        None if counts(world, home, key, &Record::default()) => Some(ContentDigest::NONE),
        Some(Ok(record)) if counts(world, home, key, &record) => Some(ContentDigest::of(&storage_key, &record.state)),
        None | Some(Ok(_) | Err(_)) => None,
    };
    let contents: Vec<_> = world.homes(key).into_iter().map(content).collect();
    let is_common = contents.iter().all(|content| content.is_some() && *content == contents[0]);
    if is_common { Ok(()) } else { Err(holdings(world, key)) }
}

/// Whether a node's record of a key counts: it was not lost, or is recovered.
fn counts(world: &World, home: usize, key: &Key, record: &Record) -> bool {
    let machine = world.machine(home);
    let Some(node) = machine.node() else { return false };
    if record.header.recovered_since >= machine.loss_floor() {
        return record.header.recovering.is_none();
    }
    node.exchange().is_recovered(node.exchange().trees().id_of(key))
}

/// The record of each home of a key, one line each.
pub fn holdings(world: &World, key: &Key) -> String {
    let cluster = world.cluster();
    let line = |&home: &usize| {
        let held = match world.record(home, key) {
            None => "nothing".to_owned(),
            Some(Ok(record)) => show::record(cluster, &record),
            Some(Err(error)) => error.to_string(),
        };
        format!("    {} {held}", cluster.name(home))
    };
    world.homes(key).iter().map(line).collect::<Vec<_>>().join("\n")
}
