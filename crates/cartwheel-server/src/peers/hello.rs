//! The first frame in each direction: the hello. From it both nodes see whether they belong together.
//!
//! The dialling node sends first and waits for the response, so no frame can get lost between the hello and what follows. Each side says which
//! versions of the protocol it speaks, and from then on both use the highest common one. The hello has the same form in all versions and
//! only gets new fields, so that two nodes that cannot talk can say why. It consists of the magic, the lowest version, and a
//! [`PbHello`].

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use cartwheel_core::cluster::membership::{Change, ChangeKind, History, Member};
use cartwheel_core::control::MembersChange;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::wire::{Protocol, Spoken};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::Invitation;
use super::known_peers::{KnownPeers, Retired};
use crate::data_dir::ClusterSecret;
use crate::data_dir::lineage::{Begun, Behind, Lineage, Mark};
use crate::tls::{NetStream, PeerSide};

const MAGIC: &[u8; 9] = b"cartwheel";
/// The longest hello: an unidentified sender gets no more memory.
const HELLO_BYTES_MAX: usize = 4096;
/// How long the other side may take for its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// This node, as its peers see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalNode {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// The cluster's name; empty if it has none.
    pub cluster_name: String,
    /// Its id.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its boot within that incarnation; before the next boot begins, the last one.
    pub boot: u32,
    /// Its last boots, including the one about to begin.
    pub lineage: Lineage,
    /// It asks whether its data directory may be served, before a boot begins.
    pub opens: bool,
    /// Its address for peers.
    pub peer_addr: String,
    /// Its address for HTTP clients.
    pub http_addr: String,
    /// How it uses TLS with peers.
    pub tls: PeerSide,
}

/// Why two nodes do not talk.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The address cannot be reached.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The other side does not speak the protocol at all.
    #[error("no cartwheel node listens there; check the address")]
    NotCartwheel,
    /// The nodes have no version in common.
    #[error("{}", too_old(name, *theirs, *ours))]
    Version {
        /// Its name; empty if unknown.
        name: String,
        /// The versions that it speaks.
        theirs: Spoken,
        /// The versions that this node speaks.
        ours: Spoken,
    },
    /// It belongs to another cluster.
    #[error("{name} there belongs to cluster {theirs:032x}, and this node to {ours:032x}; check the addresses")]
    Cluster {
        /// Its name.
        name: String,
        /// Its cluster.
        theirs: u128,
        /// This node's cluster.
        ours: u128,
    },
    /// It belongs to a cluster of another name.
    #[error("{name} there belongs to {}, and this node to {}; check the addresses", called(theirs), called(ours))]
    ClusterName {
        /// Its name.
        name: String,
        /// Its cluster's name; empty if it has none.
        theirs: String,
        /// This node's cluster's name.
        ours: String,
    },
    /// It is another node, or dialled another one.
    #[error("{found} listens there, not the node that was dialled; check the addresses")]
    WrongNode {
        /// The name of the node that was found.
        found: String,
    },
    /// Its data directory was restored from a copy.
    #[error("the data directory of {name} there is an old copy: {why}; replace it with cartwheel renew")]
    OldCopy {
        /// Its name.
        name: String,
        /// The evidence.
        why: Behind,
    },
    /// It is about to serve a data directory of which another copy is being served.
    #[error("{name} runs already, on another copy of that data directory")]
    Runs {
        /// Its name.
        name: String,
    },
    /// Its incarnation was replaced or removed.
    #[error("{name} there has a data directory that was replaced or removed; stop it")]
    Replaced {
        /// Its name.
        name: String,
    },
    /// It says that this node's own directory must not be served.
    #[error("it refused this node: {}", .0.text())]
    Retired(Retired),
    /// It is not a member, and waits to join.
    #[error("{name} there waits to join; add it with cartwheel cluster add {name}")]
    Waits {
        /// Its name.
        name: String,
    },
    /// It only asked which node listens here.
    #[error("{name} only asked which node listens here")]
    IdentityQuery {
        /// Its name.
        name: String,
    },
    /// Its certificate is another node's.
    #[error("its certificate does not name {name}; give that node one that does: cartwheel cert node {name}")]
    Certificate {
        /// The name that it gave.
        name: String,
    },
    /// It refused for another reason.
    #[error("it refused: {0}")]
    Refused(String),
    /// Its hello is malformed.
    #[error("its hello is malformed")]
    Malformed,
    /// It did not answer in time.
    #[error("it did not answer within {} s", HELLO_WITHIN.as_secs())]
    Silent,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

