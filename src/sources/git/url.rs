//! Names of repositories.

use crate::SourceError;
use crosskit_patterns::clean_path;

/// A name taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// What git is given.
    pub(super) remote: String,
    pub(super) reference: String,
    pub(super) subdir: String,
}

/// Reads `REMOTE#REF:SUBDIR`. Without a protocol, it is https.
pub(super) fn parse(name: &str) -> Result<Parsed, SourceError> {
    let name = with_protocol(name);
    let (remote, fragment) = name.split_once('#').unwrap_or((&name, ""));
    let remote = remote.split_once('?').map_or(remote, |(remote, _)| remote);
    if let Some(protocol) = protocol(remote)
        && !matches!(protocol.as_str(), "http" | "https" | "ssh" | "git")
    {
        return Err(SourceError::Invalid(format!("{protocol}: invalid protocol")));
    }
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let subdir = clean_path(&format!("/{subdir}")).trim_start_matches('/').to_string();
    Ok(Parsed { remote: remote.to_string(), reference: reference.to_string(), subdir })
}

/// As git understands it: without a protocol, it is https.
pub(super) fn with_protocol(name: &str) -> String {
    if is_transport(name) { name.to_string() } else { format!("https://{name}") }
}

/// What names a repository and what is wanted of it, whatever it is fetched by: `HOST/PATH#REF:SUBDIR`. `full_url`
/// says where it is fetched from instead. None where that cannot be read.
pub(crate) fn canonical(name: &str, full_url: Option<&str>) -> Option<String> {
    let parsed = parse(name).ok()?;
    let remote = full_url.filter(|url| !url.is_empty()).map_or(parsed.remote, with_protocol);
    let remote = parse(&remote).ok()?.remote;
    let (authority, path) = match remote.split_once("://") {
        Some((_, rest)) => rest.split_once('/').unwrap_or((rest, "")),
        // `user@host:path`
        None => remote.split_once(':')?,
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = clean_path(&format!("/{}", unescaped(path)?));
    let mut out = format!("{host}{path}");
    if !parsed.reference.is_empty() || !parsed.subdir.is_empty() {
        out.push('#');
        out.push_str(&parsed.reference);
        if !parsed.subdir.is_empty() {
            out.push(':');
            out.push_str(&parsed.subdir);
        }
    }
    Some(out)
}

/// A path of a URL without its `%` forms.
fn unescaped(path: &str) -> Option<String> {
    let mut pieces = path.split('%');
    let mut out = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let byte = piece.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(byte, 16).ok()?);
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(out).ok()
}

/// What is in front of `://`, if it can be a protocol.
fn protocol(remote: &str) -> Option<String> {
    let (protocol, _) = remote.split_once("://")?;
    let plain = !protocol.is_empty() && protocol.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| protocol.to_ascii_lowercase())
}

/// Whether git understands it as it is: a URL, or `user@host:path`.
pub(super) fn is_transport(remote: &str) -> bool {
    match protocol(remote) {
        Some(protocol) => matches!(protocol.as_str(), "http" | "https" | "ssh" | "git"),
        None => {
            let plain = |text: &str, more: &str| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
            };
            let user_host = remote.split_once(':').and_then(|(front, _)| front.split_once('@'));
            user_host.is_some_and(|(user, host)| plain(user, "-_") && plain(host, "-."))
        }
    }
}

/// A remote as it may be shown and kept: with the user and the password masked.
pub(crate) fn redacted(remote: &str) -> String {
    const MASK: &str = "xxxxx";
    let Some((protocol, rest)) = remote.split_once("://") else { return remote.to_string() };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
    let Some((user, host)) = authority.rsplit_once('@') else { return remote.to_string() };
    let user = match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if user.is_empty() => String::new(),
        None => MASK.to_string(),
    };
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    format!("{protocol}://{user}@{host}{path}")
}

/// Whether it is the full name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The host of a remote that is a URL.
pub(super) fn host(remote: &str) -> &str {
    let rest = remote.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        for (name, remote, reference, subdir) in [
            ("github.com/a/b.git", "https://github.com/a/b.git", "", ""),
            ("github.com/a/b.git#main:dir/../sub", "https://github.com/a/b.git", "main", "sub"),
            ("https://u:p@h/a?x=y#v1", "https://u:p@h/a", "v1", ""),
            ("git@github.com:a/b.git#:sub", "git@github.com:a/b.git", "", "sub"),
            ("ssh://git@h:22/a#r:../../etc", "ssh://git@h:22/a", "r", "etc"),
        ] {
            let parsed = parse(name).unwrap();
            let expected =
                Parsed { remote: remote.into(), reference: reference.into(), subdir: subdir.into() };
            assert_eq!(parsed, expected, "{name}");
        }
        assert_eq!(parse("ssh://x/y").unwrap().remote, "ssh://x/y");
        // What git would run as a program is only a path on a web server here.
        assert_eq!(parse("ext::sh -c x").unwrap().remote, "https://ext::sh -c x");
        assert_eq!(parse("file:///etc").unwrap().remote, "https://file:///etc");
    }

    #[test]
    fn secrets_in_names_are_masked() {
        for (remote, shown) in [
            ("https://u:p@h.example/a", "https://xxxxx:xxxxx@h.example/a"),
            ("https://token@h/a", "https://xxxxx@h/a"),
            ("https://h/a@b", "https://h/a@b"),
            ("git@github.com:a/b", "git@github.com:a/b"),
        ] {
            assert_eq!(redacted(remote), shown);
        }
        assert_eq!(host("https://u:p@h:8080/a"), "h:8080");
    }
}
