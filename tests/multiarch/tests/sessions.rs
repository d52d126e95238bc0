//! What clients lend, to whom it goes, and what becomes of it when they leave.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "gateway/frontend.rs"]
mod frontend;
#[path = "sessions/locked.rs"]
mod locked;

use crosskit_api::control::control_client::ControlClient;
use crosskit_api::control::{Exporter, SolveRequest, SolveResponse, StatusRequest};
use crosskit_api::filesync::auth_server::Auth;
use crosskit_api::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use crosskit_api::secrets::secrets_server::Secrets;
use crosskit_api::secrets::{GetSecretRequest, GetSecretResponse};
use crosskit_llb::{Builder, Constraints, Exec, Graph, ImageSource, SecretMount};
use crosskit_multiarch::{Daemon, DaemonOptions, Images, Ran, Registry, Scene};
use crosskit_session::{RequestedExporter, SecretSource, SessionServer};
use frontend::{Lending, conversation, image};
use futures::StreamExt;
use locked::{Door, TOKEN};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

async fn channel(daemon: &Daemon) -> Channel {
    let stream = UnixStream::connect(&daemon.socket).await.unwrap();
    crosskit_client::channel_over(stream).await.unwrap()
}

fn id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Builds what a request asks for.
async fn solve(daemon: &Daemon, request: SolveRequest) -> Result<SolveResponse, Status> {
    ControlClient::new(channel(daemon).await).solve(request).await.map(Response::into_inner)
}

fn plain_http(registry: &str) -> DaemonOptions {
    DaemonOptions {
        config: format!("[registry.\"{registry}\"]\n  http = true\n"),
        ..DaemonOptions::default()
    }
}

/// A folder with Docker's configuration for the locked registry.
fn login(scene: &Scene, registry: &Registry) -> PathBuf {
    // "builder:secret"
    let auth = "YnVpbGRlcjpzZWNyZXQ=";
    let text = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", registry.address());
    scene.context("login", &[("config.json", &text)])
}

#[test]
fn a_build_has_only_the_credentials_of_its_own_client() {
    let scene = Scene::set();
    let locked = Registry::start_with_password(&scene.parts, &scene.path("locked"));
    let daemon = scene.daemon_with(plain_http(locked.address()));
    let (known, unknown) = (login(&scene, &locked), scene.context("nobody", &[]));
    let build = |context: &Path, config: &Path, output: &str, more: &[&str]| -> Ran {
        let config = config.display().to_string();
        let build = daemon.build(context).environment("DOCKER_CONFIG", &config).output(output);
        more.iter().fold(build, |build, argument| build.argument(argument)).run()
    };
    let private = locked.reference("private/app:1");
    let made = scene.context("made", &[("Dockerfile", "FROM BASE\nRUN echo private > /private\n")]);
    let push = format!("type=image,name={private},push=true");
    let (ran, said) = (build(&made, &known, &push, &[]).ok(), build(&made, &unknown, &push, &[]).fails());
    assert!(ran.said().contains("pushing manifest"), "{ran}");
    assert!(said.said().contains("401") || said.said().contains("authorization"), "{said}");

    // What was pulled for one stays here, and is not given to another one that has only its name. Who knows the digest
    // and the repository has seen it there, and the registry is not asked again.
    let digest = crosskit_multiarch::digest_of(&std::fs::read(manifest_of(&locked, &scene)).unwrap());
    for (name, given) in [(private.clone(), false), (format!("{private}@{digest}"), true)] {
        let dockerfile = format!("FROM {name}\nRUN cat /private > /again\n");
        let used = scene.context("used", &[("Dockerfile", &dockerfile)]);
        let out = scene.path("out");
        let into = format!("type=local,dest={}", out.display());
        build(&used, &known, &into, &[]).ok();
        assert_eq!(std::fs::read_to_string(out.join("again")).unwrap(), "private\n");
        for more in [&[][..], &["--no-cache"]] {
            match (build(&used, &unknown, &into, more), given) {
                (ran, true) => drop(ran.ok()),
                (ran, false) => drop(ran.fails().says("401").says("Dockerfile:1")),
            }
        }
    }
    // The same digest under another name is another matter.
    let elsewhere = format!("FROM {}@{digest}\n", locked.reference("other/app"));
    let used = scene.context("used", &[("Dockerfile", &elsewhere)]);
    build(&used, &unknown, "type=tar,dest=/dev/null", &[]).fails().says("401");

    // The same for a cache: who may not read it does the work again, who may not write it fails.
    let at = format!("type=registry,ref={}", locked.reference("private/cache:1"));
    let (export, import) = (["--export-cache", &at], ["--import-cache", &at]);
    let unique =
        scene.context("unique", &[("Dockerfile", "FROM BASE\nRUN cat /proc/sys/kernel/random/uuid > /id\n")]);
    let other = scene.path("ids");
    let into = format!("type=local,dest={}", other.display());
    let number = || std::fs::read_to_string(other.join("id")).unwrap();
    build(&unique, &known, &into, &export).ok();
    let first = number();
    build(&unique, &unknown, &into, &export).fails();
    daemon.buildctl(&["prune", "--all"]).ok();
    build(&unique, &known, &into, &import).ok();
    assert_eq!(number(), first);
    daemon.buildctl(&["prune", "--all"]).ok();
    build(&unique, &unknown, &into, &import).ok();
    assert_ne!(number(), first);
    daemon.stop();
}

