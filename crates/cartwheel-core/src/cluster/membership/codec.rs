//! Histories in bytes, for the disk and for peers: protobuf with a version in front.
//!
//! Bytes of another version are refused, because skipping an unknown change would result in another cluster.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use prost::{Message, Oneof};

use super::bucket::{BucketForm, BucketSettings, Conflict, Durability, SettingsPatch};
use super::users::{AccessToken, Grant, PasswordHash, User, UserPatch};
use super::{Change, ChangeKind, ClusterId, History, Member, Snapshot, Strategy};
use crate::cluster::configuration::{ConfigVersion, Home};
use crate::ring::{N_MAX, NodeInfo, PartitionId, Partitions};
use crate::value::dot::{Incarnation, NodeId};
use crate::value::hlc::{Hlc, WallMs};
use crate::value::key::{Generation, Placement, check_bucket};

/// The format version of histories that is written, and the only one that is read.
pub const HISTORY_VERSION: u32 = 1;

/// Why bytes are not a valid history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// They are not a protobuf message of this type.
    Malformed(prost::DecodeError),
    /// They have this format version, which is unknown.
    Version(u32),
    /// A required field is missing.
    Missing(&'static str),
    /// A field has an invalid value.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "not a membership history: {error}"),
            Self::Version(version) => {
                write!(
                    f,
                    "membership format {version} is unknown to this node, which reads {HISTORY_VERSION}: upgrade this node"
                )
            }
            Self::Missing(field) => write!(f, "membership change without {field}"),
            Self::Invalid(field) => write!(f, "membership change with an invalid {field}"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error)
    }
}

#[derive(Clone, PartialEq, Message)]
struct HistoryMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<ChangeMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ChangeMessage {
    #[prost(fixed64, tag = "1")]
    hlc: u64,
    #[prost(fixed64, tag = "2")]
    node: u64,
    #[prost(uint64, tag = "3")]
    number: u64,
    #[prost(oneof = "What", tags = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(message, tag = "4")]
    Bootstrap(BootstrapMessage),
    #[prost(message, tag = "5")]
    Add(MemberMessage),
    #[prost(message, tag = "6")]
    Remove(RemoveMessage),
    #[prost(message, tag = "7")]
    Replace(ReplaceMessage),
    #[prost(message, tag = "8")]
    Weight(WeightMessage),
    #[prost(message, tag = "9")]
    Zone(ZoneMessage),
    #[prost(message, tag = "10")]
    Bucket(BucketMessage),
    #[prost(message, tag = "11")]
    Left(RemoveMessage),
    #[prost(message, tag = "12")]
    MarkLost(MarkLostMessage),
    #[prost(message, tag = "13")]
    Snapshot(SnapshotMessage),
    #[prost(message, tag = "14")]
    Address(AddressMessage),
    /// Since protocol version 7.
    #[prost(message, tag = "15")]
    Empty(FormMessage),
    /// Since protocol version 8.
    #[prost(message, tag = "16")]
    User(UserMessage),
}

#[derive(Clone, PartialEq, Message)]
struct BootstrapMessage {
    #[prost(fixed64, tag = "1")]
    cluster_high: u64,
    #[prost(fixed64, tag = "2")]
    cluster_low: u64,
    #[prost(uint32, tag = "3")]
    partitions: u32,
    /// Absent: balanced placement.
    #[prost(uint32, optional, tag = "4")]
    random_tokens: Option<u32>,
    #[prost(message, repeated, tag = "5")]
    members: Vec<MemberMessage>,
    #[prost(string, tag = "6")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct MemberMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(fixed64, tag = "2")]
    id: u64,
    #[prost(fixed64, tag = "3")]
    incarnation: u64,
    #[prost(uint32, tag = "4")]
    weight: u32,
    #[prost(string, tag = "5")]
    zone: String,
    #[prost(string, tag = "6")]
    host: String,
    #[prost(string, tag = "7")]
    peer_addr: String,
    #[prost(string, tag = "8")]
    http_addr: String,
    #[prost(string, tag = "9")]
    resp_addr: String,
}

