//! `git://REPOSITORY#REF:SUBDIR`: a checkout of a repository.

mod auth;
mod bundle;
mod checkout;
mod command;
mod fetch;
mod object;
mod refs;
mod signed;
mod url;

pub(crate) use fetch::Repositories;
pub(crate) use signed::Objects;
pub(crate) use url::{canonical, redacted};

use crate::temporary::Temporary;
use crate::{Attrs, Material, Shared, Source, SourceContext, SourceError, SourceKey};
use bundle::Bundle;
use command::{Access, Git};
use crosskit_metadata::Change;
use crosskit_snapshots::Ref;
use futures::future::BoxFuture;
use refs::Found;
use signed::Demand;
use std::sync::Arc;
use tokio::sync::{Mutex, OnceCell};

/// The key of a checkout, and the snapshot that holds it.
const TABLE: &str = "sources.git";

/// What a build asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Where the repository is.
    pub(crate) remote: String,
    /// A branch, a tag or a commit; empty for the default branch.
    pub(crate) reference: String,
    /// The folder of the repository that is wanted; empty for all of it.
    pub(crate) subdir: String,
    /// The beginning of the commit that it has to be.
    pub(crate) checksum: String,
    pub(crate) keep_git_dir: bool,
    pub(crate) skip_submodules: bool,
    /// All files get the time of the commit.
    pub(crate) commit_time: bool,
    /// The commit is asked for by its name alone.
    pub(crate) fetch_by_commit: bool,
    pub(crate) token_secret: String,
    pub(crate) header_secret: String,
    pub(crate) ssh: String,
    pub(crate) known_hosts: String,
    /// Where to take it from instead of the remote.
    pub(crate) bundle: Option<Bundle>,
    /// The checkout is a bundle instead of files.
    pub(crate) as_bundle: bool,
    /// It has to be signed.
    pub(crate) signed: Option<Demand>,
}

/// A checkout as an input.
pub(crate) struct GitSource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) wanted: Wanted,
    found: Mutex<Option<Found>>,
    /// What the bundle was unpacked to.
    staged: Mutex<Option<Arc<Temporary>>>,
    /// Whether what was found is known to be signed as demanded.
    verified: OnceCell<()>,
}

