//! Interop and speed.
use crosskit_api::control;
use crosskit_session::transfer::*;
use crosskit_session::*;
use futures::StreamExt;
use std::path::PathBuf;
use std::time::Instant;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "stock" => stock(&args[2], &args[3], &args[4]).await,
        "sync" => sync(&args[2], &args[3]).await,
        _ => panic!(),
    }
}

async fn stock(socket: &str, from: &str, to: &str) {
    let socket = PathBuf::from(socket);
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let s = socket.clone();
            async move {
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                    tokio::net::UnixStream::connect(s).await?,
                ))
            }
        }))
        .await
        .unwrap();
    let mut control = control::control_client::ControlClient::new(channel);
    let mut dirs = LocalDirs::default();
    dirs.add("ctx", from);
    let mut outputs = Outputs::default();
    let file = to.ends_with(".tar");
    outputs.add(0, if file { Output::file(to) } else { Output::Dir { path: to.into(), delete: false } });
    let server = SessionServer::new("sk").with_dirs(dirs).with_outputs(outputs);
    let id = server.id().to_string();
    let mut c2 = control.clone();
    let task = tokio::spawn(server.serve_over(async move |r| c2.session(r).await));
    let src = crosskit_api::pb::Op {
        op: Some(crosskit_api::pb::op::Op::Source(crosskit_api::pb::SourceOp {
            identifier: "local://ctx".into(),
            attrs: [("local.session".to_string(), id.clone()), ("local.sharedkeyhint".into(), "h".into())]
                .into_iter()
                .collect(),
        })),
        ..Default::default()
    };
    use prost::Message;
    use sha2::Digest;
    let dt = src.encode_to_vec();
    let dgst = format!("sha256:{}", hex::encode(sha2::Sha256::digest(&dt)));
    let last = crosskit_api::pb::Op {
        inputs: vec![crosskit_api::pb::Input { digest: dgst, index: 0 }],
        ..Default::default()
    };
    let t = Instant::now();
    let req = control::SolveRequest {
        r#ref: format!("r{}", rand::random::<u64>()),
        definition: Some(crosskit_api::pb::Definition {
            def: vec![dt, last.encode_to_vec()],
            ..Default::default()
        }),
        session: id,
        exporters: vec![control::Exporter {
            r#type: if file { "tar" } else { "local" }.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let r = control.solve(req).await;
    println!("{:?} in {:?}", r.map(|r| r.into_inner()), t.elapsed());
    task.abort();
}

struct Sink;
impl ChangeSink for Sink {
    fn header(&self, stat: &crosskit_api::fsutil::Stat) -> Vec<u8> {
        stat.path.clone().into_bytes()
    }
    fn changed(&self, _: Change<'_>) {}
}

async fn sync(from: &str, to: &str) {
    let mut dirs = LocalDirs::default();
    dirs.add("ctx", from);
    let server = SessionServer::new("").with_dirs(dirs);
    let id = server.id().to_string();
    let manager = SessionManager::new();
    // a real gRPC daemon's Session over a unix socket
    let dir = tempfile::TempDir::new().unwrap();
    let sock = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&sock).unwrap();
    let (m, headers) = (manager.clone(), server.headers());
    if std::env::var_os("DIRECT").is_some() {
        tokio::spawn(async move {
            let (io, _) = listener.accept().await.unwrap();
            m.handle(io, &headers).await
        });
        let io = tokio::net::UnixStream::connect(&sock).await.unwrap();
        tokio::spawn(server.serve(io));
    } else {
        tokio::spawn(async move {
            let (io, _) = listener.accept().await.unwrap();
            let io = hyper_util::rt::TokioIo::new(io);
            let svc = hyper::service::service_fn(move |req: http::Request<hyper::body::Incoming>| {
                let m = m.clone();
                async move {
                    struct H(SessionManager);
                    impl tonic::server::StreamingService<control::BytesMessage> for H {
                        type Response = control::BytesMessage;
                        type ResponseStream = std::pin::Pin<
                            Box<
                                dyn futures::Stream<Item = Result<control::BytesMessage, tonic::Status>>
                                    + Send,
                            >,
                        >;
                        type Future = futures::future::BoxFuture<
                            'static,
                            Result<tonic::Response<Self::ResponseStream>, tonic::Status>,
                        >;
                        fn call(
                            &mut self,
                            r: tonic::Request<tonic::Streaming<control::BytesMessage>>,
                        ) -> Self::Future {
                            let (md, _, s) = r.into_parts();
                            let out = self.0.open(&md.into_headers(), s);
                            Box::pin(async move { Ok(tonic::Response::new(Box::pin(out) as _)) })
                        }
                    }
                    let codec =
                        tonic_prost::ProstCodec::<control::BytesMessage, control::BytesMessage>::default();
                    let mut grpc =
                        tonic::server::Grpc::new(codec).apply_max_message_size_config(Some(16 << 20), None);
                    Ok::<_, std::convert::Infallible>(
                        grpc.streaming(H(m), req.map(tonic::body::Body::new)).await,
                    )
                }
            });
            hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20)
                .max_frame_size(256 << 10)
                .serve_connection(io, svc)
                .await
                .unwrap();
        });
        let s2 = sock.clone();
        let channel = tonic::transport::Endpoint::from_static("http://localhost")
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .connect_with_connector(tower::service_fn(move |_| {
                let s = s2.clone();
                async move {
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                        tokio::net::UnixStream::connect(s).await?,
                    ))
                }
            }))
            .await
            .unwrap();
        let mut control =
            control::control_client::ControlClient::new(channel).max_decoding_message_size(16 << 20);
        tokio::spawn(server.serve_over(async move |r| control.session(r).await));
    }
    let session = manager.get(&id, std::time::Duration::from_secs(5)).await.unwrap();
    std::fs::create_dir_all(to).unwrap();
    for _ in 0..3 {
        let t = Instant::now();
        let receive = Receive {
            changes: std::env::var_os("NOHASH").is_none().then(|| std::sync::Arc::new(Sink) as _),
            ..Receive::default()
        };
        let r = session
            .sync_dir(SyncDir { name: "ctx".into(), receive, ..Default::default() }, to.as_ref())
            .await
            .unwrap();
        println!("{r:?} in {:?}", t.elapsed());
    }
    let _ = futures::stream::empty::<()>().next();
}
