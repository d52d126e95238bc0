//! Manifests, indexes, and configurations of images.

use crosskit_images::{ImageConfig, Index, Manifest};

/// Words of manifests.
pub const WORDS: &[&str] = &[
    "null",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"sha256:\"",
    "\"digest\":",
    "\"size\":",
    "\"mediaType\":",
    "\"platform\":",
    "\"annotations\":",
    "\"layers\":",
    "\"manifests\":",
    "\"config\":",
    "[[[[[[[[",
    "\\u0000",
    "\\ud800",
    "\"urls\":[\"\"]",
];

/// Reads a document as each kind; what is accepted is accepted again after it was written.
pub fn run(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let text = manifest.to_json().expect("it can be written");
        Manifest::parse(&text).expect("what was written can be read");
    }
    if let Ok(index) = Index::parse(bytes) {
        let text = index.to_json().expect("it can be written");
        Index::parse(&text).expect("what was written can be read");
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        let _ = config.platform();
        let text = config.to_json().expect("it can be written");
        ImageConfig::parse(&text).expect("what was written can be read");
        let _ = config.to_sorted_json();
    }
}
