//! What a certificate says of the signer.

use crate::SignatureError;
use std::collections::BTreeMap;
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate, X509Name};

/// Whoever gave the certificate out, as a distinguished name.
const AUTHORITY: &str = "certificateIssuer";

/// Whom it is for: an address of a workflow or of a person.
const SUBJECT: &str = "subjectAlternativeName";

/// The names of all fields, as sigstore-go's summary of a certificate has them.
pub const FIELDS: &[&str] = &[
    AUTHORITY,
    SUBJECT,
    "issuer",
    "githubWorkflowTrigger",
    "githubWorkflowSHA",
    "githubWorkflowName",
    "githubWorkflowRepository",
    "githubWorkflowRef",
    "buildSignerURI",
    "buildSignerDigest",
    "runnerEnvironment",
    "sourceRepositoryURI",
    "sourceRepositoryDigest",
    "sourceRepositoryRef",
    "sourceRepositoryIdentifier",
    "sourceRepositoryOwnerURI",
    "sourceRepositoryOwnerIdentifier",
    "buildConfigURI",
    "buildConfigDigest",
    "buildTrigger",
    "runInvocationURI",
    "sourceRepositoryVisibilityAtSigning",
];

/// Extensions of sigstore's authority Fulcio: they are numbered below this one (docs/oid-info.md there).
const FULCIO: &str = "1.3.6.1.4.1.57264.1.";

/// The extension's number from which on a value is a string in DER; below it stands for itself.
const IN_DER: u32 = 8;

/// The kind of another name that Fulcio gives: neither an address of the web nor of mail.
const OTHER_NAME: u32 = 7;

/// The field of an extension of Fulcio.
fn field(number: u32) -> Option<&'static str> {
    let at = match number {
        1 | 8 => 2,
        2..=6 => number as usize + 1,
        9..=22 => number as usize - 1,
        _ => return None,
    };
    FIELDS.get(at).copied()
}

/// The kinds of attributes that a distinguished name is written with, in the order of writing.
const ATTRIBUTES: [(&str, &str); 9] = [
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.3", "CN"),
    ("2.5.4.17", "POSTALCODE"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.8", "ST"),
    ("2.5.4.7", "L"),
    ("2.5.4.11", "OU"),
    ("2.5.4.10", "O"),
    ("2.5.4.6", "C"),
];

fn unreadable(why: impl std::fmt::Display) -> SignatureError {
    SignatureError::Certificate(why.to_string())
}

/// The fields of a certificate in DER.
pub(crate) fn of(certificate: &[u8]) -> Result<BTreeMap<&'static str, String>, SignatureError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(unreadable)?;
    let mut fields = BTreeMap::from([(AUTHORITY, written(certificate.issuer()))]);
    for extension in certificate.extensions() {
        let number = extension.oid.to_id_string().strip_prefix(FULCIO).and_then(|end| end.parse().ok());
        let Some((number, name)) = number.and_then(|number| Some((number, field(number)?))) else { continue };
        let value = match number < IN_DER {
            true => String::from_utf8_lossy(extension.value).into_owned(),
            false => text(extension.value).ok_or_else(|| unreadable(format!("{name} is no string")))?,
        };
        fields.insert(name, value);
    }
    let names = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let subject = names.and_then(|names| subject(names)).ok_or_else(|| unreadable("it is for nobody"))?;
    fields.insert(SUBJECT, subject);
    Ok(fields)
}

/// Whom a certificate is for: an address of the web before one of mail, before any other.
fn subject(names: &[GeneralName<'_>]) -> Option<String> {
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    let mail = || {
        names.iter().find_map(|name| match name {
            GeneralName::RFC822Name(mail) => Some((*mail).to_owned()),
            _ => None,
        })
    };
    let other = || {
        names.iter().find_map(|name| match name {
            GeneralName::OtherName(kind, value) if kind.to_id_string() == format!("{FULCIO}{OTHER_NAME}") => {
                // The value has a tag of its own around it.
                let (_, outer) = Any::from_der(value).ok()?;
                text(outer.data)
            }
            _ => None,
        })
    };
    uri.or_else(mail).or_else(other).filter(|subject| !subject.is_empty())
}

/// A string in DER, and nothing behind it.
fn text(der: &[u8]) -> Option<String> {
    let (rest, any) = Any::from_der(der).ok()?;
    let texts = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String];
    let is_text = rest.is_empty() && texts.contains(&any.tag());
    String::from_utf8(any.data.to_vec()).ok().filter(|_| is_text)
}

/// A distinguished name as Go writes it: `CN=…,O=…`.
fn written(name: &X509Name<'_>) -> String {
    let mut parts = Vec::new();
    for (id, short) in ATTRIBUTES {
        let values = name.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == id);
        let values: Vec<_> = values
            .map(|attribute| format!("{short}={}", escaped(&String::from_utf8_lossy(attribute.as_slice()))))
            .collect();
        if !values.is_empty() {
            parts.push(values.join("+"));
        }
    }
    parts.join(",")
}

/// A value with a backslash before what would mean something (RFC 2253).
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, letter) in value.chars().enumerate() {
        let means = matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (letter == '#' && at == 0)
            || (letter == ' ' && (at == 0 || at == last));
        if means {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_have_the_names_of_sigstore_s_table() {
        let expected = [
            (1, "issuer"),
            (2, "githubWorkflowTrigger"),
            (6, "githubWorkflowRef"),
            (8, "issuer"),
            (9, "buildSignerURI"),
            (11, "runnerEnvironment"),
            (12, "sourceRepositoryURI"),
            (21, "runInvocationURI"),
            (22, "sourceRepositoryVisibilityAtSigning"),
        ];
        for (number, name) in expected {
            assert_eq!(field(number), Some(name));
        }
        assert_eq!([field(0), field(7), field(23)], [None; 3]);
    }

    #[test]
    fn values_of_names_are_escaped_as_go_does() {
        for (value, expected) in [
            ("sigstore.dev", "sigstore.dev"),
            ("a, b", "a\\, b"),
            (" a ", "\\ a\\ "),
            ("#1#", "\\#1#"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), expected);
        }
    }
}