/// A cluster's name as part of a sentence.
pub(crate) fn called(cluster: &str) -> String {
    if cluster.is_empty() { "a cluster without a name".to_owned() } else { format!("the cluster {cluster}") }
}

fn too_old(name: &str, theirs: Spoken, ours: Spoken) -> String {
    let peer = if name.is_empty() { "it" } else { name };
    let upgrade = match theirs.newest < ours.oldest {
        true => "its build is too old; upgrade it",
        false => "the build of this node is too old; upgrade this node",
    };
    format!("{peer} speaks protocol {theirs} and this node {ours}: {upgrade}")
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbHello {
    #[prost(bytes = "bytes", tag = "1")]
    cluster: Bytes,
    #[prost(fixed64, tag = "2")]
    from: u64,
    /// The dialled node; in a response, the dialling node.
    #[prost(fixed64, tag = "3")]
    to: u64,
    #[prost(fixed64, tag = "4")]
    incarnation: u64,
    #[prost(uint32, tag = "5")]
    boot: u32,
    #[prost(string, tag = "6")]
    name: String,
    /// Only in a response: why the dialling node is refused.
    #[prost(string, tag = "7")]
    refusal: String,
    /// The version of the program; empty from builds that did not send it.
    #[prost(string, tag = "8")]
    version: String,
    /// Only in a response, with a refusal: why the dialling node's data directory must not be served.
    #[prost(uint32, tag = "9")]
    retired: u32,
    /// The dialling node is not a member and asks to join: a change that adds it, encoded.
    #[prost(bytes = "bytes", tag = "10")]
    joins: Bytes,
    /// It joins without an administrator.
    #[prost(bool, tag = "13")]
    joins_at_once: bool,
    /// Only in the response to that: the cluster's secret, and all changes that are known.
    #[prost(bytes = "bytes", tag = "11")]
    secret: Bytes,
    #[prost(bytes = "bytes", tag = "12")]
    history: Bytes,
    /// The highest version of the protocol that it speaks; 0 from a build that speaks only the lowest.
    #[prost(uint32, tag = "14")]
    newest: u32,
    /// It asks whether its data directory may be served, and sends nothing more.
    #[prost(bool, tag = "15")]
    opens: bool,
    /// The last boots of its data directory in order, including the one that has begun or is about to.
    #[prost(message, repeated, tag = "16")]
    boots: Vec<PbBegun>,
    /// Its addresses for peers and for HTTP clients; empty from builds that did not send them.
    #[prost(string, tag = "17")]
    peer_addr: String,
    #[prost(string, tag = "18")]
    http_addr: String,
    /// Its cluster's name; empty if it has none, or a joining node was not given one.
    #[prost(string, tag = "19")]
    cluster_name: String,
    /// The number of the shard that dials, from 1 on; 0 if the node's control does, or a build whose shards do not dial.
    #[prost(uint32, tag = "20")]
    shard: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbBegun {
    #[prost(uint32, tag = "1")]
    boot: u32,
    #[prost(fixed64, tag = "2")]
    drawn: u64,
    /// The boot and the commit of each shard's store.
    #[prost(uint64, repeated, tag = "3")]
    marks: Vec<u64>,
}

/// The dialled node in a hello that asks which node listens.
const UNKNOWN: NodeId = NodeId::new(0);

/// The values of [`PbHello::retired`].
const OLD_COPY: u32 = 1;
const REPLACED: u32 = 2;
const RUNS: u32 = 3;

/// The other side of a connection after both hellos.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Remote {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) incarnation: Incarnation,
    pub(super) boot: u32,
    pub(super) lineage: Lineage,
    /// It only asks whether it may be served.
    pub(super) opens: bool,
    pub(super) version: Option<String>,
    /// Its addresses for peers and for HTTP clients; empty if it does not send them.
    pub(super) peer_addr: String,
    pub(super) http_addr: String,
    /// The versions of the protocol that it speaks.
    pub(super) spoken: Spoken,
    /// The shard that dials; none if the node's control does.
    pub(super) shard: Option<u32>,
}

/// A hello that arrived.
struct ReceivedHello {
    hello: PbHello,
    spoken: Spoken,
}

/// Introduces `local`, or one of its shards, on a connection that it dialled to `to`.
pub(super) async fn call(
    stream: &mut NetStream,
    local: &LocalNode,
    shard: Option<u32>,
    to: NodeId,
    known_peers: &KnownPeers,
) -> Result<(Remote, Protocol), HelloError> {
    let mut frames = Framed::new(stream, super::codec(HELLO_BYTES_MAX));
    let ours = known_peers.spoken();
    let shard = shard.map_or(0, |shard| shard.saturating_add(1));
    frames.send(framed(&PbHello { shard, ..greeting(local, ours, to, None) }, ours)).await?;
    let received = next_certified(&mut frames, ours).await?;
    let response = &received.hello;
    let is_called = NodeId::new(response.from) == to && response.cluster.as_ref() == local.cluster.0.to_be_bytes();
    match response.retired {
        OLD_COPY if is_called => return Err(HelloError::Retired(Retired::OldCopy)),
        REPLACED if is_called => return Err(HelloError::Retired(Retired::Replaced)),
        RUNS if is_called => return Err(HelloError::Runs { name: local.name.clone() }),
        _ => {}
    }
    let protocol = agree(&received, ours)?;
    if !response.refusal.is_empty() {
        return Err(HelloError::Refused(response.refusal.clone()));
    }
    let remote = check(&received, local)?;
    if remote.node != to {
        return Err(HelloError::WrongNode { found: remote.name });
    }
    known_peers.admit(&remote).await?;
    Ok((remote, protocol))
}

/// A member of the same cluster, with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its id.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its address for peers; empty if it does not send it.
    pub peer_addr: String,
    /// Its address for HTTP clients; empty if it does not send it.
    pub http_addr: String,
}

