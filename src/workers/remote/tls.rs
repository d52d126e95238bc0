//! TLS towards a worker: certificates from files, and refusals in plain words.

use super::Tls;
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore,
};

/// Reads the files, each time anew: certificates are replaced while a daemon runs.
pub(super) fn client_config(files: &Tls) -> Result<Arc<ClientConfig>, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()));
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &files.ca {
        let found: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&read(ca)?).filter_map(Result::ok).collect();
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(format!("{} holds no certificate in PEM form", ca.display()));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("setting up TLS: {e}"))?
        .with_root_certificates(roots);
    let mut config = match (&files.cert, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let broken = |e: &dyn std::fmt::Display| format!("{} and {}: {e}", cert.display(), key.display());
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?).collect();
            let secret = PrivateKeyDer::from_pem_slice(&read(key)?);
            builder
                .with_client_auth_cert(chain.map_err(|e| broken(&e))?, secret.map_err(|e| broken(&e))?)
                .map_err(|e| broken(&e))?
        }
        _ => return Err("tls needs both cert and key, or neither".to_string()),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What TLS has against the other side, if that is the cause of an error.
pub(super) fn plainly(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    let mut innermost = error;
    while let Some(error) = next {
        innermost = error;
        if let Some(found) = error.downcast_ref::<TlsError>() {
            return Some(words(found));
        }
        // What an I/O error carries is not among its sources.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<TlsError>()) {
            return Some(words(found));
        }
        next = error.source();
    }
    // HTTP/2 hands on no more than the text.
    let text = innermost.to_string();
    REFUSALS
        .iter()
        .any(|alert| text.ends_with(&TlsError::AlertReceived(*alert).to_string()))
        .then(|| refusal(&text))
}

/// Alerts of those who do not take our certificate.
const REFUSALS: [AlertDescription; 8] = [
    AlertDescription::CertificateRequired,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRevoked,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    // Signed by another authority of the same name.
    AlertDescription::DecryptError,
];

fn refusal(error: &dyn std::fmt::Display) -> String {
    format!("it refuses our certificate: see cert and key ({error})")
}

fn words(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("its certificate has expired ({error})")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("its certificate is not valid yet: compare the clocks ({error})")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is for another name: see server-name ({error})")
            }
            CertificateError::UnknownIssuer => {
                format!("its certificate is signed by nobody whom we trust: see ca ({error})")
            }
            _ => format!("its certificate is refused ({error})"),
        },
        TlsError::AlertReceived(alert) if REFUSALS.contains(alert) => refusal(error),
        TlsError::InvalidMessage(_) => format!("it does not speak TLS ({error})"),
        other => format!("TLS failed: {other}"),
    }
}
