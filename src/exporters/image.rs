//! `image`: an image in the daemon's store, and in a registry if it is to be pushed.

use crate::blobs::{self, Committed};
use crate::options::ImageOptions;
use crate::{Export, ExportError, Exporter, Exporters, Report, push};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_images::gojson;
use crosskit_snapshots::LayerForm;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;

struct Image {
    exporters: Exporters,
    options: ImageOptions,
}

/// `type=image`.
pub fn resolve(
    exporters: &Exporters,
    _at: usize,
    attrs: &BTreeMap<String, String>,
) -> Result<Box<dyn Exporter>, ExportError> {
    let options = ImageOptions::parse("image", attrs)?;
    Ok(Box::new(Image { exporters: exporters.clone(), options }))
}

impl Exporter for Image {
    fn name(&self) -> String {
        "exporting to image".to_string()
    }

    fn image_layers(&self) -> Option<LayerForm> {
        Some(blobs::form(&self.options, None))
    }

    fn export<'a>(
        &'a self,
        result: &'a Export,
        report: Arc<dyn Report>,
        session: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, ExportError>> {
        Box::pin(async move {
            crate::tell(&report, &self.options.remarks);
            let result = with_metadata(result, &self.options);
            let options = self.options.settled("image", &result)?;
            let committed = blobs::commit(&self.exporters.images, &result, &options, &report).await?;
            let mut response = told(&committed)?;
            let names = self.names(&result, &committed);
            if !names.is_empty() {
                response.insert("image.name".to_string(), names.join(","));
            }
            if self.options.push {
                for name in &names {
                    push::push(&self.exporters, &committed, name, &self.options, session, &report)
                        .await
                        .map_err(|e| e.while_doing(&format!("failed to push {name}")))?;
                }
            }
            Ok(response)
        })
    }
}

impl Image {
    fn names(&self, result: &Export, committed: &Committed) -> Vec<String> {
        let mut name = self.options.name.clone();
        if name == "*"
            && let Some(of_result) = result.metadata.get("image.name")
        {
            name = String::from_utf8_lossy(of_result).into_owned();
        }
        let dangling = &self.options.dangling_prefix;
        let mut names: Vec<String> = name.split(',').filter(|n| !n.is_empty()).map(str::to_string).collect();
        if !dangling.is_empty() && (names.is_empty() || !self.options.dangling_empty_only) {
            names.push(format!("{dangling}@{}", committed.root.digest));
        }
        names
    }
}

/// The result with what the client lays over its metadata.
pub fn with_metadata(result: &Export, options: &ImageOptions) -> Export {
    let mut result = result.clone();
    result.metadata.extend(options.metadata.clone());
    result
}

/// What the client is told of an image.
pub fn told(committed: &Committed) -> Result<BTreeMap<String, String>, ExportError> {
    let mut response = BTreeMap::new();
    response.insert("containerimage.digest".to_string(), committed.root.digest.to_string());
    if let Some(config) = &committed.config {
        response.insert("containerimage.config.digest".to_string(), config.to_string());
    }
    let desc = gojson::to_vec(&committed.root).map_err(|e| ExportError::internal(e.to_string()))?;
    response.insert("containerimage.descriptor".to_string(), STANDARD.encode(desc));
    Ok(response)
}
