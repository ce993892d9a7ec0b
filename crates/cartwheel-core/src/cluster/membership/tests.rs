//! The laws of histories, and the rules by which changes take effect.

use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::option;
use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::users::{AccessToken, PasswordHash};
use super::*;
use crate::cluster::configuration::{ConfigPhase, ConfigVersion, Configuration};
use crate::cluster::counts::ReplicaCounts;
use crate::ring::{NORMAL_WEIGHT, PartitionId};
use crate::value::hlc::WallMs;
use crate::value::key::Generation;

fn member(name: &str) -> Member {
    Member {
        zone: "z".into(),
        peer_addr: format!("{name}:7400"),
        http_addr: format!("{name}:8080"),
        resp_addr: format!("{name}:6380"),
        ..Member::new(name, Incarnation(1))
    }
}

fn id(name: &str) -> NodeId {
    NodeId::of_name(name)
}

fn found(names: &[&str]) -> ChangeKind {
    let members = names.iter().map(|name| member(name)).collect();
    let (cluster, partitions) = (ClusterId(7), Partitions::new(64).unwrap());
    ChangeKind::Bootstrap { cluster, partitions, strategy: Strategy::Balanced, members, name: String::new() }
}

fn history(changes: impl IntoIterator<Item = ChangeKind>) -> History {
    let mut history = History::new();
    for what in changes {
        history.record(Hlc::at(WallMs(1000)), id("a"), what);
    }
    history
}

fn view(changes: impl IntoIterator<Item = ChangeKind>) -> View {
    history(changes).view().unwrap()
}

fn remove(name: &str) -> ChangeKind {
    ChangeKind::Remove { node: id(name), incarnation: Incarnation(1) }
}

fn left(name: &str) -> ChangeKind {
    ChangeKind::Left { node: id(name), incarnation: Incarnation(1) }
}

fn owned(view: &View, name: &str) -> usize {
    view.ring.owners().iter().filter(|owner| **owner == id(name)).count()
}

fn patch(n: u8) -> SettingsPatch {
    SettingsPatch { n: Some(n), ..SettingsPatch::default() }
}

fn bucket(name: &'static str, settings: SettingsPatch) -> ChangeKind {
    ChangeKind::Bucket { name: Bytes::from_static(name.as_bytes()), settings }
}

#[test]
fn bootstrap_members_share_the_ring_and_joining_nodes_get_their_part() {
    assert_eq!(History::new().view(), None);
    let founded = view([found(&["a", "b", "c"])]);
    assert_eq!((founded.cluster, founded.members().len()), (ClusterId(7), 3));
    let joined = view([found(&["a", "b", "c"]), ChangeKind::Add(member("d"))]);
    assert_eq!(["a", "b", "c", "d"].map(|name| owned(&joined, name)), [16; 4]);
    assert_eq!(joined.member(id("d")).unwrap().member.http_addr, "d:8080");
    assert_ne!(founded.ring.version(), joined.ring.version());
}

#[test]
fn a_cluster_of_one_node_grows() {
    let grown = view([found(&["a"]), ChangeKind::Add(member("b"))]);
    assert_eq!([owned(&grown, "a"), owned(&grown, "b")], [32, 32]);
}

#[test]
fn a_late_change_takes_its_place_in_the_order() {
    let changes = [found(&["a", "b", "c"]), ChangeKind::Add(member("d")), remove("b"), ChangeKind::Add(member("e"))];
    let whole = history(changes);
    for late in 0..whole.len() {
        let mut partial = History::new();
        for (at, change) in whole.changes().enumerate() {
            if at != late {
                partial.insert(change.clone());
            }
        }
        assert_ne!(partial.view(), whole.view());
        assert!(partial.insert(whole.changes().nth(late).unwrap().clone()));
        assert_eq!(partial.view(), whole.view());
    }
}

#[test]
fn the_first_bootstrap_counts_and_nothing_before_it() {
    let ChangeKind::Bootstrap { partitions, strategy, members, .. } = found(&["x"]) else { unreachable!() };
    let second = ChangeKind::Bootstrap { cluster: ClusterId(8), partitions, strategy, members, name: String::new() };
    let twice = view([ChangeKind::Add(member("y")), found(&["a", "b"]), second]);
    assert_eq!(twice.cluster, ClusterId(7));
    assert_eq!(twice.members().len(), 2);
    let mut idle = member("a");
    idle.weight = 0;
    let nothing =
        ChangeKind::Bootstrap { cluster: ClusterId(9), partitions, strategy, members: vec![idle], name: String::new() };
    assert_eq!(view([nothing, found(&["a"])]).cluster, ClusterId(7), "a cluster needs a node that can hold data");
}

