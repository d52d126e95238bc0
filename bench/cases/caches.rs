//! A cache that is given to a registry on the same machine.

use super::time_build;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::{median, milliseconds};
use crosskit_multiarch::Scene;
use serde_json::Value;
use std::time::Instant;

/// Steps, each with a layer of its own.
const STEPS: usize = 50;

/// 50 layers, compressed before, each turn to a repository that has none of them.
pub fn caches(scene: &Scene) -> Vec<Row> {
    let mut dockerfile = String::from("FROM BASE\n");
    for number in 0..STEPS {
        dockerfile.push_str(&format!("RUN head -c 300000 /dev/urandom > /{number}\n"));
    }
    let context = scene.context("fifty", &[("Dockerfile", &dockerfile)]);
    let daemon = scene.daemon();
    let export = |name: &str| {
        let cache = format!("type=registry,ref={},mode=max", scene.registry.reference(name));
        time_build(daemon.build(&context).argument("--export-cache").argument(&cache))
    };
    export("warm:cache");
    let mut number = 0;
    let registry = median(5, || {
        number += 1;
        export(&format!("turn-{number}:cache"))
    });
    daemon.stop();
    let manifest = scene.registry.manifest("warm", "cache").expect("the cache");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers").iter();
    let blobs: Vec<Vec<u8>> = layers
        .filter_map(|layer| layer["digest"].as_str())
        .map(|digest| scene.registry.blob("warm", digest))
        .collect();
    let floor = median(5, || {
        number += 1;
        let started = Instant::now();
        for blob in &blobs {
            scene.registry.push_blob(&format!("plain-{number}"), blob);
        }
        milliseconds(started.elapsed())
    });
    let what = "50 layers to a registry's cache, mode=max";
    vec![
        Row::new(what, Unit::Milliseconds, registry, Target::TimesFloor(1.5))
            .beside("their blobs by plain HTTP, one by one", floor),
    ]
}
