//! Files that have to be signed.

use super::{HttpSource, Resolved};
use crate::git::redacted;
use crate::signatures::{Claim, Payload};
use crate::{Attrs, SourceError};
use rustix::fs::{CWD, Mode, OFlags};

/// In front of the attributes of this.
const ATTRIBUTES: &str = "http.sig.";

/// The attribute with the public keys.
const KEYS: &str = "http.sig.pubkey";

/// The signature of the file, and by whom it has to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    keys: String,
    signature: String,
}

impl Demand {
    /// None where the attributes demand nothing.
    pub(super) fn new(url: &str, attrs: &Attrs) -> Result<Option<Self>, SourceError> {
        let (mut keys, mut signature) = (None, None);
        for (key, value) in attrs {
            match key.strip_prefix(ATTRIBUTES) {
                None => {}
                Some("pubkey") => keys = Some(value.clone()),
                Some("signature") => signature = Some(value.clone()),
                Some(_) => {
                    return Err(SourceError::Unsupported {
                        what: format!("{key} of {}", redacted(url)),
                        hint: "signatures are demanded by http.sig.pubkey and http.sig.signature".into(),
                    });
                }
            }
        }
        if keys.is_none() && signature.is_none() {
            return Ok(None);
        }
        let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        match (given(keys), given(signature)) {
            (Some(keys), Some(signature)) => Ok(Some(Self { keys, signature })),
            _ => Err(SourceError::Invalid(format!(
                "http signature verification requires both pubkey and signature: set http.sig.pubkey and \
                 http.sig.signature for {}",
                redacted(url)
            ))),
        }
    }
}

impl HttpSource {
    /// An error if the file is not signed as demanded.
    pub(super) async fn verify(&self, found: &Resolved) -> Result<(), SourceError> {
        let Some(demand) = &self.signed else { return Ok(()) };
        let what = redacted(&self.url);
        let doing = || format!("read {what} to verify its signature");
        let file =
            found.file.as_ref().ok_or_else(|| SourceError::Mismatch(format!("{}: no file", doing())))?;
        let mounted = file.mount_readonly().await?;
        let path = mounted.path().join(&found.filename);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened =
            tokio::task::spawn_blocking(move || rustix::fs::openat(CWD, &path, flags, Mode::empty()));
        let opened = opened.await.map_err(SourceError::thread)?.map_err(SourceError::io(doing()))?;
        let claim = Claim {
            what: &what,
            signature: demand.signature.as_bytes(),
            keys: &demand.keys,
            attribute: KEYS,
            reject_expired: false,
        };
        let payload = Payload::File(opened.into());
        let verified = claim.verify_pgp(&self.shared.parts.scratch, payload).await;
        drop(mounted);
        verified
    }
}