#[test]
fn a_removed_incarnation_never_returns_but_a_new_one_may() {
    let four = || [found(&["a", "b", "c", "d"]), remove("d"), ChangeKind::Add(member("d"))];
    let going = view(four());
    assert!(going.member(id("d")).unwrap().leaving && !going.is_gone(id("d"), Incarnation(1)));
    assert!(going.is_removed(Home { node: id("d"), incarnation: Incarnation(1) }));
    assert_eq!((owned(&going, "d"), going.incarnations_ended(id("d"))), (0, 0));
    let gone = view(four().into_iter().chain([left("d")]));
    assert!(gone.member(id("d")).is_none());
    assert!(gone.is_gone(id("d"), Incarnation(1)));
    assert_eq!(gone.incarnations_ended(id("d")), 1);
    let reborn = Member { incarnation: Incarnation(2), ..member("d") };
    let back = view(four().into_iter().chain([ChangeKind::Add(reborn)]));
    assert_eq!(owned(&back, "d"), 16);
    // In the merged order, one administrator's removal comes before another's addition.
    let never = view([found(&["a", "b", "c"]), remove("e"), ChangeKind::Add(member("e"))]);
    assert!(never.member(id("e")).is_none());
    let other_incarnation =
        view([found(&["a", "b", "c", "d"]), ChangeKind::Remove { node: id("d"), incarnation: Incarnation(9) }]);
    assert!(other_incarnation.member(id("d")).is_some());
}

#[test]
fn names_and_ids_of_members_are_unique() {
    let same_id = Member { name: "other".into(), incarnation: Incarnation(5), ..member("a") };
    let same_name = Member { id: NodeId::new(5), incarnation: Incarnation(5), ..member("a") };
    let changes = [found(&["a", "b", "c"]), ChangeKind::Add(same_id), ChangeKind::Add(same_name)];
    let kept = view(changes);
    assert_eq!(kept.members().len(), 3);
    assert_eq!(kept.member(id("a")).unwrap().member, member("a"));
}

#[test]
fn nothing_moves_while_too_few_nodes_would_remain() {
    let before = view([found(&["a", "b", "c"])]);
    let removed = view([found(&["a", "b", "c"]), remove("c")]);
    assert_eq!(removed.ring.owners(), before.ring.owners());
    assert!(removed.member(id("c")).unwrap().leaving);
    let enough = view([found(&["a", "b", "c"]), remove("c"), ChangeKind::Add(member("d"))]);
    assert!(enough.member(id("c")).unwrap().leaving);
    assert_eq!(owned(&enough, "c"), 0);
    assert!(owned(&enough, "d") > 0);
    let four = || [found(&["a", "b", "c", "d"]), bucket("x", patch(4)), remove("d")];
    assert!(view(four()).member(id("d")).unwrap().leaving, "the largest n of any bucket counts");
    let too_early = view(four().into_iter().chain([left("d")]));
    assert!(too_early.member(id("d")).is_none(), "it cannot be called back");
    assert_eq!((owned(&too_early, "d"), too_early.ring.nodes().len()), (0, 3));
    let smaller = view(four().into_iter().chain([bucket("x", patch(3))]));
    assert_eq!(owned(&smaller, "d"), 0);
    let left_before = view(four().into_iter().chain([left("d"), bucket("x", patch(3))]));
    assert!(left_before.member(id("d")).is_none());
    let idle = ChangeKind::Weight { node: id("c"), weight: 0 };
    let weighed = view([found(&["a", "b", "c"]), idle]);
    assert_eq!(weighed.ring.owners(), before.ring.owners());
    let back = view([
        found(&["a", "b", "c"]),
        remove("c"),
        ChangeKind::Add(Member { incarnation: Incarnation(2), ..member("c") }),
    ]);
    assert!(!back.member(id("c")).unwrap().leaving);
    assert_eq!(back.ring.owners(), before.ring.owners());
}

#[test]
fn a_node_without_data_may_leave_though_too_few_remain() {
    let idle = Member { weight: 0, ..member("d") };
    let changes = || [found(&["a", "b", "c"]), remove("c"), ChangeKind::Add(idle.clone()), remove("d"), left("d")];
    assert!(view(changes()).member(id("d")).is_none());
    assert!(view(changes()).member(id("c")).is_some());
    // The record of its leave may come before its removal, if two sides of a partitioned network recorded them.
    let odd = view([found(&["a", "b", "c", "d"]), left("d"), remove("d")]);
    assert!(odd.member(id("d")).is_none());
    // Or the change that removed it has no effect any more.
    let never_removed = view([found(&["a", "b", "c", "d"]), left("d")]);
    assert!(never_removed.member(id("d")).is_none());
}

#[test]
fn the_first_configurations_follow_from_the_bootstrap() {
    let founded = view([found(&["a", "b", "c", "d"])]);
    let later = view([found(&["a", "b", "c", "d"]), ChangeKind::Add(member("e")), remove("a"), left("a")]);
    for p in founded.ring.partitions().iter() {
        let first = founded.first_configuration(p);
        assert_eq!(first, later.first_configuration(p));
        assert_eq!(first.of(3).iter().map(|home| home.node).collect::<Vec<_>>(), founded.ring.homes(p, 3));
        assert_eq!(founded.target(p), first.of(3));
        assert!(!later.target(p).iter().any(|home| home.node == id("a")));
    }
}

