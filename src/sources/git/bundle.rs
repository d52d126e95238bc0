//! Repositories that travel as one file (git-bundle), in and out.

use super::command::{Access, Git};
use super::fetch::{Repository, init};
use super::refs::{Found, within};
use super::url::is_commit;
use super::{GitSource, Wanted};
use crate::blob::fetch_blob;
use crate::oci_layout::pinned;
use crate::temporary::Temporary;
use crate::{Attrs, SourceContext, SourceError};
use crosskit_images::Digest;
use crosskit_snapshots::{About, Ref};
use std::sync::Arc;

/// The file of a checkout that is a bundle.
const FILE: &str = "bundle";

/// The name of a commit that has none: a bundle carries names.
const NAMELESS: &str = "refs/heads/main";

/// Where a bundle is.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// As the build names it.
    pub(crate) locator: String,
    scheme: String,
    name: String,
    digest: Digest,
    session: String,
    store: String,
}

impl Bundle {
    pub(super) fn new(attrs: &Attrs) -> Result<Option<Self>, SourceError> {
        let Some(locator) = attrs.get("git.bundle").filter(|text| !text.is_empty()) else { return Ok(None) };
        let failed = |why: String| {
            SourceError::Invalid(format!("failed to parse git.bundle locator {locator:?}: {why}"))
        };
        let (scheme, name) = locator.split_once("://").ok_or_else(|| failed("missing scheme".into()))?;
        if !matches!(scheme, "docker-image+blob" | "oci-layout+blob") {
            return Err(SourceError::Invalid(format!(
                "git.bundle locator scheme {scheme:?} is not supported; expected \"docker-image+blob\" or \"oci-layout+blob\""
            )));
        }
        let digest = pinned(name).map_err(|err| failed(err.to_string()))?;
        let front = name.split('@').next().unwrap_or_default();
        // A layout is named like a repository, without a tag.
        let store = match front.rsplit_once(':') {
            Some((store, tag)) if !tag.contains('/') => store,
            _ => front,
        };
        let text = |key: &str| attrs.get(key).cloned().unwrap_or_default();
        let store = Some(text("oci.store")).filter(|s| !s.is_empty()).unwrap_or_else(|| store.to_string());
        Ok(Some(Self {
            locator: locator.clone(),
            scheme: scheme.to_string(),
            name: name.to_string(),
            digest,
            session: text("oci.session"),
            store,
        }))
    }
}

/// Refuses what cannot be meant.
pub(super) fn check(wanted: &Wanted) -> Result<(), SourceError> {
    let invalid = |text: &str| Err(SourceError::Invalid(text.to_string()));
    if wanted.bundle.is_some() {
        if wanted.checksum.is_empty() {
            return invalid("git.bundle requires git.checksum to be set");
        }
        if is_commit(&wanted.reference) && !wanted.reference.starts_with(&wanted.checksum) {
            let text = format!("expected checksum to match {}, got {}", wanted.checksum, wanted.reference);
            return Err(SourceError::Mismatch(text));
        }
    }
    if wanted.as_bundle && wanted.keep_git_dir {
        return invalid("git.checkoutbundle is incompatible with git.keepgitdir");
    }
    if wanted.as_bundle && !wanted.subdir.is_empty() {
        return invalid("git.checkoutbundle is incompatible with git.subdir");
    }
    Ok(())
}

impl GitSource {
    /// A repository made of the bundle, which can be fetched from.
    pub(super) async fn staged(
        &self,
        cx: &Arc<dyn SourceContext>,
        bundle: &Bundle,
    ) -> Result<Arc<Temporary>, SourceError> {
        let mut staged = self.staged.lock().await;
        if let Some(staged) = &*staged {
            return Ok(staged.clone());
        }
        let fetched = fetch_blob(
            &self.shared,
            cx,
            &bundle.scheme,
            &bundle.name,
            bundle.digest,
            &bundle.session,
            &bundle.store,
        );
        fetched.await?;
        let file = self.shared.parts.snapshots.content().path(&bundle.digest);
        let file = file.to_string_lossy();
        let repository = Temporary::new(&self.shared.parts.scratch, "git")?;
        let plain = Git::new(cx.clone(), Access::default());
        let listing = plain.text(&["ls-remote", "--", &file]).await;
        let listing =
            listing.map_err(|err| within(format!("failed to inspect git bundle {}", bundle.name), err))?;
        let first = listing.split_whitespace().next().unwrap_or_default();
        if !is_commit(first) {
            let text = format!("failed to inspect git bundle {}: no refs found", bundle.name);
            return Err(SourceError::Mismatch(text));
        }
        let git = plain.in_dir(&repository.0);
        init(&git, true, first.len() == 64).await?;
        let imported = git.run(&["fetch", &file, "+refs/*:refs/*"]).await;
        imported
            .map_err(|err| within(format!("failed to import git bundle {} into temp", bundle.name), err))?;
        let commit = &self.wanted.checksum;
        if git.run(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).await.is_err() {
            let text = format!("commit {commit} not found in bundle {}", bundle.name);
            return Err(SourceError::Mismatch(text));
        }
        Ok(staged.insert(Arc::new(repository)).clone())
    }
}

/// The name that a commit has in the bundle that is made of it.
fn name_in_bundle(reference: &str) -> String {
    if reference.is_empty() || is_commit(reference) {
        return NAMELESS.to_string();
    }
    if reference.starts_with("refs/tags/") {
        return reference.to_string();
    }
    let name = reference.strip_prefix("refs/").unwrap_or(reference);
    format!("refs/heads/{}", name.strip_prefix("heads/").unwrap_or(name))
}

/// Makes a snapshot that holds what was found as a bundle.
pub(super) async fn check_out(
    source: &GitSource,
    repository: &Repository,
    found: &Found,
) -> Result<Ref, SourceError> {
    let wanted = &source.wanted;
    let shared = &source.shared;
    let about = About::new(format!(
        "git bundle checkout for {}#{}",
        super::url::redacted(&wanted.remote),
        wanted.reference
    ));
    let snapshot = shared.parts.snapshots.new_mutable(None, about)?;
    let mounted = snapshot.mount().await?;
    let name = name_in_bundle(&wanted.reference);
    // A branch can only be a commit; a tag may be more.
    let object = match name.starts_with("refs/tags/") {
        true => found.checksum.clone(),
        false => repository.git.text(&["rev-parse", &format!("{}^{{commit}}", found.checksum)]).await?,
    };
    // Made in a repository of its own, where it is the only name.
    let temporary = Temporary::new(&shared.parts.scratch, "git")?;
    let git = repository.git.in_dir(&temporary.0);
    init(&git, true, object.len() == 64).await?;
    let from = format!("file://{}", repository.dir.display());
    let doing = |what: &str| {
        let doing = format!("failed to {what} {object} for bundle creation");
        move |err| within(doing, err)
    };
    git.run(&["fetch", &from, "--", &object]).await.map_err(doing("fetch commit"))?;
    git.run(&["update-ref", &name, &object]).await.map_err(doing("name"))?;
    let file = mounted.path().join(FILE);
    git.run(&["bundle", "create", &file.to_string_lossy(), &name]).await.map_err(doing("write"))?;
    drop(mounted);
    Ok(snapshot.commit().await?)
}
