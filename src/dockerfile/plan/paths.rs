//! Paths as the system of a stage writes them.

use std::borrow::Cow;

use crosskit_llb::paths::join;

use crate::error::{DockerfileError, Result};

pub(crate) fn is_windows(os: &str) -> bool {
    os == "windows"
}

/// With slashes.
pub(crate) fn to_slash<'a>(path: &'a str, os: &str) -> Cow<'a, str> {
    if is_windows(os) { path.replace('\\', "/").into() } else { path.into() }
}

/// Takes the drive off a Windows path; nothing else is like it.
pub(crate) fn without_drive<'a>(path: &'a str, os: &str, keep_slash: bool) -> Result<Cow<'a, str>> {
    if !is_windows(os) {
        return Ok(path.into());
    }
    let path = path.replace('\\', "/");
    if path.len() == 2 && path.ends_with(':') {
        return Err(DockerfileError::user(format!("No relative path specified in {path:?}")));
    }
    if path.starts_with("//") {
        return Err(DockerfileError::user("UNC paths are not supported"));
    }
    let rest = match path.split_once(':') {
        None => path.as_str(),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => {
            return Err(DockerfileError::user("The specified path is not on the system drive (C:)"));
        }
    };
    if rest.is_empty() {
        return Ok(Cow::default());
    }
    let mut cleaned = crosskit_llb::paths::clean(rest);
    // BuildKit keeps none behind a name of one letter.
    if keep_slash && rest.ends_with('/') && cleaned.len() > 1 {
        cleaned.push('/');
    }
    Ok(cleaned.into())
}

pub(crate) fn is_absolute(path: &str, os: &str) -> bool {
    without_drive(path, os, false).is_ok_and(|path| path.starts_with('/'))
}

/// `path` seen from `parent`, absolute, with slashes. An absolute path stays as it is written.
pub(crate) fn normalize(parent: &str, path: &str, os: &str, keep_slash: bool) -> Result<String> {
    let doing = |error: DockerfileError| error.while_doing("removing drive letter");
    let original = to_slash(path, os);
    let parent = if parent.is_empty() { Cow::Borrowed("/") } else { to_slash(parent, os) };
    let mut parent = without_drive(&parent, os, keep_slash).map_err(doing)?;
    if !parent.starts_with('/') {
        parent = join(&["/", &parent]).into();
    }
    let path = if original.is_empty() { &parent } else { &original };
    let path = without_drive(path, os, keep_slash).map_err(doing)?;
    let mut path = if path.starts_with('/') { path.into_owned() } else { join(&[&parent, &path]) };
    if keep_slash {
        if original.ends_with('/') && !path.ends_with('/') {
            path.push('/');
        } else if original.ends_with("/.") {
            if path != "/" {
                path.push('/');
            }
            path.push('.');
        }
    }
    Ok(path)
}

/// The working directory after WORKDIR, as the system writes it.
pub(crate) fn workdir(current: &str, wanted: &str, os: &str) -> Result<String> {
    let path = normalize(current, wanted, os, false).map_err(|error| {
        error.while_doing("normalizing working directory").while_doing("normalizing workdir")
    })?;
    Ok(if is_windows(os) { path.replace('/', "\\") } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_working_directory() {
        assert_eq!(normalize("/src", "a/../b/", "linux", true).unwrap(), "/src/b/");
        assert_eq!(normalize("/src", "./", "linux", true).unwrap(), "/src/");
        assert_eq!(normalize("", "/a//b", "linux", false).unwrap(), "/a//b");
        assert_eq!(without_drive("d\\x\\", "windows", true).unwrap(), "d/x/");
        assert_eq!(without_drive("d\\", "windows", true).unwrap(), "d");
        assert_eq!(workdir("/a", "b", "linux").unwrap(), "/a/b");
        assert_eq!(workdir("c:\\a", "b", "windows").unwrap(), "\\a\\b");
        assert!(workdir("", "d:\\x", "windows").is_err());
    }
}
