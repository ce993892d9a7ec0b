//! Ways to break the protocol on purpose.
//!
//! A simulator that has never failed proves nothing. Each mutation removes one rule, and the simulator must notice every one of
//! them. Without the crate's `mutations` feature none can be switched on, and the checks compile to nothing.

/// One rule of the protocol that can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A node goes on with an actor whose record it has lost.
    ReuseLostActor,
    /// One counter for all keys of a node, as version vectors without gaps have it.
    NodeWideCounter,
    /// A put's reply covers siblings that its request had not seen.
    ReplyCoversUnseen,
    /// Last write wins is applied inside merge.
    LwwInsideMerge,
    /// Merge drops a concurrent sibling.
    MergeDropsSibling,
    /// A replica answers before its store has.
    ReplyBeforeStored,
    /// A replica counts a write that its store has not synced.
    CountUnsynced,
    /// A strong get answers after one round of writing back, whatever the replicas then hold.
    StrongGetUnchecked,
    /// A strong put does not read a majority first.
    StrongPutBlind,
    /// A context is accepted for another key.
    BorrowedContext,
    /// Replaced writes are not noted, so a late retry brings them back.
    RetryResurrects,
    /// A replica that lost its record counts as if it had never held one.
    CountAmnesiac,
    /// A replica says that it has stored what its full disk did not take.
    FullDiskAcknowledges,
    /// A write that some replica has stored is refused as one that nobody has.
    RefuseStored,
    /// A node whose store may have lost writes in a power failure counts as if it had not.
    CountAfterPowerLoss,
    /// A node goes on with its actors after a restart, from whatever its directory holds then.
    ActorsOutliveBoots,
    /// The actors of all boots of one number have the same names, though the directory was put back from a copy in between.
    BootsNamedAlike,
    /// A change of settings is told of before it is saved.
    SettingsUnsaved,
    /// A node tells no other of changes.
    SettingsStayHome,
    /// How many replicas a key has follows from the settings that each node knows, not from the partition's configuration.
    ReplicaCountBySettings,
    /// A stand-in does not note for whom it stores.
    HintDropped,
    /// A stand-in is done with a key once a home has stored what it was sent, though more has come since.
    HintDroppedThoughNewer,
    /// A stand-in counts towards a strong write.
    StandInCountsForStrong,
    /// A node that does not answer is alive all the same.
    SwimNeverSuspects,
    /// Replicas are compared but for the last leaf of their trees.
    ExchangeSkipsLastLeaf,
    /// Trees that were saved at a stop are believed though the node has crashed since.
    TreeTrustedAfterCrash,
    /// A node that lost writes counts again once it was compared with one that lost them too.
    ExchangeCountsAmnesiac,
    /// A tombstone is forgotten one epoch too early.
    CollectEarly,
    /// State is merged however old its stamp is.
    StaleMerged,
    /// What a repair sends is stamped when it is sent.
    RepairsStampedWhenSent,
    /// A tombstone that is to be forgotten is stored again.
    DueStored,
    /// A node finishes an epoch while it keeps hints from before it.
    HintsOutliveEpochs,
    /// An expired value is forgotten as soon as a node's clock says that it has expired.
    ExpiredByClock,
    /// A stand-in answers before its hint is stored.
    HintBeforeStored,
    /// What a home that is being filled says of what it holds counts.
    SyncingCounts,
    /// An operation ends on a configuration though a replica told of a later step.
    StaleStepAccepted,
    /// A node says what it has promised, accepted or learnt of a successor before that is durable.
    StepsUnsaved,
    /// Who proposes a successor takes it for chosen.
    StepsUnagreed,
    /// While one configuration takes over from another, quorums are needed of the current one only.
    OneSideWritten,
    /// A new home says that it holds everything before it was compared with the homes before.
    SyncedTooEarly,
    /// A home forgets what it has as soon as a successor was chosen in which it is none.
    ReplacedHomePurges,
    /// A home that is none any more forgets what it has at once.
    OldHomePurges,
    /// The homes of a partition that was made anew speak for it before they have merged what the others hold.
    ForceRecoveredUnfilled,
    /// What a home said before it lost a record counts, whoever tells of the loss.
    CountLost,
    /// A forwarded write is stored though its coordinator holds something later.
    ForwardStoredBelow,
    /// A forwarded write is raised above what its coordinator holds, however late it comes.
    LateForwardRaised,
    /// A forwarded write that was refused for good is carried out when it is delivered again.
    RefusedForwardTaken,
    /// A boot's timestamps begin ten seconds ahead of the wall clock.
    BootsLead,
    /// A node forgets at a restart what it has learnt of partitions in which it has no part, and as a stand-in it settles a debt though it
    /// knows no home that could be owed it instead. Either rule alone would keep the debt.
    DebtSettledWithoutHome,
    /// While one configuration takes over from another, a home of one of them stands in for none of the other.
    ListsStandApart,
    /// Nobody stores a write in the place of a home whose incarnation is over, before the step that has another home in it.
    VacantPlacesStayEmpty,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 51] = [
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
    ];

    /// Its name on the command line.
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
        }
    }
}

/// Which rule is broken, if any.
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

    /// Whether `rule` is broken: never, in this build.
    #[cfg(not(feature = "mutations"))]
    #[inline(always)]
    pub fn is(self, _rule: Mutation) -> bool {
        false
    }
}
