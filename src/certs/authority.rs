//! The authority, and what it gives.

use crate::arguments::AUTHORITY;
use crate::error::CertsError;
use crate::folders::Folder;
use crate::hosts::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::time::{Duration, SystemTime};

/// Seconds.
const DAY: u64 = 24 * 60 * 60;
/// For how long a new authority is valid, in days: ten years.
const AUTHORITY_DAYS: u32 = 3650;
/// Clocks of machines that have just started are behind by less.
const BEHIND: Duration = Duration::from_secs(60 * 60);
/// Characters of a subject's common name (RFC 5280, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;

/// Who bears a certificate.
pub(crate) enum Bearer<'a> {
    /// A daemon, reached by these.
    Daemon(&'a [Host]),
    /// A client of this name.
    Client(&'a str),
}

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) until: SystemTime,
}

/// An authority.
pub(crate) struct Authority {
    /// Its certificate, as PEM.
    pub(crate) cert: String,
    pub(crate) until: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A date, as people write it.
pub(crate) fn day(time: SystemTime) -> String {
    (date_time_ymd(1970, 1, 1) + since_1970(time)).date().to_string()
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * DAY)
}

fn new_key() -> Result<KeyPair, CertsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CertsError::making)
}

fn params(name: &str, now: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now - BEHIND);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(until);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    /// A new one, which lives as long as what it shall give, and longer.
    pub(crate) fn new(now: SystemTime, at_least: u32) -> Result<Authority, CertsError> {
        let key = new_key()?;
        // Two authorities have two names, so that nobody takes one for the other.
        let mark: String =
            key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
        let until = now + days(AUTHORITY_DAYS.max(at_least));
        let mut params = params(&format!("crosskit authority {mark}"), now, until);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(CertsError::making)?;
        Ok(Authority { cert: certificate.pem(), until, issuer: Issuer::new(params, key) })
    }

    /// The one of a folder, if there is one there.
    pub(crate) fn load(folder: &Folder, now: SystemTime) -> Result<Option<Authority>, CertsError> {
        let [cert, key] = ["ca.pem", "key.pem"].map(|file| folder.path(AUTHORITY).join(file));
        let wrong = |path: &std::path::Path, why: String| CertsError::Authority { path: path.into(), why };
        match (cert.exists(), key.exists()) {
            (false, false) => return Ok(None),
            (true, true) => {}
            (has_cert, _) => {
                let (there, missing) = if has_cert { (&cert, &key) } else { (&key, &cert) };
                let why = format!(
                    "this is not there, while {} is; bring it back, or make a new authority in another folder",
                    there.display()
                );
                return Err(wrong(missing, why));
            }
        }
        let text = std::fs::read_to_string(&cert).map_err(CertsError::file("reading", &cert))?;
        let found: Result<Vec<CertificateDer<'_>>, _> =
            CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let found = found.map_err(|e| wrong(&cert, format!("this is no PEM: {e}")))?;
        let [der] = found.as_slice() else {
            return Err(wrong(&cert, format!("one certificate is wanted here, not {}", found.len())));
        };
        let secret = PrivateKeyDer::from_pem_file(&key)
            .map_err(|e| wrong(&key, format!("there is no key in it that can be read: {e}")))?;
        let secret = KeyPair::try_from(&secret).map_err(|e| {
            wrong(
                &key,
                format!("{e}; a key in PKCS#8 is wanted, which openssl pkcs8 -topk8 -nodes makes of others"),
            )
        })?;
        let (_, read) = x509_parser::parse_x509_certificate(der)
            .map_err(|e| wrong(&cert, format!("this is no certificate: {e}")))?;
        if !read.is_ca() {
            return Err(wrong(
                &cert,
                "this is no authority's certificate: others of its making would be refused".into(),
            ));
        }
        if read.public_key().subject_public_key.data.as_ref() != secret.public_key_raw() {
            return Err(wrong(&key, format!("this is not the key of {}", cert.display())));
        }
        let until = u64::try_from(read.validity().not_after.timestamp()).unwrap_or_default();
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(until);
        if until <= now {
            let why = format!("it was valid until {}; make a new authority in another folder", day(until));
            return Err(wrong(&cert, why));
        }
        let issuer = Issuer::from_ca_cert_der(der, secret).map_err(|e| wrong(&cert, e.to_string()))?;
        Ok(Some(Authority { cert: text, until, issuer }))
    }

    /// Makes a certificate.
    pub(crate) fn issue(&self, bearer: &Bearer<'_>, now: SystemTime, count: u32) -> Result<Pair, CertsError> {
        let until = now + days(count);
        if until > self.until {
            let left = self.until.duration_since(now).unwrap_or_default().as_secs() / DAY;
            return Err(CertsError::Argument(format!(
                "--days {count}: the authority itself is valid until {}; at most {left} days are left",
                day(self.until)
            )));
        }
        let key = new_key()?;
        let mut params = match bearer {
            Bearer::Daemon(hosts) => {
                let first = hosts.first().map(ToString::to_string).unwrap_or_default();
                let name = if first.len() <= LONGEST_COMMON_NAME { &first } else { "buildkitd" };
                let mut params = params(name, now, until);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                for host in *hosts {
                    params.subject_alt_names.push(match host {
                        Host::Name(name) => {
                            SanType::DnsName(name.as_str().try_into().map_err(CertsError::making)?)
                        }
                        Host::Address(address) => SanType::IpAddress(*address),
                    });
                }
                params
            }
            Bearer::Client(name) => {
                let mut params = params(name, now, until);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params
            }
        };
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CertsError::making)?;
        Ok(Pair { cert: certificate.pem(), key: key.serialize_pem(), until })
    }

    /// Its key, as PEM.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}
