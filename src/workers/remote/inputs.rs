//! An input as an image: its layers as they are, and the documents that name them. The same
//! layers give the same documents everywhere, so that equal work is known to be equal.

use crosskit_images::media_types::LayerPacking;
use crosskit_images::{Descriptor, Digest, ImageConfig, Manifest, RootFs, media_types};
use crosskit_platforms::Platform;
use crosskit_snapshots::{Layer, LayerForm, Ref};

/// An input as an image.
pub(super) struct InputImage {
    /// The manifest, by which the input is named.
    pub(super) manifest: Digest,
    /// Manifest and config.
    pub(super) documents: [(Digest, Vec<u8>); 2],
    /// Its layers, bottom first.
    pub(super) layers: Vec<Layer>,
    /// The input itself.
    pub(super) snapshot: Ref,
}

impl InputImage {
    /// Makes the image of an input. Layers that are no blobs yet become such, not compressed:
    /// whoever unpacks them next is near. Those of images stay as they are, and where they are.
    pub(super) async fn of(input: &Ref, platform: &Platform) -> crosskit_snapshots::Result<Self> {
        let form = LayerForm { packing: LayerPacking::Plain, carry: true, ..LayerForm::default() };
        let layers = input.layers(form).await?;
        let blobs: Vec<_> = layers.iter().map(|layer| (&layer.blob.desc, layer.blob.diff_id)).collect();
        let documents = documents(&blobs, platform);
        Ok(InputImage { manifest: documents[0].0, documents, layers, snapshot: input.clone() })
    }
}

/// The manifest and the config of an image that consists of layers and nothing else: no times,
/// no names, no remarks.
fn documents(layers: &[(&Descriptor, Digest)], platform: &Platform) -> [(Digest, Vec<u8>); 2] {
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs {
            diff_ids: layers.iter().map(|(_, diff_id)| *diff_id).collect(),
            ..RootFs::default()
        },
        ..ImageConfig::default()
    };
    let config = config.to_sorted_json().expect("a config of ours has only text keys");
    let descs = layers.iter().map(|(desc, _)| {
        Descriptor::new(media_types::convert_layer(&desc.media_type, true), desc.digest, desc.size)
    });
    let manifest = Manifest::new(
        media_types::OCI_MANIFEST,
        Descriptor::of(media_types::OCI_CONFIG, &config),
        descs.collect(),
    );
    let manifest = manifest.to_json().expect("a manifest of ours has only text keys");
    [manifest, config].map(|bytes| (Digest::of(&bytes), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_layers_and_its_platform_alone() {
        let platform = Platform::parse("linux/arm64").unwrap().normalize();
        let mut desc = Descriptor::of(media_types::DOCKER_LAYER_GZIP, b"layer");
        let diff_id = Digest::of("tar");
        let plain = documents(&[(&desc, diff_id)], &platform);
        desc.annotations.insert("buildkit/createdat".into(), "2020-01-01T00:00:00Z".into());
        assert_eq!(documents(&[(&desc, diff_id)], &platform), plain);
        let manifest = Manifest::parse(&plain[0].1).unwrap();
        assert_eq!(manifest.layers[0].media_type, media_types::OCI_LAYER_GZIP);
        assert_eq!(manifest.config.digest, plain[1].0);
        let config = String::from_utf8(plain[1].1.clone()).unwrap();
        assert_eq!(
            config,
            format!(
                r#"{{"architecture":"arm64","config":{{}},"os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
            )
        );
        let other = Platform::parse("linux/riscv64").unwrap();
        assert_ne!(documents(&[(&desc, diff_id)], &other)[0].0, plain[0].0);
    }
}