/// Asks which node is at the other end of a connection.
pub(super) async fn query_identity(stream: &mut NetStream, local: &LocalNode) -> Result<Found, HelloError> {
    let mut frames = Framed::new(stream, super::codec(HELLO_BYTES_MAX));
    let ours = Spoken::BY_THIS_BUILD;
    frames.send(encode(local, ours, UNKNOWN, None)).await?;
    let received = next_certified(&mut frames, ours).await?;
    let Remote { node, incarnation, peer_addr, http_addr, .. } = check(&received, local)?;
    Ok(Found { node, incarnation, peer_addr, http_addr })
}

/// Receives the hello of a node that dialled `local`, and sends the response.
pub(super) async fn accept(
    stream: &mut NetStream,
    local: &LocalNode,
    known_peers: &KnownPeers,
) -> Result<(Remote, Protocol), HelloError> {
    let mut frames = Framed::new(stream, super::codec(HELLO_BYTES_MAX));
    let ours = known_peers.spoken();
    let first = next(&mut frames, ours).await;
    let certified = first.as_ref().map_or(Ok(()), |received| certified(&frames, received));
    if let Ok(received) = &first
        && certified.is_ok()
        && !received.hello.joins.is_empty()
        && agree(received, ours).is_ok()
    {
        return Err(welcome(&mut frames, local, &received.hello, known_peers).await?);
    }
    let checked = match first {
        Ok(received) => match certified {
            Ok(()) => meet(&received, local, ours, known_peers).await,
            Err(error) => Err(error),
        }
        .map_err(|error| (error, received.hello.from)),
        Err(error @ HelloError::Version { .. }) => Err((error, 0)),
        Err(error) => return Err(error),
    };
    match checked {
        Ok((remote, protocol)) => {
            frames.send(encode(local, ours, remote.node, None)).await?;
            Ok((remote, protocol))
        }
        Err((error, from)) => {
            // In the response, "this node" and "it" are swapped.
            let refusal = match &error {
                HelloError::Version { .. } => format!("{} speaks protocol {ours}", local.name),
                HelloError::Cluster { .. } => {
                    format!("{} belongs to cluster {:032x}", local.name, local.cluster.0)
                }
                error => error.to_string(),
            };
            let retired = match &error {
                HelloError::OldCopy { .. } => OLD_COPY,
                HelloError::Replaced { .. } => REPLACED,
                HelloError::Runs { .. } => RUNS,
                _ => 0,
            };
            frames.send(encode(local, ours, NodeId::new(from), Some((refusal, retired)))).await?;
            Err(error)
        }
    }
}

