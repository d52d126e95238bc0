//! From a branch or a tag to a commit.

use super::Wanted;
use super::command::Git;
use super::url::{is_commit, redacted};
use crate::SourceError;

/// What a name stands for now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The full name of the branch or tag, or the commit where that was asked for.
    pub(crate) reference: String,
    /// What it points to: a commit, or an annotated tag.
    pub(crate) checksum: String,
    /// The commit that an annotated tag points to.
    pub(crate) commit: Option<String>,
}

impl Found {
    /// As it counts for a checkout: with its history, a tag is more than its commit.
    pub(super) fn kept(&self, with_history: bool) -> Found {
        let commit = self.commit.clone().filter(|_| !with_history);
        Found { commit, ..self.clone() }
    }
}

/// What can be said without asking anybody.
pub(super) fn known(wanted: &Wanted) -> Result<Option<Found>, SourceError> {
    let (reference, checksum) = (&wanted.reference, &wanted.checksum);
    if wanted.bundle.is_some() && reference.is_empty() {
        return Ok(Some(Found { reference: checksum.clone(), checksum: checksum.clone(), commit: None }));
    }
    if is_commit(reference) {
        if !reference.starts_with(checksum.as_str()) {
            return Err(SourceError::Mismatch(format!(
                "expected checksum to match {checksum}, got {reference}"
            )));
        }
        return Ok(Some(Found { reference: reference.clone(), checksum: reference.clone(), commit: None }));
    }
    if !wanted.fetch_by_commit {
        return Ok(None);
    }
    if checksum.is_empty() {
        let text = "fetch-by-commit requires a checksum or a commit SHA ref";
        return Err(SourceError::Invalid(text.into()));
    }
    if !is_commit(checksum) {
        let text = format!("fetch-by-commit requires a full commit SHA checksum, got {checksum:?}");
        return Err(SourceError::Invalid(text));
    }
    Ok(Some(Found { reference: by_commit(wanted), checksum: checksum.clone(), commit: None }))
}

/// What a reference is called where nobody is asked what it is: git prefers branches.
pub(super) fn by_commit(wanted: &Wanted) -> String {
    match wanted.reference.as_str() {
        "" => wanted.checksum.clone(),
        name if name.starts_with("refs/") => name.to_string(),
        name => format!("refs/heads/{name}"),
    }
}

/// Asks the repository.
pub(super) async fn ask(git: &Git, wanted: &Wanted, remote: &str) -> Result<Found, SourceError> {
    let name = match wanted.reference.is_empty() {
        true => default_branch(git, remote).await?,
        false => wanted.reference.clone(),
    };
    let peeled = format!("{name}^{{}}");
    let listing = git
        .text(&["ls-remote", "--", remote, &name, &peeled])
        .await
        .map_err(|err| within(format!("failed to fetch remote {}", redacted(remote)), err))?;
    let found = pick(&name, &listing).ok_or_else(|| {
        SourceError::Invalid(format!("repository does not contain ref {name}, output: {listing:?}"))
    })?;
    if !is_commit(&found.checksum) {
        return Err(SourceError::Mismatch(format!("invalid commit sha {:?}", found.checksum)));
    }
    let expected = wanted.checksum.as_str();
    let commit = found.commit.as_deref().unwrap_or_default();
    if !found.checksum.starts_with(expected) && (commit.is_empty() || !commit.starts_with(expected)) {
        let or = if commit.is_empty() { String::new() } else { format!(" or {commit}") };
        let got = &found.checksum;
        return Err(SourceError::Mismatch(format!("expected checksum to match {expected}, got {got}{or}")));
    }
    Ok(found)
}

/// The line of a listing that a name means: exactly that, else a branch, else a tag.
fn pick(name: &str, listing: &str) -> Option<Found> {
    let full = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    let (exact, branch, tag) = (full("refs/"), full("refs/heads/"), full("refs/tags/"));
    let at = |wanted: &str| {
        let lines = listing.lines().filter_map(|line| line.split_once('\t'));
        lines.filter(|(_, name)| *name == wanted).map(|(sha, _)| sha.to_string()).next_back()
    };
    for reference in [exact, branch] {
        if let Some(checksum) = at(&reference) {
            return Some(Found { reference, checksum, commit: None });
        }
    }
    let checksum = at(&tag)?;
    let commit = at(&format!("{tag}^{{}}"));
    Some(Found { reference: tag, checksum, commit })
}

/// The branch that is meant where none is named.
pub(super) async fn default_branch(git: &Git, remote: &str) -> Result<String, SourceError> {
    let listing = git.text(&["ls-remote", "--symref", "--", remote, "HEAD"]).await;
    let listing = listing.map_err(|err| {
        within(format!("error fetching default branch for repository {}", redacted(remote)), err)
    })?;
    let branch = listing.split_whitespace().find_map(|word| word.strip_prefix("refs/heads/"));
    match branch {
        Some(branch) if !branch.starts_with('-') => Ok(branch.to_string()),
        _ => Err(SourceError::Invalid(format!(
            "could not find default branch for repository: {}",
            redacted(remote)
        ))),
    }
}

/// A failure of git, with what was being done.
pub(super) fn within(doing: String, err: SourceError) -> SourceError {
    match err {
        SourceError::Git { stderr, ended, .. } => SourceError::Git { doing, stderr, ended },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_come_before_tags() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let both = format!("{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}");
        let branch = pick("v1", &both).unwrap();
        assert_eq!((branch.reference.as_str(), branch.checksum), ("refs/heads/v1", a));
        assert_eq!(branch.commit, None);
        let tag = pick("v1", &format!("{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}")).unwrap();
        assert_eq!((tag.reference.as_str(), tag.checksum.as_str()), ("refs/tags/v1", b.as_str()));
        assert_eq!(tag.commit, Some(c));
        assert_eq!(
            pick("refs/pull/1/head", &format!("{b}\trefs/pull/1/head")).unwrap().reference,
            "refs/pull/1/head"
        );
        assert_eq!(pick("v1", &format!("{b}\trefs/heads/x/v1")), None);
    }
}
