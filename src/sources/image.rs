//! `docker-image://NAME`: an image of a registry. Also the common part of images elsewhere.

use crate::context::shown;
use crate::manifests::{Image, Remote, load};
use crate::oci_layout::InLayout;
use crate::registry::InRegistry;
use crate::{Attrs, Material, Shared, Source, SourceContext, SourceError, SourceKey};
use crosskit_images::registry::Reference;
use crosskit_images::{Digest, ImageConfig, gojson};
use crosskit_platforms::Platform;
use crosskit_snapshots::{About, RecordType, Ref, RemoteLayer};
use futures::future::BoxFuture;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// An image: what stands for it and its config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMeta {
    /// The digest of the manifest or index that the name stands for.
    pub digest: String,
    /// The bytes of the config for the platform.
    pub config: Vec<u8>,
}

/// Where an image is.
pub(crate) enum Place {
    Registry(Reference),
    Layout { session: String, store: String, digest: Digest },
}

/// An image as an input.
pub(crate) struct ImageSource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) place: Place,
    /// As the build names it.
    pub(crate) name: String,
    pub(crate) asked_platform: Option<Platform>,
    pub(crate) layer_limit: Option<usize>,
    pub(crate) checksum: Option<Digest>,
    pub(crate) record_type: RecordType,
    pub(crate) loaded: OnceCell<Image>,
}

/// What the key is made of (BuildKit `source/containerimage/pull.go`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyParts<'a> {
    digest: String,
    #[serde(rename = "OS")]
    os: &'a str,
    arch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "<[_]>::is_empty")]
    os_features: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

impl ImageSource {
    pub(crate) fn new(
        shared: Arc<Shared>,
        name: &str,
        attrs: &Attrs,
        platform: Option<Platform>,
    ) -> Result<Self, SourceError> {
        let reference = Reference::parse(name)
            .map_err(|err| SourceError::Invalid(format!("invalid image reference {name:?}: {err}")))?;
        if reference.tag().is_none() && reference.digest().is_none() {
            return Err(SourceError::Invalid(format!("{name:?}: object required: give a tag or a digest")));
        }
        // No image store of ours is a place to prefer: what is here is found by its digest anyway.
        match attrs.get("image.resolvemode").map_or("default", String::as_str) {
            "default" | "" | "pull" | "local" => {}
            other => return Err(SourceError::Invalid(format!("invalid resolvemode: {other}"))),
        }
        let record_type = match attrs.get("image.recordtype").map_or("", String::as_str) {
            "" | "regular" => RecordType::Regular,
            "internal" => RecordType::Internal,
            "frontend" => RecordType::Frontend,
            other => return Err(SourceError::Invalid(format!("invalid record type {other}"))),
        };
        let checksum = attrs.get("image.checksum").filter(|text| !text.is_empty()).map(|text| {
            text.parse::<Digest>()
                .map_err(|err| SourceError::Invalid(format!("invalid image checksum {text}: {err}")))
        });
        Ok(Self {
            shared,
            place: Place::Registry(reference),
            name: name.to_string(),
            asked_platform: platform,
            layer_limit: layer_limit(attrs, "image.layerlimit")?,
            checksum: checksum.transpose()?,
            record_type,
            loaded: OnceCell::new(),
        })
    }

    pub(crate) fn platform(&self) -> Platform {
        self.asked_platform.clone().unwrap_or_else(crosskit_platforms::native)
    }

    /// The place, for the builds that want it now.
    pub(crate) fn remote(&self, cx: &Arc<dyn SourceContext>) -> Box<dyn Remote> {
        let (shared, sessions) = (self.shared.clone(), cx.sessions());
        match &self.place {
            Place::Registry(reference) => {
                let client = shared.clients.for_sessions(sessions);
                Box::new(InRegistry { shared, client, reference: reference.clone() })
            }
            Place::Layout { session, store, digest } => {
                let sessions = if session.is_empty() { sessions } else { vec![session.clone()] };
                Box::new(InLayout {
                    shared,
                    sessions,
                    store: store.clone(),
                    digest: *digest,
                    name: self.name.clone(),
                })
            }
        }
    }

    /// Looks for the image with a line of progress.
    async fn image(&self, cx: &Arc<dyn SourceContext>) -> Result<&Image, SourceError> {
        if let Some(image) = self.loaded.get() {
            return Ok(image);
        }
        shown(&**cx, &format!("resolve {}", self.name), self.found(cx)).await
    }

