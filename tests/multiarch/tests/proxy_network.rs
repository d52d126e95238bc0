//! Steps whose only way to the network is the daemon's proxy. What they see and leave, what is told of their requests,
//! and who decides about them. (Which network requests leave by: `networks.rs`.)

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crosskit_multiarch::{Daemon, DaemonOptions, Images, Running, Scene, digest_of, until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// A server on this machine's loopback interface, where it answers every GET with its path.
struct Web {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Web {
    fn start(tls: Option<Arc<ServerConfig>>) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                std::thread::spawn(move || match tls {
                    None => answer(stream),
                    Some(config) => answer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
                });
            }
        });
        Web { port, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: impl Read + Write) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let found = if path.starts_with("/missing") { "404 Not Found" } else { "200 OK" };
    let answer =
        format!("HTTP/1.1 {found}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{path}", path.len());
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.flush();
}

/// A certificate authority, as PEM, and a server that it vouches for under the name `localhost`.
fn certified() -> (String, Web) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (pem(root.der()), Web::start(Some(Arc::new(config))))
}

fn pem(certificate: &[u8]) -> String {
    let lines: Vec<String> = STANDARD
        .encode(certificate)
        .as_bytes()
        .chunks(64)
        .map(|l| String::from_utf8_lossy(l).into())
        .collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn daemon(scene: &Scene, config: &str, trusted: &str) -> Daemon {
    let file = scene.path("trusted.pem");
    std::fs::write(&file, trusted).unwrap();
    let environment = vec![("SSL_CERT_FILE".to_owned(), file.display().to_string())];
    scene.daemon_with(DaemonOptions { config: config.to_owned(), environment, ..DaemonOptions::default() })
}

/// Adds a program of this machine and what it is linked with to a context, at the same paths below `machine/`.
fn add_program(context: &Path, program: &Path) {
    let linked = Command::new("ldd").arg(program).output().unwrap();
    let linked = String::from_utf8(linked.stdout).unwrap();
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let to = context.join("machine").join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, to).unwrap();
    }
}

/// Lets busybox ask the proxy for what is on this machine as well.
const ALL: &str = "unset NO_PROXY no_proxy";

#[test]
fn pages_come_through_the_proxy_and_provenance_tells_them() {
    let (scene, web) = (Scene::set(), Web::start(None));
    let (trusted, secure) = certified();
    let daemon = daemon(&scene, "proxyNetwork = true\n", &trusted);
    let (plain, by_tls) = (web.url("/plain"), format!("https://localhost:{}/tls", secure.port));
    let dockerfile = format!(
        "FROM BASE AS step\n\
         COPY machine /\n\
         COPY bundle /{BUNDLE}\n\
         RUN <<EOF\n\
         set -e\n\
         ip -o link > /links\n\
         {ALL}\n\
         wget -q -O /plain {plain}\n\
         printf 'GET /tls HTTP/1.1\\r\\nHost: localhost:{port}\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client \\\n\
           -quiet -verify_return_error -CAfile /{BUNDLE} -proxy \"${{HTTPS_PROXY#http://}}\" \\\n\
           -connect localhost:{port} -servername localhost > /tls\n\
         unset http_proxy HTTP_PROXY\n\
         ! wget -q -O- {plain}\n\
         EOF\n\
         FROM scratch\n\
         COPY --from=step /links /plain /tls /{BUNDLE} /\n",
        port = secure.port,
    );
    let context = scene.context("c", &[("Dockerfile", &dockerfile), ("bundle", "nobody\n")]);
    add_program(&context, &scene.parts.on_machine("openssl"));
    let out = scene.path("out");
    let said = daemon.build(&context).into(&out).opt("attest:provenance", "mode=max,version=v1").run().ok();
    let text = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert!(text("links").contains(": lo:") && text("links").lines().count() == 1, "{}", text("links"));
    assert_eq!(text("plain"), "/plain");
    assert!(text("tls").ends_with("\r\n\r\n/tls"), "{}", text("tls"));
    assert_eq!(text("ca-certificates.crt"), "nobody\n");
    assert_eq!(web.asked(), 1);
    let said = said.said();
    for line in
        ["proxy network requests:", &format!("- GET {plain} -> 200"), &format!("- GET {by_tls} -> 200")]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    let statement: Value = serde_json::from_str(&text("provenance.json")).unwrap();
    let predicate = &statement["predicate"];
    let materials = predicate["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    for (url, content) in [(&plain, "/plain"), (&by_tls, "/tls")] {
        let found =
            materials.iter().find(|m| m["uri"] == url.as_str()).unwrap_or_else(|| panic!("{materials:?}"));
        assert_eq!(
            format!("sha256:{}", found["digest"]["sha256"].as_str().unwrap()),
            digest_of(content.as_bytes())
        );
    }
    let metadata = &predicate["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_metadata"]["network"], json!({"mode": "proxy"}));
    assert_eq!(metadata["buildkit_hermetic"], Value::Null);

    // A layer of such a step has what the step has written, and not the certificates that it was shown.
    let archive = scene.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    daemon.build(&context).opt("target", "step").output(&output).run().ok();
    let images = Images::archive(&archive);
    let manifest = images.json(&images.index_json()["manifests"][0]);
    let layers = manifest["layers"].as_array().unwrap();
    let mut last = crosskit_multiarch::Tree::default();
    last.apply(&images.layer_tar(layers.last().unwrap()));
    assert!(last.has("plain") && !last.has(BUNDLE), "{:?}", last.texts().keys());
    daemon.stop();
}