/// Checks whether to talk to the dialling node, and in which version of the protocol.
async fn meet(
    received: &ReceivedHello,
    local: &LocalNode,
    ours: Spoken,
    known_peers: &KnownPeers,
) -> Result<(Remote, Protocol), HelloError> {
    let checked = match NodeId::new(received.hello.to) {
        to if to == local.node => check(received, local),
        UNKNOWN => check(received, local).and_then(|remote| Err(HelloError::IdentityQuery { name: remote.name })),
        _ => Err(HelloError::WrongNode { found: local.name.clone() }),
    };
    match (checked, agree(received, ours)) {
        // Other processes may have copies of this node's directory; this process is the one that serves it.
        (Ok(remote), _) if (remote.node, remote.incarnation) == (local.node, local.incarnation) => {
            Err(HelloError::Runs { name: remote.name })
        }
        (Ok(remote), agreed) => {
            // An old copy is refused in any version.
            known_peers.admit(&remote).await?;
            Ok((remote, agreed?))
        }
        (Err(_), Err(version)) => Err(version),
        (Err(error), Ok(_)) => Err(error),
    }
}

/// Tells a joining node what it needs to know, and notes that it waits.
async fn welcome(
    frames: &mut Framed<&mut NetStream, LengthDelimitedCodec>,
    local: &LocalNode,
    hello: &PbHello,
    known_peers: &KnownPeers,
) -> Result<HelloError, HelloError> {
    let Some(welcome) = known_peers.welcome() else { return Ok(HelloError::Malformed) };
    let Ok(Change { what: ChangeKind::Add(member), .. }) = Change::decode(&hello.joins) else {
        return Ok(HelloError::Malformed);
    };
    let name = member.name.clone();
    if let Err(other) = check_cluster_name(hello, local) {
        frames.send(encode(local, known_peers.spoken(), member.id, None)).await?;
        return Ok(other);
    }
    if hello.joins_at_once {
        // It repeats the request until it is a member, and then the change is refused.
        let (control, member) = (welcome.control.clone(), member.clone());
        let changes = vec![ChangeKind::Add(member)];
        let change = MembersChange { changes, planned_on: None, timeout: HELLO_WITHIN };
        tokio::spawn(async move { drop(control.change_members(change).await) });
    }
    welcome.waiting.note(member);
    let history = welcome.history.borrow().clone();
    let response = PbHello {
        secret: Bytes::copy_from_slice(&welcome.secret.0),
        history: history.clone(),
        ..greeting(local, known_peers.spoken(), NodeId::new(hello.from), None)
    };
    frames.codec_mut().set_max_frame_length(history.len() + HELLO_BYTES_MAX);
    frames.send(framed(&response, known_peers.spoken())).await?;
    Ok(HelloError::Waits { name })
}

