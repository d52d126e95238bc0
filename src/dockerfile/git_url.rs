//! Git repositories as contexts and ADD sources name them.

use crosskit_llb::GitSource;
use crosskit_llb::paths;

use crate::error::{DockerfileError, Result};
use crate::text::quote::go_quote;
use crate::text::units;

/// A repository with what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitRef {
    /// Where it is fetched from, as git takes it.
    pub remote: String,
    /// Whether it could as well be a local path: `github.com/…`.
    pub like_local_path: bool,
    host_path: String,
    ssh: bool,
    reference: String,
    subdir: String,
    checksum: String,
    pub keep_git_dir: Option<bool>,
    submodules: Option<bool>,
    mtime: String,
    fetch_by_commit: bool,
}

/// What an address is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A repository.
    Git(GitRef),
    /// Something else.
    Other,
}

/// The parts of an address.
struct Address<'a> {
    scheme: String,
    user: Option<&'a str>,
    host: &'a str,
    path: String,
    query: Vec<(String, String)>,
    fragment: String,
}

fn unescape(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                out.push((digit()? * 16 + digit()?) as u8);
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

fn query(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        Some((unescape(key, true)?, unescape(value, true)?))
    };
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// Takes an address off its fragment and query.
fn split_tail(text: &str) -> (&str, &str, &str) {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    (rest, query, fragment)
}

fn parse_url(text: &str) -> Option<Address<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return None;
    }
    let (rest, raw_query, fragment) = split_tail(rest);
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or("", |(_, port)| port);
    if host.contains(' ') || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Address {
        scheme: scheme.to_ascii_lowercase(),
        user,
        host,
        path: unescape(path, false)?,
        query: query(raw_query).unwrap_or_default(),
        fragment: unescape(fragment, false)?,
    })
}

/// `user@host:path`.
fn parse_scp(text: &str) -> Option<Address<'_>> {
    let (rest, raw_query, fragment) = split_tail(text);
    let (user, rest) = rest.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    if !word(user, b"-_") || !word(host, b"-.") {
        return None;
    }
    Some(Address {
        scheme: "ssh".to_owned(),
        user: Some(user),
        host,
        path: path.to_owned(),
        query: query(raw_query)?,
        fragment: fragment.to_owned(),
    })
}

/// The repository that an address names, without branch and folder; none if it names none.
pub fn remote(text: &str) -> Option<String> {
    match parse(text) {
        Ok(Parsed::Git(found)) => Some(found.remote),
        _ => None,
    }
}

/// Whether an address names a git repository, and which. An error means that it does, in a wrong way.
pub fn parse(text: &str) -> Result<Parsed> {
    if text.starts_with("./") || text.starts_with("../") {
        return Ok(Parsed::Other);
    }
    let like_local_path = text.starts_with("github.com/");
    let full = if like_local_path { format!("https://{text}") } else { text.to_owned() };
    let has_scheme = full
        .split_once("://")
        .is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()));
    let address = if has_scheme { parse_url(&full) } else { parse_scp(&full) };
    let Some(address) = address else {
        return Ok(Parsed::Other);
    };
    match address.scheme.as_str() {
        "http" | "https" if !like_local_path && !address.path.ends_with(".git") => return Ok(Parsed::Other),
        "http" | "https" | "ssh" | "git" => {}
        _ => return Ok(Parsed::Other),
    }
    let at = address.user.map(|user| format!("{user}@")).unwrap_or_default();
    let remote = match (has_scheme, like_local_path) {
        (_, true) => format!("{at}{}{}", address.host, address.path),
        (true, _) => {
            let (rest, _, _) = split_tail(&full);
            let tail = rest.split_once("://").map_or("", |(_, tail)| tail);
            let (host, path) = tail.split_at(tail.find('/').unwrap_or(tail.len()));
            format!("{}://{host}{}", address.scheme, escaped(path))
        }
        (false, _) => format!("{at}{}:{}", address.host, address.path),
    };
    let (reference, subdir) = match address.fragment.split_once(':') {
        Some((reference, subdir)) => (reference, subdir),
        None => (address.fragment.as_str(), ""),
    };
    let mut git = GitRef {
        remote,
        like_local_path,
        host_path: format!("{}{}", address.host, paths::join(&["/", &address.path])),
        ssh: address.scheme == "ssh",
        reference: reference.to_owned(),
        subdir: paths::join(&["/", subdir]).trim_start_matches('/').to_owned(),
        ..GitRef::default()
    };
    git.read_query(&address.query)?;
    Ok(Parsed::Git(git))
}

fn fail<T>(message: String) -> Result<T> {
    Err(DockerfileError::user(message))
}

