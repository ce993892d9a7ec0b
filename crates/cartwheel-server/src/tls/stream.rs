//! A connection with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use webpki::EndEntityCert;

/// A connection with or without TLS. TLS keeps a part of what was written until it is flushed.
#[derive(Debug)]
pub enum NetStream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<TcpStream>>),
}

impl NetStream {
    /// The connection below TLS.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Whether the certificate of the other side, if there is TLS, names this node.
    pub fn certifies(&self, name: &str) -> bool {
        let Self::Tls(tls) = self else { return true };
        let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let (Some(certificate), Ok(name)) = (certificate, ServerName::try_from(name)) else { return false };
        EndEntityCert::try_from(certificate).is_ok_and(|cert| cert.verify_is_valid_for_subject_name(&name).is_ok())
    }

    /// Takes a connection without TLS off its thread, so that another one can serve it. One with TLS is served wherever it is polled, and woken by
    /// the thread that made it.
    ///
    /// # Errors
    /// If the system does not let it go.
    pub fn detach(self) -> io::Result<DetachedStream> {
        Ok(match self {
            Self::Plain(tcp) => DetachedStream::Plain(tcp.into_std()?),
            Self::Tls(tls) => DetachedStream::Tls(tls),
        })
    }
}

/// A connection between two threads.
#[derive(Debug)]
pub enum DetachedStream {
    /// Without TLS.
    Plain(std::net::TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl DetachedStream {
    /// Lets the calling thread serve it.
    ///
    /// # Errors
    /// If the thread's runtime does not take it.
    pub fn attach(self) -> io::Result<NetStream> {
        Ok(match self {
            Self::Plain(tcp) => NetStream::Plain(TcpStream::from_std(tcp)?),
            Self::Tls(tls) => NetStream::Tls(tls),
        })
    }
}

impl AsyncRead for NetStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
