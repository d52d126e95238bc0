//! What is attested of a result, on its way out: folders of statements become statements, scans learn of layers, and
//! each statement learns what it is about.

use crate::{ExportError, NamedPlatform, blocking, snapshot_error};
use crosskit_attest::{
    AttestError, Attestation, Content, Kind, MAX_STATEMENT, MEDIA_TYPE, Named, SPDX, Statement, UNNAMED,
    cores_first, digests_of, image_url, refuse_provenance, supplemented,
};
use crosskit_images::compression::LayerReader;
use crosskit_images::tar::{Reader, ReaderLimits};
use crosskit_images::{ContentStore, Descriptor, Manifest, gojson, media_types};
use crosskit_snapshots::{Layer, Mounted, Ref};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Something that is attested of a result.
pub type Attested = Attestation<Ref, Layer>;

/// What an attestation's manifest is, as OCI has artifacts.
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// The config of an artifact that needs none.
const NO_CONFIG: &str = "application/vnd.oci.empty.v1+json";

/// Tells of a layer of an attestation's manifest what it states.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Who adds to the SBOMs of scanners.
const CREATOR: &str = crosskit_api::version::REVISION;

/// A statement, and the name of the file that it goes to.
pub struct Stated {
    /// A plain name.
    pub file: String,
    /// The statement.
    pub statement: Statement,
}

fn attest_error(error: AttestError) -> ExportError {
    ExportError::user(error.to_string())
}

/// The statements of a result, scans of it first. `own` is what stands for the result itself, `layers` are those of its
/// image, bottom first.
///
/// # Errors
/// What a frontend may not attest, statements that are none, files that aren't there.
pub async fn statements(
    attested: &[Attested],
    own: Vec<Named>,
    layers: &[Layer],
    content: &ContentStore,
) -> Result<Vec<Stated>, ExportError> {
    let mut all = Vec::new();
    for one in attested {
        all.extend(unbundled(one).await?);
    }
    cores_first(&mut all);
    let scans = all.iter().any(|one| one.predicate_type == SPDX && one.is_core());
    let places = match scans && !layers.is_empty() {
        true => {
            let (layers, content) = (layers.to_vec(), content.clone());
            for layer in &layers {
                layer.fetch().await.map_err(snapshot_error)?;
            }
            blocking(move || places(&layers, &content)).await?
        }
        false => HashMap::new(),
    };
    let mut stated = Vec::with_capacity(all.len());
    for one in all {
        if one.path.is_empty() {
            return Err(ExportError::user("attestation does not have set path"));
        }
        let mut predicate = predicate(&one, layers).await?;
        if one.predicate_type == SPDX && one.is_core() && !layers.is_empty() {
            // A document that is no SPDX stays as it is.
            predicate = supplemented(&predicate, &places, CREATOR).unwrap_or(predicate);
        }
        let statement =
            Statement::new(&one.predicate_type, &predicate, &one.subjects, &own).map_err(attest_error)?;
        let file = one.path.rsplit('/').next().unwrap_or_default().to_string();
        stated.push(Stated { file, statement });
    }
    Ok(stated)
}

async fn predicate(attested: &Attested, layers: &[Layer]) -> Result<Vec<u8>, ExportError> {
    match &attested.content {
        Content::Ready(bytes) => Ok(bytes.to_vec()),
        Content::Made(make) => {
            let (make, layers) = (Arc::clone(make), layers.to_vec());
            blocking(move || Ok(make(&layers))).await
        }
        Content::Files(None) => Err(ExportError::user("no available content for attestation")),
        Content::Files(Some(files)) => {
            let mounted = files.mount_readonly().await.map_err(snapshot_error)?;
            let path = attested.path.clone();
            blocking(move || {
                read(mounted.path(), &path).map_err(|e| e.while_doing("cannot read in-toto attestation"))
            })
            .await
        }
    }
}

/// A folder of statements as single ones.
async fn unbundled(attested: &Attested) -> Result<Vec<Attested>, ExportError> {
    if attested.kind == Kind::InToto {
        if !matches!(attested.content, Content::Made(_)) {
            refuse_provenance(&attested.predicate_type, "set").map_err(attest_error)?;
        }
        return Ok(vec![attested.clone()]);
    }
    let Content::Files(Some(files)) = &attested.content else {
        return Err(ExportError::user("no ref provided for attestation bundle"));
    };
    let mounted = files.mount_readonly().await.map_err(snapshot_error)?;
    let bundle = attested.clone();
    blocking(move || in_folder(&mounted, &bundle)).await
}

fn in_folder(mounted: &Mounted, bundle: &Attested) -> Result<Vec<Attested>, ExportError> {
    let folder = bundle.path.trim_matches('/');
    let mut found = Vec::new();
    for name in names(mounted.path(), folder)? {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let bytes = read(mounted.path(), &path)?;
        let statement = Statement::read(&path, &bytes).map_err(attest_error)?;
        refuse_provenance(&statement.predicate_type, "bundle").map_err(attest_error)?;
        if !bundle.predicate_type.is_empty() && statement.predicate_type != bundle.predicate_type {
            return Err(ExportError::user(format!(
                "bundle entry {} does not match required predicate type {}",
                statement.predicate_type, bundle.predicate_type
            )));
        }
        found.push(Attested {
            kind: Kind::InToto,
            metadata: bundle.metadata.clone(),
            path,
            subjects: statement.subjects(),
            content: Content::Ready(Arc::from(statement.predicate().as_bytes())),
            predicate_type: statement.predicate_type,
        });
    }
    Ok(found)
}