#[test]
fn a_replacement_takes_over_the_same_partitions() {
    let before = view([found(&["a", "b", "c", "d"])]);
    let replace = |old: &str, new: Member| ChangeKind::Replace { old: id(old), new };
    let after = view([found(&["a", "b", "c", "d"]), replace("b", member("e"))]);
    assert!(after.member(id("b")).unwrap().leaving && !after.is_gone(id("b"), Incarnation(1)));
    for (old, new) in before.ring.owners().iter().zip(after.ring.owners()) {
        assert_eq!(*new, if *old == id("b") { id("e") } else { *old });
    }
    let reborn = Member { incarnation: Incarnation(2), ..member("b") };
    let after = view([found(&["a", "b", "c", "d"]), replace("b", reborn)]);
    assert_eq!(after.ring.owners(), before.ring.owners());
    assert_eq!(after.member(id("b")).unwrap().member.incarnation, Incarnation(2));
    assert!(after.is_gone(id("b"), Incarnation(1)), "the old incarnation is gone at once");
    for refused in
        [replace("b", member("c")), replace("x", member("e")), replace("b", Member { weight: 0, ..member("e") })]
    {
        let after = view([found(&["a", "b", "c", "d"]), refused]);
        assert_eq!(after.ring.owners(), before.ring.owners());
        assert_eq!(after.members().len(), 4);
    }
}

#[test]
fn removed_nodes_can_be_marked_lost_and_stuck_partitions_are_force_recovered() {
    let home = |name: &str| Home { node: id(name), incarnation: Incarnation(1) };
    let p = PartitionId(0);
    let mark_lost_from = |names: &[&str], version: ConfigVersion| ChangeKind::MarkLost {
        homes: names.iter().map(|name| home(name)).collect(),
        versions: vec![(p, version)],
    };
    let mark_lost = |names: &[&str]| mark_lost_from(names, ConfigVersion(0));
    let replaced = || {
        let replace = |old: &str, new: &str| ChangeKind::Replace { old: id(old), new: member(new) };
        [found(&["a", "b", "c"]), replace("b", "d"), replace("c", "e")]
    };
    let held = ConfigPhase::Stable(view([found(&["a", "b", "c"])]).first_configuration(p));
    assert_eq!(view(replaced()).force_recovered(p, &held), None);
    assert_eq!(
        view(replaced().into_iter().chain([mark_lost(&["b", "a"])])).force_recovered(p, &held),
        None,
        "a was not removed"
    );
    for early in [false, true] {
        let marked_lost = mark_lost(&["b", "c"]);
        let [bootstrap, one, other] = replaced();
        let changes = if early { [bootstrap, one, marked_lost, other] } else { [bootstrap, one, other, marked_lost] };
        let view = view(changes);
        assert!(view.is_marked_lost(home("c")) && !view.is_marked_lost(home("a")));
        assert_eq!(view.force_recovered(p, &held).unwrap().homes, [home("a")]);
    }
    let later = view(replaced().into_iter().chain([mark_lost_from(&["b", "c"], ConfigVersion(1))]));
    assert_eq!(later.force_recovered(p, &held), None, "it does not know the stuck version yet");
    assert_eq!(later.force_recovered(PartitionId(1), &held), None, "this partition was not named");
    // Later losses are not included.
    let renew =
        |name: &str| ChangeKind::Replace { old: id(name), new: Member { incarnation: Incarnation(2), ..member(name) } };
    let lost_later = view(replaced().into_iter().chain([mark_lost(&["b", "c"]), renew("d"), renew("e")]));
    let homes = ["a", "d", "e"].map(home).to_vec();
    let next = ConfigPhase::Stable(Configuration { number: 1, homes, choosers: 3, counts: ReplicaCounts::default() });
    assert!(lost_later.is_gone(id("d"), Incarnation(1)) && lost_later.force_recovered(p, &next).is_none());
    let third = ChangeKind::Replace { old: id("a"), new: member("f") };
    let none_left = view(replaced().into_iter().chain([third, mark_lost(&["a", "b", "c"])]));
    assert_eq!(none_left.force_recovered(p, &held).unwrap().homes, none_left.target(p));
}

#[test]
fn the_last_address_of_the_present_incarnation_counts() {
    let moves = |incarnation: u64, peer_addr: &str| ChangeKind::Address {
        node: id("b"),
        incarnation: Incarnation(incarnation),
        peer_addr: peer_addr.to_owned(),
        http_addr: format!("http-{peer_addr}"),
        resp_addr: Some(format!("resp-{peer_addr}")),
    };
    let renewed = || ChangeKind::Replace { old: id("b"), new: Member { incarnation: Incarnation(2), ..member("b") } };
    let addr = |changes: Vec<ChangeKind>| {
        let view = view([found(&["a", "b", "c"])].into_iter().chain(changes));
        let member = &view.member(id("b")).unwrap().member;
        assert!(member.peer_addr == "b:7400" || member.http_addr == format!("http-{}", member.peer_addr));
        assert!(member.peer_addr == "b:7400" || member.resp_addr == format!("resp-{}", member.peer_addr));
        member.peer_addr.clone()
    };
    assert_eq!(addr(vec![moves(1, "x"), moves(1, "y")]), "y");
    assert_eq!(addr(vec![moves(1, "x"), renewed()]), "b:7400", "the new incarnation has its own address");
    assert_eq!(addr(vec![renewed(), moves(1, "x")]), "b:7400");
    assert_eq!(addr(vec![renewed(), moves(2, "x")]), "x");
    let before = view([found(&["a", "b", "c"])]);
    assert_eq!(view([found(&["a", "b", "c"]), moves(1, "x")]).ring.owners(), before.ring.owners());
}

