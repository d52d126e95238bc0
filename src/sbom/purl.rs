//! Package URLs (<https://github.com/package-url/purl-spec>).

use std::fmt::Write as _;

/// Percent-encodes all but what stands for itself.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The URL of a package; qualifiers without a value are left out, the others come in the order of their names.
pub(crate) fn package_url(
    kind: &str,
    namespace: &str,
    name: &str,
    version: &str,
    qualifiers: &[(&str, &str)],
) -> String {
    let mut url = format!("pkg:{kind}/");
    for part in namespace.split('/').filter(|part| !part.is_empty()) {
        let _ = write!(url, "{}/", encoded(part));
    }
    url.push_str(&encoded(name));
    if !version.is_empty() {
        let _ = write!(url, "@{}", encoded(version));
    }
    let mut told: Vec<_> = qualifiers.iter().filter(|(_, value)| !value.is_empty()).collect();
    told.sort();
    for (at, (key, value)) in told.into_iter().enumerate() {
        let _ = write!(url, "{}{key}={}", if at == 0 { '?' } else { '&' }, encoded(value));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::package_url;

    #[test]
    fn urls_are_those_that_others_write() {
        let deb = [("upstream", "gmp"), ("distro", "debian-12"), ("arch", "amd64"), ("epoch", "")];
        assert_eq!(
            package_url("deb", "debian", "libgmp10", "2:6.2.1+dfsg1-1.1", &deb),
            "pkg:deb/debian/libgmp10@2:6.2.1%2Bdfsg1-1.1?arch=amd64&distro=debian-12&upstream=gmp"
        );
        assert_eq!(package_url("npm", "@scope", "a b", "", &[]), "pkg:npm/%40scope/a%20b");
        assert_eq!(package_url("deb", "", "x", "1", &[]), "pkg:deb/x@1");
    }
}
