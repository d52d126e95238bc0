//! What clients and frontends want to know of a source before it is used.

use crate::git::{GitSource, Objects};
use crate::http::HttpSource;
use crate::image::{ImageMeta, ImageSource};
use crate::manifests::Remote;
use crate::{SourceContext, SourceError, Sources, oci_layout, platform_of};
use crosskit_api::frontend::{
    AttestationChain, Blob, ChecksumRequest, ChecksumResponse, Descriptor as WireDescriptor,
    ResolveSourceGitResponse, ResolveSourceHttpResponse, ResolveSourceImageRequest,
    ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
    checksum_request::ChecksumAlgo,
};
use crosskit_images::{Descriptor, Index, Manifest, media_types, resolve_platform};
use crosskit_platforms::{Matcher, Platform};
use std::sync::Arc;

/// The longest text that may be appended to a file before it is hashed, in bytes.
const LONGEST_SUFFIX: usize = 4 << 10;

/// On an attestation's manifest in an index: what it is (BuildKit docs/attestations).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The image that it is about.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// On a layer of an attestation: what it states.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Signatures, the kind that is preferred first (sigstore's bundle, cosign's artifact).
const SIGNATURES: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.cosign.artifact.sig.v1+json"];

impl Sources {
    /// The digest and the config of an image in a registry.
    pub async fn resolve_image_config(
        &self,
        reference: &str,
        platform: Option<&Platform>,
        cx: &Arc<dyn SourceContext>,
    ) -> Result<ImageMeta, SourceError> {
        let attrs = crate::Attrs::new();
        ImageSource::new(self.shared.clone(), reference, &attrs, platform.cloned())?.meta(cx).await
    }

    /// What is known of any source. Policies are not applied here: the source is taken as it is.
    pub async fn resolve_source_meta(
        &self,
        request: &ResolveSourceMetaRequest,
        cx: &Arc<dyn SourceContext>,
    ) -> Result<ResolveSourceMetaResponse, SourceError> {
        let op = request.source.clone().unwrap_or_default();
        let platform = request.platform.as_ref().map(platform_of);
        let invalid = || SourceError::Invalid(format!("failed to parse {}: invalid", op.identifier));
        let (scheme, rest) = op.identifier.split_once("://").ok_or_else(invalid)?;
        let shared = self.shared.clone();
        let mut response = ResolveSourceMetaResponse { source: Some(op.clone()), ..Default::default() };
        match scheme {
            "docker-image" => {
                let mut attrs = op.attrs.clone();
                if !request.resolve_mode.is_empty() {
                    attrs.insert("image.resolvemode".into(), request.resolve_mode.clone());
                }
                let source = ImageSource::new(shared, rest, &attrs, platform)?;
                response.image = Some(image(&source, request.image.as_ref(), cx).await?);
            }
            "oci-layout" => {
                let source = oci_layout::layout(shared, rest, &op.attrs, platform)?;
                response.image = Some(image(&source, None, cx).await?);
            }
            "git" => {
                let source = GitSource::new(shared, rest, &op.attrs)?;
                let objects = request.git.as_ref().is_some_and(|git| git.return_object);
                response.git = Some(git(&source, objects, cx).await?);
            }
            "http" | "https" => {
                let source = HttpSource::new(shared, &op.identifier, &op.attrs)?;
                let checksum = request.http.as_ref().and_then(|http| http.checksum_request.as_ref());
                response.http = Some(http(&source, checksum, cx).await?);
            }
            _ => drop(self.resolve(&op, request.platform.as_ref())?),
        }
        Ok(response)
    }
}

async fn image(
    source: &ImageSource,
    request: Option<&ResolveSourceImageRequest>,
    cx: &Arc<dyn SourceContext>,
) -> Result<ResolveSourceImageResponse, SourceError> {
    let mut response = ResolveSourceImageResponse::default();
    let request = request.cloned().unwrap_or_default();
    let remote = source.remote(cx);
    if request.no_config {
        response.digest = remote.resolve().await?.digest.to_string();
    } else {
        let meta = source.meta(cx).await?;
        (response.digest, response.config) = (meta.digest, meta.config);
    }
    if request.attestation_chain || !request.resolve_attestations.is_empty() {
        response.attestation_chain =
            chain(&*remote, &source.name, &source.platform(), &request.resolve_attestations).await?;
    }
    Ok(response)
}

