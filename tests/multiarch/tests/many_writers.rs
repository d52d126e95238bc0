//! Many builders that write one cache: what each has given away is there afterwards, whatever the place.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_multiarch::{AzureStore, Daemon, DaemonOptions, GithubStore, Ran, S3Store, Scene, digest_of};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Builders that write at once.
const WRITERS: usize = 4;

/// Builds that each of them runs at once.
const BUILDS: usize = 2;

/// Steps of a build that no other one has.
const STEPS: usize = 2;

fn fresh(scene: &Scene, name: &str) -> Daemon {
    scene.daemon_with(DaemonOptions { name: name.into(), ..DaemonOptions::default() })
}

/// A context of its own for each build, with steps that no other one has, each making what is never the same twice.
fn context(scene: &Scene, name: &str) -> PathBuf {
    let dockerfile = format!(
        "FROM BASE\nRUN : {name} && /bin/cat /proc/sys/kernel/random/uuid > /one\nRUN /bin/cat /one > /two\n"
    );
    scene.context(name, &[("Dockerfile", &dockerfile)])
}

/// Every second build is for another platform.
fn platform(build: usize) -> &'static str {
    ["linux/amd64", "linux/arm64"][build % 2]
}

fn cached(ran: &Ran) -> usize {
    ran.said().lines().filter(|line| line.ends_with(" CACHED")).count()
}

fn export(daemon: &Daemon, context: &Path, build: usize, cache: &str) -> Ran {
    daemon.build(context).platforms(&[platform(build)]).argument("--export-cache").argument(cache).run()
}

fn import(daemon: &Daemon, context: &Path, build: usize, cache: &str) -> Ran {
    daemon.build(context).platforms(&[platform(build)]).argument("--import-cache").argument(cache).run().ok()
}

/// All builders write at once, each several builds; then one that knows nothing looks for every step.
fn write_all(scene: &Scene, place: &str, to: &str, from: &str) {
    let contexts: Vec<PathBuf> =
        (0..WRITERS * BUILDS).map(|build| context(scene, &format!("{place}-{build}"))).collect();
    let writers: Vec<Daemon> = (0..WRITERS).map(|at| fresh(scene, &format!("{place}-writer-{at}"))).collect();
    std::thread::scope(|all| {
        for (build, context) in contexts.iter().enumerate() {
            let writer = &writers[build / BUILDS];
            all.spawn(move || export(writer, context, build, to).ok());
        }
    });
    writers.into_iter().for_each(Daemon::stop);
    let reader = fresh(scene, &format!("{place}-reader"));
    for (build, context) in contexts.iter().enumerate() {
        let ran = import(&reader, context, build, from);
        assert_eq!(cached(&ran), STEPS, "{place}: build {build}: {ran}");
    }
    reader.stop();
}

#[test]
fn what_many_builders_write_to_one_name_of_a_registry_is_all_there() {
    let scene = Scene::set();
    let cache = format!("type=registry,ref={}", scene.registry.reference("caches:all"));
    write_all(&scene, "registry", &format!("{cache},mode=max"), &cache);
    // In another form it is the same cache.
    let index = format!("{cache},mode=max,image-manifest=false");
    write_all(&scene, "index", &index, &cache);
}

#[test]
fn what_many_builders_write_to_one_folder_is_all_there() {
    let scene = Scene::set();
    let folder = scene.path("cache").display().to_string();
    write_all(
        &scene,
        "folder",
        &format!("type=local,dest={folder},mode=max"),
        &format!("type=local,src={folder}"),
    );
}

#[test]
fn what_many_builders_write_to_one_name_of_a_store_is_all_there() {
    let scene = Scene::set();
    let s3 = S3Store::start(&scene.parts);
    let azure = AzureStore::start(&scene.parts, &scene.path("azure"));
    let github = GithubStore::start();
    let s3_keys = format!("{},access_key_id=id,secret_access_key=secret", s3.keys());
    for (place, cache) in [("s3", s3_keys), ("azblob", azure.keys("caches")), ("gha", github.keys())] {
        write_all(&scene, place, &format!("{cache},mode=max"), &cache);
    }
}

