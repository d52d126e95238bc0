//! A frontend in the client: it opens a build, calls the bridge, and returns.

#![allow(dead_code, reason = "several tests share this, and each uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_api::control::control_client::ControlClient;
use crosskit_api::control::{SolveRequest, SolveResponse, StatusRequest, StatusResponse};
use crosskit_api::errors::ErrorDetails;
use crosskit_api::frontend::exec_message::Input;
use crosskit_api::frontend::llb_bridge_client::LlbBridgeClient;
use crosskit_api::frontend::{self as api, ExecMessage};
use crosskit_api::pb;
use crosskit_llb::{Builder, Constraints, Exec, Graph, ImageSource, Output};
use crosskit_multiarch::Daemon;
use crosskit_session::{ContentStores, SessionServer};
use std::path::Path;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// The metadata key by which calls name their build.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// A build whose frontend is the test.
pub struct Frontend {
    pub bridge: LlbBridgeClient<Channel>,
    control: ControlClient<Channel>,
    id: String,
    solving: JoinHandle<Result<SolveResponse, Status>>,
    /// Lends what the build may have, as long as this is there.
    _session: Option<Lending>,
}

/// A session that is served until this is dropped.
pub struct Lending {
    pub id: String,
    serving: JoinHandle<()>,
}

impl Drop for Lending {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Lending {
    pub async fn begin(daemon: &Daemon, session: SessionServer) -> Lending {
        let id = session.id().to_string();
        let stream = UnixStream::connect(&daemon.socket).await.unwrap();
        let mut control = ControlClient::new(crosskit_client::channel_over(stream).await.unwrap());
        let serving = tokio::spawn(async move {
            let _ = session.serve_over(|call| async move { control.session(call).await }).await;
        });
        Lending { id, serving }
    }
}

/// Runs a test's conversation.
pub fn conversation<T>(talk: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(talk)
}

impl Frontend {
    pub async fn begin(daemon: &Daemon, entitlements: &[&str]) -> Frontend {
        let entitlements = entitlements.iter().map(|e| (*e).to_string()).collect();
        Frontend::begin_for(daemon, SolveRequest { entitlements, ..SolveRequest::default() }).await
    }

    /// Opens a build that may have what a session lends.
    pub async fn begin_lent(daemon: &Daemon, session: SessionServer, request: SolveRequest) -> Frontend {
        let lending = Lending::begin(daemon, session).await;
        let request = SolveRequest { session: lending.id.clone(), ..request };
        let frontend = Frontend::begin_for(daemon, request).await;
        Frontend { _session: Some(lending), ..frontend }
    }

