//! The names of what content is, and what they say about it.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, a plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// OCI layer that registries may refuse to hand on (deprecated by the specification).
pub const OCI_LAYER_NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// The same, gzip.
pub const OCI_LAYER_NONDISTRIBUTABLE_GZIP: &str =
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
/// The same, zstd.
pub const OCI_LAYER_NONDISTRIBUTABLE_ZSTD: &str =
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
/// OCI empty JSON, `{}`.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker manifest, schema 1: known only to refuse it by name.
pub const DOCKER_MANIFEST_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The same, signed.
pub const DOCKER_MANIFEST_V1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, a plain tar.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker layer that lives elsewhere, a plain tar.
pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// Docker layer that lives elsewhere, gzip.
pub const DOCKER_LAYER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// How the bytes of a layer are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerPacking {
    /// A plain tar.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// gzip with a table of contents, from which files can be had one by one.
    Estargz,
}

/// Each packing of a layer as OCI and as Docker name it, and whether others may not be given it.
const LAYERS: [(&str, &str, LayerPacking, bool); 6] = [
    (OCI_LAYER, DOCKER_LAYER, LayerPacking::Plain, false),
    (OCI_LAYER_GZIP, DOCKER_LAYER_GZIP, LayerPacking::Gzip, false),
    (OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD, LayerPacking::Zstd, false),
    (OCI_LAYER_NONDISTRIBUTABLE, DOCKER_LAYER_FOREIGN, LayerPacking::Plain, true),
    (OCI_LAYER_NONDISTRIBUTABLE_GZIP, DOCKER_LAYER_FOREIGN_GZIP, LayerPacking::Gzip, true),
    (OCI_LAYER_NONDISTRIBUTABLE_ZSTD, OCI_LAYER_NONDISTRIBUTABLE_ZSTD, LayerPacking::Zstd, true),
];

/// Whether it is a manifest of one image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether it is a list of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}

/// Whether it is an image's config.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether it is Docker's obsolete first schema.
pub fn is_schema1(media_type: &str) -> bool {
    matches!(media_type, DOCKER_MANIFEST_V1 | DOCKER_MANIFEST_V1_SIGNED)
}

/// How a layer of this type is packed; none if it is no layer. Of eStargz a type says no more than that it is gzip.
pub fn layer_packing(media_type: &str) -> Option<LayerPacking> {
    LAYERS
        .iter()
        .find(|(oci, docker, ..)| [*oci, *docker].contains(&media_type))
        .map(|(_, _, packing, _)| *packing)
}

/// Whether it is a layer.
pub fn is_layer(media_type: &str) -> bool {
    layer_packing(media_type).is_some()
}

/// Whether it is a layer that is not to be pushed or exported.
pub fn is_nondistributable(media_type: &str) -> bool {
    LAYERS.iter().any(|(oci, docker, _, kept)| *kept && [*oci, *docker].contains(&media_type))
}

/// The type of the same layer where it may be given to others.
pub fn distributable(media_type: &str) -> &str {
    match LAYERS.iter().find(|(oci, docker, _, kept)| *kept && [*oci, *docker].contains(&media_type)) {
        Some((oci, _, packing, _)) => layer(*packing, *oci == media_type),
        None => media_type,
    }
}

/// The name of a layer packed so.
pub fn layer(packing: LayerPacking, oci: bool) -> &'static str {
    match (packing, oci) {
        (LayerPacking::Plain, true) => OCI_LAYER,
        (LayerPacking::Gzip | LayerPacking::Estargz, true) => OCI_LAYER_GZIP,
        (LayerPacking::Zstd, true) => OCI_LAYER_ZSTD,
        (LayerPacking::Plain, false) => DOCKER_LAYER,
        (LayerPacking::Gzip | LayerPacking::Estargz, false) => DOCKER_LAYER_GZIP,
        (LayerPacking::Zstd, false) => DOCKER_LAYER_ZSTD,
    }
}

/// A layer's type in OCI's or Docker's words; types that are no layers stay as they are.
pub fn convert_layer(media_type: &str, to_oci: bool) -> &str {
    match LAYERS.iter().find(|(oci, docker, ..)| [*oci, *docker].contains(&media_type)) {
        Some((oci, docker, ..)) => {
            if to_oci {
                oci
            } else {
                docker
            }
        }
        None => media_type,
    }
}