/// The file of the manifest that was pushed to the locked registry.
fn manifest_of(locked: &Registry, scene: &Scene) -> PathBuf {
    let tags = scene.path("locked/storage/docker/registry/v2/repositories/private/app/_manifests/tags/1");
    let link = std::fs::read_to_string(tags.join("current/link")).unwrap();
    locked.blob_file(link.trim())
}

/// A client that fetches tokens itself and tells nobody its password.
struct Tokens(Arc<Mutex<Vec<FetchTokenRequest>>>);

#[tonic::async_trait]
impl Auth for Tokens {
    async fn credentials(
        &self,
        _: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        Err(Status::permission_denied("the password stays here"))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(FetchTokenResponse { token: TOKEN.into(), expires_in: 300, issued_at: 0 }))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Ok(Response::new(GetTokenAuthorityResponse { public_key: vec![7; 32] }))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[test]
fn tokens_are_fetched_by_the_client() {
    let scene = Scene::set();
    let door = Door::before(&scene.registry);
    let daemon = scene.daemon_with(plain_http(&door.address));
    let asked: Arc<Mutex<Vec<FetchTokenRequest>>> = Arc::default();
    let base = format!("{}/base:latest", door.address);
    conversation(async {
        let session = SessionServer::new("").with_auth(Tokens(asked.clone()));
        let lending = Lending::begin(&daemon, session).await;
        let attrs = [("name", format!("{}/pushed:1", door.address)), ("push", "true".to_string())];
        let exporter = Exporter {
            r#type: "image".into(),
            attrs: attrs.map(|(key, value)| (key.to_string(), value)).into(),
        };
        let request = SolveRequest {
            r#ref: id(),
            session: lending.id.clone(),
            definition: Some(image(&base, None, Some("echo made > /made")).to_definition()),
            exporters: vec![exporter],
            ..SolveRequest::default()
        };
        solve(&daemon, request).await.unwrap();
        let request = SolveRequest {
            r#ref: id(),
            definition: Some(image(&base, None, None).to_definition()),
            ..SolveRequest::default()
        };
        let refused = solve(&daemon, request).await.unwrap_err();
        assert!(refused.message().contains("failed to fetch anonymous token"), "{refused}");
    });
    assert!(scene.registry.manifest("pushed", "1").is_some());
    let asked = asked.lock().unwrap();
    let scopes: Vec<&str> = asked.iter().flat_map(|one| one.scopes.iter().map(String::as_str)).collect();
    assert!(scopes.contains(&"repository:base:pull"), "{scopes:?}");
    assert!(
        scopes.iter().any(|scope| scope.starts_with("repository:pushed:") && scope.contains("push")),
        "{scopes:?}"
    );
    for one in asked.iter() {
        assert_eq!((one.client_id.as_str(), one.service.as_str()), ("buildkit-client", "the door"));
        assert_eq!(
            (one.realm.as_str(), one.host.as_str()),
            (&*format!("http://{}/realm", door.address), &*door.address)
        );
    }
    // Only the build without a client has asked the realm, once for each try.
    assert!(door.realm_asked.load(Ordering::Relaxed) > 0);
    daemon.stop();
}

/// Secrets that are asked for and not given.
struct Never(watch::Sender<bool>);

#[tonic::async_trait]
impl Secrets for Never {
    async fn get_secret(&self, _: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        self.0.send_replace(true);
        std::future::pending().await
    }
}

/// A step that writes down a secret's length.
fn secretive(base: &str, salt: &str) -> Graph {
    let mut builder = Builder::new();
    let image = ImageSource { reference: base.to_string(), ..ImageSource::default() };
    let root = Some(builder.image(&image, Constraints::default()));
    let secret = SecretMount { id: "word".into(), target: Some("/secret".into()), ..SecretMount::default() };
    let exec = Exec {
        root,
        args: ["/bin/sh", "-c", &format!("wc -c < /secret > /length # {salt}")].map(str::to_string).to_vec(),
        cwd: "/".into(),
        secrets: vec![secret],
        ..Exec::default()
    };
    let made = builder.exec(exec, Constraints::default()).root;
    builder.graph(made).unwrap()
}

#[test]
fn a_client_that_falls_silent_ends_its_build_soon() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let (asked, mut silent) = watch::channel(false);
        let session = SessionServer::new("").with_secrets(Never(asked));
        let id_of_session = session.id().to_string();
        let mut control = ControlClient::new(channel(&daemon).await);
        let stalls = silent.clone();
        let serving = tokio::spawn(session.serve_over(|call| async move {
            let (mut metadata, extensions, messages) = call.into_parts();
            // Milliseconds: how often the daemon asks whether somebody is there, and how long it waits.
            metadata.insert("x-buildkit-session-health-custom-timeout", "2000".parse().unwrap());
            let messages = messages.take_until(async move {
                let _ = stalls.clone().wait_for(|asked| *asked).await;
            });
            // The line stays open, and nothing comes any more.
            let messages = messages.chain(futures::stream::pending());
            control.session(Request::from_parts(metadata, extensions, messages)).await
        }));
        let request = SolveRequest {
            r#ref: id(),
            session: id_of_session,
            definition: Some(secretive(&scene.base(), "silent").to_definition()),
            ..SolveRequest::default()
        };
        let building = tokio::spawn({
            let channel = channel(&daemon).await;
            async move { ControlClient::new(channel).solve(request).await }
        });
        silent.wait_for(|asked| *asked).await.unwrap();
        let since = Instant::now();
        let failed = building.await.unwrap().unwrap_err();
        assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
        assert!(failed.message().contains("secret word"), "{failed}");
        serving.abort();
    });
    daemon.stop();
}

