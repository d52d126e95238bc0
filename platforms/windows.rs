//! Which Windows images run on which Windows version.

/// Windows Server 2022 and 2025: releases since the first keep a stable ABI, so that a later host runs images made for
/// an earlier one, back to the long-term release before it (Microsoft, "Windows container version compatibility").
const STABLE: [u16; 2] = [20348, 26100];

/// Major, minor and build of `10.0.17763.1234`. None for what is not of that form.
fn version(text: &str) -> Option<(u8, u8, u16)> {
    let mut parts = text.split('.');
    let mut next = || parts.next();
    Some((next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?))
}

/// Whether an image made for `image` runs on a host of version `host`. Versions that are not given or not understood
/// restrict nothing on the host's side.
pub(crate) fn runs(host: &str, image: &str) -> bool {
    let Some((major, minor, build)) = version(host) else { return true };
    if image.is_empty() {
        return true;
    }
    let Some((image_major, image_minor, image_build)) = version(image) else { return false };
    if (major, minor) != (image_major, image_minor) {
        return false;
    }
    if build < STABLE[0] {
        return build == image_build;
    }
    let oldest = STABLE.iter().rev().find(|stable| build > **stable).unwrap_or(&STABLE[0]);
    (*oldest..=build).contains(&image_build)
}
