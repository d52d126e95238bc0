//! Commits and tags that have to be signed.

use super::GitSource;
use super::command::Git;
use super::object::{HEADERS, id_of, split};
use super::refs::Found;
use super::url::redacted;
use crate::signatures::{Claim, Payload};
use crate::{Attrs, SourceContext, SourceError};
use std::sync::Arc;

/// In front of the attributes of this.
const ATTRIBUTES: &str = "git.sig.";

/// The attribute with the public keys.
const KEYS: &str = "git.sig.pubkey";

/// By whom what is found has to be signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    keys: String,
    reject_expired: bool,
    require_tag: bool,
    ignore_tag: bool,
}

impl Demand {
    /// None where the attributes demand nothing.
    pub(super) fn new(name: &str, attrs: &Attrs) -> Result<Option<Self>, SourceError> {
        let mut demand = Self::default();
        let mut demanded = false;
        for (key, value) in attrs.iter().filter(|(key, _)| key.starts_with(ATTRIBUTES)) {
            demanded = true;
            let flag = match key.strip_prefix(ATTRIBUTES).unwrap_or_default() {
                "pubkey" => {
                    demand.keys.clone_from(value);
                    continue;
                }
                "rejectexpired" => &mut demand.reject_expired,
                "requiresignedtag" => &mut demand.require_tag,
                "ignoresignedtag" => &mut demand.ignore_tag,
                _ => {
                    return Err(SourceError::Unsupported {
                        what: format!("{key} of git source {name}"),
                        hint:
                            "signatures are demanded by git.sig.pubkey, rejectexpired, requiresignedtag and \
                               ignoresignedtag"
                                .into(),
                    });
                }
            };
            *flag = match value.as_str() {
                "true" => true,
                "" | "false" => false,
                other => {
                    return Err(SourceError::Invalid(format!("invalid {key} {other:?}: use true or false")));
                }
            };
        }
        if demanded && demand.keys.trim().is_empty() {
            let text = format!("git signature verification of {name} requires a public key: set {KEYS}");
            return Err(SourceError::Invalid(text));
        }
        Ok(demanded.then_some(demand))
    }
}

/// A commit and, where there is one, the tag that leads to it, as git keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(crate) commit: Vec<u8>,
    pub(crate) tag: Vec<u8>,
}

impl GitSource {
    /// An error if what was found is not signed as demanded. Said once, it is not asked again.
    pub(super) async fn verify(&self, cx: &Arc<dyn SourceContext>, found: &Found) -> Result<(), SourceError> {
        if self.wanted.signed.is_some() {
            let objects = async || self.objects(cx, &mut found.clone()).await.map(drop);
            self.verified.get_or_try_init(objects).await?;
        }
        Ok(())
    }

    /// An error if a name in a repository, which others fetch into as well, is not the commit that was verified.
    pub(super) async fn still(&self, git: &Git, name: &str, found: &Found) -> Result<(), SourceError> {
        if self.wanted.signed.is_none() {
            return Ok(());
        }
        let commit =
            async |name: &str| git.text(&["rev-parse", "--verify", &format!("{name}^{{commit}}")]).await;
        let (verified, actual) = (commit(&found.checksum).await?, commit(name).await?);
        match verified == actual {
            true => Ok(()),
            false => Err(SourceError::Signature {
                what: self.named(&format!("commit {actual}")),
                reason: format!("it came in place of {verified}, which is signed"),
            }),
        }
    }

    /// Verifies these objects, where that is demanded.
    pub(super) async fn judge(&self, found: &Found, objects: &Objects) -> Result<(), SourceError> {
        let Some(demand) = &self.wanted.signed else { return Ok(()) };
        let mut of_tag = None;
        if !objects.tag.is_empty() && !demand.ignore_tag {
            match self.judge_one(demand, "tag", &objects.tag, &found.checksum).await {
                Ok(()) => return Ok(()),
                // The commit may do as well, but not if it is this machine that cannot tell.
                Err(err @ SourceError::Signature { .. }) => of_tag = Some(err),
                Err(err) => return Err(err),
            }
        }
        if demand.require_tag {
            return Err(of_tag.unwrap_or_else(|| SourceError::Signature {
                what: self.named(&found.reference),
                reason: "signed tag required but no signed tag found".into(),
            }));
        }
        let commit = found.commit.as_ref().unwrap_or(&found.checksum);
        match (self.judge_one(demand, "commit", &objects.commit, commit).await, of_tag) {
            (Err(SourceError::Signature { what, reason }), Some(of_tag)) => {
                Err(SourceError::Signature { what, reason: format!("{reason} (nor is its tag: {of_tag})") })
            }
            (judged, _) => judged,
        }
    }

    async fn judge_one(&self, demand: &Demand, kind: &str, raw: &[u8], id: &str) -> Result<(), SourceError> {
        let what = self.named(&format!("{kind} {id}"));
        let wrong = |reason: String| SourceError::Signature { what: what.clone(), reason };
        let actual = id_of(kind, raw, id.len());
        if actual.as_deref() != Some(id) {
            let actual = actual.unwrap_or_default();
            // Nothing else that this repository holds can be relied on either.
            let text =
                format!("{what}: {kind} object checksum verification failed: its content is {actual:?}");
            return Err(SourceError::Mismatch(text));
        }
        let header = usize::from(id.len() == 64);
        let signed = split(raw, kind == "tag", HEADERS[header]).map_err(wrong)?;
        let Some(signature) = signed.signature else {
            let keys = "one of the keys of git.sig.pubkey";
            return Err(wrong(format!("git object is not signed: sign it with {keys}, or use one that is")));
        };
        let claim = Claim {
            what: &what,
            signature: &signature,
            keys: &demand.keys,
            attribute: KEYS,
            reject_expired: demand.reject_expired,
        };
        claim.verify_git(&self.shared.parts.scratch, Payload::Bytes(signed.payload)).await
    }

    fn named(&self, what: &str) -> String {
        format!("{what} of {}", redacted(&self.wanted.remote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_are_complete_and_plain() {
        let new = |attrs: &[(&str, &str)]| {
            Demand::new("x", &attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
        };
        assert_eq!(new(&[("git.checksum", "1")]).unwrap(), None);
        let demand = new(&[
            ("git.sig.pubkey", "key"),
            ("git.sig.rejectexpired", "true"),
            ("git.sig.ignoresignedtag", "false"),
        ]);
        let expected = Demand { keys: "key".into(), reject_expired: true, ..Demand::default() };
        assert_eq!(demand.unwrap(), Some(expected));
        for (attrs, text) in [
            (&[("git.sig.pubkey", " \n")][..], "requires a public key: set git.sig.pubkey"),
            (&[("git.sig.requiresignedtag", "false")], "requires a public key"),
            (&[("git.sig.pubkey", "k"), ("git.sig.rejectexpired", "yes")], "use true or false"),
            (
                &[("git.sig.pubkey", "k"), ("git.sig.other", "")],
                "git.sig.other of git source x is not supported",
            ),
        ] {
            let err = new(attrs).unwrap_err().to_string();
            assert!(err.contains(text), "{err}");
        }
    }
}
