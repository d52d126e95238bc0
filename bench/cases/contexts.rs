//! Contexts of many files.

use super::time_build;
use crate::floors;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::median;
use crosskit_multiarch::{DaemonOptions, Scene};
use std::path::{Path, PathBuf};

/// How many times larger the larger tree is, in files.
const LARGER: usize = 5;

/// 10 000 and 50 000 files: sent and copied cold, then with one file changed.
pub fn contexts(scene: &Scene) -> Vec<Row> {
    // The larger once: taking so many files away again can cost minutes where freed blocks are discarded at once.
    let [small, large] = [(10_000, 3), (10_000 * LARGER, 1)].map(|(files, turns)| one(scene, files, turns));
    let kind = Unit::Milliseconds;
    vec![
        Row::new("10 000 files, cold", kind, small.cold, Target::TimesFloor(1.0))
            .beside("cp -a", small.copied),
        Row::new("10 000 files, one changed", kind, small.changed, Target::AtMost(200.0)),
        Row::new("50 000 files, cold", kind, large.cold, Target::TimesFloor(5.0))
            .beside("the 10 000", small.cold),
        Row::new("50 000 files, cold, beside cp -a", kind, large.cold, Target::TimesFloor(1.0))
            .beside("cp -a", large.copied),
        Row::new("50 000 files, one changed", kind, large.changed, Target::AtMost(200.0 * LARGER as f64)),
    ]
}

struct Taken {
    cold: f64,
    changed: f64,
    copied: f64,
}

fn one(scene: &Scene, files: usize, turns: usize) -> Taken {
    let context = tree(scene, files);
    let mut number = 0;
    let mut changed = Vec::new();
    let cold = median(turns, || {
        number += 1;
        let name = format!("files-{files}-{number}");
        let daemon = scene.daemon_with(DaemonOptions { name: name.clone(), ..Default::default() });
        daemon.buildctl(&["debug", "workers"]).ok();
        let took = time_build(daemon.build(&context));
        std::fs::write(context.join("d7/f7"), format!("changed {number}\n")).expect("change a file");
        changed.push(time_build(daemon.build(&context)));
        daemon.stop();
        let _ = std::fs::remove_dir_all(scene.path(&name));
        took
    });
    changed.sort_by(f64::total_cmp);
    let copied = floors::copy(&context, &scene.path(&format!("copied-{files}")), turns);
    Taken { cold, changed: changed[changed.len() / 2], copied }
}

/// Files of 0.5 to 8 KB, a hundred in a folder.
fn tree(scene: &Scene, files: usize) -> PathBuf {
    let context = scene.context(&format!("tree-{files}"), &[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let noise: Vec<u8> = (0..8192_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for number in 0..files {
        let folder = context.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            std::fs::create_dir_all(&folder).expect("create a folder");
        }
        let length = 512 + number * 7919 % 7680;
        write(&folder.join(format!("f{number}")), number, &noise[..length]);
    }
    context
}

fn write(file: &Path, number: usize, noise: &[u8]) {
    let mut content = format!("{number}\n").into_bytes();
    content.extend_from_slice(noise);
    std::fs::write(file, content).expect("write a file");
}
