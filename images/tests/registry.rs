//! Pulls and pushes against the registry program.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crosskit_images::registry::*;
use crosskit_images::{ContentStore, Descriptor, Digest, Error, ErrorKind, Index, Manifest, media_types};
use futures::future::BoxFuture;
use support::{Deed, Front, Registry};

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

/// An image with one layer of these bytes.
fn image(store: &ContentStore, layer: &[u8]) -> Descriptor {
    let config = store.put_as(media_types::OCI_CONFIG, br#"{"architecture":"amd64","os":"linux"}"#).unwrap();
    let layer = store.put_as(media_types::OCI_LAYER, layer).unwrap();
    let manifest = Manifest::new(media_types::OCI_MANIFEST, config, vec![layer]).to_json().unwrap();
    store.put_as(media_types::OCI_MANIFEST, &manifest).unwrap()
}

fn layer_of(store: &ContentStore, image: &Descriptor) -> Descriptor {
    Manifest::parse(&store.read(&image.digest, 1 << 20).unwrap()).unwrap().layers.remove(0)
}

fn noise(size: usize) -> Vec<u8> {
    let mut seed = size as u64 | 1;
    std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    })
    .take(size)
    .collect()
}

fn anonymous() -> Client {
    Client::new(RegistryHosts::default(), Arc::new(Anonymous))
}

fn name(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// Remembers how each blob ended.
#[derive(Default)]
struct Ends(Mutex<HashMap<Digest, BlobState>>);

impl Progress for Ends {
    fn blob(&self, digest: &Digest, state: BlobState, current: u64, total: u64) {
        assert!(current <= total);
        self.0.lock().unwrap().insert(*digest, state);
    }
}

struct Fixed(&'static str, &'static str);

impl Credentials for Fixed {
    fn login<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, crosskit_images::Result<Option<Login>>> {
        let login = Login { user: self.0.into(), secret: self.1.into() };
        Box::pin(async { Ok(Some(login)) })
    }
}

#[tokio::test]
async fn an_index_goes_up_once_and_comes_back_the_same() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let images = [image(&store, &noise(3_000_000)), image(&store, b"small")];
    let index =
        store.put_as(media_types::OCI_INDEX, &Index::new(images.to_vec()).to_json().unwrap()).unwrap();
    let name = name(&registry.host, "some/app:v1");
    let client = anonymous();
    let first = Arc::new(Ends::default());
    let pushed = client.push(&store, &index, &name, &PushOptions::default(), first.clone()).await.unwrap();
    assert_eq!(pushed.name.to_string(), format!("{name}@{}", index.digest));
    assert_eq!(first.0.lock().unwrap().len(), 3, "the config that both share goes up once");
    assert!(first.0.lock().unwrap().values().all(|state| *state == BlobState::Done));

    let second = Arc::new(Ends::default());
    client.push(&store, &index, &name, &PushOptions::default(), second.clone()).await.unwrap();
    assert!(
        second.0.lock().unwrap().values().all(|state| *state == BlobState::Exists),
        "nothing goes up twice"
    );

    let resolved = client.resolve(&name).await.unwrap();
    assert_eq!((resolved.desc.digest, resolved.desc.size), (index.digest, index.size));
    assert_eq!(resolved.desc.media_type, media_types::OCI_INDEX);
    let (_other_dir, other) = self::store();
    let bytes = client.fetch_manifest(&name, &index.digest, &other).await.unwrap();
    assert_eq!(Index::parse(&bytes).unwrap().manifests, images);
    let layer = layer_of(&store, &images[0]);
    client.fetch_blob(&name, &layer, &other, silent()).await.unwrap();
    assert_eq!(other.read(&layer.digest, 1 << 30).unwrap(), noise(3_000_000));
}

