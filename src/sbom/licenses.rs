//! What packages say of their licences, as SPDX takes it.

use ring::digest::{SHA256, digest};

/// Identifiers of SPDX's list (<https://spdx.org/licenses/>) that packages really use. What is not here is told in the
/// words of the package.
const KNOWN: &[&str] = &[
    "0BSD",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "GFDL-1.3-or-later",
    "GPL-1.0-only",
    "GPL-1.0-or-later",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MIT",
    "MIT-0",
    "MPL-1.1",
    "MPL-2.0",
    "MS-PL",
    "NCSA",
    "OFL-1.1",
    "OpenSSL",
    "PSF-2.0",
    "Python-2.0",
    "Ruby",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "ZPL-2.1",
    "Zlib",
    "bzip2-1.0.6",
    "curl",
];

/// Exceptions, which follow `WITH`.
const EXCEPTIONS: &[&str] = &[
    "Autoconf-exception-3.0",
    "Bison-exception-2.2",
    "Classpath-exception-2.0",
    "GCC-exception-3.1",
    "LLVM-exception",
    "OpenSSL-exception",
    "openvpn-openssl-exception",
];

/// Characters of a licence's text that are told.
const MAX_TEXT: usize = 512;

/// A package's licence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum License {
    /// Nothing is said.
    Unsaid,
    /// An expression of SPDX.
    Expression(String),
    /// Something else: a name for it, and the words of the package.
    Other(String, String),
}

pub(crate) fn license(text: &str) -> License {
    if text.is_empty() {
        return License::Unsaid;
    }
    if let Some(expression) = expression(text) {
        return License::Expression(expression);
    }
    let text: String = text.chars().take(MAX_TEXT).collect();
    let digest = hex::encode(digest(&SHA256, text.as_bytes()));
    License::Other(format!("LicenseRef-{}", digest.get(..16).unwrap_or_default()), text)
}

/// The same, if it is an expression of known licences: `ID [WITH EXCEPTION]`, joined by AND and OR, in brackets.
fn expression(text: &str) -> Option<String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_ascii_whitespace().collect();
    let known =
        |list: &[&'static str], word: &str| list.iter().copied().find(|id| id.eq_ignore_ascii_case(word));
    let mut out: Vec<&str> = Vec::with_capacity(words.len());
    let mut open = 0usize;
    let mut expects_one = true;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        match (word, expects_one) {
            ("(", true) => {
                open += 1;
                out.push("(");
            }
            (")", false) => {
                open = open.checked_sub(1)?;
                out.push(")");
            }
            ("AND" | "OR", false) => {
                expects_one = true;
                out.push(word);
            }
            (id, true) => {
                out.push(known(KNOWN, id)?);
                expects_one = false;
                if words.peek() == Some(&"WITH") {
                    out.push(words.next()?);
                    out.push(known(EXCEPTIONS, words.next()?)?);
                }
            }
            _ => return None,
        }
    }
    (!expects_one && open == 0).then(|| out.join(" ").replace("( ", "(").replace(" )", ")"))
}

#[cfg(test)]
mod tests {
    use super::{License, license};

    #[test]
    fn licences_are_told_as_far_as_they_are_known() {
        let expression = |text: &str| License::Expression(text.to_string());
        for (text, told) in [
            ("MIT", expression("MIT")),
            ("mit", expression("MIT")),
            ("MIT AND (BSD-2-Clause OR ISC)", expression("MIT AND (BSD-2-Clause OR ISC)")),
            ("Apache-2.0 WITH LLVM-exception", expression("Apache-2.0 WITH LLVM-exception")),
            ("", License::Unsaid),
        ] {
            assert_eq!(license(text), told, "{text}");
        }
        for text in ["GPLv2+", "MIT AND", "MIT ISC", "(MIT", "MIT)", "MIT WITH nothing", "()", "AND"] {
            assert!(
                matches!(license(text), License::Other(name, told) if name.len() == 27 && told == text),
                "{text}"
            );
        }
    }
}
