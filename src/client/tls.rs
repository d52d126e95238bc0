//! TLS towards a daemon: certificates from files, as `buildctl` takes them.

use crate::error::{ClientError, errno};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Which files to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The name that the daemon's certificate has to bear.
    pub(crate) server: String,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsFiles {
    /// Chooses by `--tlsdir`, or by `--tlscacert`, `--tlscert` and `--tlskey`; nothing if none is
    /// given, which means no TLS.
    pub(crate) fn choose(
        server: String,
        dir: &str,
        [ca, cert, key]: [&str; 3],
    ) -> Result<Option<TlsFiles>, ClientError> {
        if !dir.is_empty() {
            if [ca, cert, key].iter().any(|f| !f.is_empty()) {
                return Err(ClientError::invalid(
                    "cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time",
                ));
            }
            let dir = Path::new(dir);
            return Ok(Some(TlsFiles {
                server,
                ca: Some(either(dir, "ca.pem", "ca.crt")?),
                cert: Some(either(dir, "cert.pem", "tls.crt")?),
                key: Some(either(dir, "key.pem", "tls.key")?),
            }));
        }
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let files = TlsFiles { server, ca: path(ca), cert: path(cert), key: path(key) };
        Ok((files.ca.is_some() || files.cert.is_some() || files.key.is_some()).then_some(files))
    }
}

fn either(dir: &Path, one: &str, other: &str) -> Result<PathBuf, ClientError> {
    for name in [one, other] {
        let path = dir.join(name);
        match path.try_exists() {
            Ok(true) => return Ok(path),
            Ok(false) => {}
            Err(source) => return Err(ClientError::File { doing: "stat".into(), path, source }),
        }
    }
    Err(ClientError::invalid(format!("directory did not contain one of the needed files: {one} or {other}")))
}

/// Reads the files.
pub(crate) fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, ClientError> {
    let read = |path: &Path, what: &str| {
        std::fs::read(path).map_err(|e| {
            ClientError::invalid(format!("could not read {what}: open {}: {}", path.display(), errno(&e)))
        })
    };
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &files.ca {
        let pem = read(ca, "ca certificate")?;
        let found: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(ClientError::invalid(format!(
                "failed to append ca certs: {} holds no certificate in PEM form",
                ca.display()
            )));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::invalid(format!("set up TLS: {e}")))?
        .with_root_certificates(roots);
    let mut config = match (&files.cert, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (cert, key) => {
            let missing = || {
                ClientError::invalid("could not read certificate/key: both --tlscert and --tlskey are needed")
            };
            let (cert, key) = (cert.as_deref().ok_or_else(missing)?, key.as_deref().ok_or_else(missing)?);
            let broken = |e: &dyn std::fmt::Display| {
                ClientError::invalid(format!(
                    "could not read certificate/key {} and {}: {e}",
                    cert.display(),
                    key.display()
                ))
            };
            let chain = CertificateDer::pem_slice_iter(&read(cert, "certificate/key")?)
                .collect::<Result<Vec<_>, _>>();
            let secret = PrivateKeyDer::from_pem_slice(&read(key, "certificate/key")?);
            builder
                .with_client_auth_cert(chain.map_err(|e| broken(&e))?, secret.map_err(|e| broken(&e))?)
                .map_err(|e| broken(&e))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_by_folder_or_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        let told = TlsFiles::choose("h".into(), dir, ["", "", ""]).unwrap_err().to_string();
        assert_eq!(told, "directory did not contain one of the needed files: ca.pem or ca.crt");
        for name in ["ca.crt", "cert.pem", "tls.key"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let files = TlsFiles::choose("h".into(), dir, ["", "", ""]).unwrap().unwrap();
        assert!(
            files.ca.unwrap().ends_with("ca.crt")
                && files.cert.unwrap().ends_with("cert.pem")
                && files.key.unwrap().ends_with("tls.key")
        );
        assert!(TlsFiles::choose("h".into(), dir, ["x", "", ""]).is_err());
        assert_eq!(TlsFiles::choose("h".into(), "", ["", "", ""]).unwrap(), None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let files = TlsFiles::choose("h".into(), "", ["/nope", "", ""]).unwrap().unwrap();
        assert_eq!(
            client_config(&files).unwrap_err().to_string(),
            "could not read ca certificate: open /nope: no such file or directory"
        );
    }
}