#[derive(Clone, PartialEq, Message)]
struct RemoveMessage {
    #[prost(fixed64, tag = "1")]
    node: u64,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MarkLostMessage {
    #[prost(message, repeated, tag = "1")]
    homes: Vec<RemoveMessage>,
    /// Pairs of a partition and a version.
    #[prost(uint64, repeated, tag = "2")]
    versions: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotMessage {
    #[prost(uint64, tag = "1")]
    changes: u64,
    #[prost(message, repeated, tag = "2")]
    members: Vec<MemberMessage>,
    /// The indices in `members` of those that are leaving.
    #[prost(uint32, repeated, tag = "3")]
    leaving: Vec<u32>,
    #[prost(message, repeated, tag = "4")]
    removed: Vec<RemoveMessage>,
    #[prost(message, repeated, tag = "5")]
    left: Vec<RemoveMessage>,
    #[prost(message, optional, tag = "6")]
    marked_lost: Option<MarkLostMessage>,
    #[prost(message, repeated, tag = "7")]
    buckets: Vec<BucketMessage>,
    #[prost(message, repeated, tag = "8")]
    placed: Vec<PlacedMessage>,
    #[prost(uint32, repeated, tag = "9")]
    owners: Vec<u32>,
    /// Only names and n.
    #[prost(message, repeated, tag = "10")]
    first_ns: Vec<BucketMessage>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    counted: Vec<Bytes>,
    #[prost(message, repeated, tag = "12")]
    forms: Vec<FormMessage>,
    #[prost(message, repeated, tag = "13")]
    users: Vec<UserMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct PlacedMessage {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    weight: u32,
    #[prost(string, tag = "3")]
    zone: String,
    #[prost(string, tag = "4")]
    host: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReplaceMessage {
    #[prost(fixed64, tag = "1")]
    old: u64,
    #[prost(message, optional, tag = "2")]
    new: Option<MemberMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct WeightMessage {
    #[prost(fixed64, tag = "1")]
    node: u64,
    #[prost(uint32, tag = "2")]
    weight: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ZoneMessage {
    #[prost(fixed64, tag = "1")]
    node: u64,
    #[prost(string, tag = "2")]
    zone: String,
    #[prost(string, tag = "3")]
    host: String,
}

#[derive(Clone, PartialEq, Message)]
struct AddressMessage {
    #[prost(fixed64, tag = "1")]
    node: u64,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(string, tag = "3")]
    peer_addr: String,
    #[prost(string, tag = "4")]
    http_addr: String,
    #[prost(string, optional, tag = "5")]
    resp_addr: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketMessage {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(uint32, optional, tag = "2")]
    n: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    r: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    w: Option<u32>,
    /// 0: siblings, 1: last write wins.
    #[prost(uint32, optional, tag = "5")]
    conflict: Option<u32>,
    #[prost(bool, optional, tag = "6")]
    sloppy: Option<bool>,
    /// 0: the node's, 1: fsync, 2: os.
    #[prost(uint32, optional, tag = "7")]
    durability: Option<u32>,
    #[prost(uint32, optional, tag = "8")]
    max_value_bytes: Option<u32>,
    #[prost(bool, tag = "9")]
    n_by_versions: bool,
}

#[derive(Clone, PartialEq, Message)]
struct FormMessage {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(uint32, tag = "2")]
    placement: u32,
    #[prost(bool, tag = "3")]
    is_indexed: bool,
    /// When the generation began; 0 in a change, whose timestamp says it.
    #[prost(fixed64, tag = "4")]
    since: u64,
    #[prost(bool, tag = "5")]
    was_unindexed: bool,
}

/// A user in a snapshot, or a change of one.
#[derive(Clone, PartialEq, Message)]
struct UserMessage {
    #[prost(string, tag = "1")]
    name: String,
    /// In a change: the user is removed.
    #[prost(bool, tag = "2")]
    is_removed: bool,
    #[prost(string, optional, tag = "3")]
    password: Option<String>,
    #[prost(message, optional, tag = "4")]
    grants: Option<GrantsMessage>,
    /// In a change: the further one, if there is one.
    #[prost(message, repeated, tag = "5")]
    tokens: Vec<AccessTokenMessage>,
    /// In a change.
    #[prost(string, optional, tag = "6")]
    ended_token: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct GrantsMessage {
    #[prost(string, repeated, tag = "1")]
    grants: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct AccessTokenMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "bytes", tag = "2")]
    digest: Bytes,
    #[prost(uint64, tag = "3")]
    created_ms: u64,
    #[prost(uint64, optional, tag = "4")]
    expires_ms: Option<u64>,
}

impl History {
    /// Encodes the history; [`History::decode`] is the inverse.
    pub fn encode(&self) -> Bytes {
        message(self.changes()).encode_to_vec().into()
    }

    /// Decodes a history.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = HistoryMessage::decode(bytes)?;
        if message.version != HISTORY_VERSION {
            return Err(DecodeError::Version(message.version));
        }
        let mut history = Self::new();
        for change in message.changes {
            history.insert(Change::try_from(change)?);
        }
        Ok(history)
    }
}

impl Change {
    /// Encodes the change as a history of one; [`Change::decode`] is the inverse.
    pub fn encode(&self) -> Bytes {
        message(std::iter::once(self)).encode_to_vec().into()
    }

    /// Decodes a history of one change.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let changes = History::decode(bytes)?.changes;
        let one = changes.len() == 1;
        let change = changes.into_iter().next().filter(|_| one).ok_or(DecodeError::Invalid("number of changes"))?;
        Ok(Arc::unwrap_or_clone(change))
    }
}

fn message<'a>(changes: impl Iterator<Item = &'a Change>) -> HistoryMessage {
    HistoryMessage { version: HISTORY_VERSION, changes: changes.map(ChangeMessage::from).collect() }
}

