//! What was found, in a form in which it can be kept: the same files need not be looked through again.

use crate::{Found, Package, Sums};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Of which scan something was kept. Counts the changes of what a scan finds in the same files, and of how it is kept.
const EDITION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    edition: u32,
    version: String,
    #[serde(borrow)]
    packages: Vec<KeptPackage<'a>>,
    files: BTreeMap<String, (String, String)>,
    needed: BTreeSet<(usize, usize)>,
}

#[derive(Serialize, Deserialize)]
struct KeptPackage<'a> {
    kind: &'a str,
    name: String,
    version: String,
    url: String,
    license: String,
    supplier: String,
    homepage: String,
    evidence: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// The kinds of packages that scans find.
const KINDS: [&str; 6] = ["apk", "cargo", "deb", "npm", "pypi", "rpm"];

impl Found {
    /// In a form in which it can be kept. None if something was left out: that may not be so the next time.
    pub fn to_kept(&self) -> Option<Vec<u8>> {
        let package = |package: &Package| KeptPackage {
            kind: package.kind,
            name: package.name.clone(),
            version: package.version.clone(),
            url: package.url.clone(),
            license: package.license.clone(),
            supplier: package.supplier.clone(),
            homepage: package.homepage.clone(),
            evidence: package.evidence.clone(),
            files: package.files.clone(),
        };
        if !self.left_out.is_empty() {
            return None;
        }
        let sums = |(name, sums): (&String, &Sums)| (name.clone(), (sums.sha1.clone(), sums.sha256.clone()));
        let kept = Kept {
            edition: EDITION,
            version: env!("CARGO_PKG_VERSION").to_string(),
            packages: self.packages.iter().map(package).collect(),
            files: self.files.iter().map(sums).collect(),
            needed: self.needed.clone(),
        };
        serde_json::to_vec(&kept).ok()
    }

    /// What was kept. None if it is of another scan than this one, or makes no sense. By which names packages need each
    /// other is not kept: it is known which do.
    pub fn from_kept(bytes: &[u8]) -> Option<Self> {
        let kept: Kept<'_> = serde_json::from_slice(bytes).ok()?;
        if kept.edition != EDITION || kept.version != env!("CARGO_PKG_VERSION") {
            return None;
        }
        let package = |package: KeptPackage<'_>| {
            Some(Package {
                kind: KINDS.into_iter().find(|known| *known == package.kind)?,
                name: package.name,
                version: package.version,
                url: package.url,
                license: package.license,
                supplier: package.supplier,
                homepage: package.homepage,
                evidence: package.evidence,
                files: package.files,
                ..Package::default()
            })
        };
        let packages: Option<Vec<_>> = kept.packages.into_iter().map(package).collect();
        let sums = |(name, (sha1, sha256))| (name, Sums { sha1, sha256 });
        Some(Found {
            packages: packages?,
            files: kept.files.into_iter().map(sums).collect(),
            needed: kept.needed,
            left_out: Vec::new(),
        })
    }
}