/// A node is replaced by one that another administrator had added before, which was not known then.
#[test]
fn a_node_that_has_left_is_gone_though_its_removal_has_no_effect_any_more() {
    let replaced = ChangeKind::Replace { old: id("b"), new: member("d") };
    let left = ChangeKind::Left { node: id("b"), incarnation: Incarnation(1) };
    let add = || ChangeKind::Add(member("d"));
    for added in [vec![], vec![add()]] {
        let founded = [found(&["a", "b", "c"])].into_iter().chain(added);
        let changes = founded.chain([replaced.clone(), left.clone()]);
        let view = view(changes);
        assert!(view.is_gone(id("b"), Incarnation(1)) && view.member(id("b")).is_none());
        let placed: Vec<NodeId> = view.ring.nodes().iter().map(|node| node.id).collect();
        assert!(!placed.contains(&id("b")) && placed.len() == 3, "{placed:?}");
    }
}

#[test]
fn a_node_is_known_from_the_bootstrap_and_its_introduction() {
    let replace = |old: &str, new: &str| ChangeKind::Replace { old: id(old), new: member(new) };
    let weight = ChangeKind::Weight { node: id("d"), weight: 2 * NORMAL_WEIGHT };
    let comings = [ChangeKind::Add(member("e")), replace("e", "f"), replace("d", "g")];
    let others = [ChangeKind::Add(member("h")), weight, left("e")];
    let all = history([found(&["a", "b", "c", "d"])].into_iter().chain(comings).chain(others));
    for (name, changes) in [("a", 0), ("e", 1), ("f", 2), ("g", 1), ("x", 0)] {
        let introduction = all.introduction(id(name));
        assert_eq!(introduction.len(), changes, "{name}");
        let mut introduced = history([found(&["a", "b", "c", "d"])]);
        introduced.merge(&introduction);
        assert_eq!(introduced.view().unwrap().member(id(name)).is_some(), name != "x", "{name}");
    }
}

#[test]
fn weights_and_zones_shape_the_ring() {
    let doubled = view([found(&["a", "b", "c", "d"]), ChangeKind::Weight { node: id("d"), weight: 2 * NORMAL_WEIGHT }]);
    assert!([21, 22].contains(&owned(&doubled, "d")), "no node holds more than one of three replicas");
    let heavier =
        view([found(&["a", "b", "c", "d"]), ChangeKind::Weight { node: id("d"), weight: NORMAL_WEIGHT * 5 / 4 }]);
    assert!([18, 19].contains(&owned(&heavier, "d")));
    let zone = |name: &str, zone: &str| ChangeKind::Zone { node: id(name), zone: zone.into(), host: "h".into() };
    let zoned = view([found(&["a", "b", "c", "d"]), zone("c", "y"), zone("d", "x")]);
    for p in zoned.ring.partitions().iter() {
        let homes = zoned.ring.homes(p, 3);
        assert!(homes.contains(&id("c")) && homes.contains(&id("d")), "each zone but z has one node");
    }
}

#[test]
fn random_placement_follows_from_the_history_too() {
    let ChangeKind::Bootstrap { cluster, partitions, members, .. } = found(&["a", "b", "c", "d"]) else {
        unreachable!()
    };
    let strategy = Strategy::Random { tokens: NonZeroU32::new(32).unwrap() };
    let random =
        || ChangeKind::Bootstrap { cluster, partitions, strategy, members: members.clone(), name: String::new() };
    let before = view([random()]);
    assert_ne!(before.ring.owners(), view([found(&["a", "b", "c", "d"])]).ring.owners());
    let after = view([random(), remove("d"), remove("c")]);
    assert_eq!((owned(&after, "d"), owned(&after, "c")), (0, owned(&view([random(), remove("d")]), "c")));
}

#[test]
fn bucket_settings_are_patched_and_bad_patches_have_no_effect() {
    let lww = SettingsPatch { conflict: Some(Conflict::Lww), ..SettingsPatch::default() };
    let small = SettingsPatch { n: Some(1), r: Some(1), w: Some(1), ..SettingsPatch::default() };
    let changes = [found(&["a"]), bucket("x", lww), bucket("x", patch(1)), bucket("y", small)];
    let view = view(changes);
    assert_eq!(*view.settings(b"x"), BucketSettings { conflict: Conflict::Lww, ..BucketSettings::default() });
    assert_eq!(view.settings(b"y").n, 1);
    assert_eq!(*view.settings(b"z"), BucketSettings::default());
    assert_eq!((view.buckets().len(), view.n_max()), (2, 3));
}

