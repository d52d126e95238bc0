//! Images as package URLs (<https://github.com/package-url/purl-spec>).

use crate::AttestError;
use crosskit_images::registry::Reference;
use crosskit_platforms::Platform;
use std::fmt::Write as _;

/// Characters that stand for themselves in a part of a path.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Percent-encodes all but what stands for itself and `also`.
fn encoded(text: &str, also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stands_for_itself(byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The package URL of an image. `kind` is `docker` or `oci`, `more` are qualifiers besides digest and platform.
///
/// # Errors
/// A name that is none.
pub fn image_url(
    kind: &str,
    name: &str,
    platform: Option<&Platform>,
    more: &[(&str, &str)],
) -> Result<String, AttestError> {
    let parsed = Reference::parse(name)
        .map_err(|e| AttestError::Reference { name: name.to_string(), reason: e.to_string() })?;
    let digest = parsed.digest().map(ToString::to_string);
    let named = if digest.is_some() { parsed } else { parsed.with_default_tag() };
    let tag = named.tag().map(str::to_string);
    let familiar = named.without_tag_and_digest().familiar();
    let mut url = format!("pkg:{kind}/");
    let parts: Vec<String> = familiar.split('/').map(|part| encoded(part, b"")).collect();
    url.push_str(&parts.join("/"));
    if let Some(tag) = tag {
        let _ = write!(url, "@{}", encoded(&tag, b":"));
    }
    let platform = platform.map(|platform| platform.normalize().format());
    let own = [
        digest.as_deref().map(|digest| ("digest", digest)),
        platform.as_deref().map(|name| ("platform", name)),
    ];
    for (at, (key, value)) in own.into_iter().flatten().chain(more.iter().copied()).enumerate() {
        let before = if at == 0 { '?' } else { '&' };
        let _ = write!(url, "{before}{key}={}", encoded(value, b":@&=+$"));
    }
    Ok(url)
}
