//! What a ring takes up in memory.

use super::{NodeInfo, Ring};
use crate::value::dot::NodeId;

impl NodeInfo {
    /// The bytes of its texts, which lie outside the struct itself.
    fn text_bytes(&self) -> usize {
        self.zone.capacity() + self.host.capacity()
    }
}

impl Ring {
    /// What it takes up in memory, in bytes: itself, its tables and the texts that they refer to, without what the allocator adds.
    ///
    /// Most of it are the preference lists, [`super::N_MAX`] nodes a partition, which make a lookup a table read; the owners alone, all
    /// that the paper's strategy 3 must keep (section 6.2), are a sixteenth of that.
    pub fn size_in_memory(&self) -> usize {
        let ids = self.owners.capacity() + self.walks.capacity();
        let texts: usize = self.nodes.iter().map(NodeInfo::text_bytes).sum();
        size_of::<Self>() + ids * size_of::<NodeId>() + self.nodes.capacity() * size_of::<NodeInfo>() + texts
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Partitions, RingVersion};
    use super::*;

    #[test]
    fn owners_lists_nodes_and_their_texts_count() {
        let ring = |partitions: u32, zone: &str| {
            let nodes = (1..=2).map(|id| NodeInfo { zone: zone.to_owned(), ..NodeInfo::new(NodeId::new(id)) });
            let owners = (0..partitions).map(|p| NodeId::new(u64::from(p % 2 + 1))).collect();
            let q = Partitions::new(partitions).unwrap();
            Ring::new(RingVersion::default(), q, owners, nodes.collect()).unwrap().size_in_memory()
        };
        // One owner and a list of two for each partition more, 8 bytes each.
        assert_eq!(ring(100, "") - ring(60, ""), 40 * (1 + 2) * 8);
        assert_eq!(ring(100, "zone-a") - ring(100, ""), 2 * "zone-a".len());
    }
}