impl From<&Change> for ChangeMessage {
    fn from(change: &Change) -> Self {
        let what = What::from(&change.what);
        Self { hlc: change.hlc.to_bits(), node: change.node.get(), number: change.number, what: Some(what) }
    }
}

impl TryFrom<ChangeMessage> for Change {
    type Error = DecodeError;

    fn try_from(message: ChangeMessage) -> Result<Self, DecodeError> {
        Ok(Self {
            hlc: Hlc::from_bits(message.hlc),
            node: NodeId::new(message.node),
            number: message.number,
            what: message.what.ok_or(DecodeError::Missing("a known kind"))?.try_into()?,
        })
    }
}

impl From<&ChangeKind> for What {
    fn from(what: &ChangeKind) -> Self {
        match what {
            ChangeKind::Bootstrap { cluster, partitions, strategy, members, name } => {
                Self::Bootstrap(BootstrapMessage {
                    cluster_high: (cluster.0 >> 64) as u64,
                    cluster_low: cluster.0 as u64,
                    partitions: partitions.count(),
                    random_tokens: match strategy {
                        Strategy::Balanced => None,
                        Strategy::Random { tokens } => Some(tokens.get()),
                    },
                    members: members.iter().map(MemberMessage::from).collect(),
                    name: name.clone(),
                })
            }
            ChangeKind::Add(member) => Self::Add(member.into()),
            ChangeKind::Remove { node, incarnation } => {
                Self::Remove(RemoveMessage { node: node.get(), incarnation: incarnation.0 })
            }
            ChangeKind::Left { node, incarnation } => {
                Self::Left(RemoveMessage { node: node.get(), incarnation: incarnation.0 })
            }
            ChangeKind::MarkLost { homes, versions } => Self::MarkLost(mark_lost_message(homes, versions)),
            ChangeKind::Replace { old, new } => Self::Replace(ReplaceMessage { old: old.get(), new: Some(new.into()) }),
            ChangeKind::Weight { node, weight } => Self::Weight(WeightMessage { node: node.get(), weight: *weight }),
            ChangeKind::Zone { node, zone, host } => {
                Self::Zone(ZoneMessage { node: node.get(), zone: zone.clone(), host: host.clone() })
            }
            ChangeKind::Address { node, incarnation, peer_addr, http_addr, resp_addr } => {
                Self::Address(AddressMessage {
                    node: node.get(),
                    incarnation: incarnation.0,
                    peer_addr: peer_addr.clone(),
                    http_addr: http_addr.clone(),
                    resp_addr: resp_addr.clone(),
                })
            }
            ChangeKind::Bucket { name, settings } => Self::Bucket(bucket_message(name, settings)),
            ChangeKind::Empty { name, placement, is_indexed } => {
                let generation = Generation { since: Hlc::ZERO, placement: *placement };
                let form = BucketForm { generation, is_indexed: *is_indexed, was_unindexed: false };
                Self::Empty(form_message(name, &form))
            }
            ChangeKind::User { name, patch } => Self::User(patch_message(name, patch.as_deref())),
            ChangeKind::Snapshot(snapshot) => Self::Snapshot(snapshot_message(snapshot)),
        }
    }
}

