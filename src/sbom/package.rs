//! Packages, as all of their databases have them in common.

use std::collections::BTreeSet;

/// A package that is installed, or that something was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// The kind of its database, as package URLs have it: `deb`, `npm` …
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its version with all that belongs to it.
    pub version: String,
    /// Its package URL.
    pub url: String,
    /// Its licence as its authors write it; empty if they don't.
    pub license: String,
    /// Who it is from: a name, mostly with an address in `<>`; empty if nobody says so.
    pub supplier: String,
    /// Where it is at home; empty if nobody says so.
    pub homepage: String,
    /// The files that tell of it, from the root.
    pub evidence: BTreeSet<String>,
    /// The files that belong to it, from the root.
    pub files: BTreeSet<String>,
    /// By which names others of the same database need it.
    pub gives: Vec<String>,
    /// What it needs, by such names.
    pub needs: Vec<String>,
}

/// Packages of one database: what they need is looked for among them.
pub(crate) type Database = Vec<Package>;

/// Text of others, in one line and with an end.
pub(crate) fn tame(text: &str) -> String {
    /// Characters of a name or version. Nobody has longer ones on purpose.
    const MOST: usize = 1024;
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST)
        .collect::<String>()
        .trim()
        .to_string()
}

/// A path below the root without what makes it another one for readers; None if it leads out, or is none.
pub(crate) fn inner(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
