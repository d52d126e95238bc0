//! Who signed something, by sigstore's rules.
//!
//! A signature is a bundle: beside the signature proper it holds the certificate of a key that lived for minutes, and witnesses
//! of when it was used: entries of a transparency log, stamps of timestamp authorities. Whom to believe is in a
//! [`TrustedRoot`]. What the certificate says of the signer is for a [`Policy`] to judge.

mod fields;
mod policy;
mod provider;

pub use fields::FIELDS;
pub use policy::Policy;

use sigstore_verify::trust_root::TsaAuthority;
use sigstore_verify::types::{Bundle, KindVersion, SignatureBytes, SignatureContent};
use sigstore_verify::{VerificationPolicy, Verifier, tsa};
use std::collections::{BTreeMap, HashSet};

/// Entries of logs, and stamps, that a bundle may have at most: each costs some work. As many as sigstore-go takes.
const MOST_WITNESSES: usize = 32;

/// Why something does not count as signed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A trusted root that can't be used.
    #[error("{0}")]
    Root(String),
    /// What should be a bundle is none.
    #[error("it is no sigstore bundle: {0}")]
    Bundle(String),
    /// The signature, the certificate or a witness doesn't hold.
    #[error("{0}")]
    Unverified(Box<sigstore_verify::Error>),
    /// A certificate that says nothing that can be read.
    #[error("the certificate of its signer can't be read: {0}")]
    Certificate(String),
    /// Too few witnesses tell of the time.
    #[error("not enough timestamp authorities: have {have}, need {need}")]
    Timestamps {
        /// Those that there are.
        have: usize,
        /// Those that the policy wants.
        need: usize,
    },
    /// Too few logs tell of the time.
    #[error("not enough tlog authorities: have {have}, need {need}")]
    Logs {
        /// Those that there are.
        have: usize,
        /// Those that the policy wants.
        need: usize,
    },
    /// The certificate tells of somebody else.
    #[error("certificate field {name:?} does not match policy ({found:?} != {wanted:?})")]
    Field {
        /// The field.
        name: String,
        /// What the certificate says.
        found: String,
        /// What the policy wants.
        wanted: String,
    },
}

/// Who signed, and who witnessed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signer {
    /// What the certificate says of them, by the names of [`FIELDS`]; what it doesn't say isn't there.
    pub fields: BTreeMap<&'static str, String>,
    /// Logs that promise to have seen the signature at some time.
    pub logs: usize,
    /// Timestamp authorities that have.
    pub stamps: usize,
}

/// Whom to believe: certificate authorities, logs and timestamp authorities.
pub struct TrustedRoot {
    verifier: Verifier,
    /// Timestamp authorities by address. One authority may have had several certificates.
    stampers: Vec<(String, TsaAuthority)>,
}

impl TrustedRoot {
    /// Reads sigstore's own format, a file `trusted_root.json`.
    ///
    /// # Errors
    /// Text that is none, or a root by which nothing could ever be verified.
    pub fn parse(text: &str) -> Result<TrustedRoot, SignatureError> {
        provider::install();
        let invalid = |why: String| SignatureError::Root(why);
        let root = sigstore_verify::trust_root::TrustedRoot::from_json(text)
            .map_err(|e| invalid(format!("it is no trusted root: {e}")))?;
        let lacking = [
            ("certificate authorities", root.certificate_authorities.is_empty()),
            ("certificate transparency logs", root.ctlogs.is_empty()),
            ("transparency logs", root.tlogs.is_empty()),
        ];
        if let Some((what, _)) = lacking.iter().find(|(_, lacks)| *lacks) {
            return Err(invalid(format!("it is no trusted root: it names no {what}")));
        }
        let verifier = Verifier::new(&root).map_err(|e| invalid(e.to_string()))?;
        let mut stampers = Vec::with_capacity(root.timestamp_authorities.len());
        for authority in &root.timestamp_authorities {
            let certificates: Vec<_> =
                { authority.cert_chain.certificates.iter() }.map(|entry| entry.raw_bytes.clone()).collect();
            let (leaf, above, top) = match certificates.as_slice() {
                [] => continue,
                [only] => (only, &[][..], only),
                [leaf, above @ .., top] => (leaf, above, top),
            };
            let found = TsaAuthority::new(leaf.clone(), above.to_vec(), top.clone(), authority.valid_for);
            stampers.push((authority.uri.clone().unwrap_or_default(), found));
        }
        Ok(TrustedRoot { verifier, stampers })
    }

    /// Who signed a document, by the bundle beside it. Takes a millisecond or so of a processor's time.
    ///
    /// # Errors
    /// Whatever does not hold: the signature, its certificate, or any of its witnesses. One log has to tell of it, and one
    /// witness of the time.
    pub fn verify(&self, document: &[u8], bundle: &[u8]) -> Result<Signer, SignatureError> {
        let text = std::str::from_utf8(bundle).map_err(|e| SignatureError::Bundle(e.to_string()))?;
        let bundle = Bundle::from_json(text).map_err(|e| SignatureError::Bundle(e.to_string()))?;
        let material = &bundle.verification_material;
        let stamps = &material.timestamp_verification_data.rfc3161_timestamps;
        let witnesses = material.tlog_entries.len().max(stamps.len());
        if witnesses > MOST_WITNESSES {
            let why = format!("it has {witnesses} witnesses, more than {MOST_WITNESSES}");
            return Err(SignatureError::Bundle(why));
        }
        // Whom the certificate is for is judged afterwards.
        let anybody = VerificationPolicy::any_identity();
        let verified = provider::lending(document, || self.verifier.verify(document, &bundle, &anybody));
        verified.map_err(|e| SignatureError::Unverified(Box::new(e)))?;
        let certificate = bundle.signing_certificate().map_or(&[][..], |certificate| certificate.as_bytes());
        Ok(Signer { fields: fields::of(certificate)?, logs: logs(&bundle), stamps: self.stampers(&bundle) })
    }

    /// How many authorities have stamped a verified bundle.
    fn stampers(&self, bundle: &Bundle) -> usize {
        let signature: &SignatureBytes = match &bundle.content {
            SignatureContent::MessageSignature(message) => &message.signature,
            SignatureContent::DsseEnvelope(envelope) => &envelope.signature.sig,
            _ => return 0,
        };
        let stamps = &bundle.verification_material.timestamp_verification_data.rfc3161_timestamps;
        let by = |stamp: &sigstore_verify::types::TimestampToken| {
            let of = |(_, authority): &&(String, TsaAuthority)| {
                tsa::verify_timestamp_for_authority(stamp, signature, authority).is_ok()
            };
            self.stampers.iter().find(of).map(|(address, _)| address.as_str())
        };
        stamps.iter().filter_map(|stamp| by(&stamp.signed_timestamp)).collect::<HashSet<_>>().len()
    }
}

/// How many logs vouch in a verified bundle for a time. Entries of Rekor's second version have none.
fn logs(bundle: &Bundle) -> usize {
    let entries = bundle.verification_material.tlog_entries.iter();
    let timed = entries.filter(|entry| {
        let first = entry.kind_version != KindVersion::HashedRekordV002;
        first && entry.inclusion_promise.is_some() && entry.integrated_time.is_some()
    });
    timed.map(|entry| entry.log_id.key_id.as_bytes()).collect::<HashSet<_>>().len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod bundles_tests;
