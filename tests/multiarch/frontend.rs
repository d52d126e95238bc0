//! A frontend for images: it speaks the bridge's protocol over its standard streams, as those of other people do.
//! The option `deed`, or the word after its own name in the command line, says what it does.

use crosskit_api::frontend::llb_bridge_client::LlbBridgeClient;
use crosskit_api::frontend::{
    self as api, Attestation, AttestationKind, Attestations, InTotoSubject, InTotoSubjectKind,
};
use crosskit_api::{pb, rpc};
use crosskit_llb::{Builder, Constraints, FileActionSpec, MkfileAction};
use serde_json::json;
use std::collections::BTreeMap;
use tonic::Status;
use tonic::transport::Channel;

/// Where the daemon puts the graph that made the frontend.
const OWN_GRAPH: &str = "/run/config/buildkit/metadata/frontend.bin";

/// The interfaces of the network that the process is in.
const INTERFACES: &str = "/proc/net/dev";

struct Frontend {
    bridge: LlbBridgeClient<Channel>,
    options: BTreeMap<String, String>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let code = runtime.block_on(async {
        let options = std::env::vars().filter(|(key, _)| key.starts_with("BUILDKIT_FRONTEND_OPT_"));
        let options = options.filter_map(|(_, option)| {
            option.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        });
        let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        let channel = crosskit_client::channel_over(stream).await.expect("a connection");
        let mut frontend = Frontend { bridge: LlbBridgeClient::new(channel), options: options.collect() };
        match frontend.act().await {
            Ok(code) => code,
            Err(status) => {
                let error = rpc::Status {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    details: Vec::new(),
                };
                let error = api::ReturnRequest { result: None, error: Some(error) };
                let _ = frontend.bridge.r#return(error).await;
                1
            }
        }
    });
    // Standard input is read in a thread that nothing ends.
    std::process::exit(code)
}

impl Frontend {
    fn option(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    /// Does what the options say; gives the process's own code.
    async fn act(&mut self) -> Result<i32, Status> {
        let deed = match self.option("deed") {
            "" => self.option("cmdline").split_whitespace().nth(1).unwrap_or("tell").to_owned(),
            deed => deed.to_owned(),
        };
        match deed.as_str() {
            "tell" => {
                let told = self.tell().await?;
                self.end(told).await?;
            }
            // Ends with this code, before it returns anything.
            "exit" => return Ok(self.option("code").parse().unwrap_or_default()),
            // Returns a result, and fails then.
            "fail-late" => {
                let told = self.tell().await?;
                self.end(told).await?;
                return Ok(7);
            }
            "error" => return Err(Status::failed_precondition("the frontend does not want to")),
            // Returns once more, and returns what was said to it: that is not to be heard.
            "twice" => {
                let told = self.tell().await?;
                self.end(told.clone()).await?;
                let again = self.end(told).await.expect_err("the second result was taken");
                return Ok(if again.message() == "gateway result is already set" { 0 } else { 8 });
            }
            "build" => {
                let solved = self.ask("dockerfile.v0", BTreeMap::new()).await?;
                self.end(solved).await?;
            }
            "nest" => {
                let options = [("deed", "tell"), ("source", self.option("inner"))];
                let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
                let solved = self.ask("gateway.v0", options.into()).await?;
                self.end(solved).await?;
            }
            "attest" => {
                let mut told = self.tell().await?;
                told.attestations =
                    BTreeMap::from([(self.option("platform-id").to_owned(), attestations(&told))]);
                self.end(told).await?;
            }
            other => return Err(Status::invalid_argument(format!("no such deed: {other}"))),
        }
        Ok(0)
    }

    /// A file with all that the frontend was told.
    async fn tell(&mut self) -> Result<api::Result, Status> {
        let inputs = self.bridge.inputs(api::InputsRequest {}).await?.into_inner().definitions;
        let interfaces = std::fs::read_to_string(INTERFACES).unwrap_or_default();
        let interfaces: Vec<&str> =
            interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
        let environment: BTreeMap<String, String> =
            std::env::vars().filter(|(key, _)| !key.starts_with("BUILDKIT_FRONTEND_OPT_")).collect();
        let told = json!({
            "options": self.options,
            "environment": environment,
            "inputs": inputs.keys().collect::<Vec<_>>(),
            "folder": std::env::current_dir().unwrap_or_default(),
            "interfaces": interfaces,
            "graph": std::fs::metadata(OWN_GRAPH).map(|file| file.len()).unwrap_or_default(),
        });
        let file = MkfileAction {
            path: "/told.json".into(),
            mode: 0o644,
            data: told.to_string().into_bytes(),
            ..MkfileAction::default()
        };
        let mut builder = Builder::new();
        let file = builder.file(None, vec![FileActionSpec::Mkfile(file)], Constraints::default());
        let graph = builder.graph(Some(file)).map_err(|e| Status::internal(e.to_string()))?;
        let request = api::SolveRequest { definition: Some(graph.to_definition()), ..request() };
        self.bridge.solve(request).await.map(result)
    }

    /// Has another frontend build, with its own options besides these.
    async fn ask(
        &mut self,
        frontend: &str,
        options: BTreeMap<String, String>,
    ) -> Result<api::Result, Status> {
        let mut frontend_opt = self.options.clone();
        frontend_opt.remove("source");
        frontend_opt.remove("deed");
        frontend_opt.extend(options);
        let frontend_inputs: BTreeMap<String, pb::Definition> =
            self.bridge.inputs(api::InputsRequest {}).await?.into_inner().definitions;
        let frontend = frontend.to_owned();
        let request = api::SolveRequest { frontend, frontend_opt, frontend_inputs, ..request() };
        self.bridge.solve(request).await.map(result)
    }

    async fn end(&mut self, result: api::Result) -> Result<(), Status> {
        self.bridge.r#return(api::ReturnRequest { result: Some(result), error: None }).await.map(drop)
    }
}

fn request() -> api::SolveRequest {
    api::SolveRequest {
        allow_result_return: true,
        allow_result_array_ref: true,
        ..api::SolveRequest::default()
    }
}

fn result(answer: tonic::Response<api::SolveResponse>) -> api::Result {
    answer.into_inner().result.unwrap_or_default()
}

/// The told file as a predicate, and a statement in a folder that is empty.
fn attestations(told: &api::Result) -> Attestations {
    let subject = InTotoSubject { kind: InTotoSubjectKind::Self_.into(), ..InTotoSubject::default() };
    let Some(api::result::Result::Ref(told)) = &told.result else { return Attestations::default() };
    let predicate = Attestation {
        kind: AttestationKind::InToto.into(),
        metadata: BTreeMap::from([("reason".to_owned(), b"told".to_vec())]),
        r#ref: Some(told.clone()),
        path: "told.json".to_owned(),
        in_toto_predicate_type: "https://example.org/told".to_owned(),
        in_toto_subjects: vec![subject],
    };
    let bundle = Attestation {
        kind: AttestationKind::Bundle.into(),
        path: "none".to_owned(),
        in_toto_predicate_type: "https://example.org/none".to_owned(),
        ..Attestation::default()
    };
    Attestations { attestation: vec![predicate, bundle] }
}
