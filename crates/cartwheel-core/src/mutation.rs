//! Ways to break the protocol on purpose.
//!
//! A simulator that has never failed proves nothing. Each mutation removes one rule, and the simulator must notice every one of them. Without
//! the crate's `mutations` feature none can be enabled, and the checks compile to nothing.

/// One rule of the protocol that can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A node continues an actor whose record it has lost.
    ReuseLostActor,
    /// A node has one counter for all keys, as version vectors without gaps do.
    NodeWideCounter,
    /// A put's reply covers siblings that its request had not seen.
    ReplyCoversUnseen,
    /// Last write wins is applied inside merge.
    LwwInsideMerge,
    /// Merge drops a concurrent sibling.
    MergeDropsSibling,
    /// A replica responds before its store has confirmed the write.
    ReplyBeforeStored,
    /// A replica counts a write that its store has not synced.
    CountUnsynced,
    /// A strong get replies after one round of write-back, whatever the replicas then hold.
    StrongGetUnchecked,
    /// A strong put does not read a majority first.
    StrongPutBlind,
    /// A context is accepted for another key.
    BorrowedContext,
    /// Replaced writes are not noted, so a late retry restores them.
    RetryResurrects,
    /// A replica that lost its record counts as if it had never held one.
    CountAmnesiac,
    /// A replica acknowledges a write that its full disk rejected.
    FullDiskAcknowledges,
    /// A write that some replica has stored is refused as if no replica had it.
    RefuseStored,
    /// A node whose store may have lost writes in a power failure counts as if it had not.
    CountAfterPowerLoss,
    /// A node continues its actors after a restart, from whatever its directory then holds.
    ActorsOutliveBoots,
    /// Actors of boots with the same number have the same names, even when the directory was restored from a copy in between.
    BootsNamedAlike,
    /// A change of settings is sent before it is saved.
    SettingsUnsaved,
    /// A node sends no changes to other nodes.
    SettingsStayHome,
    /// A key's number of replicas follows from the settings that each node knows, not from the partition's configuration.
    ReplicaCountBySettings,
    /// A stand-in does not note the home for which it stores.
    HintDropped,
    /// A stand-in drops its hint once a home has stored what it was sent, even if a newer write arrived since.
    HintDroppedThoughNewer,
    /// A stand-in counts towards a strong write.
    StandInCountsForStrong,
    /// A node that does not answer counts as alive.
    SwimNeverSuspects,
    /// Exchanges skip the last leaf of the trees.
    ExchangeSkipsLastLeaf,
    /// Trees saved at a stop are trusted even after a crash.
    TreeTrustedAfterCrash,
    /// A node that lost writes counts again after an exchange with a node that also lost writes.
    ExchangeCountsAmnesiac,
    /// A tombstone is collected one epoch too early.
    CollectEarly,
    /// State is merged however old its epoch stamp is.
    StaleMerged,
    /// A repair is stamped with the epoch in which it is sent.
    RepairsStampedWhenSent,
    /// A tombstone that is due for collection is stored again.
    DueStored,
    /// A node finishes an epoch while it keeps hints from earlier ones.
    HintsOutliveEpochs,
    /// An expired value is collected as soon as the node's own clock says that it has expired.
    ExpiredByClock,
    /// A stand-in responds before its hint is stored.
    HintBeforeStored,
    /// Answers of a syncing home count towards quorums.
    SyncingCounts,
    /// An operation ends on a configuration although a replica reported a later version.
    StaleStepAccepted,
    /// A node sends Paxos promises, acceptances and decisions before they are durable.
    StepsUnsaved,
    /// A proposer takes its proposal for chosen without a quorum.
    StepsUnagreed,
    /// While a configuration is joint, only the current list must reach its quorum.
    OneSideWritten,
    /// A new home reports itself as synced before it was compared with the earlier homes.
    SyncedTooEarly,
    /// A replaced home purges its data as soon as a next configuration without it is chosen.
    ReplacedHomePurges,
    /// A retired home purges its data at once.
    OldHomePurges,
    /// Homes of a force-recovered partition count before they have merged what the others hold.
    ForceRecoveredUnfilled,
    /// What a home answered before it lost a record still counts, even after the loss is reported.
    CountLost,
    /// A forwarded write is stored although its coordinator holds something later.
    ForwardStoredBelow,
    /// A forwarded write is raised above what its coordinator holds, however late it comes.
    LateForwardRaised,
    /// A forwarded write that was refused for good is carried out when it is delivered again.
    RefusedForwardTaken,
    /// A boot's timestamps begin ten seconds ahead of the wall clock.
    BootsLead,
    /// At a restart a node loses what it learned of partitions in which it has no part, and a stand-in drops a hint although it knows no other
    /// home to which it could be delivered. Either rule alone would keep the hint.
    DebtSettledWithoutHome,
    /// While a configuration is joint, a home of one list never stands in for a home of the other.
    ListsStandApart,
    /// No node stores a write in place of a home whose incarnation is over, until a reconfiguration has replaced that home.
    VacantPlacesStayEmpty,
    /// A write that rewrites a value is stamped like any other write.
    RewritesStampedNow,
    /// A write leaves the decoded record in memory that it replaces in the store.
    CachedRecordKept,
    /// A replica keeps what a bucket held before it was emptied, and stores late writes to it.
    EmptiedBucketsKept,
    /// Live keys get no entry in the index of their bucket.
    KeysNotListed,
    /// A replica answers a read at once from memory even if its state does not count, or not alone.
    AtOnceUnchecked,
}

