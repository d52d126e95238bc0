//! Signatures of OpenPGP, verified by `gpg`.

use super::judgement::{Judge, Signer};
use super::program::Program;
use super::{Claim, Payload, armor};
use crate::SourceError;
use std::path::Path;

const GPG: Program = Program { name: "gpg", package: "gnupg" };

/// The beginning of what is said where one does not hold.
pub(super) const DOING: &str = "failed to verify pgp signature";

/// In front of all others: keys, settings, agents and servers that this machine may have do not count, and that a key
/// was given is all the trust there is.
const APART: [&str; 14] = [
    "--homedir",
    ".",
    "--no-options",
    "--batch",
    "--no-tty",
    "--no-autostart",
    "--no-auto-check-trustdb",
    "--trust-model",
    "always",
    "--disable-dirmngr",
    "--no-auto-key-retrieve",
    "--no-auto-key-locate",
    "--status-fd",
    "1",
];

/// Names of files in the folder.
const KEYS: &str = "keys";
const SIGNATURE: &str = "signature";

pub(super) async fn verify(
    claim: &Claim<'_>,
    signature: &str,
    scratch: &Path,
    payload: Payload,
) -> Result<(), SourceError> {
    let failed = |reason: String| claim.failed(DOING, reason);
    let signature = detached(signature).map_err(failed)?;
    let keys = public_keys(claim.keys).map_err(|reason| {
        failed(format!("failed to read armored public key of {}: {reason}", claim.attribute))
    })?;
    let place = claim.place(scratch, vec![(SIGNATURE, signature), (KEYS, keys)], payload).await?;
    let gpg = async |arguments: &[&str]| place.run(&GPG, &[&APART[..], arguments].concat()).await;

    let imported = gpg(&["--import", KEYS]).await?;
    if !imported.output.lines().any(|line| line.starts_with("[GNUPG:] IMPORT_OK ")) {
        let (attribute, said) = (claim.attribute, imported.said);
        return Err(failed(format!("failed to read armored public key of {attribute}: {said}")));
    }
    let keys = Signer::listed(&gpg(&["--with-colons", "--list-keys"]).await?.output);
    let verified = gpg(&["--verify", "--", SIGNATURE, "-"]).await?;
    let now = jiff::Timestamp::now().as_second();
    let judge = Judge { keys, now, reject_expired: claim.reject_expired, attribute: claim.attribute };
    judge.any(&verified.output, &verified.said).map_err(failed)
}

/// The first block, as packets.
fn detached(text: &str) -> Result<Vec<u8>, String> {
    let blocks = armor::blocks(text).map_err(|err| format!("failed to decode armored signature: {err}"))?;
    let Some(block) = blocks.into_iter().next() else {
        return Err("failed to decode armored signature: no armored data found".into());
    };
    if block.label != "PGP SIGNATURE" {
        return Err(format!("failed to decode armored signature: it is a {}", block.label));
    }
    armor::only_signatures(&block.data)?;
    Ok(block.data)
}

/// All keys, as packets.
fn public_keys(text: &str) -> Result<Vec<u8>, String> {
    let mut keys = Vec::new();
    for block in armor::blocks(text)? {
        match block.label.as_str() {
            "PGP PUBLIC KEY BLOCK" => keys.extend(block.data),
            "PGP PRIVATE KEY BLOCK" => {
                return Err("it is a private key, which nobody else should have: give the public one".into());
            }
            label if label.starts_with("PGP ") => return Err(format!("it is a {label}")),
            // Keys of other kinds may stand beside them.
            _ => {}
        }
    }
    match keys.is_empty() {
        true => Err("no armored data found".into()),
        false => Ok(keys),
    }
}
