use crate::transfer::{Memory, Select};
use crate::*;
use bytes::Bytes;
use crosskit_api::control::BytesMessage;
use crosskit_api::fsutil::Stat;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::ReceiverStream;

/// Both ends in one process, joined by messages as over a daemon's gRPC stream.
async fn join(
    server: SessionServer,
) -> (SessionManager, Session, tokio::task::JoinHandle<Result<(), SessionError>>) {
    let manager = SessionManager::new();
    let (session, client) = join_to(&manager, server).await;
    (manager, session, client)
}

async fn join_to(
    manager: &SessionManager,
    server: SessionServer,
) -> (Session, tokio::task::JoinHandle<Result<(), SessionError>>) {
    let id = server.id().to_string();
    let daemon = manager.clone();
    let client = tokio::spawn(server.serve_over(
        async move |request: tonic::Request<ReceiverStream<BytesMessage>>| {
            let (metadata, _, outgoing) = request.into_parts();
            let answer = daemon.open(&metadata.into_headers(), outgoing.map(Ok));
            Ok(tonic::Response::new(Box::pin(answer)))
        },
    ));
    let session = manager.get(&format!("prefix:{id}"), Duration::from_secs(5)).await.unwrap();
    (session, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_go_both_ways() {
    let dir = TempDir::new().unwrap();
    for sub in ["in/sub", "got", "out"] {
        std::fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    for at in 0..500 {
        std::fs::write(dir.path().join(format!("in/sub/ü{at}")), vec![at as u8; at * 1000]).unwrap();
    }
    let mut dirs = LocalDirs::default();
    dirs.add("contëxt", dir.path().join("in"));
    let mut outputs = Outputs::default();
    outputs.add(1, Output::Dir { path: dir.path().join("out"), delete: false });
    let file = dir.path().join("result.tar");
    outputs.add(2, Output::file(&file));
    let server = SessionServer::new("key").with_dirs(dirs).with_outputs(outputs);
    let (_manager, session, _client) = join(server).await;
    assert_eq!(session.shared_key(), "key");

    let select = Select {
        exclude: vec!["sub/ü7".into(), "sub/ü1*".into(), "!sub/ü10".into()],
        ..Select::default()
    };
    let request = SyncDir { name: "contëxt".into(), select, ..SyncDir::default() };
    let received = session.sync_dir(request.clone(), &dir.path().join("got")).await.unwrap();
    assert_eq!(received.files, 500 - 112 + 1);
    let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
    assert_eq!(read("got/sub/ü499"), vec![499usize as u8; 499_000]);
    assert!(!dir.path().join("got/sub/ü7").exists());
    std::fs::write(dir.path().join("in/sub/ü499"), "edited").unwrap();
    assert_eq!(session.sync_dir(request, &dir.path().join("got")).await.unwrap().files, 1);

    let err = session
        .sync_dir(SyncDir { name: "other".into(), ..SyncDir::default() }, dir.path())
        .await
        .unwrap_err();
    assert!(err.to_string().contains("no access allowed to dir \"other\""), "{err}");

    let mut memory = Memory::default();
    let stat = Stat { path: "a/b".into(), mode: 0o640, uid: 1000, ..Stat::default() };
    memory.add(stat, b"content".to_vec());
    session.send_dir(Arc::new(memory.clone()), 1, false, None).await.unwrap();
    assert_eq!(read("out/a/b"), b"content");
    let err = session.send_dir(Arc::new(memory), 7, false, None).await.unwrap_err();
    assert!(err.to_string().contains("exporter 7 not found"), "{err}");

    let mut writer = session.send_file(2, &BTreeMap::new()).await.unwrap();
    writer.write(Bytes::from(vec![1; 3 << 20])).await.unwrap();
    assert!(!file.exists());
    writer.finish().await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), vec![1; 3 << 20]);
    // What is broken off is not seen.
    let mut writer = session.send_file(2, &BTreeMap::new()).await.unwrap();
    writer.write(Bytes::from_static(b"partial")).await.unwrap();
    drop(writer);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 3 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_may_lose_what_is_not_in_the_result() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("old"), "").unwrap();
    let mut outputs = Outputs::default();
    outputs.add(0, Output::Dir { path: dir.path().into(), delete: true });
    let (_manager, session, _client) = join(SessionServer::new("").with_outputs(outputs)).await;
    let mut memory = Memory::default();
    memory.add(Stat { path: "new".into(), mode: 0o644, ..Stat::default() }, b"x".to_vec());
    let err = session.send_dir(Arc::new(memory.clone()), 0, false, None).await.unwrap_err();
    assert!(err.to_string().contains("mode=delete requires"), "{err}");
    assert!(dir.path().join("old").exists());
    session.send_dir(Arc::new(memory), 0, true, None).await.unwrap();
    assert!(!dir.path().join("old").exists() && dir.path().join("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_uploads_and_callbacks_answer() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("s"), "from file").unwrap();
    let mut secrets = Secrets::default();
    secrets.add("file", Some(SecretSource::File(dir.path().join("s")))).unwrap();
    secrets.add("value", Some(SecretSource::Value(vec![0, 255]))).unwrap();
    assert!(secrets.add("gone", Some(SecretSource::File("/nonexistent".into()))).is_err());
    let uploads = Uploads::default();
    let url = uploads.add(std::io::Cursor::new(vec![7; 1 << 20]));
    let find: ExporterCallback = Arc::new(|metadata, refs| {
        Box::pin(async move {
            let attrs = BTreeMap::from([
                ("refs".to_string(), refs.join(",")),
                ("n".into(), metadata.len().to_string()),
            ]);
            Ok(vec![RequestedExporter { kind: "image".into(), attrs }])
        })
    });
    let server = SessionServer::new("").with_secrets(secrets).with_uploads(uploads).with_exporter(find, None);
    let (_manager, session, _client) = join(server).await;

    assert_eq!(session.secret("file").await.unwrap(), b"from file");
    assert_eq!(session.secret("value").await.unwrap(), [0, 255]);
    let err = session.secret("other").await.unwrap_err();
    assert_eq!(err.to_string(), "secret other: not found");

    let path = url.strip_prefix("http://buildkit-session").unwrap();
    let mut pieces = session.pull_upload("buildkit-session", path).await.unwrap();
    let mut total = 0;
    while let Some(piece) = pieces.next().await {
        total += piece.unwrap().len();
    }
    assert_eq!(total, 1 << 20);
    assert!(session.pull_upload("buildkit-session", path).await.is_err());

    let found = session.find_exporters(BTreeMap::new(), vec!["a".into(), "b".into()]).await.unwrap();
    assert_eq!(found[0].attrs["refs"], "a,b");
    session.finalize_export(BTreeMap::new()).await.unwrap();
    assert!(matches!(
        session.require("/moby.filesync.v1.FileSend/DiffCopy"),
        Err(SessionError::Unsupported { .. })
    ));
    // A client without credentials has none, which is no failure.
    assert_eq!(session.credentials("example.org").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_stores_are_read_and_written() {
    use sha2::{Digest, Sha256};
    let dir = TempDir::new().unwrap();
    let mut stores = ContentStores::default();
    stores.add("oci:base", dir.path(), true);
    stores.add("oci:fixed", dir.path(), false);
    let (_manager, session, _client) = join(SessionServer::new("").with_content(stores)).await;
    let data = Bytes::from(vec![3u8; 5 << 20]);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&data)));
    let store = session.content("oci:base").unwrap();
    assert!(matches!(store.info(&digest).await, Err(SessionError::NotFound(_))));
    let mut writer = store.write(&digest, data.len() as u64).await.unwrap().unwrap();
    writer.write(data.slice(..100)).await.unwrap();
    writer.write(data.slice(100..)).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(store.info(&digest).await.unwrap().size, 5 << 20);
    assert!(store.write(&digest, 1).await.unwrap().is_none());
    let fixed = session.content("oci:fixed").unwrap();
    assert_eq!(fixed.read_all(&digest, 6 << 20).await.unwrap(), data);
    assert!(fixed.read_all(&digest, 100).await.is_err());
    let mut rest = fixed.read(&digest, (5 << 20) - 3).await.unwrap();
    assert_eq!(rest.next().await.unwrap().unwrap(), Bytes::from_static(&[3, 3, 3]));
    let other = format!("sha256:{}", "0".repeat(64));
    assert!(fixed.write(&other, 1).await.is_err());
    assert!(session.content("none").unwrap().info(&digest).await.is_err());
    assert!(store.info("sha256:../../etc/passwd").await.is_err());
    // A blob that is not what it claims to be does not appear.
    let mut writer = store.write(&other, 3).await.unwrap().unwrap();
    writer.write(Bytes::from_static(b"abc")).await.unwrap();
    let err = writer.commit().await.unwrap_err();
    assert!(err.to_string().contains("unexpected commit digest"), "{err}");
    assert!(store.info(&other).await.is_err());
}

/// An agent that answers every message with a byte more of the same kind.
async fn fake_agent(listener: UnixListener) {
    loop {
        let (mut connection, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut len = [0; 4];
            while connection.read_exact(&mut len).await.is_ok() {
                let mut message = vec![0; u32::from_be_bytes(len) as usize];
                connection.read_exact(&mut message).await.unwrap();
                message.push(42);
                connection.write_u32(message.len() as u32).await.unwrap();
                connection.write_all(&message).await.unwrap();
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_reached_through_a_socket() {
    let dir = TempDir::new().unwrap();
    let agent = tokio::spawn(fake_agent(UnixListener::bind(dir.path().join("agent")).unwrap()));
    let mut agents = SshAgents::default();
    agents.add("", &[dir.path().join("agent")], false).await.unwrap();
    agents.add("raw", &[dir.path().join("agent")], true).await.unwrap();
    assert!(agents.add("raw", &[dir.path().join("agent")], true).await.is_err());
    let (_manager, session, _client) = join(SessionServer::new("").with_ssh(agents)).await;
    session.check_ssh("").await.unwrap();
    assert!(
        session.check_ssh("other").await.unwrap_err().to_string().contains("unset ssh forward key other")
    );

    let ask = async |id: &str, kind: u8| {
        let socket = session.ssh_socket(id, dir.path(), (0, 0), 0o600).unwrap();
        let mut connection = UnixStream::connect(socket.path()).await.unwrap();
        connection.write_all(&[0, 0, 0, 1, kind]).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        let path = socket.path().to_path_buf();
        drop(socket);
        assert!(!path.exists());
        answer
    };
    assert_eq!(ask("", 11).await, [0, 0, 0, 2, 11, 42]);
    // To add a key is not for builds, unless everything is let through.
    assert_eq!(ask("", 17).await, [0, 0, 0, 1, 5]);
    assert_eq!(ask("raw", 17).await, [0, 0, 0, 2, 17, 42]);
    agent.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_dockers_configuration() {
    let dir = TempDir::new().unwrap();
    let config = r#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="},
        "https://example.org/v2/": {"auth": "bWU6cGFzcw=="},
        "fixed.example": {"registrytoken": "static"},
        "token.example": {"identitytoken": "refresh"}}}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let auth = DockerAuth::new(Some(dir.path().into()));
    let (_manager, session, _client) = join(SessionServer::new("").with_auth(auth)).await;
    for (host, username, secret) in [
        ("registry-1.docker.io", "hub", "secret"),
        ("example.org", "me", "pass"),
        ("token.example", "", "refresh"),
        ("unknown.example", "", ""),
    ] {
        let found = session.credentials(host).await.unwrap().unwrap();
        assert_eq!((found.username.as_str(), found.secret.as_str()), (username, secret), "{host}");
    }
    let request = TokenRequest { host: "fixed.example".into(), ..TokenRequest::default() };
    assert_eq!(session.fetch_token(request).await.unwrap().token, "static");

    // The same key as long as the credentials are there; nobody else can sign for it.
    let key = session.token_authority("example.org").await.unwrap().unwrap();
    assert_eq!(session.token_authority("example.org").await.unwrap().unwrap(), key);
    assert_ne!(session.token_authority("unknown.example").await.unwrap().unwrap(), key);
    assert!(session.verify_token_authority("example.org", &key).await.unwrap());
    assert!(!session.verify_token_authority("unknown.example", &key).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_in_the_way_the_registry_knows() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let registry = tokio::spawn(async move {
        let mut seen = Vec::new();
        for (status, body) in [
            ("404 Not Found", ""),
            ("200 OK", r#"{"token":"T","expires_in":9,"issued_at":"2026-01-01T00:00:00Z"}"#),
        ] {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 << 10];
            let len = connection.read(&mut request).await.unwrap();
            seen.push(String::from_utf8_lossy(&request[..len]).to_string());
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    });
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"auths": {"r.example": {"auth": "bWU6cGFzcw=="}}}"#)
        .unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let auth = DockerAuth::new(Some(dir.path().into()));
    let (_manager, session, _client) = join(SessionServer::new("").with_auth(auth)).await;
    let scopes = vec!["repository:a/b:pull".to_string()];
    let request = TokenRequest {
        host: "r.example".into(),
        realm,
        service: "svc".into(),
        scopes,
        ..TokenRequest::default()
    };
    let token = session.fetch_token(request).await.unwrap();
    assert_eq!((token.token.as_str(), token.expires_in, token.issued_at), ("T", 9, 1_767_225_600));
    let seen = registry.await.unwrap();
    assert!(seen[0].starts_with("POST /token "), "{}", seen[0]);
    assert!(seen[1].starts_with("GET /token?service=svc&scope=repository%3Aa%2Fb%3Apull "), "{}", seen[1]);
    assert!(seen[1].contains("Basic bWU6cGFzcw=="), "{}", seen[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_with_the_trust_that_was_asked_for() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = TempDir::new().unwrap();
    let made = std::process::Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
                .split(' '),
        )
        .args("-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE".split(' '))
        .args("-keyout key.pem -out cert.pem".split(' '))
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let chain = vec![CertificateDer::from_pem_file(&cert).unwrap()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("https://{}/token", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(connection).await else { continue };
            let who = tls.get_ref().1.peer_certificates().map_or("anybody", |_| "known");
            let mut request = vec![0; 64 << 10];
            if tls.read(&mut request).await.unwrap_or_default() > 0 {
                let body = format!("{{\"token\":\"{who}\"}}");
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
                let _ = tls.write_all(format!("{head}\r\n{body}").as_bytes()).await;
            }
            let _ = tls.shutdown().await;
        }
    });
    let trusted = TokenTls { authorities: vec![cert.clone()], ..TokenTls::default() };
    let mutual = TokenTls { identities: vec![(cert, key)], ..trusted.clone() };
    let missing = TokenTls { authorities: vec!["/no/such.pem".into()], ..TokenTls::default() };
    let insecure = TokenTls { insecure: true, ..TokenTls::default() };
    let by_host =
        [("trusted", trusted), ("https://mutual:1/", mutual), ("missing", missing), ("any", insecure)];
    let by_host = by_host.map(|(host, tls)| (host.to_string(), tls));
    let auth = DockerAuth::new(Some(dir.path().into())).with_tls(by_host);
    let (_manager, session, _client) = join(SessionServer::new("").with_auth(auth)).await;
    for (host, expected) in [
        ("trusted", Ok("anybody")),
        ("mutual:1", Ok("known")),
        ("any", Ok("anybody")),
        ("missing", Err("failed to read /no/such.pem")),
        ("other", Err("failed to fetch anonymous token")),
    ] {
        let request = TokenRequest { host: host.into(), realm: realm.clone(), ..TokenRequest::default() };
        match (session.fetch_token(request).await, expected) {
            (Ok(token), Ok(expected)) => assert_eq!(token.token, expected, "{host}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{host}: {error}"),
            (found, _) => panic!("{host}: {:?}", found.map(|token| token.token)),
        }
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_either_side_goes() {
    let (manager, session, client) = join(SessionServer::new("")).await;
    let id = session.id().to_string();
    assert_eq!(manager.ids(), std::slice::from_ref(&id));
    session.close();
    client.await.unwrap().ok();
    let err = manager.get(&id, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(err.to_string(), format!("no active session for {id}: context deadline exceeded"));

    let (manager, session, client) = join(SessionServer::new("")).await;
    client.abort();
    session.closed().await;
    assert!(session.secret("x").await.is_err());
    assert!(manager.get_now(session.id()).is_none());

    let none = manager.any(&[], async |_| Ok(())).await.unwrap_err();
    assert_eq!(none.to_string(), "no active sessions");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_answering_is_let_go() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut headers = SessionServer::new("").headers();
    headers.insert("x-buildkit-session-health-custom-timeout", "1".parse().unwrap());
    let manager = SessionManager::new();
    // The other end is open, and nobody is there.
    let id = headers["x-docker-expose-session-uuid"].to_str().unwrap();
    let asks = async { manager.get(id, std::time::Duration::from_secs(5)).await.unwrap().secret("x").await };
    let (err, asked) = tokio::join!(manager.handle(ours, &headers), asks);
    // Whoever waits for its answer is told.
    assert!(asked.is_err());
    let err = err.unwrap_err();
    assert!(err.to_string().starts_with("session healthcheck failed fatally"), "{err}");
    drop(theirs);
    let err = manager.handle(tokio::io::duplex(1).0, &http::HeaderMap::new()).await.unwrap_err();
    assert!(err.to_string().contains("x-docker-expose-session-uuid"), "{err}");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_credentials_for_longer_than_a_minute() {
    let (ours, _theirs) = tokio::io::duplex(1 << 20);
    let mut headers = SessionServer::new("").headers();
    headers.insert("x-buildkit-session-health-custom-timeout", "1000000".parse().unwrap());
    let manager = SessionManager::new();
    // The other end is open, and nobody is there.
    let id = headers["x-docker-expose-session-uuid"].to_str().unwrap();
    let asks = async {
        let session = manager.get(id, Duration::from_secs(5)).await.unwrap();
        let begun = tokio::time::Instant::now();
        let request = TokenRequest { host: "example.org".into(), ..TokenRequest::default() };
        let (credentials, token, key, proof) = tokio::join!(
            session.credentials("example.org"),
            session.fetch_token(request),
            session.token_authority("example.org"),
            session.verify_token_authority("example.org", &[0; 32])
        );
        let took = begun.elapsed().as_secs();
        session.close();
        let failures = [credentials.err(), token.err(), key.err(), proof.err()];
        (took, failures.map(|error| error.unwrap().to_string()))
    };
    let (_, (took, failures)) = tokio::join!(manager.handle(ours, &headers), asks);
    assert_eq!(took, 60);
    let why = "context deadline exceeded: the client has not answered for 60 s";
    assert_eq!(failures[0], format!("get credentials for example.org: {why}"));
    assert!(failures.iter().all(|failure| failure.ends_with(why)), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_there_is_not_one_without_credentials() {
    use crosskit_images::registry::Credentials;
    let (manager, host) = (SessionManager::new(), "example.org");
    let of = |ids: &[&str]| {
        SessionCredentials::new(manager.clone(), ids.iter().map(|id| (*id).to_string()).collect())
    };
    // Nobody to ask, that is nobody's credentials.
    assert!(of(&[]).login(host).await.unwrap().is_none());
    assert!(of(&[""]).login(host).await.unwrap().is_none());
    let lost = of(&["lost"]).login(host).await.err().unwrap().to_string();
    assert!(lost.contains("no active session for lost: context deadline exceeded"), "{lost}");
    let request = crosskit_images::registry::TokenRequest {
        host: host.into(),
        realm: "https://example.org/token".into(),
        service: String::new(),
        scopes: Vec::new(),
    };
    let lost = of(&["lost"]).token(&request).await.err().unwrap().to_string();
    assert!(lost.contains("no active session for lost"), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_wait_for_the_client_and_are_those_of_one_that_is_there() {
    use crosskit_images::registry::Credentials;
    let dir = TempDir::new().unwrap();
    let config = r#"{"auths": {"https://example.org/v2/": {"auth": "bWU6cGFzcw=="}}}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let manager = SessionManager::new();
    let knows = SessionServer::new("").with_auth(DockerAuth::new(Some(dir.path().into())));
    let of = |ids: &[&str]| {
        SessionCredentials::new(manager.clone(), ids.iter().map(|id| (*id).to_string()).collect())
    };
    // The daemon asks for them before the client has opened its session.
    let early = of(&[knows.id()]);
    let (asked, joined) = tokio::join!(early.login("example.org"), async {
        tokio::task::yield_now().await;
        join_to(&manager, knows).await
    });
    assert_eq!(asked.unwrap().unwrap().secret, "pass");
    // Nobody waits for one that has gone while another one answers.
    let begun = std::time::Instant::now();
    let login = of(&["gone", joined.0.id()]).login("example.org").await.unwrap().unwrap();
    assert_eq!((login.user.as_str(), login.secret.as_str()), ("me", "pass"));
    let none = SessionServer::new("");
    let none = join_to(&manager, none).await;
    assert!(of(&["gone", none.0.id()]).login("example.org").await.unwrap().is_none());
    assert!(begun.elapsed() < WAIT_FOR_SESSION, "{:?}", begun.elapsed());
    let login = of(&[none.0.id(), joined.0.id()]).login("example.org").await.unwrap().unwrap();
    assert_eq!(login.secret, "pass");
}
