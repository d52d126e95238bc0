//! sigstore's crates bring no cryptography of their own: here they get ring's.

use ring::digest::{self, SHA256, SHA384, SHA512};
use ring::signature::{self as algorithms, UnparsedPublicKey, VerificationAlgorithm};
use sigstore_verify::crypto::{CryptoProvider, Error, HashContext, Result, SigningScheme};
use sigstore_verify::types::HashAlgorithm;
use std::cell::RefCell;

#[derive(Debug)]
struct Ring;

thread_local! {
    /// What is being verified on this thread: of a message that was hashed before, ring still wants the whole.
    static LENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes ring the provider of the process.
pub(crate) fn install() {
    // Nobody else installs one, so that an error says that it is there already.
    sigstore_verify::crypto::install_default_provider(&Ring).ok();
}

/// Does something for which a message may have to be verified by its hash.
pub(crate) fn lending<T>(message: &[u8], work: impl FnOnce() -> T) -> T {
    LENT.set(message.to_vec());
    let done = work();
    LENT.take();
    done
}

struct Context(digest::Context);

impl HashContext for Context {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

fn unsupported(what: impl std::fmt::Debug) -> Error {
    Error::UnsupportedAlgorithm(format!("{what:?} is not supported"))
}

fn hash(algorithm: HashAlgorithm) -> Result<&'static digest::Algorithm> {
    match algorithm {
        HashAlgorithm::Sha2256 => Ok(&SHA256),
        HashAlgorithm::Sha2384 => Ok(&SHA384),
        HashAlgorithm::Sha2512 => Ok(&SHA512),
        other => Err(unsupported(other)),
    }
}

fn algorithm(scheme: SigningScheme) -> Result<&'static dyn VerificationAlgorithm> {
    use SigningScheme as S;
    Ok(match scheme {
        S::EcdsaP256Sha256 => &algorithms::ECDSA_P256_SHA256_ASN1,
        S::EcdsaP256Sha384 => &algorithms::ECDSA_P256_SHA384_ASN1,
        S::EcdsaP384Sha256 => &algorithms::ECDSA_P384_SHA256_ASN1,
        S::EcdsaP384Sha384 => &algorithms::ECDSA_P384_SHA384_ASN1,
        S::Ed25519 => &algorithms::ED25519,
        S::RsaPssSha256 => &algorithms::RSA_PSS_2048_8192_SHA256,
        S::RsaPssSha384 => &algorithms::RSA_PSS_2048_8192_SHA384,
        S::RsaPssSha512 => &algorithms::RSA_PSS_2048_8192_SHA512,
        S::RsaPkcs1Sha256 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
        S::RsaPkcs1Sha384 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
        S::RsaPkcs1Sha512 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
        other => return Err(unsupported(other)),
    })
}

impl CryptoProvider for Ring {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        Ok(Box::new(Context(digest::Context::new(hash(algorithm)?))))
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<()> {
        let verified = UnparsedPublicKey::new(algorithm(scheme)?, key).verify(data, signature);
        verified.map_err(|_| Error::Verification(format!("{} signature invalid", scheme.name())))
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        hashed: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let hash = hash(scheme.hash_algorithm().ok_or_else(|| unsupported(scheme))?)?;
        LENT.with_borrow(|message| {
            if digest::digest(hash, message).as_ref() != hashed {
                return Err(Error::Verification("it is the hash of something else".to_owned()));
            }
            self.verify_raw(scheme, key, message, signature)
        })
    }
}
