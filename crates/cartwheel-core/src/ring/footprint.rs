//! The memory that a ring takes.

use super::{NodeInfo, Ring};
use crate::value::dot::NodeId;

impl NodeInfo {
    /// The bytes of its strings, which lie outside the struct.
    fn text_bytes(&self) -> usize {
        self.zone.capacity() + self.host.capacity()
    }
}

impl Ring {
    /// The memory it takes in bytes: the struct, its tables and the strings that they refer to, without the allocator's overhead.
    ///
    /// Most of it is preference lists, [`super::N_MAX`] nodes for each partition, which make a lookup a table read. The owners alone, which are
    /// all that the paper's strategy 3 must keep (section 6.2), are a sixteenth of that.
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
    fn owners_lists_nodes_and_strings_count() {
        let ring = |partitions: u32, zone: &str| {
            let nodes = (1..=2).map(|id| NodeInfo { zone: zone.to_owned(), ..NodeInfo::new(NodeId::new(id)) });
            let owners = (0..partitions).map(|p| NodeId::new(u64::from(p % 2 + 1))).collect();
            let q = Partitions::new(partitions).unwrap();
            Ring::new(RingVersion::default(), q, owners, nodes.collect()).unwrap().size_in_memory()
        };
        // Each further partition adds one owner and a list of two, 8 bytes each.
        assert_eq!(ring(100, "") - ring(60, ""), 40 * (1 + 2) * 8);
        assert_eq!(ring(100, "zone-a") - ring(100, ""), 2 * "zone-a".len());
    }
}
