//! For tests: everybody whom a sigstore signature needs, and the signatures.
//!
//! A certificate authority, a log of certificates, one of signatures, and a timestamp authority, all with keys that nobody keeps; and
//! signers who make bundles with them, by the formats' specifications and without the code that verifies them.

mod der;
mod keys;
mod logs;
mod stamps;
mod time;

pub use keys::Key;
pub use logs::Log;
pub use stamps::Stamper;
pub use time::{A_DAY, NOON};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::{TEXT, value};
use keys::hash;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyUsagePurpose, SanType,
    SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};

/// `1.3.6.1.4.1.57264.1`: extensions of Fulcio, the authority of sigstore.
const FULCIO: [u64; 9] = [1, 3, 6, 1, 4, 1, 57264, 1, 0];

/// `1.3.6.1.4.1.11129.2.4.2`: what a certificate says of having been logged.
const LOGGED: &[u64] = &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];

/// A certificate authority.
pub struct Authority {
    key: Key,
    name: String,
    pub(crate) certificate: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = Key::new();
        let made = Authority::params(name).self_signed(&key.0).expect("a certificate");
        Authority { certificate: made.der().to_vec(), name: name.to_owned(), key }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = params(name, time::ALWAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::OrganizationName, "example.com");
        params
    }

    fn sign(&self, params: &CertificateParams, key: &Key) -> Vec<u8> {
        let issuer = Issuer::new(Authority::params(&self.name), &self.key.0);
        params.signed_by(&key.0, &issuer).expect("a certificate").der().to_vec()
    }

    fn give(&self, key: &Key, name: &str, extensions: Vec<CustomExtension>, valid: time::Span) -> Vec<u8> {
        let mut params = params(name, valid);
        params.custom_extensions = extensions;
        self.sign(&params, key)
    }

    fn trusted(&self, leaves: &[&[u8]]) -> Value {
        let chain = leaves.iter().copied().chain([&self.certificate[..]]);
        let chain: Vec<Value> = chain.map(|bytes| json!({ "rawBytes": STANDARD.encode(bytes) })).collect();
        json!({
            "subject": { "organization": "example.com", "commonName": self.name },
            "uri": format!("https://{}.example.com", self.name),
            "certChain": { "certificates": chain },
            "validFor": { "start": "2020-01-01T00:00:00Z" },
        })
    }
}

fn params(name: &str, ((y, m, d), (to_y, to_m, to_d)): time::Span) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.not_before = date_time_ymd(y, m, d);
    params.not_after = date_time_ymd(to_y, to_m, to_d);
    params.serial_number = Some(SerialNumber::from(77));
    params.use_authority_key_identifier_extension = true;
    params
}

/// What is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The document itself.
    Message,
    /// A statement about the document.
    Statement,
}

/// How somebody wants to sign.
#[derive(Clone, Debug)]
pub struct Order {
    /// Whom the certificate is for: a URI.
    pub subject: String,
    /// What else it says, by the numbers of Fulcio's extensions.
    pub claims: Vec<(u64, String)>,
    /// What is signed.
    pub form: Form,
    /// When, in seconds since 1970.
    pub time: i64,
    /// Whether the log promises to have seen it at that time.
    pub promised: bool,
    /// Whether the timestamp authority has.
    pub stamped: bool,
}

impl Default for Order {
    /// Somebody's workflow, on the day that its certificate is for.
    fn default() -> Self {
        let subject = "https://git.example.com/house/.workflows/cache@refs/heads/main";
        let claims = [
            (1, "https://tokens.example.com"),
            (8, "https://tokens.example.com"),
            (2, "push"),
            (9, subject),
            (11, "self-hosted"),
            (12, "https://git.example.com/house"),
        ];
        Order {
            subject: subject.to_owned(),
            claims: claims.map(|(number, text)| (number, text.to_owned())).into(),
            form: Form::Message,
            time: NOON,
            promised: true,
            stamped: true,
        }
    }
}

/// Everybody whom a signature needs.
pub struct Notary {
    /// Gives out certificates.
    pub authority: Authority,
    /// Logs certificates.
    pub certificates: Log,
    /// Logs signatures.
    pub log: Log,
    /// Stamps signatures.
    pub stamper: Stamper,
}

