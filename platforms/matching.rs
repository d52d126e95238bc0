//! Which of the platforms on offer fits what is wanted, and which fits best.

use std::cmp::Ordering;

use crate::{Architecture, Platform, windows};

/// An ordered list of acceptable platforms.
///
/// Matches every platform that equals one of the list in its normal form; earlier ones are better. A candidate may ask
/// for fewer OS features than the list's platform has, never for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    accepted: Vec<Platform>,
}

impl Matcher {
    /// What a machine of this platform runs, best first: `arm/v7` takes v7, v6, v5; `arm64` takes `arm64`, then `arm`
    /// from v8 down; `amd64/v3` takes v3, v2, plain `amd64`, then `386`.
    pub fn only(platform: &Platform) -> Self {
        Self { accepted: runnable(&platform.normalize()) }
    }

    /// This platform and no other.
    pub fn strict(platform: &Platform) -> Self {
        Self::ordered([platform])
    }

    /// Any of these, the first best.
    pub fn ordered<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> Self {
        Self { accepted: platforms.into_iter().map(Platform::normalize).collect() }
    }

    /// Whether the platform is accepted at all.
    pub fn matches(&self, candidate: &Platform) -> bool {
        self.rank(&candidate.normalize()).is_some()
    }

    /// Whether `a` is preferred to `b`: it stands earlier in the list, or at the same place uses more features of the
    /// system. False if they are equally good.
    pub fn better(&self, a: &Platform, b: &Platform) -> bool {
        self.compare(a, b) == Ordering::Less
    }

    /// Order for sorting, best first; what does not match comes last.
    pub fn compare(&self, a: &Platform, b: &Platform) -> Ordering {
        let key = |platform: &Platform| {
            let normal = platform.normalize();
            // What does not match for its features only is still nearer than another architecture.
            let bare = Platform { os_features: Vec::new(), ..normal.clone() };
            let at = |rank: Option<usize>| rank.unwrap_or(usize::MAX);
            (at(self.rank(&normal)), at(self.rank(&bare)), std::cmp::Reverse(normal.os_features.len()))
        };
        key(a).cmp(&key(b))
    }

    /// The best of the candidates, and its place among them; the first of equals. None if none matches.
    pub fn best<'a>(
        &self,
        candidates: impl IntoIterator<Item = &'a Platform>,
    ) -> Option<(usize, &'a Platform)> {
        candidates
            .into_iter()
            .enumerate()
            .filter(|(_, candidate)| self.matches(candidate))
            .min_by(|(_, a), (_, b)| self.compare(a, b))
    }

    /// Place of the first accepted platform that a normalised candidate fits.
    fn rank(&self, candidate: &Platform) -> Option<usize> {
        self.accepted.iter().position(|wanted| {
            wanted.os == candidate.os
                && wanted.architecture == candidate.architecture
                && wanted.variant == candidate.variant
                && (wanted.os != "windows" || windows::runs(&wanted.os_version, &candidate.os_version))
                && candidate.os_features.iter().all(|feature| has_feature(wanted, feature))
        })
    }
}

/// Every Windows has `win32k`, listed or not.
fn has_feature(platform: &Platform, feature: &String) -> bool {
    (platform.os == "windows" && feature == "win32k") || platform.os_features.contains(feature)
}

/// Platforms whose programs a machine of this (normal) platform runs, best first.
fn runnable(platform: &Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: String| {
        Platform { architecture: architecture.to_owned(), variant, ..platform.clone() }.normalize()
    };
    let mut all = match platform.architecture.as_str() {
        "arm64" => {
            arm64_variants(&platform.variant).into_iter().map(|variant| with("arm64", variant)).collect()
        }
        "amd64" => {
            let levels = (1..level(&platform.variant).unwrap_or(1)).rev();
            let mut all = vec![platform.clone()];
            all.extend(levels.map(|level| with("amd64", format!("v{level}"))));
            all
        }
        "arm" => {
            let levels = (5..level(&platform.variant).unwrap_or(5)).rev();
            let mut all = vec![platform.clone()];
            all.extend(levels.map(|level| with("arm", format!("v{level}"))));
            all
        }
        _ => vec![platform.clone()],
    };
    let sibling = Architecture::by_name(&platform.architecture).and_then(|known| known.sibling.as_deref());
    match sibling {
        Some("arm") => all.extend(runnable(&with("arm", "v8".to_owned()))),
        Some(other) => all.push(with(other, String::new())),
        None => {}
    }
    all
}

/// 7 of `v7`.
fn level(variant: &str) -> Option<u8> {
    variant.strip_prefix('v').unwrap_or(variant).parse().ok()
}

/// arm64 variants that a processor of this variant runs, best first. v9.N has all of v8.(N+5) (Arm ARM, A2.7).
fn arm64_variants(variant: &str) -> Vec<String> {
    let variant = if variant.is_empty() { "v8" } else { variant };
    let parsed = variant.strip_prefix('v').map(|digits| digits.split_once('.').unwrap_or((digits, "0")));
    let name =
        |major: u8, minor: u8| if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") };
    let down = |major: u8, from: u8| (0..=from).rev().map(move |minor| name(major, minor));
    match parsed.and_then(|(major, minor)| Some((major, minor.parse::<u8>().ok()?))) {
        Some(("8", minor)) if minor <= 9 => down(8, minor).collect(),
        Some(("9", minor)) if minor <= 7 => down(9, minor).chain(down(8, (minor + 5).min(9))).collect(),
        // A variant nobody has heard of runs at least its own programs.
        _ => vec![variant.to_owned()],
    }
}
