//! Layers of images.

use crosskit_images::layers::{ApplyForm, ApplyOptions, LayerLimits, apply_layer};
use crosskit_images::tar::ReaderLimits;
use std::fs::File;

/// Bytes of a tar's block.
const BLOCK: usize = 512;

/// Where in a header its checksum is.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// What is in the file beside the folder that the layer goes into.
const MARK: &[u8] = b"untouched";

/// Applies a layer in each form. Nothing outside of the folder is made or changed.
pub fn run(bytes: &[u8]) {
    apply(bytes);
    // A changed header has another checksum: without this they would all be refused there.
    apply(&sealed(bytes));
}

fn apply(bytes: &[u8]) {
    for form in [ApplyForm::Merged, ApplyForm::Overlay] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (into, beside) = (folder.path().join("into"), folder.path().join("beside"));
        std::fs::create_dir(&into).expect("a folder can be made");
        std::fs::write(&beside, MARK).expect("a file can be written");
        let limits = LayerLimits { entries: 1000, bytes: 1 << 20, tar: ReaderLimits::default() };
        let options = ApplyOptions { form, limits, ..ApplyOptions::default() };
        let root = File::open(&into).expect("the folder can be opened");
        let _ = apply_layer(&root, bytes, &options);
        assert_eq!(std::fs::read(&beside).expect("the file beside is there"), MARK);
        assert_eq!(std::fs::read_dir(folder.path()).expect("it can be listed").count(), 2);
    }
}

/// The same with right checksums in all that may be headers.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if !block[257..].starts_with(b"ustar") {
            continue;
        }
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}