#[test]
fn policies_decide_about_requests_of_steps() {
    let (scene, web) = (Scene::set(), Web::start(None));
    let daemon = scene.daemon();
    let (secret, old, new) = (web.url("/secret"), web.url("/old"), web.url("/new"));
    let policy = scene.path("policy.json");
    let rules = json!({"version": 1, "rules": [
        {"action": "DENY", "selector": {"identifier": format!("{secret}*")}},
        {"action": "CONVERT", "selector": {"identifier": old, "match_type": "EXACT"}, "updates": {"identifier": new}},
    ]});
    std::fs::write(&policy, rules.to_string()).unwrap();
    let dockerfile = format!(
        "FROM BASE AS step\n\
         RUN {ALL}; ! wget -S -O /denied {secret} 2> /why && wget -q -O /page {old}\n\
         FROM scratch\n\
         COPY --from=step /why /page /\n"
    );
    let context = scene.context("c", &[("Dockerfile", &dockerfile)]);
    let (out, file) = (scene.path("out"), policy.display().to_string());
    let build = |under: &str| {
        let build = daemon
            .build(&context)
            .into(&out)
            .opt("attest:provenance", "mode=max,version=v1")
            .opt("no-cache", "");
        let build = build.argument("--proxy-network");
        if under.is_empty() { build } else { build.argument("--source-policy-file").argument(under) }
    };
    let said = build(&file).run().ok().said();
    let text = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert!(text("why").contains("HTTP/1.1 403 Forbidden"), "{}", text("why"));
    assert_eq!((text("page").as_str(), web.asked()), ("/new", 1));
    let refusal =
        format!("- GET {secret} -> 403 (source \"{secret}\" denied by policy: source denied by policy)");
    assert!(said.contains(&refusal) && said.contains(&format!("- GET {new} -> 200")), "{said}");
    assert!(
        text("provenance.json").contains(&new) && !text("provenance.json").contains(&format!("\"{secret}\""))
    );
    // Without the rules, the step is another one.
    build("").run().fails();
    assert_eq!(web.asked(), 2);
    daemon.stop();
}

#[test]
fn materials_that_are_not_known_end_a_build_that_wants_to_know_them() {
    let (scene, web) = (Scene::set(), Web::start(None));
    let daemon = scene.daemon();
    let missing = web.url("/missing");
    let graph = format!("FROM BASE\nRUN {ALL}; wget -q -O- {missing} || true\n");
    let context = scene.context("c", &[("Dockerfile", &graph)]);
    let build = |options: &str| {
        let build = daemon.build(&context).argument("--proxy-network").opt("attest:provenance", options);
        let build = build.opt("no-cache", "");
        build.into(&scene.path("out")).run()
    };
    build("mode=max,version=v1,complete-materials=true")
        .fails()
        .says("provenance materials are incomplete")
        .says(&format!("url: {missing}\n    reason: unsuccessful_response"));
    build("mode=max,version=v1").ok();
    let text = std::fs::read_to_string(scene.path("out").join("provenance.json")).unwrap();
    let statement: Value = serde_json::from_str(&text).unwrap();
    let metadata = &statement["predicate"]["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"]["resolvedDependencies"], false);
    let told = &metadata["buildkit_metadata"]["network"]["proxy"]["incomplete"][0];
    assert_eq!((&told["uri"], &told["reason"]), (&json!(missing), &json!("unsuccessful_response")));
    assert_eq!(told["method"], "GET");
    daemon.stop();
}

#[test]
fn a_step_without_a_network_has_no_proxy_and_a_canceled_one_leaves_none() {
    let scene = Scene::set();
    let arguments = vec!["--proxy-network".to_owned()];
    let daemon = scene.daemon_with(DaemonOptions { arguments, ..DaemonOptions::default() });
    let none = "FROM BASE\nRUN --network=none ! env | grep -i _proxy=\nRUN --network=default env | grep ^HTTP_PROXY=\n";
    daemon.build(&scene.context("none", &[("Dockerfile", none)])).run().ok();
    let host = scene.context("host", &[("Dockerfile", "FROM BASE\nRUN --network=host true\n")]);
    daemon.build(&host).run().fails().says("network.host is not allowed");
    let slow = scene.context("slow", &[("Dockerfile", "FROM BASE\nRUN echo it-ru''ns && sleep 987\n")]);
    let mut building: Running = daemon.build(&slow).start();
    building.wait_for(" it-runs", Duration::from_secs(60));
    assert!(!namespaces(&daemon).is_empty());
    building.signal(rustix::process::Signal::INT);
    building.finish(Duration::from_secs(30)).fails();
    until("the namespace to be gone", Duration::from_secs(30), || {
        namespaces(&daemon).is_empty().then_some(())
    });
    daemon.stop();
}

/// The network namespaces that files of a daemon stand for.
fn namespaces(daemon: &Daemon) -> Vec<String> {
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", daemon.id())).unwrap();
    let places =
        mounts.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| line.split(' ').nth(4));
    places.filter(|place| place.contains("/run/crosskit/")).map(str::to_owned).collect()
}
