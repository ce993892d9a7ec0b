//! The cases that are measured, and their order.

use serde::Serialize;

use super::args::{StoreName, Workload};
use super::redis::appendfsync;
use crate::cli::Durability;
use crate::commands::bench::local::nodes;

/// What one run measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Case {
    pub(super) store: StoreName,
    pub(super) workload: Workload,
    /// The durability of Cartwheel's bucket. Redis has the setting that is compared with it.
    pub(super) durability: Durability,
    /// The replicas that a read of Cartwheel waits for; none for Redis, and for writes only.
    pub(super) r: Option<u8>,
}

impl Case {
    /// The name in a table.
    pub(super) fn name(&self) -> String {
        let Self { store, workload, durability, r } = self;
        match store {
            StoreName::Cartwheel => {
                let r = r.map(|r| format!(" R={r}")).unwrap_or_default();
                format!("{workload:?} Cartwheel {}{r}", nodes::name(*durability))
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
pub(super) fn cases(stores: &[StoreName], workloads: &[Workload], durabilities: &[Durability], rs: &[u8]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &durability in durabilities {
        for &workload in workloads {
            for &store in stores {
                let case = |r| Case { store, workload, durability, r };
                if store == StoreName::Cartwheel && workload.read_share() > 0.0 {
                    cases.extend(rs.iter().map(|&r| case(Some(r))));
                } else {
                    cases.push(case(None));
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
        let found = cases(&stores, &[Workload::B, Workload::W], &[Durability::Fsync, Durability::Os], &[1, 2]);
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
        let beside: Vec<usize> = (0..found.len()).filter(|&at| found[at].is_redis_beside(&found[1])).collect();
        assert_eq!(beside, [2]);
        assert_eq!((order(3, 0), order(3, 1)), (vec![0, 1, 2], vec![2, 1, 0]));
    }
}