impl Mutation {
    /// All mutations.
    pub const ALL: [Self; 56] = [
        Self::ReuseLostActor,
        Self::NodeWideCounter,
        Self::ReplyCoversUnseen,
        Self::LwwInsideMerge,
        Self::MergeDropsSibling,
        Self::ReplyBeforeStored,
        Self::CountUnsynced,
        Self::StrongGetUnchecked,
        Self::StrongPutBlind,
        Self::BorrowedContext,
        Self::RetryResurrects,
        Self::CountAmnesiac,
        Self::FullDiskAcknowledges,
        Self::RefuseStored,
        Self::CountAfterPowerLoss,
        Self::ActorsOutliveBoots,
        Self::BootsNamedAlike,
        Self::SettingsUnsaved,
        Self::SettingsStayHome,
        Self::ReplicaCountBySettings,
        Self::HintDropped,
        Self::HintDroppedThoughNewer,
        Self::StandInCountsForStrong,
        Self::SwimNeverSuspects,
        Self::ExchangeSkipsLastLeaf,
        Self::TreeTrustedAfterCrash,
        Self::ExchangeCountsAmnesiac,
        Self::CollectEarly,
        Self::StaleMerged,
        Self::RepairsStampedWhenSent,
        Self::DueStored,
        Self::HintsOutliveEpochs,
        Self::ExpiredByClock,
        Self::HintBeforeStored,
        Self::SyncingCounts,
        Self::StaleStepAccepted,
        Self::StepsUnsaved,
        Self::StepsUnagreed,
        Self::OneSideWritten,
        Self::SyncedTooEarly,
        Self::ReplacedHomePurges,
        Self::OldHomePurges,
        Self::ForceRecoveredUnfilled,
        Self::CountLost,
        Self::ForwardStoredBelow,
        Self::LateForwardRaised,
        Self::RefusedForwardTaken,
        Self::BootsLead,
        Self::DebtSettledWithoutHome,
        Self::ListsStandApart,
        Self::VacantPlacesStayEmpty,
        Self::RewritesStampedNow,
        Self::CachedRecordKept,
        Self::EmptiedBucketsKept,
        Self::KeysNotListed,
        Self::AtOnceUnchecked,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReuseLostActor => "reuse-lost-actor",
            Self::NodeWideCounter => "node-wide-counter",
            Self::ReplyCoversUnseen => "reply-covers-unseen",
            Self::LwwInsideMerge => "lww-inside-merge",
            Self::MergeDropsSibling => "merge-drops-sibling",
            Self::ReplyBeforeStored => "reply-before-stored",
            Self::CountUnsynced => "count-unsynced",
            Self::StrongGetUnchecked => "strong-get-unchecked",
            Self::StrongPutBlind => "strong-put-blind",
            Self::BorrowedContext => "borrowed-context",
            Self::RetryResurrects => "retry-resurrects",
            Self::CountAmnesiac => "count-amnesiac",
            Self::FullDiskAcknowledges => "full-disk-acknowledges",
            Self::RefuseStored => "refuse-stored",
            Self::CountAfterPowerLoss => "count-after-power-loss",
            Self::ActorsOutliveBoots => "actors-outlive-boots",
            Self::BootsNamedAlike => "boots-named-alike",
            Self::SettingsUnsaved => "settings-unsaved",
            Self::SettingsStayHome => "settings-stay-home",
            Self::ReplicaCountBySettings => "replica-count-by-settings",
            Self::HintDropped => "hint-dropped",
            Self::HintDroppedThoughNewer => "hint-dropped-though-newer",
            Self::StandInCountsForStrong => "stand-in-counts-for-strong",
            Self::SwimNeverSuspects => "swim-never-suspects",
            Self::ExchangeSkipsLastLeaf => "exchange-skips-last-leaf",
            Self::TreeTrustedAfterCrash => "tree-trusted-after-crash",
            Self::ExchangeCountsAmnesiac => "exchange-counts-amnesiac",
            Self::CollectEarly => "collect-early",
            Self::StaleMerged => "stale-merged",
            Self::RepairsStampedWhenSent => "repairs-stamped-when-sent",
            Self::DueStored => "due-stored",
            Self::HintsOutliveEpochs => "hints-outlive-epochs",
            Self::ExpiredByClock => "expired-by-clock",
            Self::HintBeforeStored => "hint-before-stored",
            Self::SyncingCounts => "syncing-counts",
            Self::StaleStepAccepted => "stale-step-accepted",
            Self::StepsUnsaved => "steps-unsaved",
            Self::StepsUnagreed => "steps-unagreed",
            Self::OneSideWritten => "one-side-written",
            Self::SyncedTooEarly => "synced-too-early",
            Self::ReplacedHomePurges => "replaced-home-purges",
            Self::OldHomePurges => "old-home-purges",
            Self::ForceRecoveredUnfilled => "force-recovered-unfilled",
            Self::CountLost => "count-lost",
            Self::ForwardStoredBelow => "forward-stored-below",
            Self::LateForwardRaised => "late-forward-raised",
            Self::RefusedForwardTaken => "refused-forward-taken",
            Self::BootsLead => "boots-lead",
            Self::DebtSettledWithoutHome => "debt-settled-without-home",
            Self::ListsStandApart => "lists-stand-apart",
            Self::VacantPlacesStayEmpty => "vacant-places-stay-empty",
            Self::RewritesStampedNow => "rewrites-stamped-now",
            Self::CachedRecordKept => "cached-record-kept",
            Self::EmptiedBucketsKept => "emptied-buckets-kept",
            Self::KeysNotListed => "keys-not-listed",
            Self::AtOnceUnchecked => "at-once-unchecked",
        }
    }
}

/// The broken rule, if any.
#[derive(Clone, Copy, Default, Debug)]
pub struct Broken {
    #[cfg(feature = "mutations")]
    rule: Option<Mutation>,
}

impl Broken {
    /// A protocol with this rule broken.
    #[cfg(feature = "mutations")]
    pub const fn rule(rule: Mutation) -> Self {
        Self { rule: Some(rule) }
    }

    /// Whether `rule` is broken.
    #[cfg(feature = "mutations")]
    pub fn is(self, rule: Mutation) -> bool {
        self.rule == Some(rule)
    }

    /// Whether any rule other than `rule` is broken.
    #[cfg(feature = "mutations")]
    pub fn is_other_than(self, rule: Mutation) -> bool {
        self.rule.is_some_and(|broken| broken != rule)
    }

    /// Whether any rule other than `rule` is broken: always false in this build.
    #[cfg(not(feature = "mutations"))]
    pub const fn is_other_than(self, _rule: Mutation) -> bool {
        false
    }

    /// Whether `rule` is broken: always false in this build.
    #[cfg(not(feature = "mutations"))]
    #[inline(always)]
    pub fn is(self, _rule: Mutation) -> bool {
        false
    }
}
