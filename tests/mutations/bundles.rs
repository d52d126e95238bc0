//! Signatures: bundles of sigstore, with certificates, proofs and stamps in them.

use crosskit_signatures::TrustedRoot;
use std::sync::OnceLock;

/// What the seeds sign.
pub(crate) const DOCUMENT: &[u8] = b"{\"layers\":[],\"records\":[]}";

/// Words of bundles.
pub const WORDS: &[&str] = &[
    "\"tlogEntries\":[]",
    "\"rawBytes\":\"\"",
    "\"integratedTime\":\"0\"",
    "\"logIndex\":\"-1\"",
    "\"treeSize\":\"9223372036854775807\"",
    "\"hashes\":[]",
    "null",
    "SHA2_384",
    "hashedrekord",
    "0.0.2",
    ";version=0.1",
    "\\n\\n",
    "AAAA",
    "MII",
    "\\u0000",
];

/// Verifies a signature. Whoever else a changed one tells of has not signed.
pub fn run(bytes: &[u8]) {
    static ROOT: OnceLock<TrustedRoot> = OnceLock::new();
    let read = || TrustedRoot::parse(include_str!("trusted_root.json")).expect("a trusted root");
    if let Ok(signer) = ROOT.get_or_init(read).verify(DOCUMENT, bytes) {
        let said = |name: &str| signer.fields.get(name).map(String::as_str);
        assert_eq!(said("certificateIssuer"), Some("CN=authority,O=example.com"));
        assert_eq!(said("sourceRepositoryURI"), Some("https://git.example.com/house"));
        assert!(signer.logs <= 1 && signer.stamps <= 1, "{signer:?}");
    }
}