impl TryFrom<What> for ChangeKind {
    type Error = DecodeError;

    fn try_from(what: What) -> Result<Self, DecodeError> {
        Ok(match what {
            What::Bootstrap(found) => Self::Bootstrap {
                cluster: ClusterId(u128::from(found.cluster_high) << 64 | u128::from(found.cluster_low)),
                partitions: Partitions::new(found.partitions).map_err(|_| DecodeError::Invalid("partition count"))?,
                strategy: match found.random_tokens {
                    None => Strategy::Balanced,
                    Some(tokens) => Strategy::Random {
                        tokens: NonZeroU32::new(tokens).ok_or(DecodeError::Invalid("number of tokens"))?,
                    },
                },
                members: found.members.into_iter().map(Member::from).collect(),
                name: found.name,
            },
            What::Add(member) => Self::Add(member.into()),
            What::Remove(remove) => {
                Self::Remove { node: NodeId::new(remove.node), incarnation: Incarnation(remove.incarnation) }
            }
            What::Left(left) => Self::Left { node: NodeId::new(left.node), incarnation: Incarnation(left.incarnation) },
            What::MarkLost(mark_lost) => {
                let (homes, versions) = marked_lost(&mark_lost)?;
                Self::MarkLost { homes, versions }
            }
            What::Replace(replace) => Self::Replace {
                old: NodeId::new(replace.old),
                new: replace.new.ok_or(DecodeError::Missing("a replacement"))?.into(),
            },
            What::Weight(change) => Self::Weight { node: NodeId::new(change.node), weight: change.weight },
            What::Zone(change) => Self::Zone { node: NodeId::new(change.node), zone: change.zone, host: change.host },
            What::Address(change) => Self::Address {
                node: NodeId::new(change.node),
                incarnation: Incarnation(change.incarnation),
                peer_addr: change.peer_addr,
                http_addr: change.http_addr,
                resp_addr: change.resp_addr,
            },
            What::Bucket(bucket) => Self::Bucket { settings: patch(&bucket)?, name: bucket_name(bucket.name)? },
            What::Empty(message) => {
                let (name, BucketForm { generation, is_indexed, .. }) = form_of(message)?;
                Self::Empty { name, placement: generation.placement, is_indexed }
            }
            What::User(user) => Self::User { patch: patch_of(&user)?.map(Box::new), name: user.name },
            What::Snapshot(snapshot) => Self::Snapshot(Box::new(snapshot_of(snapshot)?)),
        })
    }
}