#[test]
fn a_shared_step_goes_on_with_the_client_that_stays() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let graph = secretive(&scene.base(), "shared");
        let step = graph.head().unwrap().vertex.to_string();
        let (asked, mut silent) = watch::channel(false);
        let first = Lending::begin(&daemon, SessionServer::new("").with_secrets(Never(asked))).await;
        let mut secrets = crosskit_session::Secrets::default();
        secrets.add("word", Some(SecretSource::Value(b"twelve bytes".to_vec()))).unwrap();
        let second = Lending::begin(&daemon, SessionServer::new("").with_secrets(secrets)).await;
        let request = |session: &Lending| SolveRequest {
            r#ref: id(),
            session: session.id.clone(),
            definition: Some(graph.to_definition()),
            ..SolveRequest::default()
        };
        let start = |channel: Channel, request: SolveRequest| {
            tokio::spawn(async move { ControlClient::new(channel).solve(request).await })
        };
        let leaves = start(channel(&daemon).await, request(&first));
        silent.wait_for(|asked| *asked).await.unwrap();
        let asks = request(&second);
        let watched = StatusRequest { r#ref: asks.r#ref.clone() };
        let stays = start(channel(&daemon).await, asks);
        // The second build waits for the same step before the first client goes.
        let mut status =
            ControlClient::new(channel(&daemon).await).status(watched).await.unwrap().into_inner();
        loop {
            let heard = status.message().await.unwrap().expect("the step starts");
            if heard.vertexes.iter().any(|vertex| vertex.digest == step && vertex.started.is_some()) {
                break;
            }
        }
        leaves.abort();
        drop(first);
        stays.await.unwrap().unwrap();
    });
    daemon.stop();
}

