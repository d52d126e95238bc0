//! As much XML as the answers of stores take: an element's text by its name.

/// The text of the first element of a name, wherever it is.
pub(crate) fn text(document: &str, name: &str) -> Option<String> {
    let open = format!("<{name}>");
    let (_, rest) = document.split_once(&open)?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(plain(text))
}

/// Whether there is such an element at the root or below.
pub(crate) fn has(document: &str, name: &str) -> bool {
    document.contains(&format!("<{name}>")) || document.contains(&format!("<{name} "))
}

fn plain(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#34;", "\"")];
    let plain = entities.into_iter().fold(text.trim().to_owned(), |text, (from, to)| text.replace(from, to));
    plain.replace("&amp;", "&")
}

/// Text as an element's content.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_name() {
        let document = r#"<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>a &amp;lt; &quot;b&quot;</Message></Error>"#;
        assert_eq!(text(document, "Code").as_deref(), Some("NoSuchKey"));
        assert_eq!(text(document, "Message").as_deref(), Some(r#"a &lt; "b""#));
        assert_eq!(text(document, "Key"), None);
        assert!(has(document, "Error") && !has(document, "Err"));
    }
}
