//! Where a user keeps what the machine keeps in `/var/lib`, `/run` and `/etc` (XDG Base Directory Specification).

use std::{
    ffi::OsString,
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The folders of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// For state; None if neither `XDG_DATA_HOME` nor `HOME` is set.
    pub state: Option<PathBuf>,
    /// For sockets; None without `XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// For what is configured; None if neither `XDG_CONFIG_HOME` nor `HOME` is set.
    pub config: Option<PathBuf>,
}

impl Folders {
    /// Those that a daemon in a user namespace uses; None where it uses the machine's: outside, and for one that calls
    /// itself root there, as in a container whose ids are mapped.
    pub fn usual() -> Option<Self> {
        let user = named("USER").is_some_and(|user| user != "root");
        (crate::is_inside() && user).then(Self::of_user)
    }

    /// Those of whoever has started this process.
    pub fn of_user() -> Self {
        Self::of(named)
    }

    /// Those that an environment names.
    fn of(named: impl Fn(&str) -> Option<OsString>) -> Self {
        // Of a list, the first.
        let first = |name: &str| named(name).and_then(|list| std::env::split_paths(&list).next());
        let ours = |name: &str, below_home: &str| {
            let home = || named("HOME").map(|home| Path::new(&home).join(below_home));
            first(name).or_else(home).map(|folder| folder.join("buildkit"))
        };
        Self {
            state: ours("XDG_DATA_HOME", ".local/share"),
            runtime: first("XDG_RUNTIME_DIR").map(|folder| folder.join("buildkit")),
            config: ours("XDG_CONFIG_HOME", ".config"),
        }
    }

    /// The address of a daemon that was told none.
    pub fn address(&self) -> Option<String> {
        Some(format!("unix://{}/buildkitd.sock", self.runtime.as_ref()?.display()))
    }

    /// Makes the folder for sockets, so that those who clean up after sessions leave it alone (sticky).
    ///
    /// # Errors
    /// Those of making it.
    pub fn make_runtime(&self) -> io::Result<()> {
        let Some(folder) = &self.runtime else { return Ok(()) };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o1700))
    }
}

fn named(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_those_of_the_user() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, OsString)> =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            Folders::of(move |name| {
                pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            })
        };
        let home = of(&[("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/7")]);
        assert_eq!(home.state.as_deref(), Some(Path::new("/home/a/.local/share/buildkit")));
        assert_eq!(home.config.as_deref(), Some(Path::new("/home/a/.config/buildkit")));
        assert_eq!(home.address().as_deref(), Some("unix:///run/user/7/buildkit/buildkitd.sock"));
        let told = of(&[("HOME", "/home/a"), ("XDG_DATA_HOME", "/d:/e"), ("XDG_CONFIG_HOME", "/c")]);
        assert_eq!(told.state.as_deref(), Some(Path::new("/d/buildkit")));
        assert_eq!(told.config.as_deref(), Some(Path::new("/c/buildkit")));
        assert_eq!(told.address(), None);
    }
}
