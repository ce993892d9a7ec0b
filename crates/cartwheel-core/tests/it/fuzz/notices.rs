//! Generators of histories and of notices between controls.

use cartwheel_core::cluster::configuration::{ConfigVersion, Home};
use cartwheel_core::cluster::counts::Group;
use cartwheel_core::cluster::membership::users::PasswordHash;
use cartwheel_core::cluster::membership::{
    Change, ChangeKind, Conflict, Durability, History, Member, SettingsPatch, UserPatch,
};
use cartwheel_core::cluster::sizes::{NodeSizes, Size, TreeId};
use cartwheel_core::message::gossip::{Changes, EpochNotice, Inquiry, InquiryId, MembersDigest, Notice};
use cartwheel_core::ring::{PartitionId, RingVersion};
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::Hlc;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::arbitrary::number;
use super::net::{BOOT, history, id};

fn member() -> impl Strategy<Value = Member> {
    ("node-[1-5]", any::<u64>(), 0u32..300, ".{0,4}", ".{0,4}").prop_map(|(name, incarnation, weight, zone, host)| {
        Member {
            id: NodeId::of_name(&name),
            name,
            incarnation: Incarnation(incarnation),
            weight,
            zone,
            host,
            peer_addr: String::new(),
            http_addr: String::new(),
            resp_addr: String::new(),
        }
    })
}

