//! The keys of `--output`: which there are, what they take, and which exporter takes them.

use crate::{Export, ExportError};
use crosskit_images::annotations::AnnotationKey;
use std::collections::BTreeMap;

/// How layers are compressed where they are written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip, the default.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
    /// gzip with a table of contents, which is also gzip to whom that means nothing.
    Estargz,
    /// Not at all.
    Uncompressed,
}

/// Keys that image-like exporters (`image`, `oci`, `docker`) share.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// `name`: a list with commas, `*` for the name in the result's metadata.
    pub name: String,
    /// `oci-mediatypes`; None for the exporter's own default.
    pub oci_types: Option<bool>,
    /// `compression`.
    pub compression: Compression,
    /// `compression-level`; None for the library's default.
    pub compression_level: Option<i32>,
    /// `force-compression`: existing layers too.
    pub force_compression: bool,
    /// `source-date-epoch`, in seconds since 1970.
    pub epoch: Epoch,
    /// `rewrite-timestamp`: times in layers are clamped to the epoch.
    pub rewrite_timestamp: bool,
    /// `prefer-nondist-layers`.
    pub prefer_nondistributable: bool,
    /// `push`.
    pub push: bool,
    /// `push-by-digest`: no tag.
    pub push_by_digest: bool,
    /// `registry.insecure`.
    pub insecure: bool,
    /// `name-canonical`.
    pub name_canonical: bool,
    /// `dangling-name-prefix`.
    pub dangling_prefix: String,
    /// `danging-name-empty-only` (the field spells it so).
    pub dangling_empty_only: bool,
    /// `tar`: an archive, or blobs to the client's store.
    pub tar: bool,
    /// `annotation…` keys, as given.
    pub annotations: BTreeMap<String, String>,
    /// Metadata that the client lays over the result's: `containerimage.config` and the like.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Whether attestations that go only where nobody has to look at them are reason to make an index.
    pub inline_attestations: bool,
    /// Whether attestations are OCI artifacts; None for the default.
    pub oci_artifact: Option<bool>,
    /// What is to be told of keys that have no effect.
    pub remarks: Vec<String>,
}

/// Keys of exporters that write files (`local`, `tar`).
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// `source-date-epoch`, in seconds since 1970.
    pub epoch: Epoch,
    /// `platform-split`: a folder for each platform; None for one if there are several.
    pub platform_split: Option<bool>,
    /// `attestation-prefix`.
    pub attestation_prefix: String,
    /// `mode=delete`: what isn't in the result goes from the destination.
    pub delete: bool,
    /// What is to be told of keys that have no effect.
    pub remarks: Vec<String>,
}

/// What was said about the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Epoch {
    /// Nothing: the result's own counts.
    #[default]
    Unset,
    /// Explicitly none.
    None,
    /// Seconds since 1970.
    At(i64),
}

impl Epoch {
    /// The seconds, with the result's own where nothing was said.
    pub fn or(self, of_result: Option<i64>) -> Option<i64> {
        match self {
            Epoch::Unset => of_result,
            Epoch::None => None,
            Epoch::At(seconds) => Some(seconds),
        }
    }

    fn parse(text: &str) -> Result<Self, ExportError> {
        if text.is_empty() {
            return Ok(Epoch::None);
        }
        text.parse().map(Epoch::At).map_err(|_| {
            ExportError::user(format!(
                "invalid SOURCE_DATE_EPOCH: {text:?} is no number of seconds since 1970"
            ))
        })
    }
}

/// The compatibility version that stands for BuildKit 0.13, which packs nothing as zstd.
const FIRST_KNOWN: u32 = 10;

/// The compatibility version from which on OCI media types and artifacts are the default.
const OCI_EVERYWHERE: u32 = 30;

/// Keys that only `image` knows, with yes or no as their values.
const OF_IMAGES: &[&str] = &[
    "push",
    "push-by-digest",
    "registry.insecure",
    "unpack",
    "store",
    "danging-name-empty-only",
    "name-canonical",
    "unsafe-internal-store-allow-incomplete",
];

/// Keys that clients send as a matter of course, though nothing here needs them: `tar=true` for files, say, and what
/// earlier versions wrote into images (`buildinfo`).
const NOT_WORTH_A_WORD: &[&str] = &["dest", "tar", "buildinfo", "buildinfo-attrs"];

