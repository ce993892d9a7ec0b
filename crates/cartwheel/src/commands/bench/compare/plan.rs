//! The cases that are measured, and their order.

use serde::Serialize;

use super::args::{ProtocolName, StoreName, Workload};
use super::redis::appendfsync;
use crate::cli::Durability;
use crate::commands::bench::local::nodes;

/// What one run measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Case {
    pub(super) store: StoreName,
    /// The protocol over which Cartwheel is used; none for Redis.
    pub(super) protocol: Option<ProtocolName>,
    pub(super) workload: Workload,
    /// The durability of Cartwheel's bucket. Redis has the setting that is compared with it.
    pub(super) durability: Durability,
    /// The replicas that a read of Cartwheel waits for; none for Redis, and for writes only.
    pub(super) r: Option<u8>,
}

impl Case {
    /// The name in a table.
    pub(super) fn name(&self) -> String {
        let Self { store, protocol, workload, durability, r } = self;
        match store {
            StoreName::Cartwheel => {
                let r = r.map(|r| format!(" R={r}")).unwrap_or_default();
                let protocol = if *protocol == Some(ProtocolName::Resp) { " RESP" } else { "" };
                format!("{workload:?} Cartwheel{protocol} {}{r}", nodes::name(*durability))
            }
            StoreName::Redis => format!("{workload:?} Redis {}", appendfsync(*durability)),
        }
    }

    /// Whether this is the case of Redis that `other`, a case of Cartwheel, is compared with.
    pub(super) fn is_redis_beside(&self, other: &Self) -> bool {
        (self.store, other.store) == (StoreName::Redis, StoreName::Cartwheel)
            && (self.workload, self.durability) == (other.workload, other.durability)
    }
}

/// The cases in the order of a report: those that are compared stand together.
pub(super) fn cases(
    stores: &[StoreName],
    protocols: &[ProtocolName],
    workloads: &[Workload],
    durabilities: &[Durability],
    rs: &[u8],
) -> Vec<Case> {
    let mut cases = Vec::new();
    for &durability in durabilities {
        for &workload in workloads {
            for &store in stores {
                let case = |protocol, r| Case { store, protocol, workload, durability, r };
                if store == StoreName::Redis {
                    cases.push(case(None, None));
                    continue;
                }
                for &protocol in protocols {
                    if workload.read_share() > 0.0 {
                        cases.extend(rs.iter().map(|&r| case(Some(protocol), Some(r))));
                    } else {
                        cases.push(case(Some(protocol), None));
                    }
                }
            }
        }
    }
    cases
}

/// The order of the runs of a round, as indexes of cases. Every other round is reversed, so that neither store always runs after the
/// other.
pub(super) fn order(cases: usize, round: u32) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..cases).collect() } else { (0..cases).rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_run_with_each_r_and_writes_once_beside_redis() {
        let stores = [StoreName::Cartwheel, StoreName::Redis];
        let (http, both) = ([ProtocolName::Http], [ProtocolName::Http, ProtocolName::Resp]);
        let found = cases(&stores, &http, &[Workload::B, Workload::W], &[Durability::Fsync, Durability::Os], &[1, 2]);
        let names: Vec<String> = found.iter().map(Case::name).collect();
        let expected = [
            "B Cartwheel fsync R=1",
            "B Cartwheel fsync R=2",
            "B Redis always",
            "W Cartwheel fsync",
            "W Redis always",
            "B Cartwheel os R=1",
            "B Cartwheel os R=2",
            "B Redis everysec",
            "W Cartwheel os",
            "W Redis everysec",
        ];
        assert_eq!(names, expected);
        let found_with_both = cases(&stores[..1], &both, &[Workload::B, Workload::W], &[Durability::Os], &[1]);
        let names: Vec<String> = found_with_both.iter().map(Case::name).collect();
        let expected = ["B Cartwheel os R=1", "B Cartwheel RESP os R=1", "W Cartwheel os", "W Cartwheel RESP os"];
        assert_eq!(names, expected);
        let beside: Vec<usize> = (0..found.len()).filter(|&at| found[at].is_redis_beside(&found[1])).collect();
        assert_eq!(beside, [2]);
        assert_eq!((order(3, 0), order(3, 1)), (vec![0, 1, 2], vec![2, 1, 0]));
    }
}
