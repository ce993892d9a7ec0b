//! A key that is updated a million times: the size of its context does not grow with the number of updates.

use cartwheel_core::mutation::Broken;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::context::Context;
use cartwheel_core::value::state::Epoch;
use cartwheel_core::wire::context::{ClusterKey, Sealer};

use crate::harness::{TestReplica, Write, key};

const UPDATES: u64 = 1_000_000;
/// One replica restarts after so many updates.
const RESTART_EVERY: u64 = 9_973;

#[test]
fn a_context_does_not_grow_over_a_million_updates_with_restarts() {
    let sealer = Sealer::new(ClusterId(1), ClusterKey::derive(b"secret"), Broken::default());
    let mut replicas = [1, 2, 3].map(TestReplica::new);
    let (mut early, mut late, mut restarts) = (0, 0, 0);
    for number in 0..UPDATES {
        let at = (number % 3) as usize;
        let seen = replicas[at].state().seen();
        let context =
            sealer.seal(&Context { seen: seen.clone(), epoch: Epoch(1), needs: seen.clock.clone() }, &key()).len();
        // It grows until each replica has written and the notes are full.
        let largest = if number < 1_000 { &mut early } else { &mut late };
        *largest = context.max(*largest);
        replicas[at].write(&Write::numbered(number, seen)).expect("it is a new write");
        let state = replicas[at].state();
        assert_eq!(state.siblings().len(), 1);
        for other in [1, 2].map(|ahead| (at + ahead) % 3) {
            replicas[other].merge(&state);
        }
        if number % RESTART_EVERY == 0 {
            replicas[(number / RESTART_EVERY % 3) as usize].restart();
            restarts += 1;
        }
    }
    // The counters take a few more bytes as they grow.
    assert!(late <= early + 8, "{early} bytes in the first thousand updates, {late} later");
    println!("a context took {early} bytes at most in the first thousand updates, {late} later; {restarts} restarts");
}