/// Asks the node at the other end of a connection to let `joiner` join.
pub(super) async fn request_to_join(
    stream: &mut NetStream,
    joiner: &Member,
    joins_at_once: bool,
    cluster_name: &str,
) -> Result<Invitation, HelloError> {
    let mut frames = Framed::new(stream, super::codec(super::FRAME_BYTES_MAX));
    let change = Change { hlc: Hlc::ZERO, node: joiner.id, number: 1, what: ChangeKind::Add(joiner.clone()) };
    let unknown = LocalNode {
        cluster: ClusterId(0),
        cluster_name: cluster_name.to_owned(),
        node: joiner.id,
        name: joiner.name.clone(),
        incarnation: joiner.incarnation,
        boot: 0,
        lineage: Lineage::default(),
        opens: false,
        peer_addr: joiner.peer_addr.clone(),
        http_addr: joiner.http_addr.clone(),
        tls: PeerSide::default(),
    };
    let ours = Spoken::BY_THIS_BUILD;
    let hello = PbHello { joins: change.encode(), joins_at_once, ..greeting(&unknown, ours, NodeId::new(0), None) };
    frames.send(framed(&hello, ours)).await?;
    let received = next_certified(&mut frames, ours).await?;
    agree(&received, ours)?;
    let response = received.hello;
    if !cluster_name.is_empty() && response.cluster_name != cluster_name {
        let (name, theirs) = (text(&response.name), text(&response.cluster_name));
        return Err(HelloError::ClusterName { name, theirs, ours: cluster_name.to_owned() });
    }
    if !response.refusal.is_empty() {
        return Err(HelloError::Refused(response.refusal));
    }
    let secret = response.secret.as_ref().try_into().map_err(|_| HelloError::Malformed)?;
    let history = History::decode(&response.history).map_err(|_| HelloError::Malformed)?;
    Ok(Invitation { secret: ClusterSecret(secret), history })
}

fn encode(local: &LocalNode, spoken: Spoken, to: NodeId, refusal: Option<(String, u32)>) -> Bytes {
    framed(&greeting(local, spoken, to, refusal), spoken)
}

fn framed(hello: &PbHello, spoken: Spoken) -> Bytes {
    let mut frame = BytesMut::with_capacity(MAGIC.len() + 4 + hello.encoded_len());
    frame.put_slice(MAGIC);
    frame.put_u32(spoken.oldest.0);
    frame.extend_from_slice(&hello.encode_to_vec());
    frame.freeze()
}

fn greeting(local: &LocalNode, spoken: Spoken, to: NodeId, refusal: Option<(String, u32)>) -> PbHello {
    let (refusal, retired) = refusal.unwrap_or_default();
    PbHello {
        cluster: Bytes::copy_from_slice(&local.cluster.0.to_be_bytes()),
        from: local.node.get(),
        to: to.get(),
        incarnation: local.incarnation.0,
        boot: local.boot,
        name: local.name.clone(),
        refusal,
        version: crate::VERSION.to_owned(),
        retired,
        newest: spoken.newest.0,
        opens: local.opens,
        boots: local.lineage.for_hello().boots().iter().map(begun_to_pb).collect(),
        peer_addr: local.peer_addr.clone(),
        http_addr: local.http_addr.clone(),
        cluster_name: local.cluster_name.clone(),
        ..PbHello::default()
    }
}

fn begun_to_pb(begun: &Begun) -> PbBegun {
    let marks = begun.marks.iter().flat_map(|mark| [mark.boot.into(), mark.commit]).collect();
    PbBegun { boot: begun.boot, drawn: begun.drawn, marks }
}

fn begun_from_pb(begun: &PbBegun) -> Begun {
    let mark = |pair: &[u64]| Mark { boot: u32::try_from(pair[0]).unwrap_or(u32::MAX), commit: pair[1] };
    Begun { boot: begun.boot, drawn: begun.drawn, marks: begun.marks.chunks_exact(2).map(mark).collect() }
}

