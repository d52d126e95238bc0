//! SBOMs of scanners with what only the builder knows: which layer each file is in.

use serde_json::{Value, json};
use std::collections::HashMap;

/// A scanner's SBOM, SPDX in JSON, with the layer of each file that has no remark yet, and `creator` among those who have
/// made it. `layers` are digests by absolute path. None for a document that is none.
pub fn supplemented(document: &[u8], layers: &HashMap<String, String>, creator: &str) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(document).ok()?;
    document.as_object()?.get("spdxVersion")?;
    if let Some(files) = document.get_mut("files").and_then(Value::as_array_mut) {
        for file in files {
            remark(file, layers);
        }
    }
    let creation = entry(&mut document, "creationInfo", json!({}))?;
    let creators = entry(creation, "creators", json!([]))?;
    creators.as_array_mut()?.push(format!("Tool: {creator}").into());
    crosskit_images::gojson::to_vec(&document).ok()
}

/// What an object has under a key; what is absent or null becomes `new`.
fn entry<'v>(object: &'v mut Value, key: &str, new: Value) -> Option<&'v mut Value> {
    let value = object.as_object_mut()?.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = new;
    }
    Some(value)
}

fn remark(file: &mut Value, layers: &HashMap<String, String>) {
    let Some(file) = file.as_object_mut() else { return };
    if file.get("comment").and_then(Value::as_str).is_some_and(|comment| !comment.is_empty()) {
        return;
    }
    let Some(name) = file.get("fileName").and_then(Value::as_str) else { return };
    let path = crosskit_llb::paths::clean(&format!("/{name}"));
    if let Some(layer) = layers.get(&path) {
        file.insert("comment".into(), format!("layerID: {layer}").into());
    }
}
