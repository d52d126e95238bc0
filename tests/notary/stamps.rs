//! A timestamp authority (RFC 3161).

use crate::der::{self, FIRST, INTEGER, OCTETS, SEQUENCE, SET, TIME, all, id, value};
use crate::keys::{Key, hash};
use crate::{Authority, time};
use rcgen::CustomExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

/// `2.5.29.37`, what a key is for.
const USES: &[u64] = &[2, 5, 29, 37];

/// An authority that says when it has seen something.
pub struct Stamper {
    key: Key,
    pub(crate) certificate: Vec<u8>,
    pub(crate) above: Authority,
}

impl Stamper {
    pub(crate) fn new() -> Stamper {
        let (above, key) = (Authority::new("stamps"), Key::new());
        let for_stamps = all(SEQUENCE, &[&id("1.3.6.1.5.5.7.3.8")]);
        let mut uses = CustomExtension::from_oid_content(USES, for_stamps);
        uses.set_criticality(true);
        let certificate = above.give(&key, "stamps of example.com", vec![uses], time::ALWAYS);
        Stamper { key, certificate, above }
    }

    /// A stamp on something.
    pub(crate) fn stamp(&self, bytes: &[u8], seconds: i64) -> Vec<u8> {
        let sha256 = all(SEQUENCE, &[&id("2.16.840.1.101.3.4.2.1")]);
        let what = all(SEQUENCE, &[&sha256, &value(OCTETS, &hash(bytes))]);
        let told = all(
            SEQUENCE,
            &[
                &value(INTEGER, &[1]),
                &id("1.3.6.1.4.1.57264.2"),
                &what,
                &value(INTEGER, &[1]),
                &value(TIME, time::text(seconds).as_bytes()),
            ],
        );
        let kind = id("1.2.840.113549.1.9.16.1.4");
        let attribute = |name: &str, content: &[u8]| all(SEQUENCE, &[&id(name), &value(SET, content)]);
        let attributes = [
            attribute("1.2.840.113549.1.9.3", &kind),
            attribute("1.2.840.113549.1.9.4", &value(OCTETS, &hash(&told))),
        ]
        .concat();
        let signature = self.key.sign(&value(SET, &attributes));
        let (_, parsed) = X509Certificate::from_der(&self.certificate).expect("a certificate");
        let serial = value(INTEGER, parsed.raw_serial());
        let signer = all(
            SEQUENCE,
            &[
                &value(INTEGER, &[1]),
                &all(SEQUENCE, &[parsed.issuer().as_raw(), &serial]),
                &sha256,
                &value(FIRST, &attributes),
                &all(SEQUENCE, &[&id("1.2.840.10045.4.3.2")]),
                &value(OCTETS, &signature),
            ],
        );
        let content = all(SEQUENCE, &[&kind, &value(FIRST, &value(OCTETS, &told))]);
        let signed = all(
            SEQUENCE,
            &[
                &value(INTEGER, &[3]),
                &value(SET, &sha256),
                &content,
                &value(FIRST, &self.certificate),
                &value(SET, &signer),
            ],
        );
        let token = all(SEQUENCE, &[&id("1.2.840.113549.1.7.2"), &value(FIRST, &signed)]);
        // Granted.
        let status = der::all(SEQUENCE, &[&value(INTEGER, &[0])]);
        all(SEQUENCE, &[&status, &token])
    }
}
