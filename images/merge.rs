//! Images of several platforms put together.

use crosskit_platforms::Platform;

use crate::annotations::Annotations;
use crate::descriptor::Descriptor;
use crate::manifest::Index;
use crate::media_types;

/// Says on an attestation's descriptor that it is one.
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Says which manifest an attestation is about.
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// The value of [`REFERENCE_TYPE`].
pub const ATTESTATION: &str = "attestation-manifest";

/// One platform's part of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its platform.
    pub platform: Platform,
    /// Its manifest, annotated already.
    pub manifest: Descriptor,
    /// The manifest of what is attested about it.
    pub attestation: Option<Descriptor>,
}

/// Makes an index of parts in their order, the attestations after all images.
pub fn merge_index(parts: Vec<Part>, oci: bool, annotations: Annotations) -> Index {
    let (mut images, mut attestations) = (Vec::new(), Vec::new());
    for Part { platform, mut manifest, attestation } in parts {
        let about = manifest.digest;
        manifest.platform = Some(platform);
        images.push(manifest);
        if let Some(mut attestation) = attestation {
            attestation.platform = Some(Platform::new("unknown", "unknown", ""));
            attestation.annotations.insert(REFERENCE_TYPE.into(), ATTESTATION.into());
            attestation.annotations.insert(REFERENCE_DIGEST.into(), about.to_string());
            attestations.push(attestation);
        }
    }
    images.extend(attestations);
    let mut index = Index::new(images);
    index.annotations = annotations;
    if !oci {
        index.media_type = media_types::DOCKER_MANIFEST_LIST.into();
    }
    index
}
