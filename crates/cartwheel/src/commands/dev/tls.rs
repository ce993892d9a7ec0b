//! Certificates of a cluster on one machine.

use std::path::{Path, PathBuf};

use cartwheel_client::Tls;

use super::DevError;
use crate::commands::cert;

/// The certificates of the cluster in a directory.
pub(super) struct DevCertificates {
    dir: PathBuf,
}

impl DevCertificates {
    /// Those in the cluster's directory `dir`, with an authority that is made the first time.
    ///
    /// # Errors
    /// If they cannot be made.
    pub(super) fn open(dir: &Path) -> Result<Self, DevError> {
        let dir = dir.join("certs");
        cert::authority_in(&dir).map_err(|failure| DevError::Certificates(failure.message))?;
        Ok(Self { dir })
    }

    /// The flags that make a node use its certificate, which is made the first time.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn flags(&self, name: &str) -> Result<Vec<String>, DevError> {
        cert::node_in(&self.dir, name).map_err(|failure| DevError::Certificates(failure.message))?;
        let file = |file: &str| self.dir.join(file).display().to_string();
        let (cert, key, ca) = (file(&format!("{name}.crt")), file(&format!("{name}.key")), self.authority());
        Ok(vec![format!("--tls-cert={cert}"), format!("--tls-key={key}"), format!("--tls-ca={}", ca.display())])
    }

    /// The authority's certificate.
    pub(super) fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// How the nodes are reached.
    ///
    /// # Errors
    /// If the authority's certificate cannot be used.
    pub(super) fn tls(&self) -> Result<Tls, DevError> {
        let bad = |why: String| DevError::Certificates(format!("cannot use {}: {why}", self.authority().display()));
        let pem = std::fs::read(self.authority()).map_err(|error| bad(error.to_string()))?;
        Tls::of_authority(&pem).map_err(|error| bad(error.to_string()))
    }
}