    /// Opens the build that a request asks for.
    pub async fn begin_for(daemon: &Daemon, request: SolveRequest) -> Frontend {
        let stream = UnixStream::connect(&daemon.socket).await.unwrap();
        let channel = crosskit_client::channel_over(stream).await.unwrap();
        let id = format!("{:032x}", rand::random::<u128>());
        let mut control = ControlClient::new(channel.clone());
        let request = SolveRequest { r#ref: id.clone(), ..request };
        let to_listen = control.clone();
        let solving = tokio::spawn(async move { control.solve(request).await.map(|r| r.into_inner()) });
        let bridge = LlbBridgeClient::new(channel);
        let mut frontend = Frontend { bridge, control: to_listen, id, solving, _session: None };
        let ping = frontend.call(api::PingRequest {});
        let caps = frontend.bridge.ping(ping).await.unwrap().into_inner().frontend_api_caps;
        assert!(caps.iter().any(|cap| cap.id == "gateway.exec" && cap.enabled));
        frontend
    }

    /// Opens the build that a request asks for, with what a client lends besides.
    pub async fn begin_asking(
        daemon: &Daemon,
        (request, session): (SolveRequest, SessionServer),
    ) -> (Frontend, JoinHandle<()>) {
        let stream = UnixStream::connect(&daemon.socket).await.unwrap();
        let mut control = ControlClient::new(crosskit_client::channel_over(stream).await.unwrap());
        let request = SolveRequest { session: session.id().to_string(), ..request };
        let lending = tokio::spawn(async move {
            let _ = session.serve_over(|call| async move { control.session(call).await }).await;
        });
        (Frontend::begin_for(daemon, request).await, lending)
    }

    /// Opens a build of a client that lends a folder with images.
    pub async fn begin_lending(daemon: &Daemon, store: &str, path: &Path) -> (Frontend, JoinHandle<()>) {
        let mut stores = ContentStores::default();
        stores.add(store, path, false);
        let session = SessionServer::new(String::new()).with_content(stores);
        Frontend::begin_asking(daemon, (SolveRequest::default(), session)).await
    }

    /// The ref of a graph's result.
    pub async fn reference(&mut self, definition: pb::Definition) -> Result<api::Ref, Status> {
        let request = api::SolveRequest {
            definition: Some(definition),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..api::SolveRequest::default()
        };
        let call = self.call(request);
        match self.bridge.solve(call).await?.into_inner().result.unwrap().result.unwrap() {
            api::result::Result::Ref(found) => Ok(found),
            other => panic!("not a single result: {other:?}"),
        }
    }

    /// A file of a result.
    pub async fn text(&mut self, reference: &str, path: &str) -> String {
        let request = api::ReadFileRequest {
            r#ref: reference.to_string(),
            file_path: path.to_string(),
            ..api::ReadFileRequest::default()
        };
        let call = self.call(request);
        String::from_utf8(self.bridge.read_file(call).await.unwrap().into_inner().data).unwrap()
    }

    /// What is known of a source.
    pub async fn meta(
        &mut self,
        request: api::ResolveSourceMetaRequest,
    ) -> Result<api::ResolveSourceMetaResponse, Status> {
        let call = self.call(request);
        self.bridge.resolve_source_meta(call).await.map(tonic::Response::into_inner)
    }

    /// Gathers what is told of the build, to its end.
    pub async fn status(&self) -> JoinHandle<StatusResponse> {
        let request = StatusRequest { r#ref: self.id.clone() };
        let mut answers = self.control.clone().status(request).await.unwrap().into_inner();
        tokio::spawn(async move {
            let mut all = StatusResponse::default();
            while let Some(more) = answers.message().await.unwrap() {
                all.vertexes.extend(more.vertexes);
                all.logs.extend(more.logs);
                all.warnings.extend(more.warnings);
            }
            all
        })
    }

    /// A call of this build.
    pub fn call<T>(&self, message: T) -> Request<T> {
        let mut call = Request::new(message);
        call.metadata_mut().insert(BUILD_ID, self.id.parse().unwrap());
        call
    }

    /// Solves a graph at once and gives the id of its result.
    pub async fn solve(&mut self, graph: &Graph) -> Result<String, Status> {
        let request = api::SolveRequest {
            definition: Some(graph.to_definition()),
            allow_result_return: true,
            allow_result_array_ref: true,
            evaluate: true,
            ..api::SolveRequest::default()
        };
        let call = self.call(request);
        let response = self.bridge.solve(call).await?.into_inner();
        match response.result.unwrap().result.unwrap() {
            api::result::Result::Ref(found) => Ok(found.id),
            other => panic!("not a single result: {other:?}"),
        }
    }

    /// A container with these results at these places, and more mounts.
    pub async fn container(
        &mut self,
        id: &str,
        results: &[(&str, &str)],
        more: Vec<pb::Mount>,
    ) -> Result<(), Status> {
        let bind = |(dest, result): &(&str, &str)| pb::Mount {
            dest: (*dest).to_string(),
            result_id: (*result).to_string(),
            ..pb::Mount::default()
        };
        let request = api::NewContainerRequest {
            container_id: id.to_string(),
            mounts: results.iter().map(bind).chain(more).collect(),
            ..api::NewContainerRequest::default()
        };
        self.container_as(request).await
    }

    pub async fn container_as(&mut self, request: api::NewContainerRequest) -> Result<(), Status> {
        let call = self.call(request);
        self.bridge.new_container(call).await.map(drop)
    }

    pub async fn release(&mut self, id: &str) -> Result<(), Status> {
        let call = self.call(api::ReleaseContainerRequest { container_id: id.to_string() });
        self.bridge.release_container(call).await.map(drop)
    }

    /// The stream of processes.
    pub async fn processes(&mut self) -> Processes {
        let (sender, messages) = mpsc::channel(64);
        let call = self.call(ReceiverStream::new(messages));
        Processes { sender, answers: self.bridge.exec_process(call).await.unwrap().into_inner() }
    }

    /// Reads a file of a container's mount.
    pub async fn read(&mut self, container: &str, mount: i32, path: &str) -> Result<Vec<u8>, Status> {
        let request = api::ReadFileRequest {
            r#ref: container.to_string(),
            file_path: path.to_string(),
            mount_index: mount,
            ..api::ReadFileRequest::default()
        };
        let call = self.call(request);
        Ok(self.bridge.read_file_container(call).await?.into_inner().data)
    }

    /// Returns something; gives how the build ended, or why it was not taken.
    pub async fn returns(mut self, result: Option<api::Result>) -> Result<SolveResponse, Status> {
        let call = self.call(api::ReturnRequest { result, error: None });
        match self.bridge.r#return(call).await {
            Ok(_) => self.solving.await.unwrap(),
            Err(refused) => {
                self.vanish().await;
                Err(refused)
            }
        }
    }

    /// Returns a failure; gives how the build ended.
    pub async fn fails(self, error: crosskit_api::rpc::Status) -> Status {
        let mut frontend = self;
        let call = frontend.call(api::ReturnRequest { result: None, error: Some(error) });
        frontend.bridge.r#return(call).await.unwrap();
        frontend.solving.await.unwrap().unwrap_err()
    }

    /// What the build tells those who watch it, to its end.
    pub async fn watch(&self, daemon: &Daemon) -> Streaming<StatusResponse> {
        let stream = UnixStream::connect(&daemon.socket).await.unwrap();
        let mut control = ControlClient::new(crosskit_client::channel_over(stream).await.unwrap());
        control.status(StatusRequest { r#ref: self.id.clone() }).await.unwrap().into_inner()
    }

    /// Returns nothing, which ends the build.
    pub async fn end(mut self) {
        let call = self.call(api::ReturnRequest { result: Some(api::Result::default()), error: None });
        self.bridge.r#return(call).await.unwrap();
        self.solving.await.unwrap().unwrap();
    }

    /// Goes without a word.
    pub async fn vanish(self) {
        self.solving.abort();
        let _ = self.solving.await;
    }
}

/// What a process said and how it ended.
#[derive(Debug, Default)]
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: u32,
    /// What was told besides a code that isn't 0.
    pub error: String,
    pub details: ErrorDetails,
}

/// Processes on one stream.
pub struct Processes {
    sender: mpsc::Sender<ExecMessage>,
    answers: Streaming<ExecMessage>,
}

impl Processes {
    pub async fn send(&self, process: &str, input: Input) {
        self.sender.send(ExecMessage { process_id: process.to_string(), input: Some(input) }).await.unwrap();
    }

    /// Sends a message without a process, and be it without content.
    pub async fn send_any(&self, input: Option<Input>) {
        self.sender.send(ExecMessage { process_id: String::new(), input }).await.unwrap();
    }

    /// The next answer, whatever it is.
    pub async fn next(&mut self) -> Result<Option<ExecMessage>, Status> {
        self.answers.message().await
    }

    pub async fn start(&self, process: &str, container: &str, script: &str) {
        self.init(process, container, script, |_| {}).await;
    }

    /// Starts a shell's script, with what `more` changes in the request.
    pub async fn init(
        &self,
        process: &str,
        container: &str,
        script: &str,
        more: impl FnOnce(&mut api::InitMessage),
    ) {
        let mut init = api::InitMessage {
            container_id: container.to_string(),
            meta: Some(pb::Meta {
                args: ["/bin/sh", "-c", script].map(str::to_string).to_vec(),
                ..pb::Meta::default()
            }),
            fds: vec![0, 1, 2],
            ..api::InitMessage::default()
        };
        more(&mut init);
        self.send(process, Input::Init(init)).await;
    }

    pub async fn write(&self, process: &str, text: &str, eof: bool) {
        let file = api::FdMessage { fd: 0, eof, data: text.as_bytes().to_vec() };
        self.send(process, Input::File(file)).await;
    }

    pub async fn signal(&self, process: &str, name: &str) {
        self.send(process, Input::Signal(api::SignalMessage { name: name.to_string() })).await;
    }

    /// Listens to one process until its standard output holds `text`.
    pub async fn hear(&mut self, process: &str, text: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(text) {
            let message = self.answers.message().await.unwrap().expect("the stream goes on");
            assert_eq!(message.process_id, process);
            match message.input.unwrap() {
                Input::File(file) => heard.push_str(&String::from_utf8_lossy(&file.data)),
                Input::Started(_) => {}
                other => panic!("{other:?} after {heard:?}, before {text:?}"),
            }
        }
        heard
    }

    /// Listens to one process to its end.
    pub async fn end(&mut self, process: &str) -> Said {
        let mut said = Said::default();
        loop {
            let message = self.answers.message().await.unwrap().expect("the process has not ended");
            assert_eq!(message.process_id, process);
            match message.input.unwrap() {
                Input::File(file) => {
                    let text = String::from_utf8_lossy(&file.data).into_owned();
                    match file.fd {
                        1 => said.out.push_str(&text),
                        _ => said.err.push_str(&text),
                    }
                }
                Input::Exit(exit) => {
                    said.code = exit.code;
                    if let Some(error) = exit.error {
                        said.details = ErrorDetails::from_rpc(&error);
                        said.error = error.message;
                    }
                }
                Input::Done(_) => return said,
                Input::Started(_) => {}
                other => panic!("{other:?} is for the daemon"),
            }
        }
    }

    /// How the stream itself ended.
    pub async fn refused(&mut self) -> Status {
        loop {
            match self.answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended well"),
                Err(status) => return status,
            }
        }
    }
}

/// An image, and a script that runs on it when there is one.
pub fn image(reference: &str, platform: Option<&str>, script: Option<&str>) -> Graph {
    let platform = match platform {
        Some(name) => crosskit_platforms::Platform::parse(name).unwrap(),
        None => crosskit_platforms::native(),
    };
    let on = || Constraints::on(crosskit_workers::platform_message(&platform.normalize()));
    let mut builder = Builder::new();
    let image = ImageSource { reference: reference.to_string(), ..ImageSource::default() };
    let mut output: Output = builder.image(&image, on());
    if let Some(script) = script {
        let exec = Exec {
            root: Some(output),
            args: ["/bin/sh", "-c", script].map(str::to_string).to_vec(),
            cwd: "/".to_string(),
            ..Exec::default()
        };
        output = builder.exec(exec, on()).root.unwrap();
    }
    builder.graph(Some(output)).unwrap()
}