#[test]
fn the_client_chooses_exporters_when_it_knows_the_result() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let name = scene.registry.reference("chosen:1");
    let told: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    conversation(async {
        let (attrs, heard) =
            (BTreeMap::from([("name".to_string(), name), ("push".into(), "true".into())]), told.clone());
        let find: crosskit_session::ExporterCallback = Arc::new(move |_, _| {
            let attrs = attrs.clone();
            Box::pin(async move { Ok(vec![RequestedExporter { kind: "image".into(), attrs }]) })
        });
        let tell: crosskit_session::FinalizeCallback = Arc::new(move |response| {
            *heard.lock().unwrap() = response;
            Box::pin(async { Ok(()) })
        });
        let lending = Lending::begin(&daemon, SessionServer::new("").with_exporter(find, Some(tell))).await;
        let request = SolveRequest {
            r#ref: id(),
            session: lending.id.clone(),
            definition: Some(image(&scene.base(), None, Some("echo chosen > /chosen")).to_definition()),
            enable_session_exporter: true,
            ..SolveRequest::default()
        };
        solve(&daemon, request.clone()).await.unwrap();
        let none = Lending::begin(&daemon, SessionServer::new("")).await;
        // A client that has no say in it wants none.
        solve(&daemon, SolveRequest { r#ref: id(), session: none.id.clone(), ..request }).await.unwrap();
    });
    let pushed = scene.registry.manifest("chosen", "1").unwrap();
    assert_eq!(told.lock().unwrap()["containerimage.digest"], crosskit_multiarch::digest_of(&pushed));
    let manifest: serde_json::Value = serde_json::from_slice(&pushed).unwrap();
    let images = Images::Repository(&scene.registry, "chosen".into());
    assert_eq!(images.tree(&manifest).text("chosen"), "chosen\n");
    daemon.stop();
}

#[test]
fn another_name_of_a_file_comes_without_the_first() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context(
        "c",
        &[("Dockerfile", "FROM scratch\nCOPY . /all/\n"), ("a", "content\n"), ("sub/z", "z\n")],
    );
    for (first, other) in [("a", "b"), ("a", "sub/c"), ("sub/z", "y")] {
        std::fs::hard_link(context.join(first), context.join(other)).unwrap();
    }
    let out = scene.path("out");
    let build = || {
        let _ = std::fs::remove_dir_all(&out);
        daemon.build(&context).into(&out).run().ok();
    };
    let text = |path: &str| std::fs::read_to_string(out.join(path)).ok();
    build();
    for (path, content) in
        [("a", "content\n"), ("b", "content\n"), ("sub/c", "content\n"), ("y", "z\n"), ("sub/z", "z\n")]
    {
        assert_eq!(text(&format!("all/{path}")).as_deref(), Some(content), "{path}");
    }
    // The name that comes first is left out: the next one brings the content.
    scene.write("c", ".dockerignore", "a\nsub/z\nDockerfile\n");
    build();
    for (path, content) in [
        ("a", None),
        ("b", Some("content\n")),
        ("sub/c", Some("content\n")),
        ("y", Some("z\n")),
        ("sub/z", None),
    ] {
        assert_eq!(text(&format!("all/{path}")).as_deref(), content, "{path}");
    }
    // Only one of several names is asked for.
    scene.write("c", "Dockerfile", "FROM scratch\nCOPY sub/c /all/\n");
    build();
    assert_eq!((text("all/c").as_deref(), text("all/b")), (Some("content\n"), None));
    daemon.stop();
}
