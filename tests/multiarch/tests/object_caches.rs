//! Caches in stores of objects: the same promises for each kind.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_multiarch::{
    Asked, AzureStore, Buildx, Daemon, DaemonOptions, Endless, GithubStore, Ran, Response, S3Store, Scene,
    Served, Tree, digest_of,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What each step makes is never the same twice; one layer is larger than what goes up at once.
const DOCKERFILE: &str = "FROM BASE AS made\nRUN /bin/cat /proc/sys/kernel/random/uuid > /made\n\
    FROM BASE\nCOPY a.txt /a.txt\nCOPY --from=made /made /made\n\
    RUN --mount=type=bind,from=made,target=/m /bin/cat /m/made /proc/sys/kernel/random/uuid > /three \
    && /bin/busybox dd if=/dev/urandom of=/large bs=1000000 count=20\n";

/// The steps of it that are to be found.
const STEPS: usize = 4;

/// The container of Azure's store.
const CONTAINER: &str = "caches";

enum Store {
    S3(S3Store),
    Azure(AzureStore),
    Github(GithubStore),
}

impl Store {
    /// One of each kind.
    fn all(scene: &Scene) -> Vec<Store> {
        vec![Store::s3(scene), Store::azure(scene), Store::github(scene)]
    }

    fn s3(scene: &Scene) -> Store {
        Store::S3(S3Store::start(&scene.parts))
    }

    fn azure(scene: &Scene) -> Store {
        Store::Azure(AzureStore::start(&scene.parts, &scene.path("azure")))
    }

    fn github(_: &Scene) -> Store {
        Store::Github(GithubStore::start())
    }

    fn front(&self) -> &Served {
        match self {
            Store::S3(store) => &store.front,
            Store::Azure(store) => &store.front,
            Store::Github(store) => &store.front,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Store::S3(_) => "s3",
            Store::Azure(_) => "azblob",
            Store::Github(_) => "gha",
        }
    }

    /// The keys without credentials that are not needed.
    fn keys(&self) -> String {
        match self {
            Store::S3(store) => format!("{},access_key_id=id,secret_access_key=secret", store.keys()),
            Store::Azure(store) => store.keys(CONTAINER),
            Store::Github(store) => store.keys(),
        }
    }

    /// What tells one cache from another one in the same store.
    fn called(&self, name: &str) -> String {
        match self {
            Store::S3(_) | Store::Azure(_) => format!("{},name={name}", self.keys()),
            Store::Github(_) => format!("{},scope={name}", self.keys()),
        }
    }

    fn blob_key(&self, digest: &str) -> String {
        match self {
            Store::S3(_) | Store::Azure(_) => format!("blobs/{digest}"),
            Store::Github(_) => format!("buildkit-blob-1-{digest}"),
        }
    }

    fn manifest_key(&self, name: &str) -> String {
        match self {
            Store::S3(_) | Store::Azure(_) => format!("manifests/{name}"),
            Store::Github(_) => format!("index-{name}-1-{}#", &digest_of(b"refs/heads/work")[7..15]),
        }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self {
            Store::S3(store) => store.get(key),
            Store::Azure(store) => store.get(CONTAINER, key),
            Store::Github(store) => store.get(key).map(|(_, content)| content),
        }
    }

    fn put(&self, key: &str, content: &[u8]) {
        match self {
            Store::S3(store) => store.put(key, content),
            Store::Azure(store) => store.put(CONTAINER, key, content),
            Store::Github(store) => store.put(key, content),
        }
    }

