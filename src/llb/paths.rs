//! Slash-separated paths as names in a graph. Nothing here touches a filesystem, and nothing
//! here confines: whoever opens such a path resolves it within its root.

/// The shortest equal name: without empty, `.` and resolvable `..` parts. Empty becomes `.`.
pub fn clean(path: &str) -> String {
    if is_clean(path) {
        return path.to_owned();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Whether cleaning changes nothing, as far as one look tells.
fn is_clean(path: &str) -> bool {
    let relative = path.strip_prefix('/').unwrap_or(path);
    path == "/" || (!relative.is_empty() && relative.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// The cleaned absolute form of `path` seen from the root.
pub(crate) fn rooted(path: String) -> String {
    match path.starts_with('/') && is_clean(&path) {
        true => path,
        false => absolute("/", &path),
    }
}

/// As [`rooted`], keeping a trailing `/` or `/.`.
pub(crate) fn rooted_keep_slash(path: String) -> String {
    let bare = path.strip_suffix('/').unwrap_or(&path);
    match path.starts_with('/') && bare != "/" && is_clean(bare) {
        true => path,
        false => absolute_keep_slash("/", &path),
    }
}

/// Parts joined by slashes and cleaned; empty ones do not count, nothing stays nothing.
pub fn join(parts: &[&str]) -> String {
    let mut joined = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !joined.is_empty() && !joined.ends_with('/') {
            joined.push('/');
        }
        joined.push_str(part);
    }
    match joined.is_empty() || is_clean(&joined) {
        true => joined,
        false => clean(&joined),
    }
}

/// The cleaned absolute form of `path` seen from the folder `parent`.
pub fn absolute(parent: &str, path: &str) -> String {
    let cleaned = clean(path);
    match cleaned.starts_with('/') {
        true => cleaned,
        false => join(&["/", parent, &cleaned]),
    }
}

/// As [`absolute`], keeping a trailing `/` or `/.`, which tell a copy that a folder is meant.
pub fn absolute_keep_slash(parent: &str, path: &str) -> String {
    let mut result = absolute(parent, path);
    if path.ends_with('/') && !result.ends_with('/') {
        result.push('/');
    } else if path.ends_with("/.") {
        if result != "/" {
            result.push('/');
        }
        result.push('.');
    }
    result
}

/// The last part: `.` for nothing, `/` for the root.
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (path, want) in [
            ("", "."),
            ("/", "/"),
            ("//a///b/", "/a/b"),
            ("a/../..", ".."),
            ("/../a/./b/..", "/a"),
            ("../../x", "../../x"),
            ("a/b/../..", "."),
        ] {
            assert_eq!(clean(path), want, "{path:?}");
        }
        assert_eq!(join(&["", ""]), "");
        assert_eq!(join(&["/src", "", "../x"]), "/x");
        assert_eq!(absolute_keep_slash("/w", "./"), "/w/");
        assert_eq!(absolute_keep_slash("/", "/."), "/.");
        for (path, want) in
            [("/", "/"), ("//", "/"), ("/a/", "/a/"), ("/a//", "/a/"), ("/.", "/."), ("b/.", "/b/.")]
        {
            assert_eq!(rooted_keep_slash(path.to_owned()), want, "{path:?}");
        }
        assert_eq!(absolute_keep_slash("/w", "a/."), "/w/a/.");
        assert_eq!(base("/a/b/"), "b");
        assert_eq!(base("/"), "/");
    }
}
