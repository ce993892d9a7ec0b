//! `DELETE /v1/kv/{bucket}/{key}`: a delete removes the values that it has seen, and no others.

use crate::harness::Cluster;
use crate::harness::raw::{Reply, call, get, put};

fn delete(node: &str, path: &str, context: Option<&str>) -> Reply {
    let headers: Vec<_> = context.map(|context| ("cartwheel-context", context)).into_iter().collect();
    call(node, "DELETE", path, &headers, b"")
}

#[test]
fn a_delete_removes_only_the_values_it_has_seen() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    for (at, node) in nodes.iter().enumerate() {
        let path = format!("/v1/kv/deletes/{at}");
        let other = &nodes[(at + 1) % 3];
        let absent = delete(node, &path, None);
        assert_eq!((absent.status, absent.context(), absent.text().as_str()), (204, "", ""));
        assert_eq!(get(node, &path).context(), "", "a delete of an absent key writes nothing");

        // With a context, the delete covers the values that the context has seen.
        let seen = put(node, &path, "seen");
        put(other, &path, "unseen");
        let deleted = delete(node, &path, Some(seen.context()));
        assert_eq!((deleted.status, deleted.header("cartwheel-acks")), (204, "home=2 standin=0 zones=1"));
        assert!(!deleted.context().is_empty());
        assert_eq!(get(other, &path).values(), ["unseen"]);

        // Without a context, it covers all values and tombstones that a get sees.
        put(other, &path, "and another");
        assert_eq!(delete(node, &path, None).status, 204);
        let gone = get(other, &path);
        assert_eq!((gone.status, gone.values().len()), (404, 0));
        assert!(!gone.context().is_empty());
        let again = delete(other, &path, None);
        assert_eq!(again.status, 204);

        // The second delete replaced the first, and only a write that has seen it replaces it.
        let back = |context| call(node, "PUT", &path, &[("cartwheel-context", context)], b"back");
        assert_eq!(back(again.context()).status, 204);
        assert_eq!((get(other, &path).status, get(other, &path).values()), (200, vec!["back".to_owned()]));
        for query in ["?w=3", "?consistency=strong", "?timeout_ms=60000"] {
            put(node, &path, "v");
            assert_eq!(delete(node, &(path.clone() + query), None).status, 204, "{query}");
            assert_eq!(get(node, &(path.clone() + "?consistency=strong")).status, 404, "{query}");
        }
    }
}