impl Default for Notary {
    fn default() -> Self {
        Notary::new()
    }
}

impl Notary {
    /// New ones.
    pub fn new() -> Notary {
        let authority = Authority::new("authority");
        Notary { authority, certificates: Log::new(), log: Log::new(), stamper: Stamper::new() }
    }

    /// A trusted root with them.
    pub fn trusted_root(&self) -> Value {
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.log.trusted()],
            "certificateAuthorities": [self.authority.trusted(&[])],
            "ctlogs": [self.certificates.trusted()],
            "timestampAuthorities": [self.stamper.above.trusted(&[&self.stamper.certificate])],
        })
    }

    fn certificate(&self, key: &Key, order: &Order) -> Vec<u8> {
        let mut params = params("", time::DAY);
        let subject = order.subject.as_str().try_into().expect("a URI");
        params.subject_alt_names = vec![SanType::URI(subject)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
        for (number, text) in &order.claims {
            let mut name = FULCIO;
            name[8] = *number;
            // The oldest extensions are no DER.
            let content = match number {
                0..8 => text.clone().into_bytes(),
                _ => value(TEXT, text.as_bytes()),
            };
            params.custom_extensions.push(CustomExtension::from_oid_content(&name, content));
        }
        let without = self.authority.sign(&params, key);
        let issuer = self.authority.key.public();
        let logged = self.certificates.certificate(&without, &issuer, NOON);
        params.custom_extensions.push(CustomExtension::from_oid_content(LOGGED, logged));
        self.authority.sign(&params, key)
    }

    /// A signature on a document.
    pub fn bundle(&self, document: &[u8], order: &Order) -> Value {
        let key = Key::new();
        let certificate = self.certificate(&key, order);
        let armour = STANDARD.encode(armoured(&certificate));
        let mut bundle = json!({ "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json" });
        let (signature, entry) = match order.form {
            Form::Message => {
                let signature = key.sign(document);
                let encoded = STANDARD.encode(&signature);
                bundle["messageSignature"] = json!({
                    "messageDigest": { "algorithm": "SHA2_256", "digest": STANDARD.encode(hash(document)) },
                    "signature": encoded,
                });
                let spec = json!({
                    "data": { "hash": { "algorithm": "sha256", "value": hex::encode(hash(document)) } },
                    "signature": { "content": encoded, "publicKey": { "content": armour } },
                });
                (signature, self.log.entry("hashedrekord", &spec, order.time))
            }
            Form::Statement => {
                let statement = json!({
                    "_type": "https://in-toto.io/Statement/v1",
                    "subject": [{ "name": "it", "digest": { "sha256": hex::encode(hash(document)) } }],
                    "predicateType": "https://example.com/seen",
                    "predicate": {},
                })
                .to_string();
                let kind = "application/vnd.in-toto+json";
                let signed = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
                let signature = key.sign(signed.as_bytes());
                let encoded = STANDARD.encode(&signature);
                let envelope = json!({
                    "payload": STANDARD.encode(&statement),
                    "payloadType": kind,
                    "signatures": [{ "sig": encoded }],
                });
                let spec = json!({
                    "envelopeHash": { "algorithm": "sha256", "value": hex::encode(hash(envelope.to_string().as_bytes())) },
                    "payloadHash": { "algorithm": "sha256", "value": hex::encode(hash(statement.as_bytes())) },
                    "signatures": [{ "signature": encoded, "verifier": armour }],
                });
                bundle["dsseEnvelope"] = envelope;
                (signature, self.log.entry("dsse", &spec, order.time))
            }
        };
        let mut material = json!({
            "certificate": { "rawBytes": STANDARD.encode(&certificate) },
            "tlogEntries": [entry],
        });
        if !order.promised {
            let entry = material["tlogEntries"][0].as_object_mut().expect("an entry");
            entry.remove("inclusionPromise");
        }
        if order.stamped {
            let stamp = STANDARD.encode(self.stamper.stamp(&signature, order.time));
            material["timestampVerificationData"] =
                json!({ "rfc3161Timestamps": [{ "signedTimestamp": stamp }] });
        }
        bundle["verificationMaterial"] = material;
        bundle
    }
}

/// A certificate as text.
fn armoured(certificate: &[u8]) -> String {
    let encoded = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("letters")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
