//! What nodes say of their cluster: histories, and the notices that carry them.

use cartwheel_core::control::{Inquiry, InquiryId, Notice};
use cartwheel_core::dot::{Life, NodeId};
use cartwheel_core::hlc::Hlc;
use cartwheel_core::membership::{Change, ChangeKind, Conflict, Durability, History, Member, SettingsPatch};
use cartwheel_core::ring::RingVersion;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::arbitrary::number;
use super::net::{BOOT, history, id};

fn member() -> impl Strategy<Value = Member> {
    ("node-[1-5]", any::<u64>(), 0u32..300, ".{0,4}", ".{0,4}").prop_map(|(name, life, weight, zone, host)| Member {
        id: NodeId::of_name(&name),
        name,
        life: Life(life),
        weight,
        zone,
        host,
        peer_addr: String::new(),
        http_addr: String::new(),
        resp_addr: String::new(),
    })
}

fn settings() -> impl Strategy<Value = SettingsPatch> {
    let conflict = prop_oneof![Just(Conflict::Siblings), Just(Conflict::Lww)];
    let durability = prop_oneof![Just(Durability::NodeDefault), Just(Durability::Fsync), Just(Durability::Os)];
    let quorums = (option::of(any::<u8>()), option::of(any::<u8>()), option::of(any::<u8>()));
    let rest = (option::of(conflict), option::of(any::<bool>()), option::of(durability), option::of(any::<u32>()));
    (quorums, rest).prop_map(|((n, r, w), (conflict, sloppy, durability, max_value_bytes))| SettingsPatch {
        n,
        r,
        w,
        conflict,
        sloppy,
        durability,
        max_value_bytes,
    })
}

fn change() -> impl Strategy<Value = Change> {
    let node = || (1usize..6).prop_map(id);
    let what = prop_oneof![
        member().prop_map(ChangeKind::Add),
        (node(), any::<u64>()).prop_map(|(node, life)| ChangeKind::Remove { node, life: Life(life) }),
        (node(), member()).prop_map(|(old, new)| ChangeKind::Replace { old, new }),
        (node(), 0u32..300).prop_map(|(node, weight)| ChangeKind::Weight { node, weight }),
        (node(), ".{0,4}", ".{0,4}").prop_map(|(node, zone, host)| ChangeKind::Zone { node, zone, host }),
        (vec(any::<u8>(), 1..5), settings())
            .prop_map(|(name, settings)| ChangeKind::Bucket { name: name.into(), settings }),
    ];
    (number(), node(), number(), what).prop_map(|(hlc, node, number, what)| Change {
        hlc: Hlc::from_bits(hlc),
        node,
        number,
        what,
    })
}

/// The founding and what may come after it.
pub fn a_history() -> impl Strategy<Value = History> {
    vec(change(), 0..6).prop_map(|changes| {
        let mut history = history();
        for change in changes {
            history.insert(change);
        }
        history
    })
}

/// Questions that are under way among them.
fn inquiry_id() -> impl Strategy<Value = InquiryId> {
    prop_oneof![4 => (0u64..20).prop_map(|begun| InquiryId((Life(1).mark_of_boot(BOOT) << 40) + begun)), 1 => number().prop_map(InquiryId)]
}

pub fn notice() -> BoxedStrategy<Notice> {
    // One without a founding, too, and one of another cluster.
    let histories = || {
        prop_oneof![6 => a_history(), 1 => vec(change(), 0..3).prop_map(|changes| {
            let mut history = History::new();
            for change in changes {
                history.insert(change);
            }
            history
        })]
    };
    let version = (number(), number()).prop_map(|(changes, digest)| RingVersion { changes, digest });
    let inquiry = (inquiry_id(), vec(any::<u8>(), 1..5)).prop_map(|(id, bucket)| Inquiry { id, bucket: bucket.into() });
    prop_oneof![
        2 => version.prop_map(Notice::Have),
        3 => histories().prop_map(Notice::History),
        3 => histories().prop_map(Notice::Complement),
        2 => inquiry.prop_map(Notice::Ask),
        4 => (inquiry_id(), any::<bool>()).prop_map(|(id, holds)| Notice::Holds(id, holds)),
    ]
    .boxed()
}