#[test]
fn recorded_changes_come_after_all_known_ones() {
    let mut history = history([found(&["a"])]);
    let from_ahead = Change { hlc: Hlc::at(WallMs(5000)), node: id("b"), number: 1, what: remove("x") };
    history.insert(from_ahead);
    let next = history.record(Hlc::at(WallMs(2000)), id("a"), remove("y"));
    assert_eq!(history.changes().last(), Some(&next));
    assert_eq!(next.number, 2);
}

#[test]
fn the_size_of_a_view_counts_its_members_and_its_ring() {
    let three = view([found(&["a", "b", "c"])]);
    let four = view([found(&["a", "b", "c"]), ChangeKind::Add(member("d"))]);
    let texts = "dzd:7400d:8080d:6380".len();
    let rings = four.ring.size_in_memory() - three.ring.size_in_memory();
    assert_eq!(rings, 64 * 8 + size_of::<NodeInfo>() + "z".len(), "lists of four, and a node");
    assert_eq!(four.size_in_memory() - three.size_in_memory(), rings + size_of::<(NodeId, ViewMember)>() + texts);
    let removed = view([found(&["a", "b", "c"]), ChangeKind::Add(member("d")), remove("d"), left("d")]);
    assert_eq!(removed.size_in_memory() - three.size_in_memory(), size_of::<(NodeId, Incarnation)>());
}

fn a_member() -> impl proptest::strategy::Strategy<Value = Member> {
    (0u8..7, 0u64..3, 0u32..3, 0u8..3).prop_map(|(name, incarnation, weight, zone)| Member {
        incarnation: Incarnation(incarnation),
        weight: weight * NORMAL_WEIGHT,
        zone: format!("z{zone}"),
        ..member(&format!("n{name}"))
    })
}

fn a_patch() -> impl proptest::strategy::Strategy<Value = SettingsPatch> {
    let conflict = prop::option::of(prop_oneof![Just(Conflict::Siblings), Just(Conflict::Lww)]);
    let durability = prop_oneof![Just(Durability::NodeDefault), Just(Durability::Fsync), Just(Durability::Os)];
    let quorum = || prop::option::of(0u8..6);
    let rest = (conflict, prop::option::of(any::<bool>()), prop::option::of(durability), any::<Option<u32>>());
    (quorum(), quorum(), quorum(), rest).prop_map(|(n, r, w, (conflict, sloppy, durability, max_value_bytes))| {
        SettingsPatch { n, n_by_versions: false, r, w, conflict, sloppy, durability, max_value_bytes }
    })
}

fn a_kind() -> impl proptest::strategy::Strategy<Value = ChangeKind> {
    let node = || (0u8..7).prop_map(|name| id(&format!("n{name}")));
    let bootstrap = (any::<u128>(), 1u32..40, 0u32..4, prop::collection::vec(a_member(), 1..5)).prop_map(
        |(cluster, q, tokens, members)| ChangeKind::Bootstrap {
            cluster: ClusterId(cluster),
            partitions: Partitions::new(q).unwrap(),
            strategy: NonZeroU32::new(tokens).map_or(Strategy::Balanced, |tokens| Strategy::Random { tokens }),
            members,
            name: String::new(),
        },
    );
    prop_oneof![
        1 => bootstrap,
        4 => a_member().prop_map(ChangeKind::Add),
        3 => (node(), 0u64..3).prop_map(|(node, incarnation)| ChangeKind::Remove { node, incarnation: Incarnation(incarnation) }),
        2 => (node(), 0u64..3).prop_map(|(node, incarnation)| ChangeKind::Left { node, incarnation: Incarnation(incarnation) }),
        2 => (node(), a_member()).prop_map(|(old, new)| ChangeKind::Replace { old, new }),
        1 => prop::collection::vec((node(), 0u64..3, 0u32..40), 0..3).prop_map(|homes| ChangeKind::MarkLost {
            homes: homes.iter().map(|&(node, incarnation, _)| Home { node, incarnation: Incarnation(incarnation) }).collect(),
            versions: homes.iter().map(|&(_, incarnation, partition)| (PartitionId(partition), ConfigVersion(incarnation))).collect(),
        }),
        1 => (node(), 0u32..300).prop_map(|(node, weight)| ChangeKind::Weight { node, weight }),
        1 => (node(), "[a-c]", "[a-c]?").prop_map(|(node, zone, host)| ChangeKind::Zone { node, zone, host }),
        1 => (node(), 0u64..3, "[a-c]", "[a-c]?", any::<Option<bool>>()).prop_map(|(node, incarnation, peer_addr, http_addr, resp)| {
            let resp_addr = resp.map(|resp| resp.to_string());
            ChangeKind::Address { node, incarnation: Incarnation(incarnation), peer_addr, http_addr, resp_addr }
        }),
        1 => ("[a-c]", 0u32..4, any::<bool>()).prop_map(|(name, placement, is_indexed)| {
            let placement = Placement::from_number(placement).unwrap();
            ChangeKind::Empty { name: name.into(), placement, is_indexed }
        }),
        1 => ("[a-c]", a_patch()).prop_map(|(name, settings)| ChangeKind::Bucket { name: name.into(), settings }),
        1 => ("[a-c]", option::of(a_user_patch())).prop_map(|(name, patch)| {
            ChangeKind::User { name, patch: patch.map(Box::new) }
        }),
    ]
}

