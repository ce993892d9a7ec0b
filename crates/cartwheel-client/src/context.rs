use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

/// What a client was shown of a key. It is made by the cluster and means something to the cluster alone; a write that carries
/// it replaces exactly what was shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Context(Bytes);

impl Context {
    /// The context with these bytes, for one that was kept elsewhere.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes, to keep it elsewhere.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| Self(bytes.into()))
    }
}

/// As [`Display`](fmt::Display) writes it, and the header of the protocol.
impl FromStr for Context {
    type Err = BadContext;

    fn from_str(text: &str) -> Result<Self, BadContext> {
        Self::decode(text).ok_or(BadContext)
    }
}

/// A text that is no context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is no context: one is base64 for URLs, without padding")]
pub struct BadContext;

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} bytes)", self.0.len())
    }
}

/// The replicas that an answer stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Acks {
    /// Home replicas that answered.
    pub home: u32,
    /// Stand-ins that answered.
    pub standin: u32,
    /// Distinct zones among them.
    pub zones: u32,
}

impl Acks {
    /// The acks of a `home=2 standin=0 zones=1`; what it does not know or understand is left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut acks = Self::default();
        for (name, count) in text.split(' ').filter_map(|part| part.split_once('=')) {
            let Ok(count) = count.parse() else { continue };
            match name {
                "home" => acks.home = count,
                "standin" => acks.standin = count,
                "zones" => acks.zones = count,
                _ => {}
            }
        }
        acks
    }
}