async fn next(
    frames: &mut Framed<&mut NetStream, LengthDelimitedCodec>,
    ours: Spoken,
) -> Result<ReceivedHello, HelloError> {
    let frame = match tokio::time::timeout(HELLO_WITHIN, frames.next()).await {
        Err(_) => return Err(HelloError::Silent),
        Ok(None) => return Err(HelloError::Broken(io::ErrorKind::UnexpectedEof.into())),
        // The first four bytes from another program are hardly ever the length of a short frame.
        Ok(Some(Err(error))) if error.kind() == io::ErrorKind::InvalidData => return Err(HelloError::NotCartwheel),
        Ok(Some(frame)) => frame?,
    };
    decode(frame.freeze(), ours)
}

/// The next hello, of a node that its certificate names.
async fn next_certified(
    frames: &mut Framed<&mut NetStream, LengthDelimitedCodec>,
    ours: Spoken,
) -> Result<ReceivedHello, HelloError> {
    let received = next(frames, ours).await?;
    certified(frames, &received)?;
    Ok(received)
}

/// Checks that the certificate of the other side, if there is TLS, names the node of its hello.
fn certified(
    frames: &Framed<&mut NetStream, LengthDelimitedCodec>,
    received: &ReceivedHello,
) -> Result<(), HelloError> {
    let name = &received.hello.name;
    if frames.get_ref().certifies(name) { Ok(()) } else { Err(HelloError::Certificate { name: text(name) }) }
}

fn decode(mut frame: Bytes, ours: Spoken) -> Result<ReceivedHello, HelloError> {
    if !frame.starts_with(MAGIC) || frame.len() < MAGIC.len() + 4 {
        return Err(HelloError::NotCartwheel);
    }
    frame.advance(MAGIC.len());
    let oldest = Protocol(frame.get_u32());
    match PbHello::decode(frame) {
        Ok(hello) => {
            let spoken = Spoken { oldest, newest: Protocol(hello.newest).max(oldest) };
            Ok(ReceivedHello { hello, spoken })
        }
        Err(_) if ours.has(oldest) => Err(HelloError::Malformed),
        Err(_) => Err(HelloError::Version { name: String::new(), theirs: Spoken { oldest, newest: oldest }, ours }),
    }
}

/// The version in use from now on.
fn agree(received: &ReceivedHello, ours: Spoken) -> Result<Protocol, HelloError> {
    let (name, theirs) = (text(&received.hello.name), received.spoken);
    ours.in_common(theirs).ok_or(HelloError::Version { name, theirs, ours })
}

/// Makes text from the network safe for a log.
fn text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(255).collect()
}

/// Checks that a hello's cluster name matches this node's, if both have one. An earlier build, or a joining node without the setting, sends none.
fn check_cluster_name(hello: &PbHello, local: &LocalNode) -> Result<(), HelloError> {
    if hello.cluster_name.is_empty() || hello.cluster_name == local.cluster_name {
        return Ok(());
    }
    let (name, theirs, ours) = (text(&hello.name), text(&hello.cluster_name), local.cluster_name.clone());
    Err(HelloError::ClusterName { name, theirs, ours })
}

