//! What the parts of a node may know and use in a step: macros, because each borrows parts of the node beside the part itself.

/// What an operation of the coordinator may know and use in this step. A macro, because it borrows parts of the node beside the
/// coordinator itself.
macro_rules! cx {
    ($node:ident, $step:ident) => {
        $crate::coordinator::Cx {
            now: $step.now,
            me: $node.config.node,
            view: $node.held.view(),
            held: &$node.held,
            heard_of: $crate::cluster::configuration::ConfigVersion::default(),
            losses: $crate::cluster::losses::Losses::NONE,
            memory: $node.replica.memory(),
            liveness: &$node.liveness,
            sealer: &$node.sealer,
            timing: &$node.config.timing,
            epoch: $node.replica.epoch(),
            begun: $node.replica.epoch(),
            clock: $node.replica.clock(),
            full: &mut $node.full,
            reach: &mut $node.reach,
            admission: &mut $node.admission,
            broken: $node.config.broken,
            out: &mut $step.out,
        }
    };
}

/// The same for the exchange.
macro_rules! xcx {
    ($node:ident, $step:ident) => {
        $crate::anti_entropy::Xcx {
            now: $step.now,
            me: $node.config.node,
            liveness: &$node.liveness,
            timing: &$node.config.timing,
            epoch: $node.replica.epoch(),
            replica: &mut $node.replica,
            admission: &mut $node.admission,
            broken: $node.config.broken,
            out: &mut $step.exchange,
        }
    };
}

/// The same for transfers.
macro_rules! tcx {
    ($node:ident, $step:ident) => {
        $crate::reconfiguration::transfer::Tcx {
            now: $step.now,
            held: &$node.held,
            liveness: &$node.liveness,
            timing: &$node.config.timing,
            replica: &mut $node.replica,
            admission: &mut $node.admission,
            broken: $node.config.broken,
            out: &mut $step.transfers,
        }
    };
}

/// The same for the reconfiguration.
macro_rules! scx {
    ($node:ident, $step:ident) => {
        $crate::reconfiguration::Scx {
            now: $step.now.instant,
            held: &$node.held,
            liveness: &$node.liveness,
            exchange: &mut $node.exchange,
            transfers: &mut $node.transfers,
            replica: &mut $node.replica,
            admission: &mut $node.admission,
            random: &mut $node.random,
            broken: $node.config.broken,
            out: &mut $step.reconfiguration,
        }
    };
}
