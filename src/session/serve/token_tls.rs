//! How servers that give out tokens are trusted, where that is not the system's matter.

use crate::SessionError;
use std::path::{Path, PathBuf};

/// TLS towards the server that gives out the tokens of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenTls {
    /// Trust any certificate.
    pub insecure: bool,
    /// Files with certificate authorities to trust besides the system's, as PEM.
    pub authorities: Vec<PathBuf>,
    /// Files with a certificate of ours and its key, as PEM. The first one is shown.
    pub identities: Vec<(PathBuf, PathBuf)>,
}

fn read(path: &Path) -> Result<Vec<u8>, SessionError> {
    std::fs::read(path).map_err(SessionError::io(format!("failed to read {}", path.display())))
}

impl TokenTls {
    /// A client that does it this way. Reads files.
    pub(super) fn client(&self) -> Result<reqwest::Client, SessionError> {
        // An error would say that the program has chosen a provider already; that one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder();
        let mut authorities = Vec::new();
        for file in &self.authorities {
            let found = reqwest::Certificate::from_pem_bundle(&read(file)?);
            let none =
                || SessionError::Invalid(format!("{} holds no certificate in PEM form", file.display()));
            authorities.extend(found.ok().filter(|found| !found.is_empty()).ok_or_else(none)?);
        }
        if !authorities.is_empty() {
            builder = builder.tls_certs_merge(authorities);
        }
        if let Some((cert, key)) = self.identities.first() {
            let mut pem = read(cert)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let identity = reqwest::Identity::from_pem(&pem).map_err(|e| {
                SessionError::Invalid(format!("failed to load keypair for {}: {e}", cert.display()))
            })?;
            builder = builder.identity(identity);
        }
        if self.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        builder.build().map_err(|e| SessionError::Invalid(format!("set up TLS for fetching tokens: {e}")))
    }
}