/// Prefixes of keys that are metadata of the result.
const METADATA: &[&str] = &["containerimage.", "refs.", "image.", "frontend.", "attest:"];

/// Keys of the image-like exporters, for "did you mean".
const IMAGE_KEYS: &[&str] = &[
    "name",
    "push",
    "push-by-digest",
    "registry.insecure",
    "unpack",
    "dangling-name-prefix",
    "danging-name-empty-only",
    "name-canonical",
    "store",
    "oci-mediatypes",
    "oci-artifact",
    "attestation-inline",
    "prefer-nondist-layers",
    "source-date-epoch",
    "compression",
    "force-compression",
    "compression-level",
    "rewrite-timestamp",
    "tar",
    "annotation.",
    "annotation-manifest.",
    "annotation-index.",
    "annotation-manifest-descriptor.",
    "annotation-index-descriptor.",
];

/// Keys of the exporters that write files, for the same.
const TREE_KEYS: &[&str] = &["platform-split", "attestation-prefix", "mode", "source-date-epoch"];

impl ImageOptions {
    /// Reads the keys of an image-like exporter; `exporter` is its type.
    ///
    /// # Errors
    /// A value of the wrong kind, and keys that exclude each other.
    pub fn parse(exporter: &str, attrs: &BTreeMap<String, String>) -> Result<Self, ExportError> {
        let inline_attestations = exporter == "image";
        let mut options = ImageOptions { tar: true, inline_attestations, ..ImageOptions::default() };
        for (key, value) in attrs {
            match key.as_str() {
                "name" => options.name.clone_from(value),
                of_images if OF_IMAGES.contains(&of_images) && exporter == "image" => {
                    options.of_images(of_images, loose_bool(key, value)?);
                }
                "dangling-name-prefix" if exporter == "image" => options.dangling_prefix.clone_from(value),
                "tar" if exporter != "image" => options.tar = loose_bool(key, value)?,
                "oci-mediatypes" => options.oci_types = Some(strict_bool(key, value)?),
                "compression" => options.compression = compression(value)?,
                "compression-level" => options.compression_level = Some(level(value)?),
                "force-compression" => options.force_compression = loose_bool(key, value)?,
                "source-date-epoch" => options.epoch = Epoch::parse(value)?,
                "rewrite-timestamp" => options.rewrite_timestamp = strict_bool(key, value)?,
                "prefer-nondist-layers" => options.prefer_nondistributable = strict_bool(key, value)?,
                "attestation-inline" => options.inline_attestations = strict_bool(key, value)?,
                "oci-artifact" => options.oci_artifact = Some(strict_bool(key, value)?),
                annotation if matches!(AnnotationKey::parse(annotation), Ok(Some(_)) | Err(_)) => {
                    options.annotations.insert(key.clone(), value.clone());
                }
                metadata if METADATA.iter().any(|m| metadata.starts_with(m)) => {
                    options.metadata.insert(key.clone(), value.clone().into_bytes());
                }
                known if OF_IMAGES.contains(&known) || known == "dangling-name-prefix" => {
                    options.remarks.push(format!("{known} has no effect with type={exporter}"));
                }
                unknown => options.remarks.extend(ignored(unknown, IMAGE_KEYS)),
            }
        }
        options.check_level()?;
        options.check_types()?;
        Ok(options)
    }

    fn of_images(&mut self, key: &str, yes: bool) {
        match key {
            "push" => self.push = yes,
            "push-by-digest" => self.push_by_digest = yes,
            "registry.insecure" => self.insecure = yes,
            "danging-name-empty-only" => self.dangling_empty_only = yes,
            "name-canonical" => self.name_canonical = yes,
            // The rest is for stores of images, and this daemon has none.
            _ => {}
        }
    }

    /// Refuses what needs OCI media types without them.
    fn check_types(&self) -> Result<(), ExportError> {
        let needs = match (self.compression, self.oci_artifact) {
            _ if self.oci() => return Ok(()),
            (Compression::Estargz, _) => "compression=estargz",
            (_, Some(true)) => "oci-artifact=true",
            _ => return Ok(()),
        };
        Err(ExportError::user(format!(
            "exporter option \"{needs}\" conflicts with \"oci-mediatypes=false\": Docker's media types have no room for it"
        )))
    }

