//! Which manifest of an index is for a platform.

use crosskit_platforms::{Matcher, Platform};

use crate::descriptor::Descriptor;
use crate::errors::{Error, Result};
use crate::manifest::Index;

/// The manifests of an index that fit, best first; those that name no platform come last, as their configs may fit.
pub fn platform_candidates<'a>(index: &'a Index, matcher: &Matcher) -> Vec<&'a Descriptor> {
    let (mut named, mut nameless) = (Vec::new(), Vec::new());
    for manifest in &index.manifests {
        match &manifest.platform {
            Some(platform) if is_known(platform) => {
                if matcher.matches(platform) {
                    named.push((platform, manifest));
                }
            }
            // Attestations name their platform unknown/unknown.
            Some(_) => {}
            None => nameless.push(manifest),
        }
    }
    named.sort_by(|(a, _), (b, _)| matcher.compare(a, b));
    named.into_iter().map(|(_, manifest)| manifest).chain(nameless).collect()
}

/// The manifest of an index that fits best.
pub fn resolve_platform<'a>(
    index: &'a Index,
    matcher: &Matcher,
    wanted: &Platform,
) -> Result<&'a Descriptor> {
    platform_candidates(index, matcher).first().copied().ok_or_else(|| Error::NoPlatformMatch {
        wanted: wanted.format_all(),
        available: available_platforms(index).iter().map(Platform::format_all).collect(),
    })
}

/// The platforms an index has manifests for, in its order.
pub fn available_platforms(index: &Index) -> Vec<Platform> {
    index.manifests.iter().filter_map(|m| m.platform.clone()).filter(is_known).collect()
}

fn is_known(platform: &Platform) -> bool {
    platform.os != "unknown" && platform.architecture != "unknown"
}
