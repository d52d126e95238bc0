//! Graphs sent to a daemon as a client library sends them, and what was told of each.

use crosskit_api::control::control_client::ControlClient;
use crosskit_api::control::{Exporter, SolveRequest, SolveResponse, StatusRequest, StatusResponse};
use crosskit_api::control::{Vertex, VertexLog, VertexWarning};
use crosskit_api::pb;
use crosskit_llb::{
    Builder, Constraints, Digest, Exec, ExecMount, FileActionSpec, Graph, ImageSource, MkfileAction, Output,
};
use crosskit_multiarch::{Daemon, DaemonOptions, Images, Scene, Tree};
use crosskit_session::{ContentStores, LocalDirs, Outputs, SecretSource, Secrets, SessionServer, SshAgents};
use prost::Message;
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

/// For this machine.
pub fn native() -> Constraints {
    Constraints::on(crosskit_workers::platform_message(&crosskit_platforms::native().normalize()))
}

/// A graph in the making.
#[derive(Clone)]
pub struct Llb {
    pub builder: Builder,
    pub base: Output,
}

impl Llb {
    /// A shell's script on the base image.
    pub fn sh(&self, script: &str) -> Exec {
        Exec {
            root: Some(self.base),
            args: ["/bin/sh", "-c", script].map(str::to_string).to_vec(),
            cwd: "/".into(),
            ..Exec::default()
        }
    }

    pub fn exec(&mut self, exec: Exec) -> Output {
        self.builder.exec(exec, native()).root.unwrap()
    }

    pub fn run(&mut self, root: Output, script: &str) -> Output {
        let exec = Exec { root: Some(root), ..self.sh(script) };
        self.exec(exec)
    }

    pub fn file(&mut self, base: Option<Output>, actions: Vec<FileActionSpec>) -> Output {
        self.builder.file(base, actions, Constraints::default())
    }

    /// A file in nothing else.
    pub fn text(&mut self, path: &str, text: &str) -> Output {
        self.file(None, vec![mkfile(path, text)])
    }

    pub fn definition(&self, result: Option<Output>) -> pb::Definition {
        self.builder.graph(result).unwrap().to_definition()
    }
}

pub fn mkfile(path: &str, text: &str) -> FileActionSpec {
    let data = text.as_bytes().to_vec();
    FileActionSpec::Mkfile(MkfileAction { path: path.into(), mode: 0o644, data, ..MkfileAction::default() })
}

/// A mount of another result.
pub fn bind(target: &str, source: Output) -> ExecMount {
    ExecMount { target: target.into(), source: Some(source), ..ExecMount::default() }
}

/// The same graph with other operations: `change` sees each of them.
pub fn changed(definition: pb::Definition, mut change: impl FnMut(&mut pb::Op)) -> pb::Definition {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let mut new = pb::Definition { source: definition.source, ..pb::Definition::default() };
    for raw in definition.def {
        let old = Digest::of(&raw).to_string();
        let mut op = pb::Op::decode(raw.as_slice()).unwrap();
        for input in &mut op.inputs {
            input.digest.clone_from(&named[&input.digest]);
        }
        if op.op.is_some() {
            change(&mut op);
        }
        let raw = op.encode_to_vec();
        let digest = Digest::of(&raw).to_string();
        if let Some(metadata) = definition.metadata.get(&old) {
            new.metadata.insert(digest.clone(), metadata.clone());
        }
        named.insert(old, digest);
        new.def.push(raw);
    }
    new
}

/// The operation of a process, changed.
pub fn changed_exec(definition: pb::Definition, change: impl Fn(&mut pb::ExecOp)) -> pb::Definition {
    changed(definition, |op| {
        if let Some(pb::op::Op::Exec(exec)) = &mut op.op {
            change(exec);
        }
    })
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

/// The graph `definition` as an operation solves it that has it in the file `file`; its attributes say where.
pub fn nested(
    llb: &mut Llb,
    definition: &pb::Definition,
    file: &str,
    attrs: &[(&str, &str)],
) -> pb::Definition {
    let data = definition.encode_to_vec();
    let action = MkfileAction { path: file.into(), mode: 0o644, data, ..MkfileAction::default() };
    let file = llb.file(None, vec![FileActionSpec::Mkfile(action)]);
    let mut outer = llb.definition(Some(file));
    let last = outer.def.pop().unwrap();
    let inputs = pb::Op::decode(last.as_slice()).unwrap().inputs;
    let build = pb::BuildOp {
        builder: -1,
        inputs: BTreeMap::from([("buildkit.llb.definition".to_string(), pb::BuildInput { input: 0 })]),
        attrs: attrs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect(),
        ..pb::BuildOp::default()
    };
    let build = pb::Op { inputs, op: Some(pb::op::Op::Build(build)), ..pb::Op::default() }.encode_to_vec();
    let input = pb::Input { digest: Digest::of(&build).to_string(), index: 0 };
    outer.def.push(build);
    outer.def.push(pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec());
    outer
}

/// A graph, checked.
pub fn checked(definition: pb::Definition) -> Graph {
    Graph::decode(definition, &crosskit_llb::Limits::default()).unwrap()
}
