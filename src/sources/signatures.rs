//! Signatures of what comes from outside.
//!
//! The cryptography is left to the programs that people sign with: `gpg` and `ssh-keygen`. They are given a folder of
//! their own with nothing in it but the signature and the keys that count, so nothing of this machine's keys, settings
//! and agents has a say. What they find is read from what they write for programs, and judged here.

mod armor;
mod judgement;
mod pgp;
mod program;
mod ssh;

use crate::SourceError;
use program::Place;
use std::fs::File;
use std::path::Path;

/// The longest signature, and the longest text with keys, in bytes. Real ones have a few thousand.
const LONGEST: usize = 1 << 20;

/// How a signature of git begins that was made by PGP.
const PGP: &str = "-----BEGIN PGP SIGNATURE-----";

/// The same for SSH.
const SSH: &str = "-----BEGIN SSH SIGNATURE-----";

/// What is said to be signed, and by whom it has to be.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    /// What is signed, for people: `commit 0123… of https://…`.
    pub(crate) what: &'a str,
    /// The signature, as text.
    pub(crate) signature: &'a [u8],
    /// The public keys, as text. One of them is enough.
    pub(crate) keys: &'a str,
    /// Where the keys come from: the name of an attribute.
    pub(crate) attribute: &'static str,
    /// Whether a key counts no more once it has expired, even for what was signed before.
    pub(crate) reject_expired: bool,
}

/// What was signed.
pub(crate) enum Payload {
    /// Little enough to be in memory.
    Bytes(Vec<u8>),
    /// Read from its beginning.
    File(File),
}

impl Claim<'_> {
    /// Verifies a signature of git, which says itself how it was made.
    pub(crate) async fn verify_git(&self, scratch: &Path, payload: Payload) -> Result<(), SourceError> {
        if self.signature.starts_with(PGP.as_bytes()) {
            self.verify_pgp(scratch, payload).await
        } else if self.signature.starts_with(SSH.as_bytes()) {
            let signature = self.text("failed to verify ssh signature")?;
            ssh::verify(self, signature, scratch, payload).await
        } else {
            let reason = "invalid signature format: only signatures of PGP and of SSH can be verified";
            Err(self.failed("failed to verify signature", reason))
        }
    }

    /// Verifies a detached signature of OpenPGP.
    pub(crate) async fn verify_pgp(&self, scratch: &Path, payload: Payload) -> Result<(), SourceError> {
        let signature = self.text(pgp::DOING)?;
        pgp::verify(self, signature, scratch, payload).await
    }

    /// The signature as text, if it and the keys are not too large for a program to see.
    fn text(&self, doing: &str) -> Result<&str, SourceError> {
        for (name, len) in [("signature", self.signature.len()), (self.attribute, self.keys.len())] {
            if len > LONGEST {
                let reason = format!("{name} has {len} bytes, {LONGEST} are the most");
                return Err(self.failed(doing, reason));
            }
        }
        std::str::from_utf8(self.signature)
            .map_err(|_| self.failed(doing, "invalid signature format: not text"))
    }

    fn failed(&self, doing: &str, reason: impl Into<String>) -> SourceError {
        SourceError::Signature { what: format!("{doing}: {}", self.what), reason: reason.into() }
    }

    /// A folder with these files, and the payload.
    async fn place(
        &self,
        scratch: &Path,
        files: Vec<(&'static str, Vec<u8>)>,
        payload: Payload,
    ) -> Result<Place, SourceError> {
        Place::new(scratch, self.what, files, payload).await
    }
}
