//! Logs: one of certificates (RFC 6962), one of signatures (Rekor's first version).

use crate::der;
use crate::keys::{Key, hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Where the log of signatures says it is.
const ORIGIN: &str = "log.example.com - 1";

/// A log with a key, and a name that was made of a key: usually of that one.
pub struct Log {
    /// The key it signs with.
    pub key: Key,
    /// Its name, and its public key as others know it.
    pub(crate) id: Vec<u8>,
    pub(crate) public: Vec<u8>,
}

impl Log {
    pub(crate) fn new() -> Log {
        let key = Key::new();
        let public = key.public();
        Log { id: hash(&public), public, key }
    }

    /// What a certificate says of having been logged: the content of its extension. The certificate is without it.
    pub(crate) fn certificate(&self, certificate: &[u8], issuer: &[u8], seconds: i64) -> Vec<u8> {
        let (_, parsed) = X509Certificate::from_der(certificate).expect("a certificate");
        let body = parsed.tbs_certificate.as_ref();
        let milliseconds = (seconds * 1000).to_be_bytes();
        let mut signed = vec![0, 0];
        signed.extend_from_slice(&milliseconds);
        // Of a certificate that is to be.
        signed.extend_from_slice(&[0, 1]);
        signed.extend_from_slice(&hash(issuer));
        signed.extend_from_slice(&u32::try_from(body.len()).expect("a short one").to_be_bytes()[1..]);
        signed.extend_from_slice(body);
        signed.extend_from_slice(&[0, 0]);
        let signature = self.key.sign(&signed);
        let mut stamp = vec![0];
        stamp.extend_from_slice(&self.id);
        stamp.extend_from_slice(&milliseconds);
        // No extensions; ECDSA with SHA-256.
        stamp.extend_from_slice(&[0, 0, 4, 3]);
        stamp.extend_from_slice(&short(&signature));
        der::value(der::OCTETS, &short(&short(&stamp)))
    }

    /// An entry, of a log with one more: with the proof that it is in there, and with a promise of that at a time.
    pub(crate) fn entry(&self, kind: &str, spec: &Value, seconds: i64) -> Value {
        // Keys by name and no spaces: the only form that is signed.
        let body = json!({ "apiVersion": "0.0.1", "kind": kind, "spec": spec }).to_string();
        let (index, encoded) = (7, STANDARD.encode(&body));
        let promised = format!(
            "{{\"body\":\"{encoded}\",\"integratedTime\":{seconds},\"logID\":\"{}\",\"logIndex\":{index}}}",
            hex::encode(&self.id)
        );
        let leaf = |bytes: &[u8]| hash(&[&[0], bytes].concat());
        let (own, other) = (leaf(body.as_bytes()), leaf(b"another entry"));
        let root = hash(&[&[1], &own[..], &other].concat());
        let note = format!("{ORIGIN}\n2\n{}\n", STANDARD.encode(&root));
        let signed = [&self.id[..4], &self.key.sign(note.as_bytes())].concat();
        let envelope = format!("{note}\n\u{2014} log.example.com {}\n", STANDARD.encode(signed));
        json!({
            "logIndex": index.to_string(),
            "logId": { "keyId": STANDARD.encode(&self.id) },
            "kindVersion": { "kind": kind, "version": "0.0.1" },
            "integratedTime": seconds.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": STANDARD.encode(self.key.sign(promised.as_bytes())) },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": STANDARD.encode(&root),
                "treeSize": "2",
                "hashes": [STANDARD.encode(&other)],
                "checkpoint": { "envelope": envelope },
            },
            "canonicalizedBody": encoded,
        })
    }

    /// As a trusted root tells of it.
    pub(crate) fn trusted(&self) -> Value {
        json!({
            "baseUrl": "https://log.example.com",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": STANDARD.encode(&self.public),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": { "start": "2020-01-01T00:00:00Z" },
            },
            "logId": { "keyId": STANDARD.encode(&self.id) },
        })
    }
}

/// With its length before it, in two bytes.
fn short(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short one").to_be_bytes();
    [&length[..], bytes].concat()
}
