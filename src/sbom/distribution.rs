//! Which distribution a root is of: `os-release`.

use crate::root::Root;

/// Bytes that the file may have.
const MAX_FILE: u64 = 64 << 10;

/// Which distribution a root is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// Such as `debian`; empty if nobody says so.
    pub id: String,
    /// Such as `12`; empty if nobody says so.
    version: String,
}

impl Distribution {
    pub(crate) fn of(root: &Root<'_>) -> Self {
        let read = |path: &str| root.read(path.as_bytes(), MAX_FILE).ok().flatten();
        let file = read("etc/os-release").or_else(|| read("usr/lib/os-release")).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&file))
    }

    fn parse(file: &str) -> Self {
        let mut found = Distribution::default();
        for (key, value) in file.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim().trim_matches(['"', '\'']);
            match key.trim() {
                "ID" => found.id = value.to_lowercase(),
                "VERSION_ID" => found.version = value.to_string(),
                _ => {}
            }
        }
        found
    }

    /// As package URLs have it: `debian-12`.
    pub(crate) fn qualifier(&self) -> String {
        match (self.id.as_str(), self.version.as_str()) {
            (id, "") => id.to_string(),
            ("", _) => String::new(),
            (id, version) => format!("{id}-{version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Distribution;

    #[test]
    fn a_distribution_says_who_it_is() {
        let qualifier = |file: &str| Distribution::parse(file).qualifier();
        assert_eq!(qualifier("NAME=x\nID=debian\nVERSION_ID=\"12\"\n"), "debian-12");
        assert_eq!(qualifier("ID='alpine'\n"), "alpine");
        assert_eq!(qualifier("VERSION_ID=1\n="), "");
    }
}
