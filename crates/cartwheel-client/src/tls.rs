use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The authorities that a client trusts, and its own certificate.
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use cartwheel_client::{Client, Tls};
///
/// let tls = Tls::of_authority(&std::fs::read("certs/ca.crt")?)?;
/// let client = Client::new(["https://db1.example.org:8080"])?.with_tls(&tls);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

/// Why a certificate or a key cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// An endpoint has `https`, and no authority is trusted.
    #[error("https needs the certificate of the nodes' authority (--tls-ca, or Client::with_tls)")]
    NoAuthority,
    /// There is no certificate in the text.
    #[error("there is no certificate in PEM in it")]
    NoCertificate,
    /// There is no private key in the text.
    #[error("there is no private key in PEM in it")]
    NoKey,
    /// The certificate or the key is malformed, or they do not belong together.
    #[error("{0}")]
    Unusable(String),
}

impl Default for Tls {
    /// Trusts no certificate.
    fn default() -> Self {
        Self(Arc::new(config(RootCertStore::empty()).with_no_client_auth()))
    }
}

impl Tls {
    /// Trusts nodes whose certificates an authority has signed: `authority` is one or more certificates in PEM.
    ///
    /// # Errors
    /// [`TlsError`] if there is no valid certificate in it.
    pub fn of_authority(authority: &[u8]) -> Result<Self, TlsError> {
        Self::new(authority, None)
    }

    /// The same, and shows the nodes a certificate: it and its private key in PEM.
    ///
    /// # Errors
    /// [`TlsError`] if one of them cannot be used.
    pub fn with_certificate(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::new(authority, Some((certificate, key)))
    }

    fn new(authority: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Self, TlsError> {
        let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authority)? {
            roots.add(certificate).map_err(unusable)?;
        }
        let config = config(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
                config.with_client_auth_cert(certificates(certificate)?, key).map_err(unusable)?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// The configuration for programs that make connections of their own.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

/// A configuration that trusts these authorities, without a certificate of the client's own so far.
fn config(roots: RootCertStore) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    versions.expect("the provider has a cipher suite for each version").with_root_certificates(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap_or_default();
    if certificates.is_empty() { Err(TlsError::NoCertificate) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n"] {
            assert_eq!(Tls::of_authority(text.as_bytes()).unwrap_err(), TlsError::NoCertificate, "{text}");
        }
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Tls::of_authority(empty.as_bytes()), Err(TlsError::Unusable(_))));
    }
}
