//! Graphs sent to a daemon as a client library sends them, and what was told of each.

use crate::graphs::{Llb, native};
use crosskit_api::control::control_client::ControlClient;
use crosskit_api::control::{Exporter, SolveRequest, SolveResponse, StatusRequest, StatusResponse};
use crosskit_api::control::{Vertex, VertexLog, VertexWarning};
use crosskit_api::pb;
use crosskit_llb::{Builder, Constraints, Exec, ImageSource};
use crosskit_multiarch::{Daemon, DaemonOptions, Images, Scene, Tree};
use crosskit_session::{ContentStores, LocalDirs, Outputs, SecretSource, Secrets, SessionServer, SshAgents};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

/// Runs a conversation with a daemon.
pub fn talk<T>(conversation: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(conversation)
}

/// A daemon that grants whatever is asked for.
pub struct Stage {
    pub scene: Scene,
    pub daemon: Daemon,
}

impl Stage {
    pub fn set() -> Stage {
        Stage::with(|_| DaemonOptions::default())
    }

    /// With a daemon as `options` say, which know the scene.
    pub fn with(options: impl FnOnce(&Scene) -> DaemonOptions) -> Stage {
        let scene = Scene::set();
        let mut options = options(&scene);
        let granted = "insecure-entitlements = [\"network.host\", \"security.insecure\", \"device\"]\n";
        options.config = format!("{granted}{}", options.config);
        let daemon = scene.daemon_with(options);
        Stage { scene, daemon }
    }

    /// A new graph on the base image.
    pub fn graph(&self) -> Llb {
        let mut builder = Builder::new();
        let image = ImageSource { reference: self.scene.base(), ..ImageSource::default() };
        let base = builder.image(&image, native());
        Llb { builder, base }
    }

    /// A graph of one step on the base image.
    pub fn step(&self, script: &str, change: impl FnOnce(&mut Exec, &mut Constraints)) -> pb::Definition {
        let mut llb = self.graph();
        let mut exec = llb.sh(script);
        let mut constraints = native();
        change(&mut exec, &mut constraints);
        let root = llb.builder.exec(exec, constraints).root;
        llb.definition(root)
    }

    pub fn ask(&self, definition: pb::Definition) -> Ask<'_> {
        Ask::new(&self.daemon, SolveRequest { definition: Some(definition), ..SolveRequest::default() })
    }

    pub async fn solve(&self, definition: pb::Definition) -> Told {
        self.ask(definition).solve().await
    }

    /// The files of a result.
    pub async fn files(&self, definition: pb::Definition) -> Tree {
        self.ask(definition).tar().await
    }
}

/// A request in the making, with what its client lends.
pub struct Ask<'a> {
    daemon: &'a Daemon,
    pub request: SolveRequest,
    secrets: Secrets,
    agents: SshAgents,
    dirs: LocalDirs,
    stores: ContentStores,
    outputs: Outputs,
}

