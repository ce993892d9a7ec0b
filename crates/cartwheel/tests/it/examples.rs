//! The examples keep their promises on clusters of real processes.

use std::path::Path;

use crate::harness::{CARTWHEEL, Cluster};
use cart::cart::{Cart, MarkedCart, PlainCart, merged};
use cart::cluster::Cluster as OwnCluster;
use cart::experiment::Experiment;
use cart::purchases::{self, Purchase};
use stock::orders::{Shop, StockKey, numbers};

#[tokio::test(flavor = "multi_thread")]
async fn no_cart_loses_an_item_while_a_node_is_killed() {
    let mut purchases = purchases::parse(purchases::CDNOW).unwrap();
    purchases.truncate(3_000);
    let removes = purchases.iter().filter(|purchase| purchase.is_removed(10)).count();
    let (purchases, bucket) = (purchases.into(), "carts".to_owned());
    let experiment = Experiment { purchases, removes_percent: 10, bucket, writers: 12, silent: true };
    let mut cluster = OwnCluster::start(Path::new(CARTWHEEL)).await.unwrap();
    let result = experiment.run_with_a_kill(&mut cluster).await.unwrap();
    cluster.stop().await;

    assert_eq!((result.replayed.adds, result.replayed.removes), (3_000, removes as u64));
    assert!(result.replayed.merges > 0, "no writer met another's sibling");
    for proof in [&result.plain, &result.marked] {
        assert_eq!((proof.found, proof.removed, &proof.mismatches[..]), (3_000 - removes, removes, &[][..]));
    }
    assert_eq!(result.marked.resurfaced, 0);
    assert_eq!(result.verdict(), Ok(()));
}

/// Two devices of one customer: one removes an item while the other adds another.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_item_resurfaces_in_a_union_but_not_where_it_is_marked() {
    async fn ends_with<C: Cart>(cluster: &Cluster, bucket: &str) -> Vec<String> {
        let purchase = |mark| Purchase { customer: "alice".to_owned(), item: format!("item {mark}"), mark };
        let (phone, laptop) = (cluster.client(1), cluster.client(2));
        let mut cart = C::default();
        cart.add(&purchase(1));
        phone.put(bucket, "alice", cart.encode(), None).await.unwrap();
        let (on_phone, on_laptop) = tokio::try_join!(phone.get(bucket, "alice"), laptop.get(bucket, "alice")).unwrap();
        let (mut one, mut other) = (merged::<C>(&on_phone), merged::<C>(&on_laptop));
        one.remove(&purchase(1));
        other.add(&purchase(2));
        tokio::try_join!(
            phone.put(bucket, "alice", one.encode(), on_phone.context.as_ref()),
            laptop.put(bucket, "alice", other.encode(), on_laptop.context.as_ref()),
        )
        .unwrap();
        let read = cluster.client(3).get(bucket, "alice").await.unwrap();
        assert_eq!(read.values.len(), 2);
        merged::<C>(&read).items().into_iter().collect()
    }
    let cluster = Cluster::start();
    assert_eq!(ends_with::<PlainCart>(&cluster, "union").await, ["item 1", "item 2"]);
    assert_eq!(ends_with::<MarkedCart>(&cluster, "marks").await, ["item 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_orders_leave_the_right_stock() {
    let cluster = Cluster::start();
    let at = StockKey { bucket: "stock", key: "chairs" };
    let mut warehouse = Shop::new("warehouse", cluster.client(3));
    let (mut one, mut other) = (Shop::new("shop-1", cluster.client(1)), Shop::new("shop-2", cluster.client(2)));
    let seen = warehouse.read(at).await.unwrap();
    warehouse.receive(at, seen, 10).await.unwrap();

    let (a, b) = tokio::try_join!(one.read(at), other.read(at)).unwrap();
    assert_eq!((a.stock.left(), b.stock.left()), (10, 10));
    tokio::try_join!(one.sell(at, a, 3), other.sell(at, b, 4)).unwrap();
    for node in 1..=3 {
        let seen = Shop::new("auditor", cluster.client(node)).read(at).await.unwrap();
        assert_eq!((seen.siblings, seen.stock.left()), (2, 3), "node {node}");
    }
    // The shop that sells next merges both siblings, and thus includes the other shop's sale.
    let seen = one.read(at).await.unwrap();
    one.sell(at, seen, 2).await.unwrap();
    let seen = other.read(at).await.unwrap();
    assert_eq!((seen.siblings, seen.stock.left(), seen.stock.of("shop-1").sold), (1, 1, 5));

    // A plain number goes wrong: each shop writes the stock that it believes to be left.
    let (bucket, key, [one, other]) = ("stock", "naive", [cluster.client(1), cluster.client(2)]);
    let context = one.put(bucket, key, "10", None).await.unwrap().context;
    tokio::try_join!(one.put(bucket, key, "7", context.as_ref()), other.put(bucket, key, "6", context.as_ref()))
        .unwrap();
    let mut left = numbers(&cluster.client(3).get(bucket, key).await.unwrap());
    left.sort_unstable();
    assert_eq!(left, [6, 7], "neither sibling is the true stock");
}
