//! Generators of configurations, reconfiguration messages and partition states.

use cartwheel_core::cluster::configuration::{ConfigPhase, ConfigStamp, ConfigVersion, Configuration, Home};
use cartwheel_core::cluster::counts::ReplicaCounts;
use cartwheel_core::cluster::losses::{Losses, Memory};
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::paxos::{Acceptor, Ballot};
use cartwheel_core::message::gossip::{Notice, PhasesNotice};
use cartwheel_core::message::reconfiguration::ReconfigurationMessage;
use cartwheel_core::ring::{PartitionId, RingVersion};
use cartwheel_core::value::dot::{Incarnation, Since};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::arbitrary::{node, number};
use super::net::INCARNATION;

/// Mostly one of the ring's sixteen partitions.
pub fn partition() -> impl Strategy<Value = PartitionId> {
    prop_oneof![6 => 0u32..16, 1 => any::<u32>()].prop_map(PartitionId)
}

/// A node in some incarnation.
pub fn home() -> impl Strategy<Value = Home> {
    let incarnation = prop_oneof![4 => 1u64..=3, 1 => number()];
    (node(), incarnation).prop_map(|(node, incarnation)| Home { node, incarnation: Incarnation(incarnation) })
}

/// Any configuration, including invalid ones.
fn configuration() -> BoxedStrategy<Configuration> {
    let some = (number(), vec(home(), 0..6), any::<u8>(), vec((vec(any::<u8>(), 0..3), any::<u8>()), 0..3));
    some.prop_map(|(number, homes, choosers, counts)| {
        let counts = counts.into_iter().map(|(bucket, n)| (bucket.into(), n)).collect();
        Configuration { number, homes, choosers, counts: ReplicaCounts::new(counts) }
    })
    .boxed()
}

/// A valid phase.
fn phase() -> BoxedStrategy<ConfigPhase> {
    // No node twice, and at least one. The numbers include the greatest valid one.
    let homes = || {
        vec(home(), 1..6).prop_map(|mut homes| {
            homes.sort_by_key(|home| home.node);
            homes.dedup_by_key(|home| home.node);
            homes
        })
    };
    let number = prop_oneof![4 => 0u64..6, 1 => 0..u64::MAX / 4 - 1, 1 => Just(u64::MAX / 4 - 2)];
    let counts = vec((prop_oneof![Just("a"), Just("b")], 1u8..6), 0..3)
        .prop_map(|counts| ReplicaCounts::new(counts.into_iter().map(|(bucket, n)| (bucket.into(), n)).collect()));
    (number, homes(), option::of(homes()), any::<u8>(), any::<u8>(), counts)
        .prop_map(|(number, homes, next, choosers, next_choosers, counts)| {
            let current = Configuration { number, homes, choosers, counts: counts.clone() };
            match next {
                None => ConfigPhase::Stable(current),
                Some(homes) => {
                    let counts = counts.with(|_, n| n % 3 + 1);
                    ConfigPhase::Joint(
                        current,
                        Configuration { number: number + 1, homes, choosers: next_choosers, counts },
                    )
                }
            }
        })
        .boxed()
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (number(), node()).prop_map(|(round, node)| Ballot { round, node })
}

/// A message that a node may send that holds nothing and decides nothing.
pub fn harmless_message() -> BoxedStrategy<ReconfigurationMessage> {
    prop_oneof![
        number().prop_map(|version| ReconfigurationMessage::Query(ConfigVersion(version))).boxed(),
        (number(), ballot()).prop_map(|(number, ballot)| ReconfigurationMessage::Prepare(number, ballot)).boxed(),
        (number(), ballot(), ballot())
            .prop_map(|(number, one, other)| ReconfigurationMessage::Outbid(number, one, other))
            .boxed(),
        number().prop_map(ReconfigurationMessage::Copied).boxed(),
    ]
    .boxed()
}

/// Any reconfiguration message.
pub fn reconfiguration_message() -> BoxedStrategy<ReconfigurationMessage> {
    let accepted = || option::of((ballot(), configuration()));
    prop_oneof![
        4 => harmless_message(),
        1 => phase().prop_map(ReconfigurationMessage::Holds).boxed(),
        1 => (number(), ballot(), accepted()).prop_map(|(number, ballot, said)| ReconfigurationMessage::Promise(number, ballot, said)).boxed(),
        1 => (ballot(), configuration()).prop_map(|(ballot, proposal)| ReconfigurationMessage::Accept(ballot, proposal)).boxed(),
        1 => (number(), ballot()).prop_map(|(number, ballot)| ReconfigurationMessage::Accepted(number, ballot)).boxed(),
        1 => number().prop_map(ReconfigurationMessage::Synced).boxed(),
    ]
    .boxed()
}

/// Notices of phases, and of leaving nodes that hold nothing any more.
pub fn notice_of_holders() -> BoxedStrategy<Notice> {
    let version = (number(), number()).prop_map(|(changes, digest)| RingVersion { changes, digest });
    let steps = (vec(number().prop_map(ConfigVersion), 0..20), any::<bool>());
    prop_oneof![
        (number(), any::<bool>())
            .prop_map(|(digest, asks)| Notice::Phases(PhasesNotice::Digest { digest, asks }))
            .boxed(),
        steps.prop_map(|(steps, is_answer)| Notice::Phases(PhasesNotice::Steps(steps, is_answer))).boxed(),
        vec((partition(), phase()), 1..4).prop_map(|held| Notice::Phases(PhasesNotice::Hold(held))).boxed(),
        (number(), version)
            .prop_map(|(incarnation, version)| Notice::Drained(Incarnation(incarnation), version))
            .boxed(),
    ]
    .boxed()
}

/// Any configuration stamp of a sender.
pub fn config_stamp() -> impl Strategy<Value = ConfigStamp> {
    (number(), any::<bool>(), number(), any::<bool>()).prop_map(|(version, is_syncing, since, is_recovering)| {
        let memory = match since {
            0 => Memory::default(),
            since => Memory { incarnation: INCARNATION, since: Since(since) },
        };
        ConfigStamp { version: ConfigVersion(version), is_syncing, memory, is_recovering }
    })
}

/// Any losses that a sender may know of.
pub fn losses() -> impl Strategy<Value = Losses> {
    vec((home(), number().prop_map(Since)), 0..3).prop_map(|known| known.into_iter().collect())
}

/// Any partition state that a node may have saved.
pub fn partition_state() -> BoxedStrategy<PartitionState> {
    let acceptor = (option::of(ballot()), option::of((ballot(), configuration())))
        .prop_map(|(promised, accepted)| Acceptor { promised, accepted });
    let duties = (option::of(configuration()), any::<bool>(), any::<bool>());
    (phase(), vec(number(), 0..3), duties, acceptor)
        .prop_map(|(phase, synced, (retired, is_candidate, has_stale_data), acceptor)| PartitionState {
            phase,
            synced: synced.into_iter().collect(),
            retired,
            is_candidate,
            has_stale_data,
            acceptor,
        })
        .boxed()
}