impl GitRef {
    fn read_query(&mut self, query: &[(String, String)]) -> Result<()> {
        let (mut tag, mut branch) = (String::new(), String::new());
        let conflict = |what: &str, a: &str, b: &str| {
            fail(format!("{what} conflicts: {} vs {}", go_quote(a), go_quote(b)))
        };
        for (position, (key, value)) in query.iter().enumerate() {
            if query[..position].iter().any(|(other, _)| other == key) {
                return fail(format!("query {} has multiple values", go_quote(key)));
            }
            let is_switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_switch {
                return fail(format!("query {} has no value", go_quote(key)));
            }
            let switch = || match value.as_str() {
                "" => Ok(true),
                value => units::go_bool(value).ok_or_else(|| {
                    DockerfileError::user(format!("invalid {key} value: {}", go_quote(value)))
                }),
            };
            match key.as_str() {
                "ref" if self.reference.is_empty() || self.reference == *value => {
                    value.clone_into(&mut self.reference);
                }
                "ref" => return conflict("ref", &self.reference, value),
                "tag" => value.clone_into(&mut tag),
                "branch" => value.clone_into(&mut branch),
                "subdir" if self.subdir.is_empty() || self.subdir == *value => {
                    value.clone_into(&mut self.subdir);
                }
                "subdir" => return conflict("subdir", &self.subdir, value),
                "checksum" | "commit" => value.clone_into(&mut self.checksum),
                "keep-git-dir" => self.keep_git_dir = Some(switch()?),
                "submodules" => self.submodules = Some(switch()?),
                "fetch-by-commit" => self.fetch_by_commit = switch()?,
                "mtime" if value == "checkout" || value == "commit" => value.clone_into(&mut self.mtime),
                "mtime" => {
                    let value = go_quote(value);
                    return fail(format!(
                        "invalid mtime value: {value} (must be \"checkout\" or \"commit\")"
                    ));
                }
                key => return fail(format!("unexpected query {}", go_quote(key))),
            }
        }
        if !tag.is_empty() && !branch.is_empty() {
            return fail("branch conflicts with tag".to_owned());
        }
        for (name, prefix) in [(tag, "refs/tags/"), (branch, "refs/heads/")] {
            if name.is_empty() {
                continue;
            }
            let full = if name.starts_with(prefix) { name } else { format!("{prefix}{name}") };
            if !self.reference.is_empty() && self.reference != full {
                return conflict("ref", &self.reference, &full);
            }
            self.reference = full;
        }
        Ok(())
    }

    /// The source for ADD, with what its flags say.
    pub fn added(&self, keep_git_dir: Option<bool>, checksum: &str) -> Result<GitSource> {
        if let (Some(flag), Some(own)) = (keep_git_dir, self.keep_git_dir)
            && flag != own
        {
            return fail("inconsistent keep-git-dir configuration".to_owned());
        }
        if !checksum.is_empty() && !self.checksum.is_empty() && checksum != self.checksum {
            return fail(format!("checksum mismatch {} != {}", go_quote(checksum), go_quote(&self.checksum)));
        }
        let mut source = self.source();
        source.keep_git_dir = self.keep_git_dir.or(keep_git_dir) == Some(true);
        if self.checksum.is_empty() {
            checksum.clone_into(&mut source.checksum);
        }
        // The times of files are a matter of contexts only.
        source.mtime = String::new();
        Ok(source)
    }

    /// The source for a context.
    pub fn context(&self, keep_git_dir: bool, commit_times: bool) -> GitSource {
        let mut source = self.source();
        source.keep_git_dir |= keep_git_dir;
        if commit_times && source.mtime.is_empty() {
            source.mtime = "commit".to_owned();
        }
        source
    }

    fn source(&self) -> GitSource {
        let full_url = match self.like_local_path {
            true => format!("https://{}", self.remote),
            false => self.remote.clone(),
        };
        GitSource {
            host_path: self.host_path.clone(),
            reference: self.reference.clone(),
            subdir: self.subdir.clone(),
            full_url,
            keep_git_dir: self.keep_git_dir == Some(true),
            checksum: self.checksum.clone(),
            skip_submodules: self.submodules == Some(false),
            mtime: self.mtime.clone(),
            fetch_by_commit: self.fetch_by_commit,
            ssh: self.ssh,
            ..GitSource::default()
        }
    }
}

/// Whether a source is fetched over HTTP and is no repository.
pub fn is_http(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://")) && !is_git(text)
}

/// Whether a source is a repository.
pub fn is_git(text: &str) -> bool {
    matches!(parse(text), Ok(Parsed::Git(_)))
}

/// A path as addresses have it: what may not stand in one is escaped, and then everything that need not.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
    if path.bytes().all(|b| plain(b) || b"!'()*[]%".contains(&b)) {
        return path.to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for byte in crate::plan::percent_decoded(path) {
        match plain(byte) {
            true => out.push(byte as char),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> GitRef {
        match parse(text).unwrap() {
            Parsed::Git(git) => git,
            Parsed::Other => panic!("{text} is no repository"),
        }
    }

    #[test]
    fn repositories_are_recognised() {
        let found = git("https://github.com/moby/buildkit.git#v1:sub/dir");
        assert_eq!(found.remote, "https://github.com/moby/buildkit.git");
        assert_eq!((found.reference.as_str(), found.subdir.as_str()), ("v1", "sub/dir"));
        assert_eq!(found.host_path, "github.com/moby/buildkit.git");
        let found = git("git@github.com:moby/buildkit.git#main");
        assert_eq!(found.remote, "git@github.com:moby/buildkit.git");
        assert!(found.ssh);
        assert_eq!(git("https://x/y.git?tag=v1&keep-git-dir").reference, "refs/tags/v1");
        assert!(git("github.com/a/b").like_local_path);
        for other in ["./x.git", "https://x/y.tar", "a/b", "ftp://x/y.git", "x@y"] {
            assert_eq!(parse(other).unwrap(), Parsed::Other, "{other}");
        }
        let error = parse("https://x/y.git?what=1").unwrap_err().to_string();
        assert_eq!(error, "unexpected query \"what\"");
    }
}
