//! The normal form: one spelling for each platform.

use crate::{Architecture, Platform, host};

impl Platform {
    /// The same platform in the one spelling in which platforms are compared and written into indexes: lower case, no
    /// aliases, `linux/arm64` for `linux/arm64/v8`, `linux/arm/v7` for `linux/arm`, `linux/amd64` for
    /// `linux/amd64/v1`; features sorted, each once. An empty system is this machine's.
    #[must_use]
    pub fn normalize(&self) -> Platform {
        let (architecture, variant) = architecture(&self.architecture, &self.variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Platform { os: os(&self.os), architecture, variant, os_version: self.os_version.clone(), os_features }
    }
}

/// Normal name of an operating system.
pub(crate) fn os(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "" => host::OS.to_owned(),
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// Normal architecture and variant (containerd's `platforms` database, which every OCI client follows).
pub(crate) fn architecture(name: &str, variant: &str) -> (String, String) {
    let (mut name, mut variant) = (name.to_ascii_lowercase(), variant.to_ascii_lowercase());
    if let Some((known, stands_for)) = Architecture::by_alias(&name) {
        name.clone_from(&known.name);
        // i386 has no variants, armhf and armel are variants themselves: what else was said does not count.
        if !stands_for.is_empty() || name == "386" {
            variant = stands_for.to_owned();
        }
    }
    let variant = match (name.as_str(), variant.as_str()) {
        ("amd64", "v1") => "",
        ("arm64", "8" | "v8" | "v8.0") => "",
        ("arm64", "9" | "9.0" | "v9.0") => "v9",
        ("arm", "" | "7") => "v7",
        ("arm", "5") => "v5",
        ("arm", "6") => "v6",
        ("arm", "8") => "v8",
        (_, other) => other,
    };
    let variant = variant.to_owned();
    (name, variant)
}