    async fn found(&self, cx: &Arc<dyn SourceContext>) -> Result<&Image, SourceError> {
        let find = || async {
            let remote = self.remote(cx);
            let platform = self.platform();
            let mut image = load(&*remote, &self.name, &platform).await?;
            if let Some(expected) = self.checksum.filter(|expected| *expected != image.main.digest) {
                return Err(SourceError::Mismatch(format!(
                    "image digest {} for {} does not match expected checksum {expected}",
                    image.main.digest, self.name
                )));
            }
            if let Some(limit) = self.layer_limit {
                if limit > image.layers.len() {
                    return Err(SourceError::Invalid(format!(
                        "layer limit {limit} is greater than the number of layers in the image {}",
                        image.layers.len()
                    )));
                }
                image.layers.truncate(limit);
            }
            Ok(image)
        };
        self.loaded.get_or_try_init(find).await
    }

    /// What the name stands for, and the config. The step that asks says what it does by its name.
    pub(crate) async fn meta(&self, cx: &Arc<dyn SourceContext>) -> Result<ImageMeta, SourceError> {
        let image = self.found(cx).await?;
        Ok(ImageMeta { digest: image.main.digest.to_string(), config: image.config.clone() })
    }

    fn manifest_key(&self, image: &Image) -> Result<String, SourceError> {
        let platform = self.platform();
        let parts = KeyParts {
            digest: image.main.digest.to_string(),
            os: &platform.os,
            arch: &platform.architecture,
            variant: &platform.variant,
            os_version: &platform.os_version,
            os_features: &platform.os_features,
            limit: self.layer_limit,
        };
        let json = gojson::to_vec(&parts).map_err(SourceError::image("write key of image"))?;
        Ok(Digest::of(json).to_string())
    }
}

/// The key that an image has by its contents, whoever compressed them: none if it has none.
fn config_key(image: &Image, limit: Option<usize>) -> Result<Option<String>, SourceError> {
    let Ok(config) = ImageConfig::parse(&image.config) else {
        return match limit {
            None => Ok(Some(Digest::of(&image.config).to_string())),
            Some(_) => Err(SourceError::Invalid("failed to parse image config".into())),
        };
    };
    let mut diff_ids = config.rootfs.diff_ids;
    diff_ids.truncate(limit.unwrap_or(usize::MAX));
    if config.rootfs.kind != "layers" {
        return Ok(None);
    }
    // The chain id of the OCI image-spec.
    let chain = diff_ids.into_iter().reduce(|below, next| Digest::of(format!("{below} {next}")));
    Ok(chain.map(|chain| chain.to_string()))
}

/// How many layers are wanted, if not all.
pub(crate) fn layer_limit(attrs: &Attrs, key: &str) -> Result<Option<usize>, SourceError> {
    let Some(text) = attrs.get(key) else { return Ok(None) };
    match text.parse::<usize>() {
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err(SourceError::Invalid(format!("invalid layer limit {text}"))),
    }
}

impl Source for ImageSource {
    fn key<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<SourceKey>, SourceError>> {
        Box::pin(async move {
            let image = self.image(cx).await?;
            let key = match index {
                0 => Some(self.manifest_key(image)?),
                1 => config_key(image, self.layer_limit)?,
                _ => None,
            };
            Ok(key.map(|key| SourceKey { key, pin: image.main.digest.to_string() }))
        })
    }

    fn snapshot<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
    ) -> BoxFuture<'a, Result<Option<Ref>, SourceError>> {
        Box::pin(async move {
            let image = self.image(cx).await?;
            let provider = self.remote(cx).provider(cx);
            let layers = image.layers.iter().map(|(desc, diff_id)| RemoteLayer {
                desc: desc.clone(),
                diff_id: *diff_id,
                provider: provider.clone(),
            });
            let about = About::new(format!("pulled from {}", self.name)).of_type(self.record_type);
            Ok(self.shared.parts.snapshots.from_layers(layers.collect(), about)?)
        })
    }

    fn material(&self, pin: &str) -> Material {
        Material::Image {
            reference: self.name.clone(),
            platform: self.asked_platform.clone(),
            digest: pin.to_string(),
            local: matches!(self.place, Place::Layout { .. }),
        }
    }
}