fn open(root: &Path, path: &str, flags: OFlags) -> Result<OwnedFd, ExportError> {
    let failed = |e: rustix::io::Errno| ExportError::user(format!("open {path}: {e}"));
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let inner = match path.trim_start_matches('/') {
        "" => ".",
        inner => inner,
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(&root, inner, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(failed)
}

/// The names in a folder, in order.
fn names(root: &Path, folder: &str) -> Result<Vec<String>, ExportError> {
    let failed = |e: rustix::io::Errno| ExportError::user(format!("reading folder {folder:?}: {e}"));
    let opened = open(root, folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&opened).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read(root: &Path, path: &str) -> Result<Vec<u8>, ExportError> {
    // A named pipe would block the open, so look first.
    let found = open(root, path, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&found).map_err(|e| ExportError::user(format!("stat {path}: {e}")))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ExportError::user(format!("{path} is not a regular file")));
    }
    let file = File::from(open(root, path, OFlags::RDONLY)?);
    let mut bytes = Vec::new();
    file.take(MAX_STATEMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| ExportError::user(format!("read {path}: {e}")))?;
    if bytes.len() as u64 > MAX_STATEMENT {
        return Err(ExportError::user(format!("{path} exceeds {MAX_STATEMENT} bytes")));
    }
    Ok(bytes)
}

/// Which layer each file comes from: the topmost that has it.
fn places(layers: &[Layer], content: &ContentStore) -> Result<HashMap<String, String>, ExportError> {
    let mut places = HashMap::new();
    for layer in layers.iter().rev() {
        let digest = layer.blob.desc.digest;
        let failed = |e: &dyn std::fmt::Display| {
            ExportError::new(crate::ErrorKind::Environment, format!("reading layer {digest}: {e}"))
        };
        let blob = content.reader(&digest).map_err(crate::blobs::image_error)?;
        let plain = LayerReader::new(blob.into_file()).map_err(|e| failed(&e))?;
        let mut tar = Reader::new(plain, ReaderLimits::default());
        while let Some(header) = tar.next_entry().map_err(|e| failed(&e))? {
            let name = String::from_utf8_lossy(&header.name).into_owned();
            let path = format!("/{}", name.trim_start_matches("./").trim_matches('/'));
            let is_mark = path.rsplit('/').next().is_some_and(|file| file.starts_with(".wh."));
            if !is_mark {
                places.entry(path).or_insert_with(|| digest.to_string());
            }
        }
    }
    Ok(places)
}

/// What stands for an image of these names. One without a name is a subject as well: a statement about nothing is none.
///
/// # Errors
/// Names that are none.
pub fn image_subjects(
    names: &str,
    platform: &NamedPlatform,
    manifest: &Descriptor,
) -> Result<Vec<Named>, ExportError> {
    let digest = digests_of(&[manifest.digest]);
    let named = |name: &str| {
        let name = image_url("docker", name, Some(&platform.platform), &[]).map_err(attest_error)?;
        Ok(Named { name, digest: digest.clone() })
    };
    let all: Vec<Named> =
        names.split(',').filter(|name| !name.is_empty()).map(named).collect::<Result<_, _>>()?;
    Ok(match all.is_empty() {
        true => vec![Named { name: UNNAMED.to_string(), digest }],
        false => all,
    })
}

#[derive(serde::Serialize)]
struct Config {
    architecture: &'static str,
    os: &'static str,
    config: BTreeMap<(), ()>,
    rootfs: RootFs,
}

#[derive(serde::Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: Option<Vec<String>>,
}

/// Writes the manifest of what is attested about an image, and returns its descriptor.
///
/// # Errors
/// A full disk.
pub fn manifest(
    stated: &[Stated],
    about: &Descriptor,
    oci: bool,
    artifact: bool,
    content: &ContentStore,
) -> Result<Descriptor, ExportError> {
    let internal = |e: &dyn std::fmt::Display| ExportError::internal(e.to_string());
    let image_error = crate::blobs::image_error;
    let mut layers = Vec::with_capacity(stated.len());
    for one in stated {
        let bytes = one.statement.to_json().map_err(attest_error)?;
        let mut layer = Descriptor::of(MEDIA_TYPE, &bytes);
        content.put(&bytes).map_err(image_error)?;
        if oci {
            layer.annotations.insert(PREDICATE_TYPE.into(), one.statement.predicate_type.clone());
        }
        layers.push(layer);
    }
    let (manifest_type, config_type) = match oci {
        true => (media_types::OCI_MANIFEST, media_types::OCI_CONFIG),
        false => (media_types::DOCKER_MANIFEST, media_types::DOCKER_CONFIG),
    };
    let mut config = b"{}".to_vec();
    let mut config_desc = Descriptor::of(NO_CONFIG, &config);
    if artifact {
        config_desc.data.clone_from(&config);
    } else {
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
        let rootfs = RootFs { r#type: "layers", diff_ids: Some(diff_ids).filter(|ids| !ids.is_empty()) };
        let written = Config { architecture: "unknown", os: "unknown", config: BTreeMap::new(), rootfs };
        config = gojson::to_vec(&written).map_err(|e| internal(&e))?;
        config_desc = Descriptor::of(config_type, &config);
    }
    content.put(&config).map_err(image_error)?;
    let mut manifest = Manifest::new(manifest_type, config_desc, layers);
    if artifact {
        manifest.artifact_type = ARTIFACT.to_string();
        let subject = Descriptor::new(about.media_type.clone(), about.digest, about.size);
        manifest.subject = Some(Box::new(subject));
    }
    let bytes = manifest.to_json().map_err(|e| internal(&e))?;
    content.put(&bytes).map_err(image_error)?;
    Ok(Descriptor::of(manifest_type, &bytes))
}