fn a_user_patch() -> impl proptest::strategy::Strategy<Value = UserPatch> {
    let grant = prop_oneof![Just("cluster".to_owned()), "(read|write|admin):([a-c]{1,2}|[a-c]?[*])",];
    let grants = proptest::collection::btree_set(grant.prop_map(|text| text.parse().unwrap()), 0..3);
    let token = ("[a-c]", any::<[u8; 32]>(), 0u64..9, option::of(0u64..9));
    let token = token.prop_map(|(id, digest, created, expires)| AccessToken {
        id,
        digest,
        created: WallMs(created),
        expires: expires.map(WallMs),
    });
    (option::of("[a-z]{3}"), option::of(grants), option::of(token), option::of("[a-c]")).prop_map(
        |(password, grants, new_token, ended_token)| UserPatch {
            password: password.map(PasswordHash),
            grants,
            new_token,
            ended_token,
        },
    )
}

fn a_history() -> impl proptest::strategy::Strategy<Value = History> {
    let change = (0u64..20, 0u64..3, 0u64..4, a_kind()).prop_map(|(time, node, number, what)| Change {
        hlc: Hlc::at(WallMs(time)),
        node: NodeId::new(node),
        number,
        what,
    });
    prop::collection::vec(change, 0..25)
        .prop_map(|changes| History { changes: changes.into_iter().map(std::sync::Arc::new).collect() })
}

/// A snapshot that is most likely inconsistent.
fn a_snapshot() -> impl proptest::strategy::Strategy<Value = Snapshot> {
    let members = prop::collection::vec((a_member(), any::<bool>()), 0..4);
    let homes = || {
        let home = (0u8..7, 0u64..3).prop_map(|(name, incarnation)| Home {
            node: id(&format!("n{name}")),
            incarnation: Incarnation(incarnation),
        });
        prop::collection::vec(home, 0..4)
    };
    let versions = prop::collection::vec((0u32..40, 0u64..3), 0..4);
    let rest = (versions, prop::collection::vec(a_member(), 0..4), prop::collection::vec(0u32..5, 0..40));
    (any::<u64>(), members, homes(), homes(), homes(), rest).prop_map(
        |(changes, members, removed, left, marked_lost, (versions, placed, owners))| Snapshot {
            changes,
            members,
            removed,
            left,
            marked_lost,
            force_recovered_from: versions
                .into_iter()
                .map(|(partition, version)| (PartitionId(partition), ConfigVersion(version)))
                .collect(),
            buckets: vec![(Bytes::from_static(b"carts"), BucketSettings::default())],
            first_ns: vec![(Bytes::from_static(b"carts"), 5)],
            counted: vec![Bytes::from_static(b"carts")],
            forms: vec![(Bytes::from_static(b"carts"), form(changes))],
            users: vec![("ann".to_owned(), user(changes))],
            placed: placed.iter().map(Member::info).collect(),
            owners,
        },
    )
}

fn user(created: u64) -> User {
    let token = AccessToken { id: "t".to_owned(), digest: [1; 32], created: WallMs(created), expires: None };
    let grants = [Grant::EVERYTHING, Grant::Cluster].into();
    User { password: Some(PasswordHash("hash".to_owned())), grants, tokens: vec![token] }
}

fn form(since: u64) -> BucketForm {
    let generation = Generation { since: Hlc::from_bits(since), placement: Placement::Prefix(3) };
    BucketForm { generation, is_indexed: since.is_multiple_of(2), was_unindexed: since.is_multiple_of(3) }
}

fn merged(a: &History, b: &History) -> History {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}

