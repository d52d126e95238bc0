//! Signatures of SSH (OpenSSH PROTOCOL.sshsig), verified by `ssh-keygen`.

use super::armor;
use super::program::Program;
use super::{Claim, Payload};
use crate::SourceError;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::Digest;
use std::path::Path;

const SSH_KEYGEN: Program = Program { name: "ssh-keygen", package: "openssh-client" };

/// The beginning of what is said where one does not hold.
const DOING: &str = "failed to verify ssh signature";

/// What git's signatures are made for.
const NAMESPACE: &str = "git";

/// Hashes that are safe.
const HASHES: [&str; 2] = ["sha256", "sha512"];

/// The shortest modulus of RSA that counts, in bits.
pub(super) const SHORTEST_RSA: usize = 2048;

/// Names of files in the folder.
const SIGNERS: &str = "signers";
const SIGNATURE: &str = "signature";

/// The name that the key has there.
const SIGNER: &str = "signer";

pub(super) async fn verify(
    claim: &Claim<'_>,
    signature: &str,
    scratch: &Path,
    payload: Payload,
) -> Result<(), SourceError> {
    let failed = |reason: String| claim.failed(DOING, reason);
    let signature = armor::blocks(signature).map_err(failed)?.into_iter().next();
    let signature = signature.filter(|block| block.label == "SSH SIGNATURE").map(|block| block.data);
    let signature = signature.ok_or_else(|| failed("failed to decode ssh signature PEM block".into()))?;
    let made = Made::read(&signature).ok_or_else(|| failed("failed to parse ssh signature".into()))?;
    made.check().map_err(failed)?;
    let key = PublicKey::first(claim.keys)
        .ok_or_else(|| failed(format!("failed to parse ssh public key: {} holds none", claim.attribute)))?;
    key.check().map_err(failed)?;
    if made.key != key.data {
        return Err(failed(format!(
            "public key does not match: signature by {}, but the key of {} is {}",
            fingerprint(made.key),
            claim.attribute,
            fingerprint(&key.data)
        )));
    }
    let signers =
        format!("{SIGNER} namespaces=\"{NAMESPACE}\" {} {}\n", key.kind, STANDARD.encode(&key.data));
    let files = vec![
        (SIGNATURE, armor::wrapped("SSH SIGNATURE", &signature).into_bytes()),
        (SIGNERS, signers.into_bytes()),
    ];
    let place = claim.place(scratch, files, payload).await?;
    let arguments = ["-Y", "verify", "-n", NAMESPACE, "-I", SIGNER, "-f", SIGNERS, "-s", SIGNATURE];
    let ran = place.run(&SSH_KEYGEN, &arguments).await?;
    match ran.success {
        true => Ok(()),
        false => Err(failed(format!(
            "signature by {} does not belong to it: one of them was changed ({})",
            fingerprint(made.key),
            ran.said
        ))),
    }
}

/// What a signature says of itself.
struct Made<'a> {
    version: u32,
    key: &'a [u8],
    namespace: &'a [u8],
    hash: &'a [u8],
}

impl<'a> Made<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let mut data = Fields(data.strip_prefix(b"SSHSIG")?);
        let (version, key, namespace) = (data.number()?, data.field()?, data.field()?);
        let _reserved = data.field()?;
        Some(Self { version, key, namespace, hash: data.field()? })
    }

    fn check(&self) -> Result<(), String> {
        let (namespace, hash) = (String::from_utf8_lossy(self.namespace), String::from_utf8_lossy(self.hash));
        if self.version != 1 {
            return Err(format!("unsupported SSH signature version: {}", self.version));
        }
        if !HASHES.contains(&&*hash) {
            return Err(format!("unsupported SSH signature hash algorithm: {hash:?}"));
        }
        if namespace != NAMESPACE {
            return Err(format!("unexpected SSH signature namespace: {namespace:?}"));
        }
        Ok(())
    }
}

/// A key as `authorized_keys` has it.
struct PublicKey {
    kind: String,
    data: Vec<u8>,
}

