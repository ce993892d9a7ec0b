//! TLS on connections from clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::files::Loaded;
use super::{ClientTls, NetStream};

/// How long a handshake may take.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a client without TLS may take to read that it needs it.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// The first byte of a TLS connection: the type of a handshake record.
const HANDSHAKE: u8 = 22;

/// TLS with clients. Clones share the certificate.
#[derive(Clone, Debug, Default)]
pub struct ClientSide(Option<(ClientTls, watch::Receiver<Arc<Loaded>>)>);

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    /// The client did not end the handshake in time.
    #[error("the TLS handshake took longer than {} s", HANDSHAKE_WITHIN.as_secs())]
    Slow,
    /// The client does not use TLS.
    #[error("the client does not use TLS")]
    Plain,
}

impl ClientSide {
    pub(super) fn new(mode: ClientTls, loaded: watch::Receiver<Arc<Loaded>>) -> Self {
        Self((mode != ClientTls::Off).then_some((mode, loaded)))
    }

    /// Does the handshake with a client that has connected. A client without TLS that needs it is sent `refusal`.
    ///
    /// # Errors
    /// If the connection cannot be served.
    pub async fn accept(&self, tcp: TcpStream, refusal: &[u8]) -> Result<NetStream, NotServed> {
        let Some((mode, loaded)) = &self.0 else { return Ok(NetStream::Plain(tcp)) };
        let config = loaded.borrow().clients.clone();
        let begins = tokio::time::timeout(HANDSHAKE_WITHIN, starts_with_handshake(&tcp)).await;
        match begins {
            Ok(Ok(true)) => {
                let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(config).accept(tcp)).await;
                Ok(NetStream::Tls(Box::new(handshake.map_err(|_| NotServed::Slow)??.into())))
            }
            Ok(Err(error)) => Err(error.into()),
            // A client without TLS may keep a new connection idle; one with TLS begins at once.
            Ok(Ok(false)) | Err(_) if *mode == ClientTls::Accept => Ok(NetStream::Plain(tcp)),
            Ok(Ok(false)) => {
                let _ = tokio::time::timeout(REFUSED_WITHIN, refuse(tcp, refusal)).await;
                Err(NotServed::Plain)
            }
            Err(_) => Err(NotServed::Slow),
        }
    }
}

/// Sends a refusal, and discards what the client sends meanwhile: a client that is cut off while it sends may never read the refusal.
async fn refuse(mut tcp: TcpStream, refusal: &[u8]) -> io::Result<()> {
    tcp.write_all(refusal).await?;
    tcp.shutdown().await?;
    let mut discarded = [0; 4 << 10];
    while tcp.read(&mut discarded).await? > 0 {}
    Ok(())
}

/// Whether the other side begins with TLS. It waits for the first byte.
pub(super) async fn starts_with_handshake(tcp: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(tcp.peek(&mut first).await? == 1 && first[0] == HANDSHAKE)
}
