//! Files from the web are asked for once, and again only whether they changed.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_api::frontend::{ChecksumRequest, ResolveSourceHttpRequest, ResolveSourceMetaRequest};
use crosskit_session::{SecretSource, Secrets, SessionServer, Uploads};
use crosskit_sources::SourceContext;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use support::{Build, Daemon, op};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that remembers what it was asked, and answers with what it is given.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    file: Arc<Mutex<(String, String)>>,
}

async fn server() -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/dir/file.txt", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let file = Arc::new(Mutex::new(("hello".to_string(), "\"one\"".to_string())));
    let (log, content) = (asked.clone(), file.clone());
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let (body, etag) = content.lock().unwrap().clone();
            let same = request.contains(&format!("if-none-match: {etag}"));
            let head = request.starts_with("HEAD");
            let zipped = request.contains("/zipped");
            let (status, body) = match () {
                () if request.contains("/missing") => ("404 Not Found", Vec::new()),
                () if same => ("304 Not Modified", Vec::new()),
                () if zipped => ("200 OK", gzip(&body)),
                () => ("200 OK", body.into_bytes()),
            };
            let body = if request.contains("/zipped/short") { &body[..body.len() - 9] } else { &body[..] };
            let encoding = if zipped { "content-encoding: gzip\r\n" } else { "" };
            let answer = format!(
                "HTTP/1.1 {status}\r\netag: W/{etag}\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\n{encoding}content-length: {}\r\n\r\n",
                body.len(),
            );
            log.lock().unwrap().push(request);
            connection.write_all(answer.as_bytes()).await.unwrap();
            if !head {
                connection.write_all(body).await.unwrap();
            }
        }
    });
    Server { url, asked, file }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn sha(text: &str) -> String {
    format!("sha256:{}", Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_file_is_not_sent_again() {
    let (daemon, server) = (Daemon::new(), server().await);
    let build = Build::alone();
    let first = daemon.bring(&build, op(&server.url, &[])).await.unwrap();
    assert_eq!(first.files().await, ["file.txt f 600 0:0  hello"]);
    assert_eq!(first.pin, sha("hello"));
    // As BuildKit's Go structure is written.
    let text = format!(
        "{{\"Filename\":\"file.txt\",\"Perm\":0,\"UID\":0,\"GID\":0,\"Checksum\":\"{}\",\"LastModTime\":\"Sun, 06 Nov 1994 08:49:37 GMT\"}}",
        sha("hello")
    );
    assert_eq!(first.keys, [sha(&text)]);
    // One build sees one file, whatever happens meanwhile.
    let same = daemon.bring(&build, op(&server.url, &[])).await.unwrap();
    assert_eq!(same.pin, first.pin);
    assert_eq!(server.asked.lock().unwrap().len(), 1);
    let second = daemon.bring(&Build::alone(), op(&server.url, &[])).await.unwrap();
    assert_eq!((&second.keys, second.reference.unwrap().id()), (&first.keys, first.reference.unwrap().id()));
    let methods: Vec<String> = server.asked.lock().unwrap().iter().map(|r| r[..4].to_string()).collect();
    assert_eq!(methods, ["GET ", "HEAD"]);

    *server.file.lock().unwrap() = ("changed".into(), "\"two\"".into());
    assert_eq!(daemon.bring(&build, op(&server.url, &[])).await.unwrap().pin, first.pin);
    let third = daemon.bring(&Build::alone(), op(&server.url, &[])).await.unwrap();
    assert_eq!(third.pin, sha("changed"));
    let mounted = third.reference.unwrap().mount_readonly().await.unwrap();
    let time =
        std::os::unix::fs::MetadataExt::mtime(&std::fs::metadata(mounted.path().join("file.txt")).unwrap());
    assert_eq!(time, 784_111_777);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_shape_the_file() {
    let (daemon, server) = (Daemon::new(), server().await);
    let attrs = [
        ("http.filename", "../name"),
        ("http.perm", "0755"),
        ("http.uid", "12"),
        ("http.gid", "34"),
        ("http.checksum", &sha("hello")),
        ("http.header.accept", "text/x"),
        ("http.header.cookie", "no"),
    ];
    let brought = daemon.bring(&Build::alone(), op(&server.url, &attrs)).await.unwrap();
    assert_eq!(brought.files().await, ["name f 755 12:34  hello"]);
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("accept: text/x") && !asked[0].contains("cookie"), "{}", asked[0]);

    let wrong = [("http.checksum", sha("other"))];
    let wrong: Vec<_> = wrong.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let err = daemon.bring(&Build::alone(), op(&server.url, &wrong)).await.err().unwrap();
    assert_eq!(
        err,
        format!("digest mismatch for {}: {} (expected: {})", server.url, sha("hello"), sha("other"))
    );
    let err = daemon
        .bring(&Build::alone(), op(&server.url.replace("file.txt", "missing"), &[]))
        .await
        .err()
        .unwrap();
    assert_eq!(err, "invalid response status 404");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_lends_secrets_and_uploads() {
    let (daemon, server) = (Daemon::new(), server().await);
    let mut secrets = Secrets::default();
    for (id, value) in [("HTTP_AUTH_TOKEN_127.0.0.1", "tok"), ("mine", "Basic abc")] {
        secrets.add(id, Some(SecretSource::Value(value.into()))).unwrap();
    }
    let uploads = Uploads::default();
    let url = uploads.add(std::io::Cursor::new(b"from stdin".to_vec()));
    let session = daemon.connect(SessionServer::new("").with_secrets(secrets).with_uploads(uploads)).await;
    let build = Build::of(&session);
    daemon.bring(&build, op(&server.url, &[])).await.unwrap();
    daemon.bring(&build, op(&server.url, &[("http.authheadersecret", "mine")])).await.unwrap();
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked[0].contains("authorization: Bearer tok"), "{}", asked[0]);
    assert!(asked[1].contains("authorization: Basic abc"), "{}", asked[1]);
    let err =
        daemon.bring(&build, op(&server.url, &[("http.authheadersecret", "gone")])).await.err().unwrap();
    assert!(err.contains("failed to retrieve HTTP auth secret gone"), "{err}");

    let brought = daemon.bring(&build, op(&url, &[("http.filename", "context")])).await.unwrap();
    assert_eq!(brought.files().await, ["context f 600 0:0  from stdin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_told_before_the_file_is_used() {
    let (daemon, server) = (Daemon::new(), server().await);
    let cx: Arc<dyn SourceContext> = Build::alone();
    let request = ResolveSourceMetaRequest {
        source: Some(op(&server.url, &[])),
        http: Some(ResolveSourceHttpRequest {
            checksum_request: Some(ChecksumRequest { algo: 0, suffix: b" world".to_vec() }),
        }),
        ..ResolveSourceMetaRequest::default()
    };
    let answer = daemon.sources.resolve_source_meta(&request, &cx).await.unwrap();
    let http = answer.http.unwrap();
    assert_eq!((http.checksum, http.filename.as_str()), (sha("hello"), "file.txt"));
    assert_eq!(http.last_modified.unwrap().seconds, 784_111_777);
    assert_eq!(http.checksum_response.unwrap().digest, sha("hello world"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_compressed_is_kept_as_it_is() {
    let (daemon, server) = (Daemon::new(), server().await);
    // More than goes through at once.
    let text = "hello ".repeat(200_000);
    server.file.lock().unwrap().0 = text.clone();
    let url = server.url.replace("/dir/", "/zipped/");
    let brought = daemon.bring(&Build::alone(), op(&url, &[])).await.unwrap();
    assert_eq!(brought.pin, sha(&text));
    assert!(server.asked.lock().unwrap()[0].contains("accept-encoding: gzip\r\n"));
    let again = daemon.bring(&Build::alone(), op(&url, &[])).await.unwrap();
    assert_eq!(again.pin, brought.pin);
    let asked = server.asked.lock().unwrap()[1].clone();
    assert!(asked.starts_with("HEAD") && asked.contains("accept-encoding: gzip\r\n"), "{asked}");

    let short = server.url.replace("/dir/", "/zipped/short/");
    let refused = daemon.bring(&Build::alone(), op(&short, &[])).await.err().unwrap().to_string();
    assert!(refused.contains("gzip: "), "{refused}");
}
