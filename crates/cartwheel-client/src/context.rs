use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

/// What a client has seen of a key: the version that a get returned, or a put wrote.
///
/// Pass it to a write, and the write replaces exactly the values that it covers. Pass it to a get in [`Options::seen`](crate::Options::seen),
/// and the get returns nothing older. Contexts are opaque, sealed by the cluster, and valid for one key only.
///
/// [`Display`](fmt::Display) and [`FromStr`] convert a context to and from the text of the `Cartwheel-Context` header, so that it can be kept in
/// a web form or a cookie:
///
/// ```
/// use cartwheel_client::Context;
///
/// let context: Context = "AQID".parse()?;
/// assert_eq!(context.as_bytes().as_ref(), [1, 2, 3]);
/// assert_eq!(context.to_string(), "AQID");
/// # Ok::<(), cartwheel_client::BadContext>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Context(Bytes);

impl Context {
    /// Restores a context from its bytes. A node that gets a context that no node of its cluster made refuses it.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, to store the context elsewhere.
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

/// Parses what [`Display`](fmt::Display) writes: base64 for URLs, without padding.
impl FromStr for Context {
    type Err = BadContext;

    fn from_str(text: &str) -> Result<Self, BadContext> {
        Self::decode(text).ok_or(BadContext)
    }
}

/// A text that is not a context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a context: expected base64 for URLs, without padding")]
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

/// The replicas that answered a get or stored a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Acks {
    /// The number of home replicas.
    pub home: u32,
    /// The number of stand-ins.
    pub standin: u32,
    /// The number of distinct zones of all of them.
    pub zones: u32,
}

impl Acks {
    /// Parses `home=2 standin=0 zones=1`. It skips parts that it does not know.
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
