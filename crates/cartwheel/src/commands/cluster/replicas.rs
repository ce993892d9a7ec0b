//! The time as of which all replicas are verified equal, from the proofs of all nodes of a cluster.

use std::collections::BTreeMap;

use cartwheel_client::Replicas;

/// The two nodes, sorted by name, and the partition and n that they share.
type Pair = (String, String, u32, u8);

/// A sentence about that time, from the proofs of every node that answered. The nodes in `silent` did not answer.
pub(super) fn summary(reports: &[Replicas], silent: &[&str]) -> String {
    let mut text = sentence(reports);
    if !silent.is_empty() {
        text += &format!(" ({} did not answer)", silent.join(", "));
    }
    text
}

fn sentence(reports: &[Replicas]) -> String {
    let pairs = pairs(reports);
    let unproven = pairs.values().filter(|since| since.is_none()).count();
    match pairs.values().flatten().min() {
        _ if pairs.is_empty() => "no partition has more than one replica".to_owned(),
        Some(since) if unproven == 0 => {
            format!("all replicas verified equal as of {since}")
        }
        _ => format!("{unproven} of {} pairs of replicas not yet verified equal", pairs.len()),
    }
}

/// The time as of which all replicas are proven equal, if they are, and how many pairs are not.
pub(super) fn equal_since<'a>(reports: impl IntoIterator<Item = &'a Replicas>) -> (Option<String>, usize) {
    let pairs = pairs(reports);
    let unproven = pairs.values().filter(|since| since.is_none()).count();
    let oldest = pairs.values().flatten().min().map(|&since| since.to_owned());
    (oldest.filter(|_| unproven == 0), unproven)
}

/// The time as of which each pair of replicas is proven equal. A proof by one replica holds for both, so the newer one counts. The
/// times are RFC 3339 text, which sorts by time.
fn pairs<'a>(reports: impl IntoIterator<Item = &'a Replicas>) -> BTreeMap<Pair, Option<&'a str>> {
    let mut pairs = BTreeMap::new();
    for node in reports {
        for replica in &node.replicas {
            let (one, other) =
                (node.node.clone().min(replica.peer.clone()), node.node.clone().max(replica.peer.clone()));
            let since = pairs.entry((one, other, replica.partition, replica.n)).or_insert(None);
            *since = (*since).max(replica.equal_since.as_deref());
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use cartwheel_client::ReplicaProof;

    use super::*;

    fn node(name: &str, proofs: &[(&str, u32, Option<&str>)]) -> Replicas {
        let proof = |&(peer, partition, since): &(&str, u32, Option<&str>)| ReplicaProof {
            partition,
            n: 3,
            peer: peer.to_owned(),
            equal_since: since.map(str::to_owned),
        };
        let replicas = proofs.iter().map(proof).collect();
        Replicas { node: name.to_owned(), equal_since: None, unproven: 0, replicas }
    }

    #[test]
    fn the_newer_proof_of_each_pair_and_the_oldest_of_these_counts() {
        let (one, two) = (Some("2026-01-01T00:00:01.000Z"), Some("2026-01-01T00:00:02.000Z"));
        let three = Some("2026-01-01T00:00:03.000Z");
        let all = [node("a", &[("b", 1, one), ("c", 1, three)]), node("b", &[("a", 1, two), ("c", 1, three)])];
        assert!(sentence(&all).contains("00:00:02.000Z"), "{}", sentence(&all));
        let some = [node("a", &[("b", 1, one), ("c", 1, None)])];
        assert_eq!(sentence(&some), "1 of 2 pairs of replicas not yet verified equal");
        assert_eq!(sentence(&[]), "no partition has more than one replica");
    }
}
