//! A node's identity, and the file that keeps it.

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cartwheel_core::store::record::ActorsSince;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::Incarnation;
use cartwheel_core::wire::Protocol;
use serde::{Deserialize, Serialize};

use super::DataDirError;
use crate::data_dir::lineage::{Begun, Lineage, Mark};

/// The oldest directory format that this build opens. 2: several shards per node, records of version 2.
const FORMAT_OLDEST: u64 = 2;

/// The format of the directory of a node that knows all members to speak `protocol`. It covers this file and all else in the directory,
/// the stores included.
///
/// A build that does not know the format must not open the directory. The format is raised, durably, before the node stores anything that
/// the protocol's version introduced, and never goes back. 2: protocol version 5; each later version adds one.
fn format_of(protocol: Protocol) -> u64 {
    u64::from(protocol.0.saturating_sub(3))
}

/// The protocol that all members were known to speak when a directory got this format; none if this build does not know the format.
fn all_speak_at(format: u64) -> Option<Protocol> {
    (FORMAT_OLDEST..=format_of(Protocol::NEWEST)).contains(&format).then(|| {
        let protocol = Protocol(u32::try_from(format + 3).unwrap_or(Protocol::NEWEST.0));
        protocol.max(Protocol::OLDEST)
    })
}

/// The secret that the nodes of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(pub [u8; 32]);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// A node's identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its name in the cluster.
    pub name: String,
    /// The incarnation, drawn when the directory was made.
    pub incarnation: Incarnation,
    /// How often the directory has been opened to be served.
    pub boot: u32,
    /// Its last boots.
    pub lineage: Lineage,
    /// The boot since which the node has kept its actors; none before the first.
    pub actors: Option<ActorsSince>,
    /// The stores' marks after an orderly stop of the last boot; none if it did not stop in order.
    pub stopped: Option<Vec<Mark>>,
    /// How many shards the data is divided among; fixed when the directory was made.
    pub shards: NonZeroU32,
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The cluster's secret.
    pub secret: ClusterSecret,
    /// The cluster's membership at its bootstrap, encoded.
    pub bootstrap: Bytes,
    /// The protocol that all members were last known to speak: nothing in the directory needs a later one.
    pub all_speak: Protocol,
}

/// The file. The checksum covers the node's part: a flipped bit in a boot number or an incarnation would let the node make a dot twice.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    check: String,
    node: NodeForm,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeForm {
    name: String,
    /// The field keeps the name of the first builds: a changed term does not justify a new format.
    #[serde(rename = "life")]
    incarnation: String,
    boot: u32,
    shards: NonZeroU32,
    cluster: String,
    secret: String,
    #[serde(rename = "founding")] // The name on the disk is a retired word.
    bootstrap: String,
    /// The last boots; absent in a directory of a build that did not keep them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    boots: Vec<BootForm>,
    /// The boot since which the node has kept its actors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actors: Option<BootForm>,
    /// The stores' marks after an orderly stop of the last boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<Vec<(u32, u64)>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootForm {
    boot: u32,
    drawn: String,
    /// The boot and the commit of each shard's store.
    marks: Vec<(u32, u64)>,
}

impl BootForm {
    fn of(begun: &Begun) -> Self {
        let marks = pairs(&begun.marks);
        Self { boot: begun.boot, drawn: format!("{:016x}", begun.drawn), marks }
    }

    fn parse(&self) -> Option<Begun> {
        let marks = marks(&self.marks);
        Some(Begun { boot: self.boot, drawn: u64::from_str_radix(&self.drawn, 16).ok()?, marks })
    }
}

fn pairs(marks: &[Mark]) -> Vec<(u32, u64)> {
    marks.iter().map(|mark| (mark.boot, mark.commit)).collect()
}

fn marks(pairs: &[(u32, u64)]) -> Vec<Mark> {
    pairs.iter().map(|&(boot, commit)| Mark { boot, commit }).collect()
}

impl Identity {
    /// The highest boot number: a dot has 24 bits for it.
    pub const BOOT_MAX: u32 = (1 << 24) - 1;

    /// The file's contents.
    pub(super) fn encode(&self) -> Vec<u8> {
        let node = NodeForm {
            name: self.name.clone(),
            incarnation: format!("{:016x}", self.incarnation.0),
            boot: self.boot,
            shards: self.shards,
            cluster: format!("{:032x}", self.cluster.0),
            secret: BASE64.encode(self.secret.0),
            bootstrap: BASE64.encode(&self.bootstrap),
            boots: self.lineage.boots().iter().map(BootForm::of).collect(),
            actors: self
                .actors
                .map(|ActorsSince { boot, drawn }| BootForm::of(&Begun { boot, drawn, marks: Vec::new() })),
            stopped: self.stopped.as_deref().map(pairs),
        };
        let format = format_of(self.all_speak);
        let file = File { format, check: node.check(format), node };
        // Strings and numbers always have a JSON form.
        let mut bytes = serde_json::to_vec_pretty(&file).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Parses the contents of the file `path`.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self, DataDirError> {
        let damaged = |why: String| DataDirError::Damaged { path: path.to_path_buf(), why };
        // The format first: a newer one may have other fields.
        let format = super::format_of_json(bytes, path)?;
        let Some(all_speak) = all_speak_at(format) else {
            return Err(DataDirError::Format { path: path.to_path_buf(), format, newest: format_of(Protocol::NEWEST) });
        };
        let file: File = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if file.check != file.node.check(format) {
            return Err(damaged("its checksum does not match its contents".to_owned()));
        }
        file.node.parse(all_speak).ok_or_else(|| damaged("a field is malformed".to_owned()))
    }
}

impl NodeForm {
    fn check(&self, format: u64) -> String {
        let mut hasher = blake3::Hasher::new();
        let (boot, shards) = (self.boot.to_string(), self.shards.to_string());
        for field in [&self.name, &self.incarnation, &boot, &shards, &self.cluster, &self.secret, &self.bootstrap] {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field.as_bytes());
        }
        for BootForm { boot, drawn, marks } in &self.boots {
            hasher.update(format!("boot {boot} {drawn} {marks:?}").as_bytes());
        }
        if let Some(BootForm { boot, drawn, .. }) = &self.actors {
            hasher.update(format!("actors {boot} {drawn}").as_bytes());
        }
        if let Some(marks) = &self.stopped {
            hasher.update(format!("stopped {marks:?}").as_bytes());
        }
        // The first format does not hash it.
        if format > FORMAT_OLDEST {
            hasher.update(&format.to_be_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    fn parse(self, all_speak: Protocol) -> Option<Identity> {
        Some(Identity {
            incarnation: Incarnation(u64::from_str_radix(&self.incarnation, 16).ok()?),
            boot: self.boot,
            lineage: Lineage::of(self.boots.iter().map(BootForm::parse).collect::<Option<_>>()?),
            actors: match &self.actors {
                Some(actors) => actors.parse().map(|Begun { boot, drawn, .. }| Some(ActorsSince { boot, drawn }))?,
                None => None,
            },
            stopped: self.stopped.as_deref().map(marks),
            shards: self.shards,
            cluster: ClusterId(u128::from_str_radix(&self.cluster, 16).ok()?),
            secret: ClusterSecret(BASE64.decode(self.secret).ok()?.try_into().ok()?),
            bootstrap: BASE64.decode(self.bootstrap).ok()?.into(),
            name: self.name,
            all_speak,
        })
    }
}
