//! Certificates and keys in files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{ClientSide, ClientTls, PeerSide, PeerTls};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where a node's certificate is, and what it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The node's certificate, followed by those between it and the authority, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The certificates of the authorities whose nodes are peers, in PEM; none if peers do not use TLS.
    pub ca: Option<PathBuf>,
    /// Whether clients use TLS.
    pub clients: ClientTls,
    /// Whether peers use TLS.
    pub peers: PeerTls,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The certificate and the key do not belong together, or have a form that is not supported.
    #[error("cannot use the certificate {} with the key {}: {source}", .cert.display(), .key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The authority's certificate cannot be used.
    #[error("cannot use the authority {}: {why}", .path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// The cause.
        why: String,
    },
}

/// What the files held when they were last read.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

/// The configurations made of the files.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// For connections from clients.
    pub(super) clients: Arc<ServerConfig>,
    /// For connections from and to peers; none without an authority.
    pub(super) peers: Option<(Arc<ServerConfig>, Arc<ClientConfig>)>,
}

impl TlsFiles {
    /// Reads the files, and looks for changes of them from then on, until both results are dropped. Changed files that cannot be used are
    /// logged, and the last good ones stay in use.
    ///
    /// It must be called within a tokio runtime.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn open(self) -> Result<(ClientSide, PeerSide), TlsError> {
        let contents = self.read()?;
        let (sender, loaded) = watch::channel(Arc::new(self.load(&contents)?));
        let sides = (ClientSide::new(self.clients, loaded.clone()), PeerSide::new(self.peers, loaded));
        tokio::spawn(self.follow(contents, sender));
        Ok(sides)
    }

    /// Checks that the files can be used.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<(), TlsError> {
        self.load(&self.read()?).map(drop)
    }

    async fn follow(self, mut used: Contents, loaded: watch::Sender<Arc<Loaded>>) {
        let mut reported = None;
        loop {
            tokio::select! {
                () = loaded.closed() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let changed = match self.read() {
                Ok(contents) if contents == used => continue,
                Ok(contents) => self.load(&contents).map(|changed| (changed, contents)),
                Err(error) => Err(error),
            };
            match changed {
                Ok((changed, contents)) => {
                    info!(certificate = %self.cert.display(), "new connections use the changed certificate");
                    loaded.send_replace(Arc::new(changed));
                    (used, reported) = (contents, None);
                }
                // A certificate and its key are rarely replaced at the same moment.
                Err(error) => {
                    let error = error.to_string();
                    if reported.as_ref() != Some(&error) {
                        warn!(error, "cannot use the changed TLS files; the last good ones stay in use");
                    }
                    reported = Some(error);
                }
            }
        }
    }

    fn read(&self) -> Result<Contents, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Contents { cert: read(&self.cert)?, key: read(&self.key)?, ca: self.ca.as_deref().map(read).transpose()? })
    }

    fn load(&self, contents: &Contents) -> Result<Loaded, TlsError> {
        let provider = provider();
        let certs = certificates(&self.cert, &contents.cert)?;
        let key = || {
            let empty = || TlsError::Empty { path: self.key.clone(), what: "private key" };
            PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| empty())
        };
        let pair = |source| TlsError::Pair { cert: self.cert.clone(), key: self.key.clone(), source };
        let for_clients = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let (for_clients, peers) = match (&self.ca, &contents.ca) {
            (Some(path), Some(pem)) => {
                let roots = Arc::new(roots(path, pem)?);
                let authority =
                    |error: VerifierBuilderError| TlsError::Authority { path: path.clone(), why: error.to_string() };
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
                let verifier = verifier.build().map_err(authority)?;
                let for_clients = match self.clients {
                    ClientTls::Certificate => for_clients.with_client_cert_verifier(verifier.clone()),
                    ClientTls::Off | ClientTls::Accept | ClientTls::Require => for_clients.with_no_client_auth(),
                };
                let server = ServerConfig::builder_with_provider(provider.clone())
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .map_err(pair)?
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(certs.clone(), key()?)
                    .map_err(pair)?;
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
                let client = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .map_err(pair)?
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(OfAuthority(verifier.build().map_err(authority)?)))
                    .with_client_auth_cert(certs.clone(), key()?)
                    .map_err(pair)?;
                (for_clients, Some((Arc::new(server), Arc::new(client))))
            }
            _ => (for_clients.with_no_client_auth(), None),
        };
        let clients = for_clients.with_single_cert(certs, key()?).map_err(pair)?;
        Ok(Loaded { clients: Arc::new(clients), peers })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap_or_default();
    if certs.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), what: "certificate" });
    }
    Ok(certs)
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(path, pem)? {
        let why = |error: rustls::Error| TlsError::Authority { path: path.to_owned(), why: error.to_string() };
        roots.add(cert).map_err(why)?;
    }
    Ok(roots)
}

/// Takes every certificate of the authority. Which node it names is compared with the name in the node's hello: a node that joins dials addresses
/// without knowing which nodes are there.
#[derive(Debug)]
struct OfAuthority(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for OfAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // This is the last check, so all others have passed.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