impl<'a> Ask<'a> {
    pub fn new(daemon: &'a Daemon, request: SolveRequest) -> Ask<'a> {
        let request = SolveRequest { r#ref: format!("{:032x}", rand::random::<u128>()), ..request };
        Ask {
            daemon,
            request,
            secrets: Secrets::default(),
            agents: SshAgents::default(),
            dirs: LocalDirs::default(),
            stores: ContentStores::default(),
            outputs: Outputs::default(),
        }
    }

    pub fn granted(mut self, entitlements: &[&str]) -> Self {
        self.request.entitlements = entitlements.iter().map(|e| (*e).to_string()).collect();
        self
    }

    pub fn secret(mut self, id: &str, value: &str) -> Self {
        self.secrets.add(id, Some(SecretSource::Value(value.as_bytes().to_vec()))).unwrap();
        self
    }

    pub async fn agent(mut self, id: &str, socket: PathBuf, raw: bool) -> Self {
        self.agents.add(id, &[socket], raw).await.unwrap();
        self
    }

    pub fn folder(mut self, name: &str, path: PathBuf) -> Self {
        self.dirs.add(name, path);
        self
    }

    pub fn store(mut self, name: &str, path: PathBuf) -> Self {
        self.stores.add(name, path, false);
        self
    }

    /// Wants the result in a file, as this exporter writes it.
    pub fn export(mut self, kind: &str, attrs: &[(&str, &str)], file: PathBuf) -> Self {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
        let exporter = Exporter { r#type: kind.into(), attrs };
        self.request.exporters.push(exporter);
        self.outputs.add(self.request.exporters.len() - 1, crosskit_session::Output::file(file));
        self
    }

    pub async fn solve(self) -> Told {
        self.start().await.end().await
    }

    /// The result's files.
    pub async fn tar(self) -> Tree {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("files.tar");
        self.export("tar", &[], file.clone()).solve().await.ok();
        let mut tree = Tree::default();
        tree.apply(&std::fs::read(file).unwrap());
        tree
    }

    /// What is in the result's layers, lowest first: paths with `/` behind those of folders, targets behind links.
    pub async fn layers(self) -> Vec<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image.tar");
        self.export("oci", &[], file.clone()).solve().await.ok();
        let images = Images::archive(&file);
        let manifest = images.json(&images.index_json()["manifests"][0]);
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| entries(&images.layer_tar(layer))).collect()
    }

    /// The request, and what serves it.
    pub fn lend(self) -> (SolveRequest, SessionServer) {
        let session = SessionServer::new(String::new())
            .with_secrets(self.secrets)
            .with_ssh(self.agents)
            .with_dirs(self.dirs)
            .with_content(self.stores)
            .with_outputs(self.outputs);
        (self.request, session)
    }

    /// Sends it.
    pub async fn start(self) -> Solving {
        let stream = UnixStream::connect(&self.daemon.socket).await.unwrap();
        let channel = crosskit_client::channel_over(stream).await.unwrap();
        let (mut request, session) = self.lend();
        request.session = session.id().to_string();
        let mut control = ControlClient::new(channel.clone());
        let serving = tokio::spawn(async move {
            let _ = session.serve_over(|call| async move { control.session(call).await }).await;
        });
        let (id, session) = (request.r#ref.clone(), request.session.clone());
        let mut control = ControlClient::new(channel.clone());
        let solving = tokio::spawn(async move { control.solve(request).await.map(|r| r.into_inner()) });
        let (told, heard) = watch::channel(StatusResponse::default());
        let listening = tokio::spawn(listen(channel.clone(), id, told));
        Solving { session, channel, serving, solving, listening, heard }
    }
}

/// The entries of a layer, sorted.
fn entries(layer: &[u8]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for entry in tar::Archive::new(layer).entries().unwrap() {
        let entry = entry.unwrap();
        let mut text = entry.path().unwrap().display().to_string();
        if let Some(target) = entry.link_name().unwrap() {
            let kind = if entry.header().entry_type().is_symlink() { "->" } else { "=" };
            text = format!("{text} {kind} {}", target.display());
        }
        all.push(text);
    }
    all.sort();
    all
}

async fn listen(channel: Channel, id: String, told: watch::Sender<StatusResponse>) {
    let request = StatusRequest { r#ref: id };
    let Ok(answers) = ControlClient::new(channel).status(request).await else { return };
    let mut answers = answers.into_inner();
    while let Ok(Some(more)) = answers.message().await {
        told.send_modify(|all| {
            all.vertexes.extend(more.vertexes);
            all.logs.extend(more.logs);
            all.warnings.extend(more.warnings);
        });
    }
}

/// A build that runs.
pub struct Solving {
    /// The id of the client's session.
    pub session: String,
    pub channel: Channel,
    serving: tokio::task::JoinHandle<()>,
    solving: tokio::task::JoinHandle<Result<SolveResponse, Status>>,
    listening: tokio::task::JoinHandle<()>,
    heard: watch::Receiver<StatusResponse>,
}

impl Solving {
    /// Waits until a step has said something; gives all that was said.
    pub async fn hear(&self, text: &str) -> String {
        let mut heard = self.heard.clone();
        match heard.wait_for(|heard| said(heard).contains(text)).await {
            Ok(heard) => said(&heard),
            Err(_) => panic!("waited in vain for {text:?} among {:?}", said(&self.heard.borrow())),
        }
    }

    /// Waits for the end.
    pub async fn end(self) -> Told {
        let result = self.solving.await.unwrap();
        // It ends with the build.
        self.listening.await.unwrap();
        self.serving.abort();
        let heard = self.heard.borrow().clone();
        Told { result, heard }
    }

    /// The client dies.
    pub async fn vanish(self) {
        for task in [self.serving, self.listening] {
            task.abort();
            let _ = task.await;
        }
        self.solving.abort();
        let _ = self.solving.await;
        drop(self.channel);
    }
}

fn said(heard: &StatusResponse) -> String {
    heard.logs.iter().map(|log| String::from_utf8_lossy(&log.msg)).collect()
}

/// How a build went.
#[derive(Debug)]
pub struct Told {
    pub result: Result<SolveResponse, Status>,
    heard: StatusResponse,
}

impl Told {
    /// It has succeeded.
    #[track_caller]
    pub fn ok(self) -> Told {
        if let Err(status) = &self.result {
            panic!("{status}; its steps said: {}", self.said());
        }
        self
    }

    /// It has failed, with this.
    #[track_caller]
    pub fn refused(self, text: &str) -> Status {
        let said = self.said();
        let status = self.result.expect_err(&format!("should have failed; its steps said: {said}"));
        assert!(status.message().contains(text), "should have said {text:?}: {status}");
        status
    }

    /// What its steps have said.
    pub fn said(&self) -> String {
        said(&self.heard)
    }

    pub fn logs(&self) -> impl Iterator<Item = &VertexLog> {
        self.heard.logs.iter()
    }

    pub fn warnings(&self) -> &[VertexWarning] {
        &self.heard.warnings
    }

    /// The last that was told of each vertex.
    pub fn vertices(&self) -> BTreeMap<&str, &Vertex> {
        self.heard.vertexes.iter().map(|vertex| (vertex.digest.as_str(), vertex)).collect()
    }
}