#[tokio::test]
async fn a_blob_is_taken_from_another_repository() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = image(&store, &noise(100_000));
    let (one, two) = (name(&registry.host, "one:x"), name(&registry.host, "two/three:y"));
    let client = anonymous();
    client.push(&store, &image, &one, &PushOptions::default(), silent()).await.unwrap();
    let layer = layer_of(&store, &image);
    let ends = Arc::new(Ends::default());
    let options =
        PushOptions { sources: HashMap::from([(layer.digest, vec![one])]), ..PushOptions::default() };
    client.push(&store, &image, &two, &options, ends.clone()).await.unwrap();
    assert_eq!(ends.0.lock().unwrap()[&layer.digest], BlobState::Mounted);
    let by_digest = PushOptions { by_digest: true, ..PushOptions::default() };
    let error = client.push(&store, &image, &two, &by_digest, silent()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("can't push tagged ref {two} by digest")), "{error}");
    let third = name(&registry.host, "third");
    client.push(&store, &image, &third, &by_digest, silent()).await.unwrap();
    assert!(client.resolve(&third).await.is_err(), "no tag was made");
    assert_eq!(client.resolve(&third.clone().with_digest(image.digest)).await.unwrap().desc.size, image.size);
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let registry = Registry::start();
    let missing = name(&registry.host, "no/such:tag");
    let error = anonymous().resolve(&missing).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{missing}: not found"));
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.is_not_found());
    let (_dir, store) = store();
    let desc = Descriptor::of(media_types::OCI_LAYER, b"nowhere");
    let error = anonymous().fetch_blob(&missing, &desc, &store, silent()).await.unwrap_err();
    assert!(error.to_string().ends_with(": not found"), "{error}");
    drop(registry);
    let gone = name("127.0.0.1:1", "x");
    let (error, took) = {
        let start = std::time::Instant::now();
        (anonymous().fetch_manifest(&gone, &desc.digest, &store).await.unwrap_err(), start.elapsed())
    };
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(took.as_secs() < 2, "nobody listening is no passing matter");
}

#[tokio::test]
async fn a_login_is_needed_where_the_registry_asks_for_one() {
    // The password is "U*U"; the hash is one of bcrypt's published test vectors.
    let registry = Registry::with("", |dir| {
        std::fs::write(
            dir.join("users"),
            "me:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n",
        )
        .unwrap();
        format!("auth:\n  htpasswd: {{realm: here, path: {}/users}}", dir.display())
    });
    let (_dir, store) = store();
    let image = image(&store, b"layer");
    let name = name(&registry.host, "private/app:1");
    let push =
        async |client: Client| client.push(&store, &image, &name, &PushOptions::default(), silent()).await;
    let error = push(anonymous()).await.unwrap_err();
    assert!(
        error.to_string().starts_with(
            "push access denied, repository does not exist or may require authorization: server message: "
        ),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::User);
    let hosts = RegistryHosts::default();
    let wrong = Client::new(hosts.clone(), Arc::new(Fixed("me", "wrong")));
    assert!(matches!(push(wrong).await, Err(Error::Registry(RegistryError::Denied { action: "push", .. }))));
    push(Client::new(hosts.clone(), Arc::new(Fixed("me", "U*U")))).await.unwrap();
    let error = anonymous().resolve(&name).await.unwrap_err();
    assert!(error.to_string().starts_with("pull access denied"), "{error}");
}

#[tokio::test]
async fn a_token_that_never_ends_is_not_read_to_its_end() {
    for head in ["200 OK", "500 Internal Server Error"] {
        let front = Front::start("", move |seen| {
            if seen.line.starts_with("GET /token") {
                return Deed::Flood(head);
            }
            let headers = seen.headers.to_ascii_lowercase();
            let host = headers.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
            let answer =
                format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{host}/token\"");
            Deed::Answer(answer.leak(), String::new())
        });
        let refused = anonymous().resolve(&name(&front.host, "a/b:latest")).await.unwrap_err().to_string();
        assert!(refused.contains("the answer has more than 1048576 bytes"), "{refused}");
    }
}