impl From<&Home> for RemoveMessage {
    fn from(home: &Home) -> Self {
        Self { node: home.node.get(), incarnation: home.incarnation.0 }
    }
}

impl From<&RemoveMessage> for Home {
    fn from(message: &RemoveMessage) -> Self {
        Self { node: NodeId::new(message.node), incarnation: Incarnation(message.incarnation) }
    }
}

fn mark_lost_message(homes: &[Home], versions: &[(PartitionId, ConfigVersion)]) -> MarkLostMessage {
    let versions = versions.iter().flat_map(|&(partition, version)| [partition.0.into(), version.0]);
    MarkLostMessage { homes: homes.iter().map(RemoveMessage::from).collect(), versions: versions.collect() }
}

/// The incarnations that were marked lost, and the versions from which partitions may be force-recovered.
type MarkedLost = (Vec<Home>, Vec<(PartitionId, ConfigVersion)>);

fn marked_lost(message: &MarkLostMessage) -> Result<MarkedLost, DecodeError> {
    let (versions, []) = message.versions.as_chunks::<2>() else { return Err(DecodeError::Invalid("versions")) };
    let version = |&[partition, version]: &[u64; 2]| {
        let partition = u32::try_from(partition).map_err(|_| DecodeError::Invalid("partition"))?;
        Ok((PartitionId(partition), ConfigVersion(version)))
    };
    let versions = versions.iter().map(version).collect::<Result<_, DecodeError>>()?;
    Ok((message.homes.iter().map(Home::from).collect(), versions))
}

fn snapshot_message(snapshot: &Snapshot) -> SnapshotMessage {
    let leaving = snapshot.members.iter().enumerate().filter(|(_, (_, leaving))| *leaving);
    let placed = |node: &NodeInfo| PlacedMessage {
        id: node.id.get(),
        weight: node.weight,
        zone: node.zone.clone(),
        host: node.host.clone(),
    };
    SnapshotMessage {
        changes: snapshot.changes,
        members: snapshot.members.iter().map(|(member, _)| member.into()).collect(),
        leaving: leaving.map(|(place, _)| place as u32).collect(),
        removed: snapshot.removed.iter().map(RemoveMessage::from).collect(),
        left: snapshot.left.iter().map(RemoveMessage::from).collect(),
        marked_lost: Some(mark_lost_message(&snapshot.marked_lost, &snapshot.force_recovered_from)),
        buckets: snapshot.buckets.iter().map(|(name, settings)| bucket_message(name, &settings.as_patch())).collect(),
        placed: snapshot.placed.iter().map(placed).collect(),
        owners: snapshot.owners.clone(),
        first_ns: snapshot.first_ns.iter().map(|(name, n)| bucket_message(name, &only_n(*n))).collect(),
        counted: snapshot.counted.clone(),
        forms: snapshot.forms.iter().map(|(name, form)| form_message(name, form)).collect(),
        users: snapshot.users.iter().map(|(name, user)| user_message(name, user)).collect(),
    }
}

