//! Encoding of messages about configurations, and of partition states.

use bytes::Bytes;
use prost::Message as _;

use super::WireError;
use crate::cluster::configuration::{ConfigPhase, ConfigVersion, Configuration, Home};
use crate::cluster::counts::ReplicaCounts;
use crate::cluster::partition_state::PartitionState;
use crate::cluster::paxos::{Accepted, Acceptor, Ballot};
use crate::message::gossip::{PHASES_MAX, PhasesNotice};
use crate::message::reconfiguration::ReconfigurationMessage;
use crate::ring::{PartitionId, Partitions};
use crate::value::dot::{Incarnation, NodeId};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbReconfiguration {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(oneof = "PbReconfigurationMessage", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    message: Option<PbReconfigurationMessage>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PbReconfigurationMessage {
    #[prost(uint64, tag = "2")]
    Query(u64),
    #[prost(message, tag = "3")]
    Holds(PbPhase),
    #[prost(message, tag = "4")]
    Prepare(PbBallot),
    #[prost(message, tag = "5")]
    Promise(PbPromise),
    #[prost(message, tag = "6")]
    Accept(PbAccepted),
    #[prost(message, tag = "7")]
    Accepted(PbBallot),
    #[prost(message, tag = "8")]
    Outbid(PbOutbid),
    #[prost(uint64, tag = "9")]
    Copied(u64),
    #[prost(uint64, tag = "10")]
    Synced(u64),
}

/// A ballot, with the number of the configuration that it concerns.
#[derive(Clone, PartialEq, prost::Message)]
struct PbBallot {
    #[prost(uint64, tag = "1")]
    round: u64,
    #[prost(fixed64, tag = "2")]
    node: u64,
    #[prost(uint64, tag = "3")]
    number: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbPromise {
    #[prost(message, required, tag = "1")]
    ballot: PbBallot,
    #[prost(message, optional, tag = "2")]
    accepted: Option<PbAccepted>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbOutbid {
    #[prost(message, required, tag = "1")]
    ballot: PbBallot,
    #[prost(message, required, tag = "2")]
    promised: PbBallot,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbAccepted {
    #[prost(message, required, tag = "1")]
    ballot: PbBallot,
    #[prost(message, required, tag = "2")]
    configuration: PbConfiguration,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbPhase {
    #[prost(message, required, tag = "1")]
    current: PbConfiguration,
    #[prost(message, optional, tag = "2")]
    next: Option<PbConfiguration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbConfiguration {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(fixed64, repeated, tag = "2")]
    nodes: Vec<u64>,
    /// The incarnations of `nodes`.
    #[prost(fixed64, repeated, tag = "3")]
    incarnations: Vec<u64>,
    #[prost(uint32, tag = "4")]
    choosers: u32,
    /// The buckets whose n was ever different from the default.
    #[prost(message, repeated, tag = "5")]
    counts: Vec<PbCount>,
    /// False: written by an earlier build, which did not store the counts.
    #[prost(bool, tag = "6")]
    says_counts: bool,
    /// If not 0: the number, from 1, of the table in the message that replaces `counts`.
    #[prost(uint32, tag = "7")]
    table: u32,
}

/// The number of home replicas of keys, by bucket.
#[derive(Clone, PartialEq, prost::Message)]
struct PbTable {
    #[prost(message, repeated, tag = "1")]
    counts: Vec<PbCount>,
}

/// The number of home replicas of a bucket's keys.
#[derive(Clone, PartialEq, prost::Message)]
struct PbCount {
    #[prost(bytes = "bytes", tag = "1")]
    bucket: Bytes,
    #[prost(uint32, tag = "2")]
    n: u32,
}

/// A [`PhasesNotice`]. Only the fields of one of its three kinds are set.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbPhases {
    #[prost(fixed64, optional, tag = "1")]
    digest: Option<u64>,
    #[prost(uint64, repeated, tag = "2")]
    versions: Vec<u64>,
    #[prost(bool, tag = "3")]
    is_answer: bool,
    #[prost(uint32, repeated, tag = "4")]
    partitions: Vec<u32>,
    /// The configurations of `partitions`.
    #[prost(message, repeated, tag = "5")]
    phases: Vec<PbPhase>,
    /// Belongs to `digest`. A build that does not know this field replies only if its own digest differs.
    #[prost(bool, tag = "6")]
    asks: bool,
    /// The tables of the configurations in `phases`, each once, since most are equal.
    #[prost(message, repeated, tag = "7")]
    tables: Vec<PbTable>,
}

/// A partition state as it is stored. The version comes first, so that a later form is not taken for this one.
#[derive(Clone, PartialEq, prost::Message)]
struct PbPartitionState {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, required, tag = "2")]
    phase: PbPhase,
    #[prost(uint64, repeated, tag = "3")]
    synced: Vec<u64>,
    #[prost(message, optional, tag = "4")]
    retired: Option<PbConfiguration>,
    #[prost(bool, tag = "5")]
    is_candidate: bool,
    #[prost(bool, tag = "6")]
    has_stale_data: bool,
    #[prost(message, optional, tag = "7")]
    promised: Option<PbBallot>,
    #[prost(message, optional, tag = "8")]
    accepted: Option<PbAccepted>,
}

const PARTITION_STATE_VERSION: u32 = 1;

pub(super) fn reconfiguration_to_pb(partition: PartitionId, message: &ReconfigurationMessage) -> PbReconfiguration {
    let message = match message {
        ReconfigurationMessage::Query(version) => PbReconfigurationMessage::Query(version.0),
        ReconfigurationMessage::Holds(phase) => PbReconfigurationMessage::Holds(phase_to_pb(phase)),
        ReconfigurationMessage::Prepare(number, ballot) => {
            PbReconfigurationMessage::Prepare(ballot_to_pb(*number, *ballot))
        }
        ReconfigurationMessage::Promise(number, ballot, accepted) => PbReconfigurationMessage::Promise(PbPromise {
            ballot: ballot_to_pb(*number, *ballot),
            accepted: accepted.as_ref().map(accepted_to_pb),
        }),
        ReconfigurationMessage::Accept(ballot, configuration) => PbReconfigurationMessage::Accept(PbAccepted {
            ballot: ballot_to_pb(configuration.number, *ballot),
            configuration: configuration_to_pb(configuration),
        }),
        ReconfigurationMessage::Accepted(number, ballot) => {
            PbReconfigurationMessage::Accepted(ballot_to_pb(*number, *ballot))
        }
        ReconfigurationMessage::Outbid(number, ballot, promised) => PbReconfigurationMessage::Outbid(PbOutbid {
            ballot: ballot_to_pb(*number, *ballot),
            promised: ballot_to_pb(*number, *promised),
        }),
        ReconfigurationMessage::Copied(number) => PbReconfigurationMessage::Copied(*number),
        ReconfigurationMessage::Synced(number) => PbReconfigurationMessage::Synced(*number),
    };
    PbReconfiguration { partition: partition.0, message: Some(message) }
}

pub(super) fn reconfiguration_from_pb(
    reconfiguration: PbReconfiguration,
) -> Result<(PartitionId, ReconfigurationMessage), WireError> {
    let message = match reconfiguration.message.ok_or(WireError::Field("message"))? {
        PbReconfigurationMessage::Query(version) => ReconfigurationMessage::Query(ConfigVersion(version)),
        PbReconfigurationMessage::Holds(phase) => ReconfigurationMessage::Holds(sound_phase_from_pb(phase)?),
        PbReconfigurationMessage::Prepare(ballot) => {
            ReconfigurationMessage::Prepare(ballot.number, ballot_from_pb(&ballot))
        }
        PbReconfigurationMessage::Promise(promise) => {
            let accepted = promise.accepted.map(accepted_from_pb).transpose()?;
            ReconfigurationMessage::Promise(promise.ballot.number, ballot_from_pb(&promise.ballot), accepted)
        }
        PbReconfigurationMessage::Accept(accept) => {
            let (ballot, configuration) = accepted_from_pb(accept)?;
            ReconfigurationMessage::Accept(ballot, configuration)
        }
        PbReconfigurationMessage::Accepted(ballot) => {
            ReconfigurationMessage::Accepted(ballot.number, ballot_from_pb(&ballot))
        }
        PbReconfigurationMessage::Outbid(outbid) => {
            let promised = ballot_from_pb(&outbid.promised);
            ReconfigurationMessage::Outbid(outbid.ballot.number, ballot_from_pb(&outbid.ballot), promised)
        }
        PbReconfigurationMessage::Copied(number) => ReconfigurationMessage::Copied(number),
        PbReconfigurationMessage::Synced(number) => ReconfigurationMessage::Synced(number),
    };
    Ok((PartitionId(reconfiguration.partition), message))
}

const fn ballot_to_pb(number: u64, ballot: Ballot) -> PbBallot {
    PbBallot { round: ballot.round, node: ballot.node.get(), number }
}

const fn ballot_from_pb(ballot: &PbBallot) -> Ballot {
    Ballot { round: ballot.round, node: NodeId::new(ballot.node) }
}

fn accepted_to_pb((ballot, configuration): &Accepted) -> PbAccepted {
    PbAccepted {
        ballot: ballot_to_pb(configuration.number, *ballot),
        configuration: configuration_to_pb(configuration),
    }
}

fn accepted_from_pb(accepted: PbAccepted) -> Result<Accepted, WireError> {
    Ok((ballot_from_pb(&accepted.ballot), configuration_from_pb(accepted.configuration)?))
}

fn configuration_to_pb(configuration: &Configuration) -> PbConfiguration {
    PbConfiguration {
        number: configuration.number,
        nodes: configuration.homes.iter().map(|home| home.node.get()).collect(),
        incarnations: configuration.homes.iter().map(|home| home.incarnation.0).collect(),
        choosers: configuration.choosers.into(),
        counts: counts_to_pb(&configuration.counts),
        says_counts: !configuration.counts.is_unknown(),
        table: 0,
    }
}

fn counts_to_pb(counts: &ReplicaCounts) -> Vec<PbCount> {
    counts.iter().map(|(bucket, n)| PbCount { bucket: bucket.clone(), n: n.into() }).collect()
}

fn counts_from_pb(counts: Vec<PbCount>) -> Result<ReplicaCounts, WireError> {
    let count = |count: PbCount| u8::try_from(count.n).map(|n| (count.bucket, n)).map_err(|_| WireError::Field("n"));
    Ok(ReplicaCounts::new(counts.into_iter().map(count).collect::<Result<_, _>>()?))
}

/// The encoded configuration, with its table among those of the message.
fn beside(tables: &mut Vec<ReplicaCounts>, configuration: &Configuration) -> PbConfiguration {
    let place = tables.iter().position(|table| *table == configuration.counts).unwrap_or_else(|| {
        tables.push(configuration.counts.clone());
        tables.len() - 1
    });
    let inline = configuration_to_pb(&Configuration { counts: ReplicaCounts::default(), ..configuration.clone() });
    PbConfiguration { table: place as u32 + 1, ..inline }
}

/// Decodes a configuration whose table may be among those of the message.
fn configuration_from_pb_with(
    tables: &[ReplicaCounts],
    configuration: PbConfiguration,
) -> Result<Configuration, WireError> {
    match (configuration.table as usize).checked_sub(1) {
        Some(place) => {
            let counts = tables.get(place).ok_or(WireError::Field("table"))?.clone();
            Ok(Configuration { counts, ..configuration_from_pb(configuration)? })
        }
        None => configuration_from_pb(configuration),
    }
}

fn configuration_from_pb(configuration: PbConfiguration) -> Result<Configuration, WireError> {
    let PbConfiguration { number, nodes, incarnations, choosers, counts, says_counts, table: _ } = configuration;
    if nodes.len() != incarnations.len() {
        return Err(WireError::Field("incarnations"));
    }
    let home =
        |(node, incarnation): (u64, u64)| Home { node: NodeId::new(node), incarnation: Incarnation(incarnation) };
    let choosers = u8::try_from(choosers).map_err(|_| WireError::Field("choosers"))?;
    let counts = if says_counts { counts_from_pb(counts)? } else { ReplicaCounts::unknown() };
    Ok(Configuration { number, homes: nodes.into_iter().zip(incarnations).map(home).collect(), choosers, counts })
}

pub(super) fn phase_to_pb(phase: &ConfigPhase) -> PbPhase {
    PbPhase { current: configuration_to_pb(phase.current()), next: phase.next().map(configuration_to_pb) }
}

pub(super) fn phase_from_pb(phase: PbPhase) -> Result<ConfigPhase, WireError> {
    phase_from_pb_with(&[], phase)
}

fn phase_from_pb_with(tables: &[ReplicaCounts], phase: PbPhase) -> Result<ConfigPhase, WireError> {
    let current = configuration_from_pb_with(tables, phase.current)?;
    Ok(match phase.next {
        None => ConfigPhase::Stable(current),
        Some(next) => ConfigPhase::Joint(current, configuration_from_pb_with(tables, next)?),
    })
}

pub(super) fn phases_notice_to_pb(notice: &PhasesNotice) -> PbPhases {
    match notice {
        PhasesNotice::Digest { digest, asks } => PbPhases { digest: Some(*digest), asks: *asks, ..PbPhases::default() },
        PhasesNotice::Steps(versions, is_answer) => {
            let versions = versions.iter().map(|version| version.0).collect();
            PbPhases { versions, is_answer: *is_answer, ..PbPhases::default() }
        }
        PhasesNotice::Hold(phases) => {
            let mut tables = Vec::new();
            let mut phase_to_pb = |phase: &ConfigPhase| PbPhase {
                current: beside(&mut tables, phase.current()),
                next: phase.next().map(|next| beside(&mut tables, next)),
            };
            PbPhases {
                partitions: phases.iter().map(|(partition, _)| partition.0).collect(),
                phases: phases.iter().map(|(_, phase)| phase_to_pb(phase)).collect(),
                tables: tables.iter().map(|table| PbTable { counts: counts_to_pb(table) }).collect(),
                ..PbPhases::default()
            }
        }
    }
}

pub(super) fn phases_notice_from_pb(notice: PbPhases) -> Result<PhasesNotice, WireError> {
    let PbPhases { digest, versions, is_answer, partitions, phases, tables, asks } = notice;
    if versions.len() > Partitions::MAX as usize
        || phases.len() > PHASES_MAX
        || phases.len() != partitions.len()
        || tables.len() > 2 * PHASES_MAX
    {
        return Err(WireError::Field("phases"));
    }
    if let Some(digest) = digest {
        return Ok(PhasesNotice::Digest { digest, asks });
    }
    if !phases.is_empty() {
        let tables: Vec<ReplicaCounts> =
            tables.into_iter().map(|table| counts_from_pb(table.counts)).collect::<Result<_, _>>()?;
        let sound = |phase| sound(phase_from_pb_with(&tables, phase)?);
        let phases = phases.into_iter().map(sound).collect::<Result<Vec<_>, _>>()?;
        return Ok(PhasesNotice::Hold(partitions.into_iter().map(PartitionId).zip(phases).collect()));
    }
    Ok(PhasesNotice::Steps(versions.into_iter().map(ConfigVersion).collect(), is_answer))
}

/// Decodes a phase and checks that it is consistent.
fn sound_phase_from_pb(phase: PbPhase) -> Result<ConfigPhase, WireError> {
    sound(phase_from_pb(phase)?)
}

fn sound(phase: ConfigPhase) -> Result<ConfigPhase, WireError> {
    Some(phase).filter(ConfigPhase::is_sound).ok_or(WireError::Field("phase"))
}

/// Encodes a partition state for the store.
pub fn encode_partition_state(partition_state: &PartitionState) -> Bytes {
    let Acceptor { promised, accepted } = &partition_state.acceptor;
    PbPartitionState {
        version: PARTITION_STATE_VERSION,
        phase: phase_to_pb(&partition_state.phase),
        synced: partition_state.synced.iter().copied().collect(),
        retired: partition_state.retired.as_ref().map(configuration_to_pb),
        is_candidate: partition_state.is_candidate,
        has_stale_data: partition_state.has_stale_data,
        promised: promised.map(|ballot| ballot_to_pb(0, ballot)),
        accepted: accepted.as_ref().map(accepted_to_pb),
    }
    .encode_to_vec()
    .into()
}

/// Decodes a stored partition state.
///
/// # Errors
/// If the bytes are damaged, or are of a newer build.
pub fn decode_partition_state(bytes: &[u8]) -> Result<PartitionState, WireError> {
    let partition_state = PbPartitionState::decode(bytes)?;
    if partition_state.version != PARTITION_STATE_VERSION {
        return Err(WireError::Version(partition_state.version));
    }
    Ok(PartitionState {
        phase: phase_from_pb(partition_state.phase)?,
        synced: partition_state.synced.into_iter().collect(),
        retired: partition_state.retired.map(configuration_from_pb).transpose()?,
        is_candidate: partition_state.is_candidate,
        has_stale_data: partition_state.has_stale_data,
        acceptor: Acceptor {
            promised: partition_state.promised.as_ref().map(ballot_from_pb),
            accepted: partition_state.accepted.map(accepted_from_pb).transpose()?,
        },
    })
}
