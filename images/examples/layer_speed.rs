//! Times what is done to layers: `layer_speed pack gzip|zstd|plain FILE.tar`, `unpack BLOB DIR`, `diff KIND UPPER [LOWER...]`.
//! Meant to be run beside `pigz`, `zstd` and `zcat | tar x` on the same input.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use crosskit_images::compression::{PackOptions, pack_layer, unpack_layer};
use crosskit_images::layers::{ApplyOptions, DiffOptions, diff_layer};
use crosskit_images::media_types::LayerPacking;
use crosskit_images::{ContentStore, Error};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let work = std::env::temp_dir().join(format!("layer-speed-{}", std::process::id()));
    let store = ContentStore::open(&work)?;
    let packing = |name: &str| match name {
        "gzip" => LayerPacking::Gzip,
        "zstd" => LayerPacking::Zstd,
        _ => LayerPacking::Plain,
    };
    let start = Instant::now();
    match args[..] {
        ["pack", kind, file] => {
            let mut file = std::fs::File::open(file)?;
            let ((), blob) = pack_layer(&store, &PackOptions::new(packing(kind)), |out| {
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let len = file.read(&mut buffer).map_err(|e| Error::io("read", e))?;
                    if len == 0 {
                        return Ok(());
                    }
                    out.write_all(&buffer[..len]).map_err(|e| Error::io("write", e))?;
                }
            })?;
            println!(
                "{:.3} s, {} -> {} bytes, {}",
                start.elapsed().as_secs_f64(),
                blob.size,
                blob.desc.size,
                blob.desc.digest
            );
        }
        ["diff", kind, dir, ref lowers @ ..] => {
            let (written, blob) = pack_layer(&store, &PackOptions::new(packing(kind)), |out| {
                Ok(diff_layer(Path::new(dir), lowers, out, &DiffOptions::default())?)
            })?;
            println!(
                "{:.3} s, {} entries, {}",
                start.elapsed().as_secs_f64(),
                written.entries,
                blob.desc.digest
            );
        }
        ["unpack", blob, dir] => {
            let mut ingest = store.ingest()?;
            std::io::copy(&mut std::fs::File::open(blob)?, &mut ingest)?;
            let (digest, _) = ingest.commit()?;
            std::fs::create_dir_all(dir)?;
            let start = Instant::now();
            let root = std::fs::File::open(dir)?;
            let (applied, diff_id) = unpack_layer(&store, &digest, None, &root, &ApplyOptions::default())?;
            println!(
                "{:.3} s, {} entries, {} bytes, {diff_id}",
                start.elapsed().as_secs_f64(),
                applied.entries,
                applied.size
            );
        }
        _ => println!("usage: layer_speed pack KIND FILE | diff KIND UPPER [LOWER...] | unpack BLOB DIR"),
    }
    std::fs::remove_dir_all(&work)?;
    Ok(())
}
