//! A certificate authority that lives as long as a step, and the certificates that it gives.

use crate::ProxyError;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Its name, and that of those who show what it gives: one name for both would mean that they vouch for themselves.
const NAME: &str = "crosskit proxy of a build step";
const SERVER_NAME: &str = "server seen through the proxy of a build step";
/// Hosts whose certificates are kept.
const KEPT: usize = 1024;
/// Certificates are valid whatever a step's clock says, within reason: what is behind them is gone with the step.
const FIRST_YEAR: i32 = 2000;
const YEARS_AHEAD: i32 = 10;

/// A certificate authority. Its key is in memory only.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    given: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

fn failed(error: impl std::fmt::Display) -> ProxyError {
    ProxyError::Certificate(error.to_string())
}

fn params(hosts: Vec<String>, name: &str) -> Result<CertificateParams, ProxyError> {
    const YEAR: u64 = 31_556_952;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let this_year = 1970 + i32::try_from(since.as_secs() / YEAR).unwrap_or(0);
    let mut params = CertificateParams::new(hosts).map_err(failed)?;
    params.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = date_time_ymd(this_year + YEARS_AHEAD, 1, 1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Result<Self, ProxyError> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(Vec::new(), NAME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(failed)?;
        let pem = certificate.pem();
        Ok(Authority { pem, issuer: Issuer::new(params, key), given: Mutex::default() })
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// What a server of this name, or address, shows to its clients.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, ProxyError> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = given.get(host) {
            return Ok(Arc::clone(known));
        }
        if given.len() >= KEPT {
            given.clear();
        }
        let config = Arc::new(self.make(host)?);
        given.insert(host.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, ProxyError> {
        let key = KeyPair::generate().map_err(failed)?;
        // Addresses are told apart from names there.
        let mut params = params(vec![host.to_owned()], SERVER_NAME)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(failed)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