fn check(received: &ReceivedHello, local: &LocalNode) -> Result<Remote, HelloError> {
    let ReceivedHello { hello, spoken } = received;
    let cluster = hello.cluster.as_ref().try_into().map(u128::from_be_bytes).map_err(|_| HelloError::Malformed)?;
    let name = text(&hello.name);
    if cluster != local.cluster.0 {
        return Err(HelloError::Cluster { name, theirs: cluster, ours: local.cluster.0 });
    }
    check_cluster_name(hello, local)?;
    let version = Some(text(&hello.version)).filter(|version| !version.is_empty());
    let (node, incarnation, boot) = (NodeId::new(hello.from), Incarnation(hello.incarnation), hello.boot);
    let lineage = Lineage::of(hello.boots.iter().map(begun_from_pb).collect());
    let (peer_addr, http_addr) = (text(&hello.peer_addr), text(&hello.http_addr));
    let opens = hello.opens;
    let (spoken, shard) = (*spoken, hello.shard.checked_sub(1));
    Ok(Remote { node, name, incarnation, boot, lineage, opens, version, peer_addr, http_addr, spoken, shard })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use tokio::net::TcpStream;

    use super::*;

    fn local(name: String, cluster: u128, incarnation: u64, boot: u32) -> LocalNode {
        let (node, lineage, peer_addr, http_addr) =
            (NodeId::of_name(&name), Lineage::default(), format!("{name}:1"), format!("{name}:2"));
        let (cluster, incarnation) = (ClusterId(cluster), Incarnation(incarnation));
        let cluster_name = String::new();
        let (opens, tls) = (false, PeerSide::default());
        LocalNode { cluster, cluster_name, node, name, incarnation, boot, lineage, opens, peer_addr, http_addr, tls }
    }

    /// The outcome at both ends when a build that speaks `theirs` dials this one, and when it is dialled.
    async fn handshake(theirs: Spoken) -> [Result<Protocol, HelloError>; 2] {
        let (a, b) = (local("a".to_owned(), 1, 1, 1), local("b".to_owned(), 1, 1, 1));
        let (hello, unknown) = (encode(&a, theirs, b.node, None), KnownPeers::default());
        let mut ends = Vec::new();
        for calls in [true, false] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut near = NetStream::Plain(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let mut far = NetStream::Plain(listener.accept().await.unwrap().0);
            let mut frames = Framed::new(&mut far, crate::peers::codec(HELLO_BYTES_MAX));
            frames.send(hello.clone()).await.unwrap();
            let ended = match calls {
                true => accept(&mut near, &b, &unknown).await,
                false => call(&mut near, &b, None, a.node, &unknown).await,
            };
            // The other end decides by the same numbers.
            let received = next(&mut frames, theirs).await.unwrap();
            let ended = ended.map(|(_, protocol)| protocol);
            assert_eq!(agree(&received, theirs).ok(), ended.as_ref().ok().copied());
            ends.push(ended);
        }
        ends.try_into().unwrap()
    }

    #[tokio::test]
    async fn a_query_returns_the_node_and_its_addresses() {
        let (a, b) = (local("a".to_owned(), 1, 1, 1), local("b".to_owned(), 1, 2, 1));
        let stranger = local("c".to_owned(), 9, 1, 1);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (caller, is_member) in [(&a, true), (&stranger, false)] {
            let mut near = NetStream::Plain(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let mut far = NetStream::Plain(listener.accept().await.unwrap().0);
            let known_peers = KnownPeers::default();
            let (found_there, accepted) =
                tokio::join!(query_identity(&mut near, caller), accept(&mut far, &b, &known_peers));
            assert!(matches!(accepted, Err(HelloError::IdentityQuery { .. } | HelloError::Cluster { .. })));
            let found = Found {
                node: b.node,
                incarnation: Incarnation(2),
                peer_addr: "b:1".to_owned(),
                http_addr: "b:2".to_owned(),
            };
            assert_eq!(found_there.ok(), is_member.then_some(found));
        }
    }

    #[tokio::test]
    async fn nodes_of_clusters_with_different_names_do_not_talk() {
        let of = |name: &str| LocalNode { cluster_name: name.to_owned(), ..local("b".to_owned(), 1, 2, 1) };
        let received =
            |from: &LocalNode| decode(encode(from, Spoken::BY_THIS_BUILD, UNKNOWN, None), Spoken::BY_THIS_BUILD);
        for (theirs, ours, handshake) in
            [("shop", "shop", true), ("shop", "depot", false), ("", "shop", true), ("shop", "", false)]
        {
            let checked = check(&received(&of(theirs)).unwrap(), &of(ours));
            assert_eq!(checked.is_ok(), handshake, "{theirs} {ours}");
            assert!(handshake || checked.unwrap_err().to_string().contains("belongs to the cluster shop"));
        }
    }

    #[tokio::test]
    async fn two_builds_use_the_highest_common_version_or_say_which_is_too_old() {
        let Spoken { oldest, newest } = Spoken::BY_THIS_BUILD;
        let spoken = |oldest, newest| Spoken { oldest: Protocol(oldest), newest: Protocol(newest) };
        for (theirs, agreed) in [
            (spoken(oldest.0, newest.0), newest),
            (spoken(oldest.0 - 2, newest.0 + 2), newest),
            (spoken(newest.0, newest.0 + 1), newest),
            (spoken(oldest.0 - 1, oldest.0), oldest),
        ] {
            for end in handshake(theirs).await {
                assert_eq!(end.unwrap(), agreed, "{theirs}");
            }
        }
        let (future, ours) = (newest.0 + 1, Spoken::BY_THIS_BUILD);
        for (theirs, expected) in [
            (
                spoken(future, future + 1),
                format!(
                    "a speaks protocol versions {future} to {} and this node {ours}: the build of this node is too old",
                    future + 1
                ),
            ),
            (spoken(1, 2), format!("a speaks protocol versions 1 to 2 and this node {ours}: its build is too old")),
        ] {
            for end in handshake(theirs).await {
                let error = end.unwrap_err().to_string();
                assert!(error.starts_with(&expected), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_node_that_uses_a_version_drops_peers_that_speak_only_older_ones() {
        let known_peers = KnownPeers::default();
        assert_eq!(known_peers.spoken(), Spoken::BY_THIS_BUILD);
        let (node, name, incarnation, version) = (NodeId::of_name("a"), "a".to_owned(), Incarnation(1), None);
        let (lineage, opens, spoken) = (Lineage::default(), false, Spoken::BY_THIS_BUILD);
        let (peer_addr, http_addr) = (String::new(), String::new());
        let (boot, shard) = (1, None);
        let remote =
            Remote { node, name, incarnation, boot, lineage, opens, version, peer_addr, http_addr, spoken, shard };
        let mut refused = std::pin::pin!(known_peers.refused(&remote));
        tokio::select! {
            biased;
            () = &mut refused => panic!("the peer was refused without a reason"),
            () = std::future::ready(()) => {}
        }
        known_peers.speak_from(Protocol(Protocol::NEWEST.0 + 1));
        refused.await;
        known_peers.speak_from(Protocol::OLDEST);
        assert_eq!(known_peers.spoken().oldest, Protocol(Protocol::NEWEST.0 + 1), "it never goes back");
        assert_eq!(known_peers.spoken().in_common(Spoken::BY_THIS_BUILD), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_a_hello_or_refused(
            name in ".{0,300}", ids in (any::<u128>(), any::<u64>(), any::<u32>(), any::<u64>()), refusal in ".{0,9}",
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(),
            noise in vec(any::<u8>(), 0..100),
        ) {
            let (cluster, incarnation, boot, to) = ids;
            let node = local(name, cluster, incarnation, boot);
            let ours = Spoken::BY_THIS_BUILD;
            let frame = encode(&node, ours, NodeId::new(to), Some((refusal.clone(), boot)));
            let received = decode(frame.clone(), ours).unwrap();
            let hello = &received.hello;
            prop_assert_eq!((hello.to, &hello.refusal, &hello.name), (to, &refusal, &node.name));
            let remote = check(&received, &node).unwrap();
            prop_assert_eq!((remote.spoken, agree(&received, ours).unwrap()), (ours, ours.newest));
            prop_assert_eq!(remote.node, node.node);
            prop_assert!(remote.name.chars().count() <= 255 && !remote.name.chars().any(char::is_control));

            let mut spoilt = frame.to_vec();
            changes.iter().for_each(|(at, byte)| spoilt[at.index(frame.len())] = *byte);
            let cut_off = spoilt[..cut.index(frame.len())].to_vec();
            for bytes in [spoilt, cut_off, noise] {
                if let Ok(received) = decode(bytes.into(), ours) {
                    let _ = (check(&received, &node), agree(&received, ours));
                }
            }
        }
    }
}