proptest! {
    #[test]
    fn merging_is_a_union(a in a_history(), b in a_history(), c in a_history()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        let both = merged(&a, &b);
        prop_assert!(a.changes().chain(b.changes()).all(|change| both.changes().any(|other| other == change)));
        prop_assert!(both.changes().all(|change| a.changes().chain(b.changes()).any(|other| other == change)));
        prop_assert_eq!(a.version() == b.version(), a == b);
        prop_assert_eq!(a.clone().merge(&b), both != a);
    }

    #[test]
    fn any_history_gives_a_sound_cluster(history in a_history()) {
        let view = history.view();
        prop_assert_eq!(history.cluster(), view.as_ref().map(|view| view.cluster));
        let Some(view) = view else { return Ok(()) };
        prop_assert_eq!(view.ring.version(), history.version());
        for owner in view.ring.owners() {
            prop_assert!(view.member(*owner).is_some(), "an owner is a member");
        }
        for present in view.members() {
            let Member { id, incarnation, ref name, .. } = present.member;
            prop_assert_eq!(view.is_removed(Home { node: id, incarnation }), present.leaving);
            prop_assert!(!view.is_gone(id, incarnation), "a gone incarnation is no member");
            prop_assert_eq!(view.members().filter(|other| other.member.name == *name).count(), 1);
        }
        for (_, settings) in view.buckets() {
            prop_assert!(settings.check().is_ok());
        }
    }

    #[test]
    fn the_view_does_not_depend_on_the_order_of_arrival(
        arrivals in a_history().prop_flat_map(|history| Just(history.changes().cloned().collect::<Vec<_>>()).prop_shuffle()),
        at_once in 1usize..4,
        forgotten: prop::sample::Index,
    ) {
        let (mut folded, mut history) = (Folded::default(), History::new());
        for some in arrivals.chunks(at_once) {
            for change in some {
                history.insert(change.clone());
            }
            prop_assert_eq!(folded.view(&history), history.view());
            prop_assert_eq!(history.cluster(), history.view().map(|view| view.cluster));
        }
        // A smaller history with other changes, which no caller passes but the type allows.
        let Some(missing) = (!arrivals.is_empty()).then(|| forgotten.index(arrivals.len())) else { return Ok(()) };
        let others = arrivals.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, change)| change.clone());
        let other = History { changes: others.map(Arc::new).collect() };
        prop_assert_eq!(folded.view(&other), other.view());
    }

    #[test]
    fn a_snapshot_replaces_the_changes_before_it(
        history in a_history(), upto in 0u64..20, order in Just((0usize..30).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (before, after): (Vec<_>, Vec<_>) = history.changes().cloned().partition(|change| change.hlc.wall().0 <= upto);
        let before = History { changes: before.into_iter().map(Arc::new).collect() };
        let Some(snapshot) = Folded::default().snapshot(&before) else { return Ok(()) };
        // The snapshot has the time of the last change. That is never a bootstrap, since each change is recorded above all known ones.
        let founded = before.changes().filter(|change| matches!(change.what, ChangeKind::Bootstrap { .. }));
        if founded.map(|bootstrap| bootstrap.hlc).max() >= before.changes().last().map(|last| last.hlc) {
            return Ok(());
        }
        let mut short = before.clone();
        prop_assert!(short.take_snapshot(NodeId::new(1), snapshot));
        prop_assert!(before.is_before(&short) && !short.is_before(&short) && short.has_snapshot());
        prop_assert_eq!(short.recorded(), before.recorded() + 1);
        prop_assert_eq!(History::decode(&short.encode()), Ok(short.clone()));
        // A node that still has the changes learns nothing from them, and follows the snapshot once it has it.
        prop_assert!(before.is_within(&short) && before.changes().all(|change| short.knows(change)));
        prop_assert!(before.without(&short).is_empty() && !short.clone().merge(&before));
        prop_assert_eq!(merged(&before, &short), short.clone());
        // Later changes may arrive in any order.
        let mut all = short.clone();
        for place in order {
            let again = before.changes().nth(place).into_iter().chain(after.get(place));
            for change in again {
                all.insert(change.clone());
            }
        }
        let (view, plain) = (all.view().expect("a cluster"), history.view().expect("a cluster"));
        prop_assert!(view.places_like(&plain) && view.buckets().eq(plain.buckets()));
        prop_assert_eq!((view.cluster, view.strategy), (plain.cluster, plain.strategy));
        prop_assert!(view.emptied().eq(plain.emptied()));
        prop_assert_eq!(view.users(), plain.users());
        for partition in view.ring.partitions().iter() {
            prop_assert_eq!(view.first_configuration(partition), plain.first_configuration(partition));
        }
        for known in plain.members() {
            let home = Home { node: known.member.id, incarnation: known.member.incarnation };
            let is_introduced = all.introduction(home.node).changes().any(|change| change.what.lets_in(home));
            prop_assert!(is_introduced || history.introduction(home.node).is_empty());
        }
        // Of two snapshots the later one counts.
        let mut twice = all.clone();
        prop_assert!(twice.take_snapshot(NodeId::new(2), Folded::default().snapshot(&all).expect("a cluster")));
        prop_assert_eq!(merged(&all, &twice), twice.clone());
        prop_assert_eq!(merged(&twice, &short), twice.clone());
        prop_assert!(twice.view().expect("a cluster").places_like(&plain));
    }

    #[test]
    fn no_snapshot_causes_a_panic(
        history in a_history(), snapshot in a_snapshot(), time in 0u64..20, more in a_history(),
    ) {
        let (hlc, what) = (Hlc::at(WallMs(time)), ChangeKind::Snapshot(Box::new(snapshot)));
        let mut all = history;
        all.insert(Change { hlc, node: NodeId::new(1), number: 1, what });
        all.merge(&more);
        prop_assert_eq!(History::decode(&all.encode()), Ok(all.clone()));
        drop(all.view());
        drop(Folded::default().snapshot(&all));
    }

    #[test]
    fn histories_survive_encoding_and_decoding(history in a_history()) {
        prop_assert_eq!(History::decode(&history.encode()), Ok(history.clone()));
        for change in history.changes() {
            prop_assert_eq!(Change::decode(&change.encode()), Ok(change.clone()));
        }
    }

    #[test]
    fn no_bytes_cause_a_panic_in_decoding(bytes: Vec<u8>, history in a_history(), at: prop::sample::Index, flip: u8) {
        drop((History::decode(&bytes), Change::decode(&bytes)));
        let mut bytes = history.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(decoded) = History::decode(&bytes) {
            decoded.view();
        }
        drop(History::decode(&bytes[..at]));
    }
}