impl GitSource {
    pub(crate) fn new(shared: Arc<Shared>, name: &str, attrs: &Attrs) -> Result<Self, SourceError> {
        let text = |key: &str| attrs.get(key).cloned().unwrap_or_default();
        let flag = |key: &str| attrs.get(key).is_some_and(|value| value == "true");
        let parsed = url::parse(name)?;
        let mut remote = parsed.remote;
        if let Some(full) = attrs.get("git.fullurl").filter(|full| !full.is_empty()) {
            remote = url::with_protocol(full);
        }
        let wanted = Wanted {
            remote,
            reference: parsed.reference,
            subdir: parsed.subdir,
            checksum: text("git.checksum"),
            keep_git_dir: flag("git.keepgitdir"),
            skip_submodules: flag("git.skipsubmodules"),
            commit_time: match text("git.mtime").as_str() {
                "" | "checkout" => false,
                "commit" => true,
                other => return Err(SourceError::Invalid(format!("invalid git.mtime {other:?}"))),
            },
            fetch_by_commit: flag("git.fetchbycommit"),
            token_secret: text("git.authtokensecret"),
            header_secret: text("git.authheadersecret"),
            ssh: text("git.mountsshsock"),
            known_hosts: text("git.knownsshhosts"),
            bundle: Bundle::new(attrs)?,
            as_bundle: flag("git.checkoutbundle"),
            signed: Demand::new(&redacted(name), attrs)?,
        };
        bundle::check(&wanted)?;
        // Git would take it for an option.
        for (what, text) in [("ref", &wanted.reference), ("remote", &wanted.remote)] {
            if text.starts_with('-') {
                return Err(SourceError::Invalid(format!("invalid git {what} {text:?}")));
            }
        }
        if !wanted.checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(SourceError::Invalid(format!(
                "invalid checksum {} for Git URL, expected hex commit hash",
                wanted.checksum
            )));
        }
        Ok(Self {
            shared,
            wanted,
            found: Mutex::default(),
            staged: Mutex::default(),
            verified: OnceCell::new(),
        })
    }

    /// The commit that is meant now.
    pub(crate) async fn find(&self, cx: &Arc<dyn SourceContext>) -> Result<Found, SourceError> {
        let mut found = self.found.lock().await;
        if let Some(found) = &*found {
            return Ok(found.clone());
        }
        let now = match refs::known(&self.wanted)? {
            Some(known) => known,
            None => self.find_once(cx).await?,
        };
        *found = Some(now.clone());
        Ok(now)
    }

    /// Asks, unless the build has asked before.
    async fn find_once(&self, cx: &Arc<dyn SourceContext>) -> Result<Found, SourceError> {
        let wanted = &self.wanted;
        if let Some(bundle) = &wanted.bundle {
            let staged = self.staged(cx, bundle).await?;
            return refs::ask(&Git::new(cx.clone(), Access::default()), wanted, &staged.url()).await;
        }
        let memory = cx.memory();
        let mut known = match &memory {
            Some(memory) => Some(memory.lock(&format!("git {}#{}", wanted.remote, wanted.reference)).await),
            None => None,
        };
        let fits = |found: &Arc<Found>| found.checksum.starts_with(&wanted.checksum);
        if let Some(found) = known.as_ref().and_then(|known| known.values::<Found>().find(fits)) {
            return Ok(found.kept(wanted.keep_git_dir));
        }
        let _lock = self.shared.git.lock(&wanted.remote).await;
        let found = refs::ask(&self.git(cx).await?, wanted, &wanted.remote).await?;
        if let Some(known) = &mut known {
            known.add(found.clone());
        }
        Ok(found.kept(wanted.keep_git_dir))
    }

    /// Git with this build's credentials.
    async fn git(&self, cx: &Arc<dyn SourceContext>) -> Result<Git, SourceError> {
        let access = auth::access(&self.shared, &self.wanted, cx).await?;
        Ok(Git::new(cx.clone(), access))
    }

    /// What the checkout is known by. Other ways to check the same commit out are other keys.
    fn key_of(&self, found: &Found) -> String {
        let wanted = &self.wanted;
        // Where no history is kept, a tag and the commit that it names are the same.
        let mut key = match &found.commit {
            Some(commit) if !wanted.keep_git_dir => commit.clone(),
            _ => found.checksum.clone(),
        };
        if wanted.keep_git_dir {
            key.push_str(".git");
            if !found.reference.is_empty() {
                key.push('#');
                key.push_str(&found.reference);
            }
        }
        if !wanted.subdir.is_empty() {
            key.push(':');
            key.push_str(&wanted.subdir);
        }
        if wanted.skip_submodules {
            key.push_str("(skip-submodules)");
        }
        if wanted.commit_time {
            key.push_str("(mtime=commit)");
        }
        if wanted.as_bundle {
            key.push_str("(bundle)");
        }
        key
    }

    async fn checked_out(&self, cx: &Arc<dyn SourceContext>) -> Result<Ref, SourceError> {
        let found = self.find(cx).await?;
        self.verify(cx, &found).await?;
        let key = format!("{}:{}", self.key_of(&found), self.wanted.subdir);
        let _lock = self.shared.git.lock(&key).await;
        let database = &self.shared.parts.database;
        if let Some(id) = database.get(TABLE, key.as_bytes())?
            && let Some(reference) = self.shared.parts.snapshots.get(&String::from_utf8_lossy(&id))?
        {
            return Ok(reference);
        }
        let repository = fetch::fetch(self, cx, &found).await?;
        let reference = match self.wanted.as_bundle {
            true => bundle::check_out(self, &repository, &found).await?,
            false => checkout::check_out(self, cx, &repository, &found).await?,
        };
        database.write(vec![Change::put(TABLE, key.as_bytes(), reference.id().as_bytes())])?;
        Ok(reference)
    }

    /// The commit and, where there is one, the tag, as git keeps them; signed as demanded. What was found is completed.
    pub(crate) async fn objects(
        &self,
        cx: &Arc<dyn SourceContext>,
        found: &mut Found,
    ) -> Result<Objects, SourceError> {
        let repository = fetch::fetch(self, cx, found).await?;
        let git = &repository.git;
        let kind = git.text(&["cat-file", "-t", &found.checksum]).await?;
        let mut objects = Objects::default();
        let commit = match kind.as_str() {
            "commit" => found.checksum.clone(),
            "tag" => {
                objects.tag = git.run(&["cat-file", "tag", &found.checksum]).await?;
                git.text(&["rev-parse", "--verify", &format!("{}^{{commit}}", found.checksum)]).await?
            }
            other => {
                return Err(SourceError::Mismatch(format!("expected commit or tag object, got {other}")));
            }
        };
        // What a remote says a tag leads to is only what it says, and is what the checkout is known by.
        if let Some(said) = found.commit.as_ref().filter(|said| **said != commit) {
            let (what, remote) = (&found.reference, redacted(&self.wanted.remote));
            let text = format!("{remote} says that {what} is commit {said}, but it is {commit}");
            return Err(SourceError::Mismatch(text));
        }
        objects.commit = git.run(&["cat-file", "commit", &commit]).await?;
        found.commit = (kind == "tag").then_some(commit);
        drop(repository);
        self.judge(found, &objects).await?;
        Ok(objects)
    }
}

impl Source for GitSource {
    fn key<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<SourceKey>, SourceError>> {
        Box::pin(async move {
            if index > 0 {
                return Ok(None);
            }
            let found = self.find(cx).await?;
            // Also where the result is in a cache: who demands a signature may be another than who made the result.
            self.verify(cx, &found).await?;
            Ok(Some(SourceKey { key: self.key_of(&found), pin: found.checksum }))
        })
    }

    fn snapshot<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
    ) -> BoxFuture<'a, Result<Option<Ref>, SourceError>> {
        Box::pin(async move { self.checked_out(cx).await.map(Some) })
    }

    fn material(&self, pin: &str) -> Material {
        let wanted = &self.wanted;
        let url = match wanted.reference.is_empty() {
            true => wanted.remote.clone(),
            false => format!("{}#{}", wanted.remote, wanted.reference),
        };
        let secrets = [&wanted.token_secret, &wanted.header_secret].into_iter().filter(|s| !s.is_empty());
        Material::Git {
            url,
            commit: pin.to_string(),
            bundle: wanted.bundle.as_ref().map(|bundle| bundle.locator.clone()),
            secrets: secrets.cloned().collect(),
            ssh: (!wanted.ssh.is_empty()).then(|| wanted.ssh.clone()),
        }
    }
}