/// From an index to the attestations of one of its images, and who signed them. None where there is no index.
async fn chain(
    remote: &dyn Remote,
    name: &str,
    platform: &Platform,
    predicates: &[String],
) -> Result<Option<AttestationChain>, SourceError> {
    let root = remote.resolve().await?;
    if root.media_type != media_types::OCI_INDEX {
        return Ok(None);
    }
    let failed = || SourceError::image(format!("failed to read {name}"));
    let bytes = remote.manifest(&root).await?;
    let index = Index::parse(&bytes).map_err(failed())?;
    let mut chain = AttestationChain { root: root.digest.to_string(), ..AttestationChain::default() };
    chain.blobs.insert(root.digest.to_string(), blob(&root, bytes));
    let Ok(image) = resolve_platform(&index, &Matcher::only(platform), platform) else {
        return Ok(Some(chain));
    };
    chain.image_manifest = image.digest.to_string();
    let about_it = |desc: &&Descriptor| {
        desc.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == "attestation-manifest")
            && desc.annotations.get(REFERENCE_DIGEST) == Some(&chain.image_manifest)
    };
    let Some(attestation) = index.manifests.iter().find(about_it) else { return Ok(Some(chain)) };
    chain.attestation_manifest = attestation.digest.to_string();
    let bytes = remote.manifest(attestation).await?;
    let manifest = Manifest::parse(&bytes).map_err(failed())?;
    chain.blobs.insert(attestation.digest.to_string(), blob(attestation, bytes));
    for layer in &manifest.layers {
        if layer.annotations.get(PREDICATE_TYPE).is_some_and(|kind| predicates.contains(kind)) {
            let bytes = remote.config(layer).await?;
            chain.blobs.insert(layer.digest.to_string(), blob(layer, bytes));
        }
    }
    let referrers = remote.referrers(&attestation.digest).await?;
    let of_kind = |kind: &&str| referrers.iter().find(|desc| desc.artifact_type == **kind);
    if let Some(signature) = SIGNATURES.iter().find_map(of_kind) {
        chain.signature_manifests = vec![signature.digest.to_string()];
        let bytes = remote.manifest(signature).await?;
        let manifest = Manifest::parse(&bytes).map_err(failed())?;
        chain.blobs.insert(signature.digest.to_string(), blob(signature, bytes));
        for layer in &manifest.layers {
            let bytes = remote.config(layer).await?;
            chain.blobs.insert(layer.digest.to_string(), blob(layer, bytes));
        }
    }
    Ok(Some(chain))
}

fn blob(desc: &Descriptor, data: Vec<u8>) -> Blob {
    let descriptor = WireDescriptor {
        media_type: desc.media_type.clone(),
        digest: desc.digest.to_string(),
        size: data.len() as i64,
        annotations: desc.annotations.clone(),
    };
    Blob { descriptor: Some(descriptor), data }
}

async fn git(
    source: &GitSource,
    objects: bool,
    cx: &Arc<dyn SourceContext>,
) -> Result<ResolveSourceGitResponse, SourceError> {
    let mut found = source.find(cx).await?;
    let known = match objects || source.wanted.signed.is_some() {
        true => source.objects(cx, &mut found).await?,
        false => Objects::default(),
    };
    Ok(ResolveSourceGitResponse {
        checksum: found.checksum,
        r#ref: found.reference,
        commit_checksum: found.commit.unwrap_or_default(),
        commit_object: known.commit,
        tag_object: known.tag,
    })
}

async fn http(
    source: &HttpSource,
    checksum: Option<&ChecksumRequest>,
    cx: &Arc<dyn SourceContext>,
) -> Result<ResolveSourceHttpResponse, SourceError> {
    let mut found = source.resolve(cx).await?;
    let mut checksum_response = None;
    if let Some(request) = checksum {
        if request.suffix.len() > LONGEST_SUFFIX {
            return Err(SourceError::Invalid(format!(
                "http checksum request suffix exceeds max size {LONGEST_SUFFIX}"
            )));
        }
        let algorithm = ChecksumAlgo::try_from(request.algo)
            .map_err(|_| SourceError::Invalid(format!("unsupported checksum algorithm {}", request.algo)))?;
        let (now, file) = source.file(cx).await?;
        found = now;
        let mounted = file.mount_readonly().await?;
        let path = mounted.path().join(&found.filename);
        let suffix = request.suffix.clone();
        let hashing = tokio::task::spawn_blocking(move || {
            let digest = match algorithm {
                ChecksumAlgo::Sha256 => hashed::<sha2::Sha256>("sha256", &path, &suffix),
                ChecksumAlgo::Sha384 => hashed::<sha2::Sha384>("sha384", &path, &suffix),
                ChecksumAlgo::Sha512 => hashed::<sha2::Sha512>("sha512", &path, &suffix),
            };
            drop(mounted);
            digest
        });
        let digest = hashing.await.map_err(SourceError::thread)?.map_err(SourceError::io("hash file"))?;
        checksum_response = Some(ChecksumResponse { digest, suffix: request.suffix.clone() });
    }
    let seconds = found.modified.as_deref().and_then(crate::http::seconds_of);
    Ok(ResolveSourceHttpResponse {
        checksum: found.digest.to_string(),
        filename: found.filename,
        last_modified: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        checksum_response,
    })
}

fn hashed<D: sha2::Digest>(name: &str, path: &std::path::Path, suffix: &[u8]) -> std::io::Result<String> {
    let mut digest = D::new();
    let mut file = std::fs::File::open(path)?;
    let mut piece = vec![0; 256 << 10];
    loop {
        let len = std::io::Read::read(&mut file, &mut piece)?;
        if len == 0 {
            break;
        }
        digest.update(&piece[..len]);
    }
    digest.update(suffix);
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{name}:{hex}"))
}