/// Version 1 as it was first written. Data on disks must stay readable.
#[test]
fn the_first_format_stays_readable() {
    let change = ChangeKind::Bucket { name: Bytes::from_static(b"carts"), settings: patch(5) };
    let mut history = History::new();
    let (hlc, node) = (Hlc::from_bits(0x0102_0304_0506_0708), NodeId::new(0x1112_1314_1516_1718));
    history.insert(Change { hlc, node, number: 3, what: change });
    let bytes = b"\x08\x01\x12\x1f\x09\x08\x07\x06\x05\x04\x03\x02\x01\x11\x18\x17\x16\x15\x14\x13\x12\x11\x18\x03\
        \x52\x09\x0a\x05carts\x10\x05";
    assert_eq!(History::decode(bytes), Ok(history.clone()));
    assert_eq!(history.encode()[..], bytes[..]);
}

#[test]
fn unknown_and_malformed_bytes_are_refused() {
    assert_eq!(History::decode(b"\x08\x02"), Err(DecodeError::Version(2)));
    assert_eq!(History::decode(b""), Err(DecodeError::Version(0)), "empty bytes are no history");
    assert_eq!(History::decode(b"\x08\x01").map(|history| history.len()), Ok(0));
    assert!(matches!(History::decode(b"\xff"), Err(DecodeError::Malformed(_))));
    assert_eq!(History::decode(b"\x08\x01\x12\x00"), Err(DecodeError::Missing("a known kind")));
    // A bootstrap with 0 partitions, a replacement without the new node, a bucket without a name.
    assert_eq!(History::decode(b"\x08\x01\x12\x02\x22\x00"), Err(DecodeError::Invalid("partition count")));
    assert_eq!(History::decode(b"\x08\x01\x12\x02\x3a\x00"), Err(DecodeError::Missing("a replacement")));
    assert_eq!(History::decode(b"\x08\x01\x12\x02\x52\x00"), Err(DecodeError::Invalid("bucket name")));
    assert_eq!(Change::decode(b"\x08\x01"), Err(DecodeError::Invalid("number of changes")));
}

/// Weights from one end of their range to the other.
fn any_weight() -> impl proptest::strategy::Strategy<Value = u32> {
    prop_oneof![Just(1), Just(NORMAL_WEIGHT), Just(1_000), Just(60_000), Just(u32::MAX), 1u32..=u32::MAX]
}

proptest! {
    #[test]
    fn no_weight_reduces_the_number_of_replicas(
        q in 1u32..40,
        tokens in prop::option::of(1u32..80),
        founders in 1usize..5,
        versions in prop::collection::vec((0u8..8, 0u8..12, any_weight()), 0..12),
    ) {
        let name = |serial: u8| format!("node-{serial}");
        let strategy = tokens.and_then(NonZeroU32::new).map_or(Strategy::Balanced, |tokens| Strategy::Random { tokens });
        let node = |serial: u8, weight| Member { weight, zone: format!("z{}", serial % 3), ..Member::new(&name(serial), Incarnation(1)) };
        let members = (0..founders as u8).map(|serial| node(serial, NORMAL_WEIGHT)).collect();
        let (cluster, partitions) = (ClusterId(7), Partitions::new(q).unwrap());
        let mut changes = vec![ChangeKind::Bootstrap { cluster, partitions, strategy, members, name: String::new() }];
        changes.push(bucket("wide", patch(16)));
        for (kind, serial, weight) in versions {
            changes.push(match kind {
                0..3 => ChangeKind::Add(node(serial, weight)),
                3 => ChangeKind::Replace { old: id(&name(serial)), new: node(serial + 20, weight) },
                _ => ChangeKind::Weight { node: id(&name(serial)), weight },
            });
        }
        let view = view(changes);
        let holders = view.members().filter(|known| !known.leaving && known.member.weight > 0).count();
        for partition in view.ring.partitions().iter() {
            for n in 1..=16 {
                prop_assert_eq!(view.ring.homes(partition, n).len(), n.min(holders), "n {} in {}", n, view.ring);
            }
        }
    }
}
