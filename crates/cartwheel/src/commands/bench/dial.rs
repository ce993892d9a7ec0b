//! Connections to servers, with or without TLS.

use std::fmt::Debug;
use std::sync::Arc;

use cartwheel_client::{Credentials, Tls};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An open connection.
pub(in crate::commands) trait Io: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Io for T {}

/// How connections are made.
#[derive(Clone, Debug, Default)]
pub(in crate::commands) struct Dial {
    tls: Option<Arc<ClientConfig>>,
    credentials: Option<Credentials>,
}

impl Dial {
    /// Over TLS and with credentials, if they are given.
    pub(in crate::commands) fn new(tls: Option<&Tls>, credentials: Option<Credentials>) -> Self {
        Self { tls: tls.map(Tls::client_config), credentials }
    }

    /// What the servers are shown, if anything.
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Connects to an address, `host:port`; none if that fails.
    pub(in crate::commands) async fn connect(&self, address: &str) -> Option<Box<dyn Io>> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let Some(config) = &self.tls else { return Some(Box::new(stream)) };
        let host = address.rsplit_once(':')?.0.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).ok()?;
        Some(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await.ok()?))
    }
}
