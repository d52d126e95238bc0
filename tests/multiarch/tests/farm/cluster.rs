//! As much of a Kubernetes API server as hands out EndpointSlices: list and watch over HTTPS.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use super::certificates::Authority;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A server in which one service has endpoints.
pub struct Cluster {
    /// Where it listens.
    pub port: u16,
    /// What a pod finds as its service account.
    pub account: PathBuf,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    slices: Vec<Value>,
    /// What happened, in the order of versions, from 1.
    events: Vec<Value>,
    forbidden: Vec<&'static str>,
    lists: usize,
    watches: usize,
}

impl Cluster {
    /// A new one. Its files go below `folder`.
    pub fn start(folder: &Path) -> Cluster {
        let authority = Authority::new(&folder.join("cluster-ca"));
        let tls = authority.issue("api", 2);
        let account = folder.join("account");
        std::fs::create_dir_all(&account).unwrap();
        std::fs::copy(tls.ca.as_ref().unwrap(), account.join("ca.crt")).unwrap();
        std::fs::write(account.join("token"), "the-token\n").unwrap();
        std::fs::write(account.join("namespace"), "ci").unwrap();
        let chain = CertificateDer::pem_file_iter(tls.cert.unwrap()).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(tls.key.unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, changed) = (Arc::<Mutex<State>>::default(), watch::Sender::new(0));
        let (shared, told) = (state.clone(), changed.clone());
        runtime.spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state, told) = (acceptor.clone(), shared.clone(), told.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = serve(BufReader::new(stream), state, told).await;
                    }
                });
            }
        });
        Cluster { port, account, state, changed, _runtime: runtime }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the one slice have these endpoints: pod, address, whether it is ready.
    pub fn have(&self, port: u16, endpoints: &[(&str, &str, bool)]) {
        let mut state = self.state();
        let version = state.events.len() + 1;
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(pod, address, ready)| {
                json!({"addresses": [address], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod}})
            })
            .collect();
        let slice = json!({
            "metadata": {"name": "builders-x1", "namespace": "ci", "resourceVersion": version.to_string()},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
        });
        let kind = if state.slices.is_empty() { "ADDED" } else { "MODIFIED" };
        state.slices = vec![slice.clone()];
        state.events.push(json!({"type": kind, "object": slice}));
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Forbids verbs to everybody.
    pub fn forbid(&self, verbs: &[&'static str]) {
        self.state().forbidden = verbs.to_vec();
        // Those who watch are sent away.
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// How often was listed, and watched.
    pub fn asked(&self) -> (usize, usize) {
        let state = self.state();
        (state.lists, state.watches)
    }
}

async fn serve(
    mut stream: BufReader<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
) -> std::io::Result<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let target = head.split(' ').nth(1).unwrap_or_default().to_string();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let watches = query.contains("watch=true");
        let verb = if watches { "watch" } else { "list" };
        let refused = {
            let mut state = state.lock().unwrap();
            if watches {
                state.watches += 1
            } else {
                state.lists += 1
            }
            let known = head.lines().any(|line| line.eq_ignore_ascii_case("authorization: Bearer the-token"));
            if !known {
                Some((401, "Unauthorized".to_string()))
            } else if state.forbidden.contains(&verb) {
                let who = "system:serviceaccount:ci:default";
                Some((
                    403,
                    format!("endpointslices.discovery.k8s.io is forbidden: User {who:?} cannot {verb}"),
                ))
            } else if path != "/apis/discovery.k8s.io/v1/namespaces/ci/endpointslices"
                || !query.contains("labelSelector=app%3Dbuilders")
            {
                Some((404, format!("no such thing: {target}")))
            } else {
                None
            }
        };
        if let Some((code, message)) = refused {
            let said = json!({"kind": "Status", "status": "Failure", "message": message, "code": code});
            answer(&mut stream, code, &said).await?;
        } else if watches {
            let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
            let from = from.and_then(|version| version.parse().ok()).unwrap_or(0);
            return tell(&mut stream, from, &state, changed.subscribe()).await;
        } else {
            let list = {
                let state = state.lock().unwrap();
                json!({"kind": "EndpointSliceList", "metadata": {"resourceVersion": state.events.len().to_string()}, "items": state.slices})
            };
            answer(&mut stream, 200, &list).await?;
        }
    }
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), code: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {code} -\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.flush().await
}

/// What happened since a version, and from now on.
async fn tell(
    stream: &mut (impl AsyncWrite + Unpin),
    mut from: usize,
    state: &Mutex<State>,
    mut changed: watch::Receiver<u64>,
) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 -\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    loop {
        changed.borrow_and_update();
        let news: Vec<Value> = {
            let state = state.lock().unwrap();
            if state.forbidden.contains(&"watch") {
                break;
            }
            state.events[from..].to_vec()
        };
        from += news.len();
        for event in news {
            let line = format!("{event}\n");
            // In two pieces, as the network may do.
            let (one, two) = line.split_at(line.len() / 2);
            for piece in [one, two] {
                stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
                stream.flush().await?;
            }
        }
        stream.flush().await?;
        if changed.changed().await.is_err() {
            break;
        }
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.shutdown().await
}