    fn manifest(&self, name: &str) -> Value {
        let bytes = self.get(&self.manifest_key(name)).expect("the cache");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// The blobs that a cache tells of.
    fn blobs(&self, name: &str) -> Vec<String> {
        let manifest = self.manifest(name);
        let layers = manifest["layers"].as_array().expect("layers").clone();
        let mut blobs: Vec<_> =
            layers.iter().map(|layer| layer["blob"].as_str().expect("a digest").to_owned()).collect();
        blobs.sort();
        blobs.dedup();
        blobs
    }

    /// What was read of the content of layers.
    fn reads(&self) -> Vec<Asked> {
        let log = self.front().log().into_iter().filter(Asked::reads);
        match self {
            Store::S3(_) | Store::Azure(_) => log.filter(|asked| asked.path.contains("/blobs/")).collect(),
            // The index, and whatever was asked besides.
            Store::Github(_) => log.filter(|asked| asked.path.contains("/entries/")).skip(1).collect(),
        }
    }
}

fn context(scene: &Scene) -> PathBuf {
    scene.context("context", &[("Dockerfile", DOCKERFILE), ("a.txt", "a\n")])
}

fn fresh(scene: &Scene, name: &str) -> Daemon {
    scene.daemon_with(DaemonOptions { name: name.into(), ..DaemonOptions::default() })
}

fn cached(ran: &Ran) -> usize {
    ran.said().lines().filter(|line| line.ends_with(" CACHED")).count()
}

/// Builds in a daemon of its own, with caches exported and imported.
fn build(scene: &Scene, context: &Path, export: &[String], import: &[String], out: Option<&Path>) -> Ran {
    let daemon = fresh(scene, "once");
    let mut build = daemon.build(context);
    if let Some(out) = out {
        build = build.output(&format!("type=local,dest={}", out.display()));
    }
    for cache in export {
        build = build.argument("--export-cache").argument(cache);
    }
    for cache in import {
        build = build.argument("--import-cache").argument(cache);
    }
    let ran = build.run();
    daemon.stop();
    std::fs::remove_dir_all(scene.path("once")).expect("remove the daemon's root");
    ran
}

fn same(one: &Path, other: &Path, what: &str) {
    let (one, other) = (Tree::of_folder(one), Tree::of_folder(other));
    for path in ["a.txt", "made", "three"] {
        assert_eq!(one.text(path), other.text(path), "{what}: {path}");
    }
}

fn large(folder: &Path) -> String {
    digest_of(&std::fs::read(folder.join("large")).expect("the large file"))
}

#[test]
fn what_is_given_away_is_found_again_with_every_step_and_under_every_name() {
    let scene = Scene::set();
    let context = context(&scene);
    for store in Store::all(&scene) {
        let what = store.name();
        let (min, max) = (store.called("least"), store.called("most"));
        let names = match store {
            Store::Github(_) => vec![max.clone()],
            _ => vec![store.called("most;again"), max.clone(), store.called("again")],
        };
        let out = scene.path(&format!("{what}-out"));
        build(&scene, &context, &[min.clone(), format!("{},mode=max", names[0])], &[], Some(&out)).ok();
        for import in names[1.min(names.len() - 1)..].iter().chain([&min]) {
            let found = scene.path("found");
            let ran = build(&scene, &context, &[], std::slice::from_ref(import), Some(&found)).ok();
            assert_eq!(cached(&ran), STEPS, "{import}: {ran}");
            same(&out, &found, what);
            assert_eq!(large(&out), large(&found), "{import}");
            std::fs::remove_dir_all(&found).expect("remove what was found");
        }
        let told = store.manifest("most");
        for layer in told["layers"].as_array().expect("layers") {
            let about = &layer["annotations"];
            let (size, digest) =
                (about["size"].as_u64().expect("a size"), layer["blob"].as_str().expect("a blob"));
            let content = store.get(&store.blob_key(digest)).expect("the blob");
            assert_eq!((content.len() as u64, &*digest_of(&content)), (size, digest), "{what}");
            assert!(about["diffID"].as_str().is_some_and(|text| text.starts_with("sha256:")), "{about}");
            assert_eq!(about["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
            assert!(about["createdAt"].as_str().is_some_and(|text| text.ends_with('Z')), "{about}");
        }
        // The next one takes the place of what was there, and gives only what is new.
        scene.write("context", "a.txt", "b\n");
        store.front().forget();
        let ran =
            build(&scene, &context, &[format!("{max},mode=max")], std::slice::from_ref(&max), None).ok();
        assert_eq!(cached(&ran), 1, "{ran}");
        let given = store.front().log().iter().filter(|asked| asked.method == "PUT").count();
        let large = 3 + 1;
        assert!((4..=3 + large + 1).contains(&given), "{what}: {given} writes");
        let ran = build(&scene, &context, &[], &[max], None).ok();
        assert_eq!(cached(&ran), STEPS, "{ran}");
        scene.write("context", "a.txt", "a\n");
    }
}

#[test]
fn a_hit_moves_no_layer_until_its_files_are_needed() {
    let scene = Scene::set();
    let context = context(&scene);
    for store in Store::all(&scene) {
        let cache = store.called("lazy");
        build(&scene, &context, &[format!("{cache},mode=max")], &[], None).ok();
        store.front().forget();
        let ran = build(&scene, &context, &[], std::slice::from_ref(&cache), None).ok();
        assert_eq!(cached(&ran), STEPS, "{ran}");
        assert!(store.reads().is_empty(), "{}: {:?}", store.name(), store.reads());
        store.front().forget();
        build(&scene, &context, &[], &[cache], Some(&scene.path(store.name()))).ok();
        assert!(!store.reads().is_empty(), "{}", store.name());
    }
}

/// A store that dies at any request fails what it has to and nothing else.
fn dying(open: fn(&Scene) -> Store) {
    let scene = Scene::set();
    let store = open(&scene);
    let dockerfile = "FROM BASE\nRUN /bin/cat /proc/sys/kernel/random/uuid > /made\n";
    let context = scene.context("short", &[("Dockerfile", dockerfile)]);
    let cache = store.called("dying");
    build(&scene, &context, &[format!("{cache},mode=max")], &[], None).ok();
    let whole = store.front().log().len();
    for requests in 0..whole {
        let cache = store.called(&format!("dying{requests}"));
        store.front().die_after(requests);
        let ran = build(&scene, &context, &[format!("{cache},mode=max")], &[], None);
        store.front().die_after(usize::MAX);
        // Blobs are there by now, so that later ones need fewer requests.
        if ran.status.success() {
            assert!(requests >= 2, "{}: {ran}", store.name());
            break;
        }
        ran.fails().says("failed to solve: ");
        assert!(store.get(&store.manifest_key(&format!("dying{requests}"))).is_none(), "{}", store.name());
    }
    store.front().die_after(0);
    build(&scene, &context, &[format!("{cache},ignore-error=true")], &[], None).ok();
    for requests in 0..3 {
        store.front().die_after(requests);
        let ran = build(&scene, &context, &[], std::slice::from_ref(&cache), None).ok();
        assert_eq!(cached(&ran), 0, "{}: {ran}", store.name());
    }
}

#[test]
fn s3_may_die_at_any_request() {
    dying(Store::s3);
}

#[test]
fn azure_may_die_at_any_request() {
    dying(Store::azure);
}

#[test]
fn github_may_die_at_any_request() {
    dying(Store::github);
}

#[test]
fn wrong_credentials_are_told_in_one_sentence() {
    let scene = Scene::set();
    let context = context(&scene);
    for store in Store::all(&scene) {
        let right = store.keys();
        let (wrong, code) = match &store {
            Store::S3(store) => {
                store.lock();
                (right.clone(), "403 Forbidden")
            }
            Store::Azure(_) => {
                (right.replace(AzureStore::KEY, "d3Jvbmc="), "403 Forbidden: AuthorizationFailure")
            }
            Store::Github(_) => {
                (right.replace("c2lnbmF0dXJl", "d3Jvbmc"), "401 Unauthorized: unauthenticated")
            }
        };
        let ran = build(&scene, &context, &[], std::slice::from_ref(&wrong), None).ok();
        ran.says("ERROR: ").says(code).says("check the credentials");
        let ran = build(&scene, &context, std::slice::from_ref(&wrong), &[], None).fails();
        let ran = ran.says(code).says("check the credentials, and what they are allowed to do");
        let told = ran.stderr.lines().rfind(|line| line.contains(code)).expect("a sentence").to_owned();
        assert!(!told.contains("secret") && !told.contains("d3Jvbmc"), "{told}");
        build(&scene, &context, &[format!("{wrong},ignore-error=true")], &[], None).ok();
    }
}

#[test]
fn options_that_make_no_sense_are_told_before_anything_is_asked() {
    let scene = Scene::set();
    let context = context(&scene);
    let expired = "a.eyJhYyI6IltdIiwiZXhwIjoxMDAwLCJuYmYiOjB9.b";
    for (cache, why) in [
        ("type=s3,region=r".to_owned(), "bucket ($AWS_BUCKET) not set for s3 cache"),
        ("type=s3,bucket=b".to_owned(), "region ($AWS_REGION) not set for s3 cache"),
        ("type=s3,bucket=b,region=r,access_key_id=a".to_owned(), "give both or neither"),
        (
            "type=s3,bucket=b,region=r,upload_parallelism=0".to_owned(),
            "upload_parallelism must be a positive integer",
        ),
        (
            "type=s3,bucket=b,region=r,retry_mode=never".to_owned(),
            "retry_mode must be \"standard\" or \"adaptive\"",
        ),
        ("type=s3,bucket=b,region=r,touch_refresh=soon".to_owned(), "\"soon\" is no duration"),
        ("type=s3,bucket=b,region=r,prefix=../".to_owned(), "must not have . or .. between slashes"),
        ("type=s3,bucket=b,region=r,endpoint_url=here".to_owned(), "invalid endpoint_url \"here\""),
        ("type=azblob".to_owned(), "account_url attribute is required for azblob cache"),
        ("type=azblob,account_url=http://a".to_owned(), "has no TLS, without which no token is sent"),
        (
            "type=azblob,account_url=http://a,secret_access_key=!".to_owned(),
            "the account's key is not in base64",
        ),
        ("type=gha,url_v2=http://127.0.0.1:1/,token=x".to_owned(), "it is no JSON web token"),
        (format!("type=gha,url=http://127.0.0.1:1/,token={expired}"), "cache token expired at"),
        (
            format!("type=gha,url_v2=http://127.0.0.1:1/,token={expired}"),
            "cache token expired at 1970-01-01T00:16:40Z",
        ),
    ] {
        build(&scene, &context, &[cache], &[], None).fails().says(why);
    }
}

#[test]
fn caches_that_lie_are_passed_over_and_layers_that_are_not_theirs_are_made_again() {
    let scene = Scene::set();
    let context = context(&scene);
    for store in Store::all(&scene) {
        let what = store.name();
        let cache = store.called("lies");
        let out = scene.path(&format!("{what}-first"));
        build(&scene, &context, &[format!("{cache},mode=max")], &[], Some(&out)).ok();
        let (key, good) = (store.manifest_key("lies"), store.manifest("lies"));
        let with = |change: &dyn Fn(&mut Value)| {
            let mut lie = good.clone();
            change(&mut lie);
            lie.to_string().into_bytes()
        };
        for (lie, why) in [
            (b"{".to_vec(), "cache "),
            (with(&|lie| lie["layers"][0]["annotations"] = Value::Null), "with missing annotations"),
            (with(&|lie| lie["layers"][0]["annotations"]["diffID"] = json!("")), "with missing diffid"),
            (with(&|lie| lie["layers"][0]["annotations"]["size"] = json!(-1)), "with an invalid size"),
            (with(&|lie| lie["layers"][0]["blob"] = json!("sha256:../../etc")), "with an invalid digest"),
            (with(&|lie| lie["records"][0]["inputs"] = json!([[{ "link": 0 }]])), "invalid looping record"),
        ] {
            store.put(&key, &lie);
            let ran = build(&scene, &context, &[], std::slice::from_ref(&cache), None).ok();
            assert_eq!(cached(&ran), 0, "{what}: {ran}");
            ran.says("ERROR: ").says(why);
        }
        store.put(&key, good.to_string().as_bytes());
        // One that was swapped for another one of its size is only found out when it is there.
        for fate in ["swapped", "cut-off"] {
            for digest in store.blobs("lies") {
                if digest != scene.base_image.layer_digest("linux/amd64") {
                    let blob = store.blob_key(&digest);
                    let content = store.get(&blob).expect("the blob");
                    let other: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
                    store.put(&blob, if fate == "swapped" { &other } else { b"cut off" });
                }
            }
            let again = scene.path(&format!("{what}-{fate}"));
            let ran = build(&scene, &context, &[], std::slice::from_ref(&cache), Some(&again)).ok();
            assert_ne!(large(&out), large(&again), "{what} {fate}: {ran}");
            assert_eq!(Tree::of_folder(&again).text("a.txt"), "a\n");
        }
    }
}

/// More of an answer than this is never taken in: what waits in sockets counts, too.
const PATIENCE: u64 = 80 << 20;

#[test]
fn of_a_gigabyte_of_json_only_the_beginning_is_read() {
    let scene = Scene::set();
    let context = context(&scene);
    let endless = Endless::start("application/vnd.oci.image.manifest.v1+json");
    let at = endless.address().to_owned();
    let url = format!("http://{at}/index");
    let github = Served::start(move |asked| {
        let asked: Value = serde_json::from_slice(&asked.body).expect("a question in JSON");
        let found = json!({ "ok": true, "signed_download_url": url, "matched_key": asked["key"] });
        Response { status: 200, headers: Vec::new(), body: found.to_string().into_bytes() }
    });
    let (token, key) = (GithubStore::token(), AzureStore::KEY);
    let s3 = "type=s3,region=r,bucket=b,use_path_style=true,access_key_id=id,secret_access_key=secret";
    for (cache, why) in [
        (format!("type=registry,ref={at}/caches:long"), "is larger than the limit of"),
        (format!("{s3},endpoint_url=http://{at}"), "it is too large"),
        (
            format!("type=azblob,account_url=http://{at}/a,account_name=a,secret_access_key={key}"),
            "it is too large",
        ),
        (format!("type=gha,url_v2=http://{at}/,token={token}"), "too large"),
        (format!("type=gha,url_v2=http://{}/,token={token}", github.address()), "it is too large"),
    ] {
        let out = scene.path("out");
        let ran = build(&scene, &context, &[], std::slice::from_ref(&cache), Some(&out)).ok();
        ran.says("ERROR: ").says(why);
        assert_eq!(Tree::of_folder(&out).text("a.txt"), "a\n", "{cache}");
        assert!((1..PATIENCE).contains(&endless.sent()), "{cache}: too much or nothing was read");
    }
    let from = scene.context("from", &[("Dockerfile", &format!("FROM {at}/images:long\n"))]);
    build(&scene, &from, &[], &[], None).fails().says("limit of");
    assert!((1..PATIENCE).contains(&endless.sent()), "too much or nothing was read");
}

#[test]
fn blobs_of_s3_that_grow_old_are_touched() {
    let scene = Scene::set();
    let context = context(&scene);
    let store = Store::S3(S3Store::start(&scene.parts));
    let cache = store.called("old");
    let daemon = fresh(&scene, "daemon");
    let export = |more: &str| {
        let cache = format!("{cache},mode=max{more}");
        daemon.build(&context).argument("--export-cache").argument(&cache).run().ok();
    };
    export("");
    store.front().forget();
    export("");
    let writes = |log: &[Asked]| {
        log.iter().filter(|asked| asked.method == "PUT" && asked.path.contains("/blobs/")).count()
    };
    assert_eq!(writes(&store.front().log()), 0);
    store.front().forget();
    export(",touch_refresh=0s");
    let log = store.front().log();
    let touched: Vec<_> = log.iter().filter(|asked| asked.header("x-amz-copy-source").is_some()).collect();
    assert_eq!(touched.len(), store.blobs("old").len());
    assert!(touched.iter().all(|asked| asked.header("x-amz-metadata-directive") == Some("REPLACE")));
    for digest in store.blobs("old") {
        let content = store.get(&store.blob_key(&digest)).expect("the blob");
        assert_eq!(digest_of(&content), digest);
    }
    daemon.stop();
}

#[test]
fn both_versions_of_github_s_service_are_spoken() {
    let scene = Scene::set();
    let context = context(&scene);
    let store = GithubStore::start();
    let (first, second) = (store.keys_first(), store.keys());
    let out = scene.path("out");
    let export = format!("{first},mode=max");
    build(&scene, &context, std::slice::from_ref(&export), &[], Some(&out)).ok();
    // One that is taken is left as it is.
    build(&scene, &context, &[export], std::slice::from_ref(&first), None).ok();
    for import in [first, second] {
        let found = scene.path("found");
        let ran = build(&scene, &context, &[], &[import], Some(&found)).ok();
        assert_eq!((cached(&ran), large(&found)), (STEPS, large(&out)), "{ran}");
        std::fs::remove_dir_all(&found).expect("remove what was found");
    }
    assert!(store.front.log().iter().any(|asked| asked.method == "PATCH"));
}

#[test]
fn numbers_of_an_index_that_somebody_has_reserved_and_left_are_passed_over() {
    let scene = Scene::set();
    let context = context(&scene);
    let store = GithubStore::start();
    let cache = store.keys();
    build(&scene, &context, std::slice::from_ref(&cache), &[], None).ok();
    let (key, _) = store.get("index-buildkit-1-").expect("an index");
    assert!(key.ends_with("#1"), "{key}");
    let version = digest_of(b"|go-actionscache-1.0")["sha256:".len()..].to_owned();
    store.reserve(&key.replace("#1", "#2"), &version);
    build(&scene, &context, std::slice::from_ref(&cache), &[], None).ok();
    let (next, _) = store.get("index-buildkit-1-").expect("an index");
    assert_eq!(next, key.replace("#1", "#3"));
}

#[test]
fn indexes_are_signed_by_the_command_of_the_daemon_s_config() {
    let scene = Scene::set();
    let context = context(&scene);
    let store = GithubStore::start();
    let cache = store.keys();
    let daemon = |command: &str, name: &str| {
        let config = format!("[cache.gha.sign]\n  command = {command}\n");
        scene.daemon_with(DaemonOptions { name: name.into(), config, ..DaemonOptions::default() })
    };
    let signing = daemon("[\"sh\", \"-c\", \"sha256sum | cut -d' ' -f1\"]", "signing");
    signing.build(&context).argument("--export-cache").argument(&cache).run().ok();
    let (key, index) = store.get("index-buildkit-1-").expect("an index");
    assert!(key.ends_with("-sig#1"), "{key}");
    let digest = digest_of(&index);
    let (_, signature) = store.get(&format!("buildkit-blob-1-{digest}-sig")).expect("a signature");
    assert_eq!(String::from_utf8_lossy(&signature).trim(), &digest["sha256:".len()..]);
    signing.stop();
    let failing = daemon("[\"sh\", \"-c\", \"echo no key >&2; exit 4\"]", "failing");
    let ran = failing.build(&context).argument("--export-cache").argument(&cache).run().fails();
    ran.says("signing command failed: sh: exit status: 4: no key");
    failing.stop();
}

#[test]
fn keys_of_caches_are_written_down_nowhere() {
    let scene = Scene::set();
    let context = context(&scene);
    let store = S3Store::start(&scene.parts);
    let cache = format!(
        "{},access_key_id=somebody,secret_access_key=hush-hush,session_token=hush-hush",
        store.keys()
    );
    let daemon = fresh(&scene, "daemon");
    let build = daemon.build(&context).argument("--export-cache").argument(&cache);
    build.argument("--import-cache").argument(&cache).run().ok().never_says("hush-hush");
    let records = daemon.buildctl(&["debug", "histories", "--format", "{{json .}}"]).ok();
    records.says("somebody").never_says("hush-hush");
    let root = daemon.root.clone();
    daemon.stop();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("list a folder") {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    let content = std::fs::read(entry.path()).expect("read a file");
                    let found = content.windows(9).any(|part| part == b"hush-hush");
                    assert!(!found, "{}", entry.path().display());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn docker_buildx_gives_caches_away_and_uses_them() {
    let scene = Scene::set();
    let context = context(&scene).display().to_string();
    let stores = Store::all(&scene);
    let out = format!("type=local,dest={}", scene.path("out").display());
    let caches: Vec<String> = stores.iter().map(|store| store.called("buildx")).collect();
    let daemon = fresh(&scene, "giver");
    let buildx = Buildx::create(&scene, &daemon);
    for cache in &caches {
        let to = format!("{cache},mode=max");
        buildx.run(&["build", "--provenance=false", "--cache-to", &to, "-o", &out, &context]).ok();
    }
    daemon.stop();
    for (at, cache) in caches.iter().enumerate() {
        let daemon = fresh(&scene, &format!("taker-{at}"));
        // The builder of the daemon that is gone.
        std::fs::remove_dir_all(scene.path("docker-config")).expect("remove buildx's configuration");
        let buildx = Buildx::create(&scene, &daemon);
        let arguments =
            ["build", "--progress=plain", "--provenance=false", "--cache-from", cache, "-o", &out, &context];
        let ran = buildx.run(&arguments).ok();
        assert_eq!(cached(&ran), STEPS, "{cache}: {ran}");
        daemon.stop();
    }
}
