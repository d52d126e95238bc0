//! What a build asks to have attested: `attest:provenance` and `attest:sbom` with their options.

use crate::AttestError;
use std::collections::BTreeMap;

/// What scans a result where nothing else is said.
pub const DEFAULT_SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

/// The name of the scanner that is part of the daemon. An image of that name is `builtin:latest`.
pub const BUILTIN_SCANNER: &str = "builtin";

/// Before the kind, in the options of a frontend.
const PREFIX: &str = "attest:";

/// The same as a build argument.
const ARGUMENT_PREFIX: &str = "build-arg:BUILDKIT_ATTEST_";

/// What a build asks to have attested.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// How it was made.
    pub provenance: Option<Provenance>,
    /// What is in it.
    pub sbom: Option<Sbom>,
}

/// How provenance is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provenance {
    /// How much is told.
    pub mode: Mode,
    /// In which form.
    pub slsa: Slsa,
    /// Only attached to images of the `image` exporter and its kin, and no reason to make an index.
    pub inline_only: bool,
    /// What is said to be the builder's id.
    pub builder_id: String,
    /// The name of the file beside local outputs.
    pub filename: String,
    /// Whether the build claims to be reproducible.
    pub reproducible: bool,
    /// Whether it is an error not to know all materials exactly.
    pub complete_materials: bool,
    /// Whether it is told what steps and the machine have used.
    pub capture_usage: bool,
}

/// How much provenance tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything: also arguments, the graph and the sources.
    #[default]
    Max,
    /// What can hold no secret of a careless build.
    Min,
}

/// Forms of provenance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Slsa {
    /// <https://slsa.dev/provenance/v1>
    #[default]
    V1,
    /// <https://slsa.dev/provenance/v0.2>
    V02,
}

impl Slsa {
    /// The predicate's type.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Slsa::V1 => "https://slsa.dev/provenance/v1",
            Slsa::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }
}

/// How a result is scanned.
#[derive(Debug, Clone, PartialEq)]
pub struct Sbom {
    /// The image of the scanner, or the name of the daemon's own.
    pub generator: String,
    /// What the scanner is told, as `BUILDKIT_SCAN_` variables.
    pub parameters: BTreeMap<String, String>,
}

impl Asked {
    /// Reads the options of a build's frontend; `fields` splits one record of comma-separated values.
    ///
    /// # Errors
    /// A kind or an option that there is none of.
    pub fn parse(
        options: &BTreeMap<String, String>,
        fields: impl Fn(&str) -> Result<Vec<String>, String>,
    ) -> Result<Self, AttestError> {
        let mut asked = Asked::default();
        for (key, value) in options {
            let kind = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(ARGUMENT_PREFIX));
            let Some(kind) = kind.map(str::to_lowercase) else { continue };
            if !["sbom", "provenance"].contains(&kind.as_str()) {
                return Err(AttestError::UnknownKind(kind));
            }
            let record = match value.as_str() {
                "" => Vec::new(),
                record => fields(record)
                    .map_err(|reason| AttestError::Invalid(format!("failed to parse {kind}: {reason}")))?,
            };
            let mut all: BTreeMap<String, String> = record
                .iter()
                .map(|field| field.split_once('=').unwrap_or((field, "")))
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect();
            // How clients say that they want none.
            if all.remove("disabled").is_some_and(|value| boolean(&value) != Some(false)) {
                continue;
            }
            match kind.as_str() {
                "sbom" => asked.sbom = Some(Sbom::from_options(all)?),
                _ => asked.provenance = Some(Provenance::from_options(all)?),
            }
        }
        Ok(asked)
    }
}

/// As Go reads booleans.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Provenance {
    fn from_options(options: BTreeMap<String, String>) -> Result<Self, AttestError> {
        let mut provenance = Provenance { filename: "provenance.json".into(), ..Provenance::default() };
        let flag = |key: &str, value: &str| {
            boolean(value).ok_or_else(|| {
                AttestError::Invalid(format!("failed to parse {key} flag {value:?}: use true or false"))
            })
        };
        for (key, value) in options {
            match key.as_str() {
                "mode" => {
                    provenance.mode = match value.as_str() {
                        "max" | "full" => Mode::Max,
                        "min" => Mode::Min,
                        _ => return Err(AttestError::Invalid(format!("invalid mode {value:?}"))),
                    }
                }
                "version" => {
                    provenance.slsa = match value.as_str() {
                        "v1" => Slsa::V1,
                        "v0.2" => Slsa::V02,
                        "" => {
                            let message = "provenance SLSA version cannot be empty";
                            return Err(AttestError::Invalid(message.into()));
                        }
                        _ => {
                            return Err(AttestError::Invalid(format!(
                                "invalid provenance SLSA version: {value}"
                            )));
                        }
                    }
                }
                "inline-only" => provenance.inline_only = boolean(&value) == Some(true),
                "builder-id" => provenance.builder_id = value,
                "filename" => provenance.filename = value,
                "reproducible" => provenance.reproducible = flag("reproducible", &value)?,
                "complete-materials" => provenance.complete_materials = flag("complete-materials", &value)?,
                "capture-usage" => provenance.capture_usage = boolean(&value) == Some(true),
                // Clients pass on whatever they are given, and the field ignores what it does not know.
                _ => {}
            }
        }
        if provenance.filename.is_empty() || provenance.filename.contains('/') {
            let message = format!(
                "invalid provenance filename {:?}: a name without folders is needed",
                provenance.filename
            );
            return Err(AttestError::Invalid(message));
        }
        Ok(provenance)
    }
}

impl Sbom {
    fn from_options(mut options: BTreeMap<String, String>) -> Result<Self, AttestError> {
        let generator = options.remove("generator").unwrap_or_else(|| DEFAULT_SCANNER.to_string());
        if generator.is_empty() {
            return Err(AttestError::Invalid("sbom generator cannot be empty".into()));
        }
        // Clients say once more what is asked for: `type=sbom`.
        if generator == BUILTIN_SCANNER
            && let Some(option) = options.keys().find(|key| *key != "type")
        {
            return Err(AttestError::Invalid(format!(
                "sbom generator {BUILTIN_SCANNER} has no option {option:?}: leave it out, or name an image as generator"
            )));
        }
        Ok(Sbom { generator, parameters: options })
    }

    /// Whether the daemon is to look through the result itself.
    pub fn is_builtin(&self) -> bool {
        self.generator == BUILTIN_SCANNER
    }
}

/// Takes the wish for a scan by the daemon itself out of the options of a frontend that is not part of it: it would look
/// for an image of that name.
pub fn without_builtin_scan(options: &mut BTreeMap<String, String>) {
    let builtin = format!("generator={BUILTIN_SCANNER}");
    options.retain(|key, value| {
        let kind = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(ARGUMENT_PREFIX));
        let sbom = kind.is_some_and(|kind| kind.eq_ignore_ascii_case("sbom"));
        !sbom || !value.split(',').any(|field| field.trim_matches('"') == builtin)
    });
}
