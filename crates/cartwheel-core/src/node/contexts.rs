//! What the parts of a node may know and use in a step: each borrows parts of the node beside the part itself.

use super::{Node, Step};
use crate::anti_entropy::{Exchange, ExchangeContext};
use crate::cluster::configuration::ConfigVersion;
use crate::cluster::losses::Losses;
use crate::coordinator::{Coordinator, OperationContext};
use crate::reconfiguration::transfer::{TransferContext, Transfers};
use crate::reconfiguration::{Reconfiguration, ReconfigurationContext};

impl Node {
    /// Lets the coordinator act, with what an operation may know and use in this step.
    pub(super) fn with_coordinator<T>(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Coordinator, &mut OperationContext<'_>) -> T,
    ) -> T {
        let mut cx = OperationContext {
            now: step.now,
            me: self.config.node,
            view: self.held.view(),
            held: &self.held,
            reported_version: ConfigVersion::default(),
            losses: Losses::NONE,
            memory: self.replica.memory(),
            liveness: &self.liveness,
            sealer: &self.sealer,
            timing: &self.config.timing,
            epoch: self.replica.epoch(),
            begun: self.replica.epoch(),
            clock: self.replica.clock(),
            full: &mut self.full,
            reach: &mut self.reach,
            admission: &mut self.admission,
            broken: self.config.broken,
            out: &mut step.coordinator,
        };
        act(&mut self.coordinator, &mut cx)
    }

    /// Lets anti-entropy act.
    pub(super) fn with_exchange<T>(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Exchange, &mut ExchangeContext<'_>) -> T,
    ) -> T {
        let mut cx = ExchangeContext {
            now: step.now,
            me: self.config.node,
            liveness: &self.liveness,
            timing: &self.config.timing,
            epoch: self.replica.epoch(),
            replica: &mut self.replica,
            admission: &mut self.admission,
            broken: self.config.broken,
            out: &mut step.exchange,
        };
        act(&mut self.exchange, &mut cx)
    }

    /// Lets the transfers of partitions act.
    pub(super) fn with_transfers<T>(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Transfers, &mut TransferContext<'_>) -> T,
    ) -> T {
        let mut cx = TransferContext {
            now: step.now,
            held: &self.held,
            liveness: &self.liveness,
            timing: &self.config.timing,
            replica: &mut self.replica,
            admission: &mut self.admission,
            broken: self.config.broken,
            out: &mut step.transfers,
        };
        act(&mut self.transfers, &mut cx)
    }

    /// Lets the reconfiguration act. It steers anti-entropy and the transfers.
    pub(super) fn with_reconfiguration<T>(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Reconfiguration, &mut ReconfigurationContext<'_>) -> T,
    ) -> T {
        let mut cx = ReconfigurationContext {
            now: step.now.instant,
            held: &self.held,
            liveness: &self.liveness,
            exchange: &mut self.exchange,
            transfers: &mut self.transfers,
            replica: &mut self.replica,
            admission: &mut self.admission,
            random: &mut self.random,
            broken: self.config.broken,
            out: &mut step.reconfiguration,
        };
        act(&mut self.reconfiguration, &mut cx)
    }
}
