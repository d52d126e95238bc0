//! Connections to registries: certificates, keys, and the cryptography behind them.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::hosts::{HostConfig, is_local};

/// How long a registry may take to accept a connection, as in BuildKit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an unused connection is kept: a build comes back to the same registry within that time or not at all.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Where Linux distributions keep their certificate authorities.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Makes ring the process's cryptography. May be called any number of times; what was installed before stays.
pub fn install_crypto_provider() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// The system's certificate authorities, read once. `SSL_CERT_FILE` names others. None is no error: registries
/// without TLS, or with their own authority, need none.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let named = std::env::var_os("SSL_CERT_FILE");
        let files =
            named.iter().map(Path::new).chain(BUNDLES.iter().map(Path::new).filter(|_| named.is_none()));
        for file in files {
            if let Ok(pem) = std::fs::read(file) {
                roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
                break;
            }
        }
        roots
    })
}

/// A client for one way to reach registries.
pub(super) fn client(config: &HostConfig, skip_verify: bool, local: bool) -> Result<reqwest::Client, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider())))
    } else {
        let mut roots = system_roots().clone();
        for file in &config.ca {
            let pem = std::fs::read(file).map_err(|e| format!("failed to read {}: {e}", file.display()))?;
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        }
        builder.with_root_certificates(roots)
    };
    // rustls presents one identity; the first pair is the one that counts with Go, too, where several would do.
    let mut tls = match config.key_pairs.first() {
        Some(pair) => {
            let failed = |e: String| format!("failed to load keypair for {}: {e}", pair.cert.display());
            let certs = CertificateDer::pem_file_iter(&pair.cert)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| failed(e.to_string()))?;
            let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|e| failed(e.to_string()))?;
            builder.with_client_auth_cert(certs, key).map_err(|e| failed(e.to_string()))?
        }
        None => builder.with_no_client_auth(),
    };
    // HTTP/1.1 only: the flow control of HTTP/2 slows large uploads down (golang/go#14077).
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .user_agent(concat!("crosskit/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(60))
        .tcp_nodelay(true)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(8);
    if local {
        // No proxy reaches this machine's own registry; Go's clients leave it out, too.
        client = client.no_proxy();
    }
    client.build().map_err(|e| e.to_string())
}

/// A client for whatever is at an address that is no registry, with the system's certificate authorities.
///
/// # Errors
/// An address or certificates that can't be used.
pub fn web_client(url: &str) -> Result<reqwest::Client, String> {
    let parsed = reqwest::Url::parse(url).map_err(|e| format!("{url:?} is no URL: {e}"))?;
    // Nor does any reach what there is on this machine's own line only, such as the services of clouds for it.
    let beside = |host: &str| host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_link_local());
    client(
        &HostConfig::default(),
        false,
        parsed.host_str().is_some_and(|host| is_local(host) || beside(host)),
    )
}

/// Takes any certificate: what `insecure = true` asks for.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
