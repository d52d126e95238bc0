//! Statements (<https://in-toto.io/Statement/v1>): a predicate, and what it is about.

use crate::attestation::Subject;
use crate::{AttestError, MAX_STATEMENT};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The predicate's type of an SBOM.
pub const SPDX: &str = "https://spdx.dev/Document";

/// What begins the types of provenance.
pub(crate) const PROVENANCE: &str = "https://slsa.dev/provenance/";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// The name of a subject that has none.
pub const UNNAMED: &str = "_";

/// Digests in hex, by their algorithm.
pub type Digests = BTreeMap<String, String>;

/// Digests from `algorithm:hex` each.
pub fn digests_of<D: ToString>(digests: &[D]) -> Digests {
    let split = |digest: &D| {
        let text = digest.to_string();
        text.split_once(':').map(|(algorithm, hex)| (algorithm.to_string(), hex.to_string()))
    };
    digests.iter().filter_map(split).collect()
}

/// The digest of a commit: its length tells the algorithm.
pub(crate) fn commit_digest(commit: &str) -> Digests {
    let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
    Digests::from([(algorithm.to_string(), commit.to_string())])
}

/// Something that statements are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its digests.
    #[serde(default)]
    pub digest: Digests,
}

/// A predicate, and what it is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type", default)]
    kind: String,
    /// What kind of predicate it is.
    #[serde(default)]
    pub predicate_type: String,
    /// What it is about; Go writes none as null.
    #[serde(default, deserialize_with = "or_none")]
    pub subject: Vec<Named>,
    predicate: Box<RawValue>,
}

fn or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Named>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Statement {
    /// A statement with this predicate, JSON, about `subjects`; `own` is what stands for the result itself.
    ///
    /// # Errors
    /// A predicate that is no JSON.
    pub fn new(
        predicate_type: &str,
        predicate: &[u8],
        subjects: &[Subject],
        own: &[Named],
    ) -> Result<Self, AttestError> {
        let predicate = match predicate {
            b"" => b"null",
            predicate => predicate,
        };
        let predicate: Box<RawValue> =
            serde_json::from_slice(predicate).map_err(|e| AttestError::Statement(e.to_string()))?;
        let mut subject = Vec::new();
        let itself = [Subject::Own { name: String::new() }];
        for about in if subjects.is_empty() { &itself[..] } else { subjects } {
            match about {
                Subject::Own { name } => {
                    for known in own {
                        subject.push(known.clone());
                        if !name.is_empty() {
                            subject.push(Named { name: name.clone(), digest: known.digest.clone() });
                        }
                    }
                }
                Subject::Raw { name, digests } => {
                    let name = if name.is_empty() { UNNAMED.to_string() } else { name.clone() };
                    subject.push(Named { name, digest: digests_of(digests) });
                }
            }
        }
        Ok(Statement { kind: STATEMENT.into(), predicate_type: predicate_type.into(), subject, predicate })
    }

    /// Reads a statement of somebody else.
    ///
    /// # Errors
    /// One that is too long, is no JSON, or is more than one.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, AttestError> {
        if bytes.len() as u64 > MAX_STATEMENT {
            return Err(AttestError::Statement(format!("{name} exceeds {MAX_STATEMENT} bytes")));
        }
        serde_json::from_slice(bytes).map_err(|e| AttestError::Statement(format!("{name}: {e}")))
    }

    /// Its predicate, JSON.
    pub fn predicate(&self) -> &str {
        self.predicate.get()
    }

    /// What it is about, as it is.
    pub fn subjects(&self) -> Vec<Subject> {
        let raw = |named: &Named| Subject::Raw {
            name: named.name.clone(),
            digests: named.digest.iter().map(|(algorithm, hex)| format!("{algorithm}:{hex}")).collect(),
        };
        self.subject.iter().map(raw).collect()
    }

    /// On one line, as it is stored in registries.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_json(&self) -> Result<Vec<u8>, AttestError> {
        let value = self.value()?;
        crosskit_images::gojson::to_vec(&value).map_err(|e| AttestError::Statement(e.to_string()))
    }

    /// On many lines, as it lies beside files.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_readable_json(&self) -> Result<Vec<u8>, AttestError> {
        let value = self.value()?;
        crosskit_images::gojson::to_vec_indent(&value).map_err(|e| AttestError::Statement(e.to_string()))
    }

    /// The same without the predicate's own spaces.
    fn value(&self) -> Result<serde_json::Value, AttestError> {
        serde_json::to_value(self).map_err(|e| AttestError::Statement(e.to_string()))
    }
}

/// Refuses provenance that somebody else than the daemon has written.
///
/// # Errors
/// If it is.
pub fn refuse_provenance(predicate_type: &str, doing: &str) -> Result<(), AttestError> {
    match predicate_type.starts_with(PROVENANCE) {
        true => Err(AttestError::Invalid(format!("frontend may not {doing} provenance attestations"))),
        false => Ok(()),
    }
}