fn snapshot_of(message: SnapshotMessage) -> Result<Snapshot, DecodeError> {
    let (marked_lost, force_recovered_from) = marked_lost(&message.marked_lost.unwrap_or_default())?;
    let leaving: BTreeSet<u32> = message.leaving.into_iter().collect();
    let members = message.members.into_iter().zip(0..).map(|(member, place)| (member.into(), leaving.contains(&place)));
    let settings = |bucket: BucketMessage| {
        let settings = patch(&bucket)?.apply(BucketSettings::default());
        Ok((bucket_name(bucket.name)?, settings.map_err(|_| DecodeError::Invalid("settings"))?))
    };
    let first_n = |bucket: BucketMessage| {
        let n = patch(&bucket)?.n.ok_or(DecodeError::Missing("an n"))?;
        if n == 0 || usize::from(n) > N_MAX {
            return Err(DecodeError::Invalid("n"));
        }
        Ok((bucket_name(bucket.name)?, n))
    };
    let placed = |node: PlacedMessage| NodeInfo {
        id: NodeId::new(node.id),
        weight: node.weight,
        zone: node.zone,
        host: node.host,
    };
    Ok(Snapshot {
        changes: message.changes,
        members: members.collect(),
        removed: message.removed.iter().map(Home::from).collect(),
        left: message.left.iter().map(Home::from).collect(),
        marked_lost,
        force_recovered_from,
        buckets: message.buckets.into_iter().map(settings).collect::<Result<_, DecodeError>>()?,
        placed: message.placed.into_iter().map(placed).collect(),
        owners: message.owners,
        first_ns: message.first_ns.into_iter().map(first_n).collect::<Result<_, DecodeError>>()?,
        counted: message.counted.into_iter().map(bucket_name).collect::<Result<_, DecodeError>>()?,
        forms: message.forms.into_iter().map(form_of).collect::<Result<_, DecodeError>>()?,
        users: message.users.into_iter().map(user_of).collect::<Result<_, DecodeError>>()?,
    })
}

fn form_message(name: &Bytes, form: &BucketForm) -> FormMessage {
    let BucketForm { generation: Generation { since, placement }, is_indexed, was_unindexed } = *form;
    let (placement, since) = (placement.number(), since.to_bits());
    FormMessage { name: name.clone(), placement, is_indexed, since, was_unindexed }
}

fn form_of(message: FormMessage) -> Result<(Bytes, BucketForm), DecodeError> {
    let placement = Placement::from_number(message.placement).ok_or(DecodeError::Invalid("placement"))?;
    let generation = Generation { since: Hlc::from_bits(message.since), placement };
    let FormMessage { name, is_indexed, was_unindexed, .. } = message;
    Ok((bucket_name(name)?, BucketForm { generation, is_indexed, was_unindexed }))
}

fn patch_message(name: &str, patch: Option<&UserPatch>) -> UserMessage {
    let name = name.to_owned();
    let Some(UserPatch { password, grants, new_token, ended_token }) = patch else {
        return UserMessage { name, is_removed: true, ..UserMessage::default() };
    };
    UserMessage {
        name,
        is_removed: false,
        password: password.as_ref().map(|hash| hash.0.clone()),
        grants: grants.as_ref().map(grants_message),
        tokens: new_token.iter().map(AccessTokenMessage::from).collect(),
        ended_token: ended_token.clone(),
    }
}

fn patch_of(message: &UserMessage) -> Result<Option<UserPatch>, DecodeError> {
    if message.is_removed {
        return Ok(None);
    }
    Ok(Some(UserPatch {
        password: message.password.clone().map(PasswordHash),
        grants: message.grants.as_ref().map(grants_of).transpose()?,
        new_token: message.tokens.first().map(AccessToken::try_from).transpose()?,
        ended_token: message.ended_token.clone(),
    }))
}

fn user_message(name: &str, user: &User) -> UserMessage {
    UserMessage {
        name: name.to_owned(),
        is_removed: false,
        password: user.password.as_ref().map(|hash| hash.0.clone()),
        grants: Some(grants_message(&user.grants)),
        tokens: user.tokens.iter().map(AccessTokenMessage::from).collect(),
        ended_token: None,
    }
}

fn user_of(message: UserMessage) -> Result<(String, User), DecodeError> {
    let user = User {
        password: message.password.map(PasswordHash),
        grants: message.grants.as_ref().map(grants_of).transpose()?.unwrap_or_default(),
        tokens: message.tokens.iter().map(AccessToken::try_from).collect::<Result<_, DecodeError>>()?,
    };
    Ok((message.name, user))
}

fn grants_message(grants: &BTreeSet<Grant>) -> GrantsMessage {
    GrantsMessage { grants: grants.iter().map(ToString::to_string).collect() }
}

