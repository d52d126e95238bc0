//! The same files as Kubernetes takes them.

use crate::error::CertsError;
use crate::folders::{FILES, Folder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// Whether Kubernetes takes a name as part of a Secret's (RFC 1123).
pub(crate) fn check(name: &str) -> Result<(), CertsError> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match name.chars().all(letter) {
        true => Ok(()),
        false => Err(CertsError::Argument(format!(
            "{name:?} can't be part of a Secret's name, which has small letters, digits and dashes only"
        ))),
    }
}

/// A Secret for each daemon and client of a folder.
pub(crate) fn manifests(folder: &Folder) -> Result<String, CertsError> {
    let names = folder.names()?;
    if names.is_empty() {
        return Err(CertsError::Argument(format!(
            "there are no certificates in {}; --for HOST makes some",
            folder.place().display()
        )));
    }
    let mut text = String::new();
    for name in names {
        check(&name)?;
        if !text.is_empty() {
            text.push_str("---\n");
        }
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: crosskit-{name}-tls\ntype: Opaque\ndata:\n"
        );
        for file in FILES {
            let path = folder.path(&name).join(file);
            let content = std::fs::read(&path).map_err(CertsError::file("reading", &path))?;
            let _ = writeln!(text, "  {file}: {}", STANDARD.encode(content));
        }
    }
    Ok(text)
}
