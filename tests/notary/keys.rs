//! Keys, and what is made with them.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use sha2::{Digest, Sha256};

/// A key on the curve P-256.
pub struct Key(pub(crate) KeyPair);

impl Key {
    /// A new one.
    pub fn new() -> Key {
        Key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"))
    }

    /// A signature (ECDSA with SHA-256, in DER).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("a signature")
    }

    /// The public key in DER.
    pub(crate) fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }
}

impl Default for Key {
    fn default() -> Self {
        Key::new()
    }
}

/// SHA-256.
pub(crate) fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}
