//! TLS between nodes.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::files::Loaded;
use super::listen::{HANDSHAKE_WITHIN, starts_with_handshake};
use super::{NetStream, PeerTls};

/// TLS with peers. Clones share the certificate.
#[derive(Clone, Debug, Default)]
pub struct PeerSide(Option<(PeerTls, watch::Receiver<Arc<Loaded>>)>);

impl PartialEq for PeerSide {
    /// Two are equal if one is a clone of the other.
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some((mode, loaded)), Some((other_mode, other))) => mode == other_mode && loaded.same_channel(other),
            _ => false,
        }
    }
}

impl Eq for PeerSide {}

impl PeerSide {
    pub(super) fn new(mode: PeerTls, loaded: watch::Receiver<Arc<Loaded>>) -> Self {
        let has_authority = loaded.borrow().peers.is_some();
        Self((mode != PeerTls::Off && has_authority).then_some((mode, loaded)))
    }

    /// Does the handshake on a connection that this node has dialled.
    ///
    /// # Errors
    /// If it fails: the other side does not use TLS, or shows no certificate of the authority.
    pub async fn dial(&self, tcp: TcpStream) -> io::Result<NetStream> {
        let config = match &self.0 {
            Some((mode, loaded)) if mode.dials() => loaded.borrow().peers.as_ref().map(|(_, client)| client.clone()),
            _ => None,
        };
        let Some(config) = config else { return Ok(NetStream::Plain(tcp)) };
        // The name is not checked here, and not sent.
        let anyone = ServerName::from(tcp.peer_addr()?.ip());
        let handshake = TlsConnector::from(config).connect(anyone, tcp);
        let ended = tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await;
        let stream = ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(failed)?;
        Ok(NetStream::Tls(Box::new(stream.into())))
    }

    /// Does the handshake on a connection that a peer has dialled.
    ///
    /// # Errors
    /// If it fails, or the peer does not use TLS and has to.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<NetStream> {
        let config =
            self.0.as_ref().and_then(|(mode, loaded)| Some((*mode, loaded.borrow().peers.as_ref()?.0.clone())));
        let handshake = async {
            match (starts_with_handshake(&tcp).await?, config) {
                (true, Some((_, config))) => {
                    let stream = TlsAcceptor::from(config).accept(tcp).await.map_err(failed)?;
                    Ok(NetStream::Tls(Box::new(stream.into())))
                }
                (true, None) => {
                    Err(io::Error::other("it uses TLS, and this node does not: give tls_cert, tls_key and tls_ca"))
                }
                (false, Some((PeerTls::Require, _))) => {
                    Err(io::Error::other("it does not use TLS, which this node requires of peers"))
                }
                (false, _) => Ok(NetStream::Plain(tcp)),
            }
        };
        let ended = tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await;
        ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// What a failed handshake means.
fn failed(error: io::Error) -> io::Error {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let hint = match of_tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            "; its certificate must be one of the authority in tls_ca"
        }
        Some(rustls::Error::AlertReceived(_)) => "; it may not accept this node's certificate",
        None if error.kind() == io::ErrorKind::UnexpectedEof => "; it may not use TLS",
        _ => "",
    };
    io::Error::new(error.kind(), format!("the TLS handshake failed: {error}{hint}"))
}