#[test]
fn a_cache_takes_the_place_of_what_was_there_if_that_is_wanted_and_what_is_old_goes() {
    let scene = Scene::set();
    let [first, second] = ["first", "second"].map(|name| context(&scene, name));
    let folder = scene.path("cache").display().to_string();
    let s3 = S3Store::start(&scene.parts);
    let s3_keys = format!("{},access_key_id=id,secret_access_key=secret", s3.keys());
    let registry = format!("type=registry,ref={}", scene.registry.reference("caches:alone"));
    let writer = fresh(&scene, "writer");
    for (to, from) in [
        (registry.clone(), registry),
        (format!("type=local,dest={folder}"), format!("type=local,src={folder}")),
        (s3_keys.clone(), s3_keys),
    ] {
        for (more, left) in [("merge=false", 0), ("max-age=0s", 0), ("max-age=1h", STEPS)] {
            // Nobody's clock is so exact that what was written just now has no age; what has a time is older.
            export(&writer, &first, 0, &format!("{to},mode=max,merge=false")).ok();
            let steps = [
                export(&writer, &second, 0, &format!("{to},mode=max")),
                export(&writer, &second, 0, &format!("{to},mode=max,{more}")),
            ];
            steps.into_iter().for_each(|ran| drop(ran.ok()));
            let reader = fresh(&scene, "reader");
            assert_eq!(cached(&import(&reader, &second, 0, &from)), STEPS, "{from} {more}");
            assert_eq!(cached(&import(&reader, &first, 0, &from)), left, "{from} {more}");
            reader.stop();
            std::fs::remove_dir_all(scene.path("reader")).unwrap();
        }
    }
    for (more, why) in [("merge=maybe", "merge"), ("max-age=soon", "max-age")] {
        let to = format!("type=registry,ref={},{more}", scene.registry.reference("caches:none"));
        export(&writer, &first, 0, &to).fails().says(why);
        export(&writer, &first, 0, &format!("type=local,dest={folder},{more}")).fails().says(why);
    }
    writer.stop();
}

#[test]
fn whoever_dies_while_writing_leaves_a_whole_cache() {
    let scene = Scene::set();
    let [first, second] = ["first", "second"].map(|name| context(&scene, name));
    let at = |host: &str, tag: &str| format!("type=registry,ref={host}/caches:{tag},mode=max");
    let writer = fresh(&scene, "writer");
    export(&writer, &first, 0, &at(scene.registry.address(), "shared")).ok();
    // What an export asks for, when there is something: one dies at each of these requests.
    let front = scene.registry.front();
    export(&writer, &first, 0, &at(scene.registry.address(), "counted")).ok();
    export(&writer, &second, 0, &at(front.address(), "counted")).ok();
    let requests = front.log().len();
    assert!(requests > 10, "{requests}");
    std::thread::scope(|all| {
        for requests in 0..requests {
            let (front, writer, second) = (scene.registry.front(), &writer, &second);
            all.spawn(move || {
                front.die_after(requests);
                export(writer, second, 0, &at(front.address(), "shared"))
            });
        }
    });
    let manifest = scene.registry.manifest("caches", "shared").expect("a cache");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let documents = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]);
    for desc in documents {
        let digest = desc["digest"].as_str().expect("a digest");
        assert_eq!(digest_of(&scene.registry.blob("caches", digest)), digest);
    }
    export(&writer, &second, 0, &at(scene.registry.address(), "shared")).ok();
    writer.stop();
    let reader = fresh(&scene, "reader");
    for context in [&first, &second] {
        let ran = import(&reader, context, 0, &at(scene.registry.address(), "shared"));
        assert_eq!(cached(&ran), STEPS, "{ran}");
    }
    reader.stop();
}

#[test]
fn layers_of_others_that_the_registry_has_lost_are_left_out() {
    let scene = Scene::set();
    let [first, second] = ["first", "second"].map(|name| context(&scene, name));
    let cache = format!("type=registry,ref={}", scene.registry.reference("caches:lost"));
    let writer = fresh(&scene, "writer");
    let to = format!("{cache},mode=max");
    export(&writer, &first, 0, &to).ok();
    let manifest = || -> Value {
        serde_json::from_slice(&scene.registry.manifest("caches", "lost").expect("the cache")).expect("JSON")
    };
    let digests = |manifest: &Value| -> Vec<String> {
        let layers = manifest["layers"].as_array().expect("layers").iter();
        layers.map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
    };
    let base = scene.base_image.layer_digest("linux/amd64");
    let lost: Vec<String> = digests(&manifest()).into_iter().filter(|digest| *digest != base).collect();
    assert_eq!(lost.len(), STEPS);
    lost.iter().for_each(|digest| scene.registry.lose("caches", digest));
    export(&writer, &second, 0, &to).ok();
    let listed = digests(&manifest());
    assert!(lost.iter().all(|digest| !listed.contains(digest)), "{listed:?}");
    assert_eq!(listed.len(), 1 + STEPS);
    writer.stop();
    let reader = fresh(&scene, "reader");
    assert_eq!(cached(&import(&reader, &second, 0, &cache)), STEPS);
    reader.stop();
}