#[tokio::test]
async fn one_token_covers_a_mount_and_is_used_until_it_ends() {
    let registry = Registry::start();
    let front_host = Arc::new(std::sync::OnceLock::<String>::new());
    let known = front_host.clone();
    let front = Front::start(&registry.host, move |seen| {
        if seen.line.starts_with("GET /token?") {
            let scopes: Vec<_> =
                seen.line.split(['?', '&', ' ']).filter(|p| p.starts_with("scope=")).collect();
            return Deed::Answer("200 OK", format!(r#"{{"token":"{}","expires_in":300}}"#, scopes.len()));
        }
        // A mount wants a token for two repositories, all else one for one.
        let wanted = if seen.line.contains("mount=") { "2" } else { "1" };
        if seen.headers.contains(&format!("authorization: Bearer {wanted}")) {
            return Deed::Forward;
        }
        let head = "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://HOST/token\",service=\"svc\"";
        Deed::Answer(Box::leak(head.replace("HOST", known.get().unwrap()).into_boxed_str()), String::new())
    });
    front_host.set(front.host.clone()).unwrap();
    let (_dir, store) = store();
    let image = image(&store, &noise(1000));
    let client = anonymous();
    let (one, two) = (name(&front.host, "a/one:x"), name(&front.host, "b/two:x"));
    client.push(&store, &image, &one, &PushOptions::default(), silent()).await.unwrap();
    assert_eq!(front.count("GET /token?"), 1, "one repository, one token");
    let layer = layer_of(&store, &image);
    let options =
        PushOptions { sources: HashMap::from([(layer.digest, vec![one])]), ..PushOptions::default() };
    let ends = Arc::new(Ends::default());
    client.push(&store, &image, &two, &options, ends.clone()).await.unwrap();
    assert_eq!(ends.0.lock().unwrap()[&layer.digest], BlobState::Mounted);
    let seen = front.seen.lock().unwrap();
    let token = seen.iter().rfind(|s| s.line.starts_with("GET /token?")).unwrap();
    assert!(
        token.line.contains("scope=repository%3Ab%2Ftwo%3Apull%2Cpush&scope=repository%3Aa%2Fone%3Apull"),
        "{}",
        token.line
    );
    assert!(token.line.contains("service=svc"));
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = image(&store, &noise(2_000_000));
    anonymous()
        .push(&store, &image, &name(&registry.host, "app:x"), &PushOptions::default(), silent())
        .await
        .unwrap();
    let layer = layer_of(&store, &image);
    let tries = AtomicUsize::new(0);
    let front = Front::start(&registry.host, move |seen| {
        if !seen.line.starts_with("GET") {
            return Deed::Forward;
        }
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Deed::Cut(700_000),
            1 => Deed::Answer("503 Service Unavailable", String::new()),
            2 => Deed::Cut(400_000),
            _ => Deed::Forward,
        }
    });
    let (_other_dir, other) = self::store();
    let name = name(&front.host, "app:x");
    anonymous().fetch_blob(&name, &layer, &other, silent()).await.unwrap();
    assert_eq!(other.read(&layer.digest, 1 << 30).unwrap(), noise(2_000_000));
    let seen = front.seen.lock().unwrap();
    assert!(seen[1].headers.contains("range: bytes="), "{:?}", seen[1]);
    assert_eq!(seen.len(), 4);
}

#[tokio::test]
async fn a_blob_wanted_twice_travels_once_and_a_given_up_one_leaves_nothing() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = image(&store, &noise(1_000_000));
    anonymous()
        .push(&store, &image, &name(&registry.host, "app:x"), &PushOptions::default(), silent())
        .await
        .unwrap();
    let layer = layer_of(&store, &image);
    let front = Front::start(&registry.host, |_| Deed::Forward);
    let (other_dir, other) = self::store();
    let (client, name) = (anonymous(), name(&front.host, "app:x"));
    let fetch = || client.fetch_blob(&name, &layer, &other, silent());
    let (a, b, c) = tokio::join!(fetch(), fetch(), fetch());
    a.and(b).and(c).unwrap();
    assert_eq!(front.count("GET"), 1);

    let (stuck_dir, stuck) = self::store();
    let (reached, wait) = tokio::sync::oneshot::channel();
    struct Reached(Mutex<Option<tokio::sync::oneshot::Sender<()>>>);
    impl Progress for Reached {
        fn blob(&self, _: &Digest, _: BlobState, _: u64, _: u64) {
            if let Some(reached) = self.0.lock().unwrap().take() {
                reached.send(()).unwrap();
            }
        }
    }
    let slow = Front::start(&registry.host, |_| Deed::Cut(500_000));
    let slow_name = self::name(&slow.host, "app:x");
    let progress = Arc::new(Reached(Mutex::new(Some(reached))));
    tokio::select! {
        done = client.fetch_blob(&slow_name, &layer, &stuck, progress) => panic!("{done:?}"),
        _ = wait => {}
    }
    while std::fs::read_dir(stuck_dir.path().join("ingest")).unwrap().count() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stuck.list().unwrap(), []);
    drop(other_dir);
}