fn settings() -> impl Strategy<Value = SettingsPatch> {
    let conflict = prop_oneof![Just(Conflict::Siblings), Just(Conflict::Lww)];
    let durability = prop_oneof![Just(Durability::NodeDefault), Just(Durability::Fsync), Just(Durability::Os)];
    let quorums = (option::of(any::<u8>()), any::<bool>(), option::of(any::<u8>()), option::of(any::<u8>()));
    let rest = (option::of(conflict), option::of(any::<bool>()), option::of(durability), option::of(any::<u32>()));
    (quorums, rest).prop_map(|((n, n_by_versions, r, w), (conflict, sloppy, durability, max_value_bytes))| {
        SettingsPatch { n, n_by_versions, r, w, conflict, sloppy, durability, max_value_bytes }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let node = || (1usize..6).prop_map(id);
    let what = prop_oneof![
        member().prop_map(ChangeKind::Add),
        (node(), any::<u64>())
            .prop_map(|(node, incarnation)| ChangeKind::Remove { node, incarnation: Incarnation(incarnation) }),
        (node(), any::<u64>())
            .prop_map(|(node, incarnation)| ChangeKind::Left { node, incarnation: Incarnation(incarnation) }),
        (node(), member()).prop_map(|(old, new)| ChangeKind::Replace { old, new }),
        vec((node(), any::<u64>(), any::<u32>(), any::<u64>()), 0..3).prop_map(|lost| ChangeKind::MarkLost {
            homes: lost
                .iter()
                .map(|&(node, incarnation, ..)| Home { node, incarnation: Incarnation(incarnation) })
                .collect(),
            versions: lost
                .iter()
                .map(|&(.., partition, version)| (PartitionId(partition), ConfigVersion(version)))
                .collect(),
        }),
        (node(), 0u32..300).prop_map(|(node, weight)| ChangeKind::Weight { node, weight }),
        (node(), ".{0,4}", ".{0,4}").prop_map(|(node, zone, host)| ChangeKind::Zone { node, zone, host }),
        (vec(any::<u8>(), 1..5), settings())
            .prop_map(|(name, settings)| ChangeKind::Bucket { name: name.into(), settings }),
        (".{0,4}", option::of((option::of(".{0,4}"), option::of(".{0,4}")))).prop_map(|(name, patch)| {
            let patch = patch.map(|(password, ended_token)| {
                Box::new(UserPatch { password: password.map(PasswordHash), ended_token, ..UserPatch::default() })
            });
            ChangeKind::User { name, patch }
        }),
    ];
    (number(), node(), number(), what).prop_map(|(hlc, node, number, what)| Change {
        hlc: Hlc::from_bits(hlc),
        node,
        number,
        what,
    })
}

/// The bootstrap, and changes after it.
pub fn a_history() -> impl Strategy<Value = History> {
    vec(change(), 0..6).prop_map(|changes| {
        let mut history = history();
        for change in changes {
            history.insert(change);
        }
        history
    })
}

/// Inquiry ids, including those of inquiries under way.
fn inquiry_id() -> impl Strategy<Value = InquiryId> {
    prop_oneof![4 => (0u64..20).prop_map(|begun| InquiryId((Incarnation(1).mark_of_boot(BOOT) << 40) + begun)), 1 => number().prop_map(InquiryId)]
}

/// A node as a SWIM packet names it: a member or not, of this boot or another.
fn swim_identity() -> impl Strategy<Value = Vec<u8>> {
    let small = || prop_oneof![8 => 0u32..3, 1 => any::<u32>()];
    let incarnation = |node: usize| prop_oneof![8 => Just(node as u64), 1 => any::<u64>()];
    let node = (1usize..6).prop_flat_map(move |node| (Just(node), incarnation(node)));
    (node, prop_oneof![4 => Just(BOOT), 2 => small()], small()).prop_map(|((node, incarnation), boot, renewal)| {
        let numbers = [id(node).get().to_be_bytes(), incarnation.to_be_bytes()].concat();
        [numbers, boot.to_be_bytes().to_vec(), renewal.to_be_bytes().to_vec()].concat()
    })
}

/// A SWIM packet of the third node, valid or not.
fn swim_packet() -> impl Strategy<Value = Vec<u8>> {
    let third = [id(3).get().to_be_bytes().to_vec(), 3u64.to_be_bytes().to_vec(), BOOT.to_be_bytes().to_vec()].concat();
    let third = [third, 0u32.to_be_bytes().to_vec()].concat();
    let incarnation = || prop_oneof![4 => 0u16..3, 1 => any::<u16>()];
    let header = (prop_oneof![8 => Just(third), 1 => swim_identity()], incarnation(), swim_identity());
    let message = (0u8..12, any::<u8>(), swim_identity()).prop_map(|(kind, number, about)| match kind {
        0 | 1 => vec![kind, number],
        2..=5 => [vec![kind, number], about].concat(),
        _ => vec![kind],
    });
    let update = (swim_identity(), incarnation(), 0u8..4)
        .prop_map(|(about, incarnation, state)| [about, incarnation.to_be_bytes().to_vec(), vec![state]].concat());
    (header, message, vec(update, 0..6)).prop_map(|((from, incarnation, to), message, updates)| {
        let count = (updates.len() as u16).to_be_bytes();
        [from, incarnation.to_be_bytes().to_vec(), to, message, count.to_vec(), updates.concat()].concat()
    })
}

/// Any notice of one control to another that makes no claim about a partition's configuration.
pub fn notice() -> BoxedStrategy<Notice> {
    // Some histories lack a bootstrap or are of another cluster.
    let histories = || {
        prop_oneof![6 => a_history(), 1 => vec(change(), 0..3).prop_map(|changes| {
            let mut history = History::new();
            for change in changes {
                history.insert(change);
            }
            history
        })]
    };
    // Some versions are ones that the nodes have.
    let version = || {
        prop_oneof![
            2 => (number(), number()).prop_map(|(changes, digest)| RingVersion { changes, digest }),
            2 => Just(history().version()),
            1 => a_history().prop_map(|history| history.version()),
        ]
    };
    let changes = (version(), version(), histories(), any::<bool>())
        .prop_map(|(since, version, changes, is_answer)| Changes { since, version, changes, is_answer });
    let partitions = || vec((0u32..300).prop_map(PartitionId), 0..5);
    let inquiry = (inquiry_id(), partitions()).prop_map(|(id, partitions)| Inquiry { id, partitions });
    let size = ((0u32..300).prop_map(PartitionId), any::<u64>(), number(), number())
        .prop_map(|(partition, n, keys, bytes)| (TreeId { partition, group: Group(n) }, Size { keys, bytes }));
    let sizes = (vec(size, 0..5), partitions()).prop_map(|(trees, leaves)| {
        let (trees, leaves) = (trees.into_iter().collect(), leaves.into_iter().collect());
        NodeSizes { trees, leaves }
    });
    let members = prop_oneof![4 => Just(MembersDigest::of(&history().view().expect("a cluster"))), 1 => any::<u128>().prop_map(MembersDigest)];
    let marks = || vec(any::<bool>(), 0..5).prop_map(|marks| marks.into_iter().collect());
    let near = || prop_oneof![3 => 0u64..4, 1 => number()];
    let epochs = (near(), near(), members, marks(), marks(), any::<bool>()).prop_map(
        |(epoch, finished, members, done, done_before, drains)| EpochNotice {
            epoch: Epoch(epoch),
            finished: Epoch(finished),
            members,
            done,
            done_before,
            drains,
        },
    );
    prop_oneof![
        2 => version().prop_map(Notice::Have).boxed(),
        2 => vec(version(), 0..4).prop_map(Notice::Want).boxed(),
        3 => changes.prop_map(Notice::Changes).boxed(),
        3 => epochs.prop_map(Notice::Epoch).boxed(),
        3 => histories().prop_map(Notice::History).boxed(),
        3 => histories().prop_map(Notice::Complement).boxed(),
        2 => inquiry.prop_map(Notice::Inquiry).boxed(),
        6 => swim_packet().prop_map(|packet| Notice::Swim(packet.into())).boxed(),
        1 => vec(any::<u8>(), 0..200).prop_map(|packet| Notice::Swim(packet.into())).boxed(),
        4 => (inquiry_id(), sizes).prop_map(|(id, sizes)| Notice::Report(id, sizes)).boxed(),
    ]
    .boxed()
}
