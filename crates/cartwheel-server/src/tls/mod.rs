//! TLS on the connections of a node: HTTP, Redis clients, peers.
//!
//! Certificates and keys are PEM files, and are read again when they change. A node's certificate names it. Between nodes both sides show one from
//! the cluster's certificate authority, so a stranger gets no byte of an answer, even if it knows the cluster's id.
//!
//! A cluster changes over to TLS, and back, without a stop: first every node [accepts](PeerTls::Accept) it, then every node
//! [prefers](PeerTls::Prefer) it, then every node [requires](PeerTls::Require) it.

mod files;
mod listen;
mod peers;
mod stream;

use clap::ValueEnum;

pub use files::{TlsError, TlsFiles};
pub use listen::{ClientSide, NotServed};
pub use peers::PeerSide;
pub use stream::{DetachedStream, NetStream};

/// Whether clients use TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ClientTls {
    /// No client does.
    Off,
    /// A client can, at the same address.
    Accept,
    /// Every client does.
    #[default]
    Require,
    /// Every client does, and shows a certificate of the authority.
    Certificate,
}

/// Whether nodes talk to each other over TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum PeerTls {
    /// They do not.
    Off,
    /// This node dials without it, and takes both.
    Accept,
    /// This node dials with it, and takes both.
    Prefer,
    /// This node dials with it, and takes nothing else.
    #[default]
    Require,
}

impl PeerTls {
    /// Whether this node dials with TLS.
    const fn dials(self) -> bool {
        matches!(self, Self::Prefer | Self::Require)
    }
}