#[tokio::test]
async fn bytes_that_are_not_what_was_asked_for_are_refused() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = image(&store, &noise(50_000));
    let name = name(&registry.host, "app:x");
    anonymous().push(&store, &image, &name, &PushOptions::default(), silent()).await.unwrap();
    let layer = layer_of(&store, &image);
    let (_other_dir, other) = self::store();
    let path = registry.blob_path(&layer.digest.to_string());
    let mut wrong = noise(50_000);
    wrong[20_000] ^= 1;
    std::fs::write(&path, &wrong).unwrap();
    let error = anonymous().fetch_blob(&name, &layer, &other, silent()).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { expected, .. } if expected == layer.digest), "{error}");
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let error = anonymous().fetch_blob(&name, &layer, &other, silent()).await.unwrap_err();
    assert!(error.to_string().contains("unexpected size"), "{error}");
    assert_eq!(other.list().unwrap(), []);
    let front = Front::start(&registry.host, |_| Deed::Answer("200 OK", "{}".into()));
    let error = anonymous().fetch_manifest(&self::name(&front.host, "app:x"), &image.digest, &other).await;
    assert!(matches!(error, Err(Error::DigestMismatch { expected, .. }) if expected == image.digest));
}

#[tokio::test]
async fn mirrors_are_asked_first_and_may_know_nothing() {
    let (registry, mirror) = (Registry::start(), Registry::start());
    let (_dir, store) = store();
    let (both, only) = (image(&store, b"both"), image(&store, b"only"));
    let client = anonymous();
    let options = PushOptions::default();
    client.push(&store, &both, &name(&mirror.host, "cache/app:x"), &options, silent()).await.unwrap();
    client.push(&store, &only, &name(&registry.host, "app:y"), &options, silent()).await.unwrap();
    let front = Front::start(&mirror.host, |_| Deed::Forward);
    let config = HostConfig { mirrors: vec![format!("{}/cache", front.host)], ..HostConfig::default() };
    let hosts = RegistryHosts::new(HashMap::from([(registry.host.clone(), config)]));
    let client = Client::new(hosts, Arc::new(Anonymous));
    assert_eq!(client.resolve(&name(&registry.host, "app:x")).await.unwrap().desc.digest, both.digest);
    assert_eq!(client.resolve(&name(&registry.host, "app:y")).await.unwrap().desc.digest, only.digest);
    let ns = registry.host.replace(':', "%3A");
    assert_eq!(
        front.seen.lock().unwrap()[0].line,
        format!("HEAD /v2/cache/app/manifests/x?ns={ns} HTTP/1.1")
    );
    // What a mirror says counts where the registry does not answer, unless it says less than the registry.
    let silent = "127.0.0.1:1";
    let at = |host: &str, mirror: &str| {
        let config = HostConfig { mirrors: vec![mirror.to_owned()], ..HostConfig::default() };
        Client::new(RegistryHosts::new(HashMap::from([(host.to_owned(), config)])), Arc::new(Anonymous))
    };
    let unknown = |host: &str| name(host, "app:none");
    let error = at(silent, &front.host).resolve(&unknown(silent)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{silent}/app:none: not found"));
    let refusing = Front::start(&registry.host, |_| Deed::Answer("418 No", String::new()));
    let error = at(silent, &refusing.host).resolve(&unknown(silent)).await.unwrap_err();
    assert!(error.to_string().contains("418"), "{error}");
    let error = at(&registry.host, silent).resolve(&unknown(&registry.host)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{}/app:none: not found", registry.host));
}

#[tokio::test]
async fn tls_is_checked_as_configured() {
    let registry = Registry::with("  tls: {certificate: DIR/cert.pem, key: DIR/key.pem}", |dir| {
        let made = std::process::Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem".split(' '))
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::new()
    });
    let (_dir, store) = store();
    let image = image(&store, b"layer");
    let name = name(&registry.host, "app:x");
    let with = |config: HostConfig| {
        let hosts = RegistryHosts::new(HashMap::from([(registry.host.clone(), config)]));
        Client::new(hosts, Arc::new(Anonymous))
    };
    let cert = registry.dir.path().join("cert.pem");
    let secure = HostConfig { http: Some(false), ..HostConfig::default() };
    let error = with(secure.clone()).resolve(&name).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let trusted = with(HostConfig { ca: vec![cert.clone()], ..secure.clone() });
    trusted.push(&store, &image, &name, &PushOptions::default(), silent()).await.unwrap();
    let insecure = with(HostConfig { insecure: Some(true), ..HostConfig::default() });
    assert_eq!(insecure.resolve(&name).await.unwrap().desc.digest, image.digest);
    let missing = with(HostConfig { ca: vec!["/no/such.pem".into()], ..secure });
    let error = missing.resolve(&name).await.unwrap_err();
    assert!(error.to_string().contains("failed to read /no/such.pem"), "{error}");
    // Insecure also means: no TLS where there is none.
    let plain = Registry::start();
    let hosts = RegistryHosts::default().with_insecure(&plain.host);
    let client = Client::new(hosts, Arc::new(Anonymous));
    client
        .push(&store, &image, &self::name(&plain.host, "app:x"), &PushOptions::default(), silent())
        .await
        .unwrap();
}

#[tokio::test]
async fn referrers_are_listed_by_the_registry_or_under_a_tag() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = image(&store, b"layer");
    let told = Descriptor { artifact_type: "application/x".into(), ..image.clone() };
    let list = |manifests: &[Descriptor]| {
        serde_json::json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": manifests})
            .to_string()
    };
    // One that can tell.
    let answer = list(std::slice::from_ref(&told));
    let front = Front::start(&registry.host, move |seen| match seen.line.contains("/referrers/sha256:") {
        true => {
            Deed::Answer("200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json", answer.clone())
        }
        false => Deed::Forward,
    });
    let found = anonymous().referrers(&name(&front.host, "one"), &image.digest).await.unwrap();
    assert_eq!(found.as_slice(), std::slice::from_ref(&told));
    assert_eq!(front.count("GET"), 1);
    // One that cannot, and has no tag either.
    let nothing = anonymous().referrers(&name(&registry.host, "one"), &image.digest).await.unwrap();
    assert_eq!(nothing, []);
    // One that fails is no answer.
    let broken = Front::start(&registry.host, |_| Deed::Answer("403 Forbidden", String::new()));
    anonymous().referrers(&name(&broken.host, "one"), &image.digest).await.unwrap_err();
    // By the tag.
    let answer = list(std::slice::from_ref(&told));
    let by_tag = format!("/manifests/{}", image.digest.to_string().replace(':', "-"));
    let front = Front::start(&registry.host, move |seen| match seen.line.contains(&by_tag) {
        true => {
            Deed::Answer("200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json", answer.clone())
        }
        false => Deed::Forward,
    });
    let found = anonymous().referrers(&name(&front.host, "one"), &image.digest).await.unwrap();
    assert_eq!(found, [told]);
}
