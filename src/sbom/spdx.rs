//! What was found, as SPDX 2.3 in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).

use crate::licenses::{License, license};
use crate::scan::Found;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

const UNKNOWN: &str = "NOASSERTION";

/// What is scanned, and when.
#[derive(Debug, Clone)]
pub struct About<'a> {
    /// The name of what is scanned, and of the document.
    pub name: &'a str,
    /// What it is for.
    pub purpose: Purpose,
    /// Seconds since 1970.
    pub created: i64,
    /// Who makes the document, as `NAME-VERSION`.
    pub tool: &'a str,
}

/// What something that is scanned is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run.
    Container,
    /// To be built from.
    Source,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'a str,
    document_namespace: String,
    creation_info: Creation,
    #[serde(flatten)]
    body: &'a Body,
}

#[derive(Serialize)]
struct Creation {
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    created: String,
    creators: Vec<String>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Body {
    packages: Vec<Package>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<OtherLicense>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    name: String,
    #[serde(rename = "SPDXID")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version_info: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    supplier: String,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_verification_code: Option<Verification>,
    #[serde(skip_serializing_if = "String::is_empty")]
    homepage: String,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    package_verification_code_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    file_name: String,
    #[serde(rename = "SPDXID")]
    id: String,
    checksums: Vec<Checksum>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OtherLicense {
    license_id: String,
    extracted_text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'static str>,
}

/// Said of files that tell of a package; readers know the first word.
const EVIDENT: &str = "evident-by: this file says that the package is there";

fn short_digest(text: &str) -> String {
    let mut digest = hex::encode(digest(&SHA256, text.as_bytes()));
    digest.truncate(16);
    digest
}

/// A text as a part of an id: letters, digits, `.` and `-`.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).take(80).collect()
}

/// A name, with an address in brackets if there is one.
fn supplier(text: &str) -> String {
    let (name, address) = match text.split_once('<') {
        Some((name, address)) => (name, address.split('>').next().unwrap_or_default().trim()),
        None => (text, ""),
    };
    // Brackets are what is around the address.
    let name = name.replace(['(', ')'], " ");
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    match (name.as_str(), address) {
        ("", "") => UNKNOWN.to_string(),
        ("", address) => format!("Organization: {address}"),
        (name, "") => format!("Organization: {name}"),
        (name, address) => format!("Organization: {name} ({address})"),
    }
}

fn homepage(text: &str) -> String {
    let address = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
    let odd = |c: char| c.is_whitespace() || !c.is_ascii() || "<>\"{}|\\^`".contains(c);
    if address && !text.contains(odd) { text.to_string() } else { String::new() }
}

fn relationship(one: &str, kind: &'static str, other: &str) -> Relationship {
    let (spdx_element_id, related_spdx_element) = (one.to_string(), other.to_string());
    Relationship { spdx_element_id, relationship_type: kind, related_spdx_element, comment: None }
}

impl Found {
    /// What was found, as an SPDX document. The same of the same content and time.
    pub fn to_spdx(&self, about: &About<'_>) -> Vec<u8> {
        let body = self.body(about);
        let written = jiff::Timestamp::from_second(about.created).unwrap_or_default();
        let created = written.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let creation = Creation {
            comment: self.left_out.join("; "),
            creators: vec![format!("Tool: {}", about.tool)],
            created,
        };
        // Another document has another name, and the same document has the same one.
        let unique = serde_json::to_vec(&(about.name, &creation, &body)).unwrap_or_default();
        let unique = hex::encode(digest(&SHA256, &unique));
        let mut namespace = format!("https://spdx.org/spdxdocs/{}-", plain(about.name));
        for (at, length) in [(0, 8), (8, 4), (12, 4), (16, 4), (20, 12)] {
            let dash = if at == 0 { "" } else { "-" };
            let _ = write!(namespace, "{dash}{}", unique.get(at..at + length).unwrap_or_default());
        }
        let document = Document {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: "SPDXRef-DOCUMENT",
            name: about.name,
            document_namespace: namespace,
            creation_info: creation,
            body: &body,
        };
        // Nothing in it can fail to be written: all keys are strings.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    fn body(&self, about: &About<'_>) -> Body {
        let mut body = Body::default();
        let root = format!("SPDXRef-DocumentRoot-{}", plain(about.name));
        body.relationships.push(relationship("SPDXRef-DOCUMENT", "DESCRIBES", &root));
        body.packages.push(Package {
            name: about.name.to_string(),
            id: root.clone(),
            version_info: String::new(),
            supplier: String::new(),
            download_location: UNKNOWN,
            files_analyzed: false,
            package_verification_code: None,
            homepage: String::new(),
            license_concluded: UNKNOWN,
            license_declared: UNKNOWN.to_string(),
            copyright_text: UNKNOWN,
            external_refs: Vec::new(),
            primary_package_purpose: Some(match about.purpose {
                Purpose::Container => "CONTAINER",
                Purpose::Source => "SOURCE",
            }),
        });
        let file_ids: HashMap<&str, String> = self
            .files
            .keys()
            .map(|path| (path.as_str(), format!("SPDXRef-File-{}", short_digest(path))))
            .collect();
        let ids: Vec<String> = self
            .packages
            .iter()
            .map(|one| {
                format!("SPDXRef-Package-{}-{}-{}", one.kind, plain(&one.name), short_digest(&one.url))
            })
            .collect();
        let mut others = BTreeMap::new();
        for (one, id) in self.packages.iter().zip(&ids) {
            let license_declared = match license(&one.license) {
                License::Unsaid => UNKNOWN.to_string(),
                License::Expression(expression) => expression,
                License::Other(name, text) => {
                    others.insert(name.clone(), text);
                    name
                }
            };
            let owned: Vec<(&String, &crate::scan::Sums)> =
                one.files.iter().filter_map(|path| self.files.get_key_value(path)).collect();
            let mut sums: Vec<&str> = owned.iter().map(|(_, sums)| sums.sha1.as_str()).collect();
            sums.sort_unstable();
            let code = hex::encode(digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, sums.concat().as_bytes()));
            body.packages.push(Package {
                name: one.name.clone(),
                id: id.clone(),
                version_info: one.version.clone(),
                supplier: supplier(&one.supplier),
                download_location: UNKNOWN,
                files_analyzed: !owned.is_empty(),
                package_verification_code: (!owned.is_empty())
                    .then_some(Verification { package_verification_code_value: code }),
                homepage: homepage(&one.homepage),
                license_concluded: UNKNOWN,
                license_declared,
                copyright_text: UNKNOWN,
                external_refs: vec![Reference {
                    reference_category: "PACKAGE-MANAGER",
                    reference_type: "purl",
                    reference_locator: one.url.clone(),
                }],
                primary_package_purpose: None,
            });
            body.relationships.push(relationship(&root, "CONTAINS", id));
            for (path, _) in owned {
                body.relationships.push(relationship(id, "CONTAINS", &file_ids[path.as_str()]));
            }
            for path in one.evidence.iter().filter_map(|path| file_ids.get(path.as_str())) {
                body.relationships
                    .push(Relationship { comment: Some(EVIDENT), ..relationship(id, "OTHER", path) });
            }
        }
        let needed: BTreeSet<(usize, usize)> = self.needed.clone();
        for (one, other) in needed {
            body.relationships.push(relationship(&ids[other], "DEPENDENCY_OF", &ids[one]));
        }
        body.files = self
            .files
            .iter()
            .map(|(path, sums)| File {
                file_name: path.clone(),
                id: file_ids[path.as_str()].clone(),
                checksums: vec![
                    Checksum { algorithm: "SHA1", checksum_value: sums.sha1.clone() },
                    Checksum { algorithm: "SHA256", checksum_value: sums.sha256.clone() },
                ],
            })
            .collect();
        body.has_extracted_licensing_infos = others
            .into_iter()
            .map(|(license_id, extracted_text)| OtherLicense { license_id, extracted_text })
            .collect();
        body
    }
}