fn grants_of(message: &GrantsMessage) -> Result<BTreeSet<Grant>, DecodeError> {
    message.grants.iter().map(|text| text.parse().map_err(|_| DecodeError::Invalid("role"))).collect()
}

impl From<&AccessToken> for AccessTokenMessage {
    fn from(token: &AccessToken) -> Self {
        Self {
            id: token.id.clone(),
            digest: Bytes::copy_from_slice(&token.digest),
            created_ms: token.created.0,
            expires_ms: token.expires.map(|at| at.0),
        }
    }
}

impl TryFrom<&AccessTokenMessage> for AccessToken {
    type Error = DecodeError;

    fn try_from(message: &AccessTokenMessage) -> Result<Self, DecodeError> {
        let digest = message.digest[..].try_into().map_err(|_| DecodeError::Invalid("digest of a token"))?;
        let (created, expires) = (WallMs(message.created_ms), message.expires_ms.map(WallMs));
        Ok(Self { id: message.id.clone(), digest, created, expires })
    }
}

fn only_n(n: u8) -> SettingsPatch {
    SettingsPatch { n: Some(n), ..SettingsPatch::default() }
}

impl From<&Member> for MemberMessage {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            id: member.id.get(),
            incarnation: member.incarnation.0,
            weight: member.weight,
            zone: member.zone.clone(),
            host: member.host.clone(),
            peer_addr: member.peer_addr.clone(),
            http_addr: member.http_addr.clone(),
            resp_addr: member.resp_addr.clone(),
        }
    }
}

impl From<MemberMessage> for Member {
    fn from(message: MemberMessage) -> Self {
        let MemberMessage { name, id, incarnation, weight, zone, host, peer_addr, http_addr, resp_addr } = message;
        let (id, incarnation) = (NodeId::new(id), Incarnation(incarnation));
        Self { name, id, incarnation, weight, zone, host, peer_addr, http_addr, resp_addr }
    }
}

fn bucket_message(name: &Bytes, settings: &SettingsPatch) -> BucketMessage {
    BucketMessage {
        name: name.clone(),
        n: settings.n.map(u32::from),
        r: settings.r.map(u32::from),
        w: settings.w.map(u32::from),
        conflict: settings.conflict.map(|conflict| match conflict {
            Conflict::Siblings => 0,
            Conflict::Lww => 1,
        }),
        sloppy: settings.sloppy,
        durability: settings.durability.map(|durability| match durability {
            Durability::NodeDefault => 0,
            Durability::Fsync => 1,
            Durability::Os => 2,
        }),
        max_value_bytes: settings.max_value_bytes,
        n_by_versions: settings.n_by_versions,
    }
}

fn bucket_name(name: Bytes) -> Result<Bytes, DecodeError> {
    check_bucket(&name).map(|()| name).map_err(|_| DecodeError::Invalid("bucket name"))
}

fn patch(message: &BucketMessage) -> Result<SettingsPatch, DecodeError> {
    let small = |field: Option<u32>, name| field.map(u8::try_from).transpose().map_err(|_| DecodeError::Invalid(name));
    let conflict = |code| match code {
        0 => Ok(Conflict::Siblings),
        1 => Ok(Conflict::Lww),
        _ => Err(DecodeError::Invalid("conflict")),
    };
    let durability = |code| match code {
        0 => Ok(Durability::NodeDefault),
        1 => Ok(Durability::Fsync),
        2 => Ok(Durability::Os),
        _ => Err(DecodeError::Invalid("durability")),
    };
    Ok(SettingsPatch {
        n: small(message.n, "n")?,
        n_by_versions: message.n_by_versions,
        r: small(message.r, "r")?,
        w: small(message.w, "w")?,
        conflict: message.conflict.map(conflict).transpose()?,
        sloppy: message.sloppy,
        durability: message.durability.map(durability).transpose()?,
        max_value_bytes: message.max_value_bytes,
    })
}