    /// With the defaults of the daemon whose habits a result is to be exported with, where nothing was said.
    ///
    /// # Errors
    /// What that one did not have.
    pub fn settled(&self, exporter: &str, export: &Export) -> Result<ImageOptions, ExportError> {
        let version = export.compatibility_version;
        if version == FIRST_KNOWN && self.compression == Compression::Zstd {
            return Err(ExportError::user(format!(
                "unsupported compatibility-version {version} feature {exporter} exporter compression=zstd"
            )));
        }
        let mut options = self.clone();
        if (1..OCI_EVERYWHERE).contains(&version) {
            options.oci_types.get_or_insert(!export.attestations.is_empty());
            options.oci_artifact.get_or_insert(false);
        }
        options.check_types()?;
        Ok(options)
    }

    /// Whether attestations are OCI artifacts, which is the default where OCI media types are written.
    pub fn artifacts(&self) -> bool {
        self.oci_artifact.unwrap_or(self.oci())
    }

    /// Whether OCI media types are written. Since version 0.31 that is the default everywhere.
    pub fn oci(&self) -> bool {
        self.oci_types.unwrap_or(true)
    }

    fn check_level(&self) -> Result<(), ExportError> {
        let Some(level) = self.compression_level else { return Ok(()) };
        let allowed = match self.compression {
            // -1 asks for the usual one.
            Compression::Gzip | Compression::Estargz => -1..=9,
            Compression::Zstd => 0..=22,
            Compression::Uncompressed => return Ok(()),
        };
        if allowed.contains(&level) {
            return Ok(());
        }
        Err(ExportError::user(format!(
            "compression-level={level} is out of range: {:?} takes {} to {}",
            self.compression,
            allowed.start(),
            allowed.end()
        )))
    }
}

impl TreeOptions {
    /// Reads the keys of an exporter that writes files.
    ///
    /// # Errors
    /// A value of the wrong kind.
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<Self, ExportError> {
        let mut options = TreeOptions::default();
        for (key, value) in attrs {
            match key.as_str() {
                "source-date-epoch" => options.epoch = Epoch::parse(value)?,
                "platform-split" => options.platform_split = Some(strict_bool(key, value)?),
                "attestation-prefix" => options.attestation_prefix.clone_from(value),
                "mode" => {
                    options.delete = match value.trim().to_lowercase().as_str() {
                        "" | "copy" => false,
                        "delete" => true,
                        _ => {
                            return Err(ExportError::user(format!(
                                "invalid local exporter mode {value:?}: use copy or delete"
                            )));
                        }
                    }
                }
                unknown => options.remarks.extend(ignored(unknown, TREE_KEYS)),
            }
        }
        Ok(options)
    }
}

fn compression(value: &str) -> Result<Compression, ExportError> {
    match value {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "uncompressed" => Ok(Compression::Uncompressed),
        "estargz" => Ok(Compression::Estargz),
        other => Err(ExportError::user(format!(
            "unsupported compression type {other}: use gzip, zstd, estargz or uncompressed"
        ))),
    }
}

fn level(value: &str) -> Result<i32, ExportError> {
    value
        .parse()
        .map_err(|_| ExportError::user(format!("non-integer value {value} specified for compression-level")))
}

/// As Go reads booleans.
fn strict_bool(key: &str, value: &str) -> Result<bool, ExportError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ExportError::user(format!("non-bool value specified for {key}: {value:?}"))),
    }
}

/// As above, and a key without a value is true.
fn loose_bool(key: &str, value: &str) -> Result<bool, ExportError> {
    if value.is_empty() { Ok(true) } else { strict_bool(key, value) }
}

