//! One large layer: copied, compressed, pushed, pulled.

use super::idle::resident;
use super::time_build;
use crate::floors;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::{median, time_script};
use crosskit_multiarch::{DaemonOptions, Scene};
use std::io::Write;
use std::path::Path;

/// Bytes in the layer's one file.
const SIZE: usize = 300_000_000;

/// A 300 MB layer through every part of its life.
pub fn layers(scene: &Scene) -> Vec<Row> {
    let context = scene.context("large", &[("Dockerfile", "FROM scratch\nCOPY large /\n")]);
    let large = context.join("large");
    write_large(&large);
    let mut peak: f64 = 0.0;
    let mut number = 0;
    let mut fresh = |work: &mut dyn FnMut(&crosskit_multiarch::Daemon) -> f64| {
        median(3, || {
            number += 1;
            let name = format!("large-{number}");
            let daemon = scene.daemon_with(DaemonOptions { name: name.clone(), ..Default::default() });
            daemon.buildctl(&["debug", "workers"]).ok();
            let took = work(&daemon);
            peak = peak.max(resident(&daemon, "VmHWM:"));
            daemon.stop();
            let _ = std::fs::remove_dir_all(scene.path(&name));
            took
        })
    };
    let archive = scene.path("large.oci.tar");
    let oci = |compression: &str| format!("type=oci,compression={compression},dest={}", archive.display());
    let name = scene.registry.reference("large:1");

    let copy = fresh(&mut |daemon| time_build(daemon.build(&context)));
    let mut export = |compression: &str| {
        fresh(&mut |daemon| {
            time_build(daemon.build(&context));
            time_build(daemon.build(&context).output(&oci(compression)))
        })
    };
    let gzip = export("gzip");
    let zstd = export("zstd");
    let estargz = export("estargz");
    let again = fresh(&mut |daemon| {
        time_build(daemon.build(&context).output(&oci("gzip")));
        time_build(daemon.build(&context).output(&oci("gzip")))
    });
    let push = {
        let mut number = 0;
        fresh(&mut |daemon| {
            number += 1;
            // Made and compressed before; a repository that has no blob yet.
            time_build(daemon.build(&context).output("type=image,name=large"));
            let name = scene.registry.reference(&format!("pushed-{number}:1"));
            // The registry knows the blob from the last turn, but not in this repository; without a
            // source to mount from it has to travel again.
            time_build(daemon.build(&context).output(&format!("type=image,name={name},push=true")))
        })
    };
    {
        let daemon = scene.daemon();
        time_build(daemon.build(&context).output(&format!("type=image,name={name},push=true")));
        daemon.stop();
    }
    let unpack =
        scene.context("unpack", &[("Dockerfile", &format!("FROM {name}\nCOPY small /\n")), ("small", "1\n")]);
    let pull = fresh(&mut |daemon| time_build(daemon.build(&unpack)));

    let work = scene.path("floor");
    std::fs::create_dir_all(&work).expect("create a folder");
    let copied = floors::copy(&large, &work.join("copied"), 3);
    let archive_copied = floors::copy(&archive, &work.join("archive"), 3);
    let (tar, context, work) = (work.join("layer.tar"), context.display(), work.display());
    time_script(&format!("tar -C {context} -cf {} large", tar.display()));
    let tar = tar.display();
    let pigz = median(3, || time_script(&format!("pigz -6 -p 2 -c {tar} > {work}/layer.gz")));
    let plain_zstd = median(3, || time_script(&format!("zstd -q -3 -T2 -c {tar} > {work}/layer.zst")));
    let sum = median(3, || time_script(&format!("sha256sum {tar}")));
    let untar = median(3, || {
        time_script(&format!(
            "rm -rf {work}/x && mkdir {work}/x && zcat {work}/layer.gz | tar -C {work}/x -xf -"
        ))
    });
    let kind = Unit::Milliseconds;
    vec![
        Row::new("300 MB layer: sent and COPYed", kind, copy, Target::TimesFloor(1.3)).beside("cp", copied),
        Row::new("300 MB layer: gzip export", kind, gzip, Target::TimesFloor(0.8))
            .beside("pigz -6 -p 2", pigz),
        Row::new("300 MB layer: zstd export", kind, zstd, Target::TimesFloor(1.2))
            .beside("zstd -3 -T2", plain_zstd),
        Row::new("300 MB layer: eStargz export", kind, estargz, Target::TimesFloor(1.0))
            .beside("pigz -6 -p 2", pigz),
        Row::new("300 MB layer: exported again", kind, again, Target::TimesFloor(3.0))
            .beside("cp of the archive", archive_copied),
        Row::new("300 MB layer: push", kind, push, Target::AtMost(1000.0)).beside("sha256sum", sum),
        Row::new("300 MB layer: pull and unpack", kind, pull, Target::TimesFloor(1.0))
            .beside("zcat into tar x", untar),
        Row::new("peak memory of all of these", Unit::Megabytes, peak, Target::AtMost(60.0)),
    ]
}

/// Writes content that compresses to about half, the same every time: runs of noise between runs of words.
fn write_large(file: &Path) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).expect("create the large file"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut written = 0;
    while written < SIZE {
        let mut block = [0; 256];
        for chunk in block[..128].chunks_mut(8) {
            // xorshift64: no pattern that a compressor finds, no dependency either.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        for (at, byte) in block[128..].iter_mut().enumerate() {
            *byte = b"the quick brown fox jumps over the lazy dog and on it goes; "
                [(at + written / 256 * 7) % 60];
        }
        let length = block.len().min(SIZE - written);
        out.write_all(&block[..length]).expect("write the large file");
        written += length;
    }
    out.flush().expect("write the large file");
}