impl PublicKey {
    /// The first one of a text. Options in front of it and comments behind it do not count.
    fn first(text: &str) -> Option<Self> {
        text.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            words.windows(2).find_map(|pair| {
                let data = STANDARD.decode(pair[1]).ok()?;
                let kind = Fields(&data).field()?;
                (kind == pair[0].as_bytes()).then(|| Self { kind: pair[0].to_string(), data: data.clone() })
            })
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.kind.contains("-cert-") {
            return Err(format!("failed to parse ssh public key: it is a certificate ({})", self.kind));
        }
        if self.kind != "ssh-rsa" {
            return Ok(());
        }
        let mut data = Fields(&self.data);
        let modulus = data.field().and_then(|_| data.field()).and_then(|_| data.field()).unwrap_or_default();
        let skipped = modulus.iter().take_while(|byte| **byte == 0).count();
        let unused = modulus.get(skipped).map_or(0, |byte| byte.leading_zeros() as usize);
        let bits = (modulus.len() - skipped) * 8 - unused;
        match bits < SHORTEST_RSA {
            true => Err(format!("RSA key too short: {bits} bits, {SHORTEST_RSA} are the least")),
            false => Ok(()),
        }
    }
}

/// What OpenSSH calls a key.
fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(sha2::Sha256::digest(key)))
}

/// Fields of SSH's wire format (RFC 4251 §5).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let len = self.number()? as usize;
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(fields: &[&[u8]]) -> Vec<u8> {
        fields.iter().flat_map(|field| [&(field.len() as u32).to_be_bytes()[..], field].concat()).collect()
    }

    #[test]
    fn keys_are_found_in_lines_with_options() {
        let data = wire(&[b"ssh-ed25519", &[5; 32]]);
        let key = format!("ssh-ed25519 {}", STANDARD.encode(&data));
        for text in [
            key.clone(),
            format!("{key} me@example.com\r\n"),
            format!("# a comment\n\nno-pty,command=\"a b\" {key} me\nssh-rsa {key}"),
            format!(
                "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n-----END PGP PUBLIC KEY BLOCK-----\n{key}"
            ),
        ] {
            let found = PublicKey::first(&text).unwrap();
            assert_eq!((found.kind.as_str(), &found.data), ("ssh-ed25519", &data), "{text}");
            assert_eq!(found.check(), Ok(()));
        }
        for text in ["", "ssh-ed25519", "ssh-ed25519 AAAA", &key.replace("ssh-ed25519 ", "ssh-rsa ")] {
            assert!(PublicKey::first(text).is_none(), "{text}");
        }
    }

    #[test]
    fn damaged_keys_and_signatures_are_read_or_refused() {
        let key = wire(&[b"ssh-rsa", &[1, 0, 1], &[0x80; 16]]);
        let signature = [b"SSHSIG\0\0\0\x01".to_vec(), wire(&[&key, b"git", b"", b"sha512", b"x"])].concat();
        for bytes in [&key, &signature] {
            for at in 0..bytes.len() {
                for byte in [0, 1, 0x7f, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] = byte;
                    for data in [&changed[..], &changed[..at]] {
                        let _ = Made::read(data).map(|made| made.check());
                        let _ = PublicKey { kind: "ssh-rsa".into(), data: data.to_vec() }.check();
                        let _ = PublicKey::first(&format!("ssh-rsa {}", STANDARD.encode(data)));
                    }
                }
            }
        }
    }

    #[test]
    fn weak_keys_and_foreign_signatures_are_refused() {
        let rsa = |modulus: &[u8]| PublicKey {
            kind: "ssh-rsa".into(),
            data: wire(&[b"ssh-rsa", &[1, 0, 1], modulus]),
        };
        assert_eq!(rsa(&[&[0, 0x80][..], &[0; 255]].concat()).check(), Ok(()));
        assert!(rsa(&[0x7f; 256]).check().unwrap_err().contains("2047 bits"));
        assert!(rsa(&[]).check().unwrap_err().contains("0 bits"));
        let made = |version: u32, namespace: &[u8], hash: &[u8]| {
            let fields = wire(&[b"key", namespace, b"", hash, b"signature"]);
            let data = [b"SSHSIG", &version.to_be_bytes()[..], &fields].concat();
            Made::read(&data).unwrap().check()
        };
        assert_eq!(made(1, b"git", b"sha512"), Ok(()));
        assert!(made(2, b"git", b"sha512").unwrap_err().contains("version: 2"));
        assert!(made(1, b"file", b"sha512").unwrap_err().contains("namespace: \"file\""));
        assert!(made(1, b"git", b"sha1").unwrap_err().contains("hash algorithm: \"sha1\""));
        assert!(Made::read(b"SSHSIG\0\0").is_none());
    }
}