/// What is said of a key that nobody knows. As with BuildKit it is no reason to fail.
fn ignored(key: &str, known: &[&str]) -> Option<String> {
    if NOT_WORTH_A_WORD.contains(&key) {
        return None;
    }
    let close = known
        .iter()
        .map(|k| (strsim::levenshtein(k, key), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k);
    let hint = close.map_or(String::new(), |k| format!(", did you mean {k}?"));
    Some(format!("unknown option {key} is ignored{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
    }

    fn image(list: &[(&str, &str)]) -> Result<ImageOptions, String> {
        ImageOptions::parse("image", &attrs(list)).map_err(|e| e.to_string())
    }

    #[test]
    fn an_older_daemons_habits_are_kept_where_they_are_asked_for() {
        let settled = |list: &[(&str, &str)], compatibility_version| {
            let export = Export { compatibility_version, ..Export::default() };
            let options = ImageOptions::parse("oci", &attrs(list)).unwrap().settled("oci", &export);
            options.map(|it| (it.oci(), it.artifacts())).map_err(|e| e.to_string())
        };
        for (version, expected) in
            [(0, (true, true)), (30, (true, true)), (20, (false, false)), (10, (false, false))]
        {
            assert_eq!(settled(&[], version), Ok(expected), "{version}");
        }
        assert_eq!(settled(&[("oci-mediatypes", "true")], 20), Ok((true, false)));
        let zstd = [("compression", "zstd")];
        assert!(settled(&zstd, 20).is_ok());
        let why = "unsupported compatibility-version 10 feature oci exporter compression=zstd";
        assert_eq!(settled(&zstd, 10), Err(why.to_string()));
    }

    #[test]
    fn keys_without_a_value_are_true_where_the_field_has_it_so() {
        let options =
            image(&[("push", ""), ("push-by-digest", "1"), ("unpack", ""), ("source-date-epoch", "7")])
                .unwrap();
        assert!(options.push && options.push_by_digest && options.oci());
        assert_eq!(options.epoch, Epoch::At(7));
        assert!(
            image(&[("oci-mediatypes", "")])
                .unwrap_err()
                .contains("non-bool value specified for oci-mediatypes")
        );
    }

    #[test]
    fn what_is_not_there_is_said() {
        for (given, expected) in [
            (
                ("compression", "brotli"),
                "unsupported compression type brotli: use gzip, zstd, estargz or uncompressed",
            ),
            (("compression-level", "77"), "compression-level=77 is out of range: Gzip takes -1 to 9"),
            (("push", "maybe"), "non-bool value specified for push: \"maybe\""),
        ] {
            assert_eq!(image(&[given]).unwrap_err(), expected);
        }
        let tree = |mode| TreeOptions::parse(&attrs(&[("mode", mode)])).map_err(|e| e.to_string());
        assert_eq!(tree("move").unwrap_err(), "invalid local exporter mode \"move\": use copy or delete");
        assert!(tree(" Delete").unwrap().delete && !tree("").unwrap().delete);
        let (estargz, artifact) = (("compression", "estargz"), ("oci-artifact", "1"));
        for (given, named) in [(estargz, "compression=estargz"), (artifact, "oci-artifact=true")] {
            assert!(image(&[given]).is_ok());
            let why = format!("exporter option \"{named}\" conflicts with \"oci-mediatypes=false\"");
            assert!(image(&[given, ("oci-mediatypes", "false")]).unwrap_err().starts_with(&why));
        }
    }

    #[test]
    fn keys_that_nobody_knows_are_told_of_and_do_no_harm() {
        let told = |exporter, key| {
            let given = attrs(&[(key, "maybe")]);
            ImageOptions::parse(exporter, &given).map(|options| options.remarks).map_err(|e| e.to_string())
        };
        for (exporter, key, expected) in [
            ("image", "compresion", vec!["unknown option compresion is ignored, did you mean compression?"]),
            ("image", "colour", vec!["unknown option colour is ignored"]),
            (
                "image",
                "annotation-",
                vec!["unknown option annotation- is ignored, did you mean annotation.?"],
            ),
            ("oci", "push", vec!["push has no effect with type=oci"]),
            ("docker", "dangling-name-prefix", vec!["dangling-name-prefix has no effect with type=docker"]),
            ("image", "buildinfo", vec![]),
            ("image", "tar", vec![]),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(told(exporter, key), Ok(expected), "{exporter} {key}");
        }
        let tree = TreeOptions::parse(&attrs(&[("platform-splitt", "1"), ("dest", "/x")])).unwrap();
        assert_eq!(tree.remarks, ["unknown option platform-splitt is ignored, did you mean platform-split?"]);
    }

    #[test]
    fn metadata_and_annotations_are_kept_for_the_result() {
        let options = image(&[("containerimage.config", "{}"), ("annotation.a", "b")]).unwrap();
        assert_eq!(options.metadata["containerimage.config"], b"{}");
        assert_eq!(options.annotations["annotation.a"], "b");
    }
}
