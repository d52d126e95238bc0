//! Signatures of indexes: the program that makes them, and whose ones are believed.

use crate::error::{RemoteCacheError, Result};
use crosskit_signatures::{Policy, SignatureError, TrustedRoot};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

/// The largest signature that is looked at: sigstore's have a few kilobytes.
pub(super) const LARGEST_SIGNATURE: u64 = 1 << 20;

/// What to do about a trusted root that can't be used.
const HINT: &str = "`cosign trusted-root create` makes one, and sigstore's TUF repository has one as the target trusted_root.json; \
    name it in cache.gha.verify.trustedRoot";

/// Whose signatures an index needs to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    root: PathBuf,
    policy: Policy,
}

impl Verification {
    /// By the trusted root in a file, which is read each time that something is verified: whoever keeps it up to date
    /// need not tell the daemon.
    ///
    /// # Errors
    /// A file by which nothing could be verified.
    pub fn new(root: PathBuf, policy: Policy) -> Result<Verification> {
        read(&root).map_err(|e| RemoteCacheError::Options(format!("cache.gha.verify: {e}")))?;
        Ok(Verification { root, policy })
    }

    /// Whether a document may be used, by the signature that was found beside it.
    pub(super) async fn check(&self, document: Vec<u8>, signature: Vec<u8>) -> Result<Vec<u8>> {
        let (root, policy) = (self.root.clone(), self.policy.clone());
        let work = tokio::task::spawn_blocking(move || {
            let signer = read(&root)?.verify(&document, &signature)?;
            tracing::debug!("the index of a cache is signed by {signer:?}");
            policy.admits(&signer).map(|()| document)
        });
        match work.await {
            Ok(checked) => checked.map_err(RemoteCacheError::Signature),
            Err(_) => Err(RemoteCacheError::Invalid("its signature could not be looked at".to_owned())),
        }
    }
}

fn read(root: &Path) -> Result<TrustedRoot, SignatureError> {
    let failed = |why: String| SignatureError::Root(format!("{}: {why}; {HINT}", root.display()));
    let text = std::fs::read_to_string(root).map_err(|e| failed(e.to_string()))?;
    TrustedRoot::parse(&text).map_err(|e| failed(e.to_string()))
}

/// What a program makes of a document on its standard input.
pub(super) async fn sign(program: &str, arguments: &[String], document: &[u8]) -> Result<Vec<u8>> {
    let failed = |why: String| RemoteCacheError::Options(format!("signing command failed: {program}: {why}"));
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(|e| failed(e.to_string()))?;
    let stdin = child.stdin.take();
    let giving = async {
        if let Some(mut stdin) = stdin {
            // One that needs no input closes its end.
            drop(stdin.write_all(document).await);
        }
    };
    let ((), ended) = futures::join!(giving, child.wait_with_output());
    let ended = ended.map_err(|e| failed(e.to_string()))?;
    match ended.status.success() {
        true => Ok(ended.stdout),
        false => Err(failed(format!("{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim()))),
    }
}
