//! Source policies: what a build may use, and what it gets instead.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_api::control::SolveRequest;
use crosskit_api::control::control_client::ControlClient;
use crosskit_api::errors::ErrorDetails;
use crosskit_api::frontend::{
    Blob, ResolveSourceImageRequest, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use crosskit_api::pb;
use crosskit_api::sourcepolicy::PolicyAction;
use crosskit_api::sourcepolicy::policysession::check_policy_response::Result as Answer;
use crosskit_api::sourcepolicy::policysession::{CheckPolicyResponse, DecisionResponse, DenyMessage};
use crosskit_llb::{Builder, Constraints, ImageSource};
use crosskit_multiarch::{Daemon, Scene};
use crosskit_session::SessionServer;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::UnixStream;
use tonic::Status;

/// Says which image it was built from.
const WHICH: &str = "FROM BASE AS from\nRUN cat /etc/which > /found 2>/dev/null || echo base > /found\n\
    FROM scratch\nCOPY --from=from /found /\n";

/// Pushes `other`, which differs from `base` by a file.
fn push_other(scene: &Scene, daemon: &Daemon) {
    let context = scene.context("other", &[("Dockerfile", "FROM BASE\nRUN echo other > /etc/which\n")]);
    let output = format!("type=image,name={},push=true", scene.registry.reference("other:latest"));
    daemon.build(&context).output(&output).opt("attest:provenance", "mode=min").run().ok();
}

/// Builds with these rules; the file `found` of the result, or what was said.
fn build(scene: &Scene, daemon: &Daemon, context: &Path, rules: Value) -> Result<String, String> {
    let policy = scene.path("policy.json");
    std::fs::write(&policy, json!({ "version": 1, "rules": rules }).to_string()).expect("write the policy");
    let out = scene.path("out");
    let _ = std::fs::remove_dir_all(&out);
    let build = daemon.build(context).into(&out).argument("--source-policy-file");
    let ran = build.argument(&policy.display().to_string()).run();
    match ran.status.success() {
        true => Ok(std::fs::read_to_string(out.join("found")).expect("the result").trim().to_string()),
        false => Err(ran.fails().said()),
    }
}

#[test]
fn an_image_is_denied_by_its_full_name() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", WHICH)]);
    let base = format!("docker-image://{}", scene.base());
    let denied = json!([{ "action": "DENY", "selector": { "identifier": base, "match_type": "EXACT" } }]);
    let said = build(&scene, &daemon, &context, denied).expect_err("a denied image was used");
    let text = format!(
        "could not resolve image due to policy: source \"{base}\" denied by policy: source denied by policy"
    );
    assert!(said.contains(&text), "{said}");
    assert!(said.contains(">>> FROM"), "{said}");

    let only_pinned = json!([
        { "action": "DENY", "selector": { "identifier": "docker-image://*" } },
        { "action": "ALLOW", "selector": { "identifier": "@sha256:[0-9a-f]{64}$", "match_type": "REGEX" } },
    ]);
    build(&scene, &daemon, &context, only_pinned.clone()).expect_err("an image that isn't pinned was used");
    let pinned = format!("FROM BASE@{}\nRUN echo pinned > /found", scene.base_image.digest());
    scene.write("c", "Dockerfile", &format!("{} \nFROM scratch\nCOPY --from=0 /found /\n", pinned));
    assert_eq!(build(&scene, &daemon, &context, only_pinned), Ok("pinned".into()));
    daemon.stop();
}

#[test]
fn images_become_others() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    push_other(&scene, &daemon);
    let context = scene.context("c", &[("Dockerfile", WHICH)]);
    assert_eq!(build(&scene, &daemon, &context, json!([])), Ok("base".into()));
    let name = |name: &str| format!("docker-image://{}", scene.registry.reference(name));
    let other = scene.registry.manifest("other", "latest").expect("the other image");
    let pin = format!("{}@{}", name("other:latest"), crosskit_multiarch::digest_of(&other));
    for (kind, from, to) in [
        ("EXACT", name("base:latest"), pin),
        ("WILDCARD", name("base:*"), name("other:${1}")),
        ("REGEX", "^(docker-image://.*)/base:(\\w+)".to_string(), "${1}/other:$2".to_string()),
    ] {
        let rule = json!({
            "action": "CONVERT",
            "selector": { "identifier": from, "match_type": kind },
            "updates": { "identifier": to },
        });
        assert_eq!(build(&scene, &daemon, &context, json!([rule])), Ok("other".into()), "{kind}");
    }
    let circle = |from: &str, to: &str| json!({ "action": "CONVERT", "selector": { "identifier": name(from) }, "updates": { "identifier": name(to) } });
    let rules = json!([circle("base:latest", "other:latest"), circle("other:latest", "base:latest")]);
    let said = build(&scene, &daemon, &context, rules).expect_err("a circle ended");
    assert!(said.contains("too many mutations on a single source: too many operations"), "{said}");
    daemon.stop();
}

#[test]
fn files_of_the_web_are_judged_by_their_attributes() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    // What a registry says to those who only greet it.
    let url = format!("http://{}/v2/", scene.registry.address());
    let digest = crosskit_multiarch::digest_of(b"{}");
    let dockerfile = |flags: &str| format!("FROM scratch\nADD {flags} {url} /found\n");
    let context = scene.context("c", &[("Dockerfile", &dockerfile(""))]);
    let of_web = |action: &str| {
        let constraints = json!([{ "key": "http.checksum", "value": "^sha256:", "condition": "MATCHES" }]);
        json!({ "action": action, "selector": { "identifier": "http*", "constraints": constraints } })
    };
    let only_checked =
        json!([{ "action": "DENY", "selector": { "identifier": "http://*" } }, of_web("ALLOW")]);
    let said = build(&scene, &daemon, &context, only_checked.clone()).expect_err("a file was not checked");
    let text = format!("error evaluating the source policy: source \"{url}\" denied by policy");
    assert!(said.contains(&text), "{said}");

    let unchecked = json!([{ "key": "http.checksum", "value": digest, "condition": "NOTEQUAL" }]);
    let pin = json!({
        "action": "CONVERT",
        "selector": { "identifier": url, "constraints": unchecked },
        "updates": { "attrs": { "http.checksum": digest } },
    });
    let rules = json!([only_checked[0], only_checked[1], pin]);
    assert_eq!(build(&scene, &daemon, &context, rules), Ok("{}".into()));
    scene.write("c", "Dockerfile", &dockerfile(&format!("--checksum={digest}")));
    assert_eq!(build(&scene, &daemon, &context, only_checked), Ok("{}".into()));
    daemon.stop();
}

/// What a client says to each question, in turn.
type Script = Vec<Box<dyn Fn(ResolveSourceMetaResponse) -> Answer + Send>>;

fn decision(action: PolicyAction, update: Option<pb::SourceOp>, messages: &[&str]) -> Answer {
    let deny_messages = messages.iter().map(|text| DenyMessage { message: (*text).to_string() }).collect();
    Answer::Decision(DecisionResponse { action: action.into(), deny_messages, update })
}

/// Builds an image's graph for a client that decides as the script says; every question has to be asked.
fn decided(daemon: &Daemon, image: &str, script: Script) -> Result<(), Status> {
    let left = Arc::new(Mutex::new(script));
    let asked = Arc::clone(&left);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let session = SessionServer::new(String::new()).with_policy(Arc::new(move |request| {
            let answer = {
                let mut left = asked.lock().unwrap();
                assert!(!left.is_empty(), "a question too much: {request:?}");
                left.remove(0)(request.source.unwrap())
            };
            Box::pin(async { Ok(CheckPolicyResponse { result: Some(answer) }) })
        }));
        let id = session.id().to_string();
        let stream = UnixStream::connect(&daemon.socket).await.unwrap();
        let channel = crosskit_client::channel_over(stream).await.unwrap();
        let mut control = ControlClient::new(channel.clone());
        let serving = tokio::spawn(session.serve_over(|call| async move { control.session(call).await }));
        let mut builder = Builder::new();
        let source = ImageSource { reference: image.to_string(), ..ImageSource::default() };
        let output = builder.image(&source, Constraints::default());
        let request = SolveRequest {
            r#ref: format!("{:032x}", rand::random::<u128>()),
            session: id.clone(),
            source_policy_session: id,
            definition: Some(builder.graph(Some(output)).unwrap().to_definition()),
            ..SolveRequest::default()
        };
        let outcome = ControlClient::new(channel).solve(request).await.map(drop);
        serving.abort();
        outcome
    });
    assert_eq!(left.lock().unwrap().len(), 0, "questions that were not asked");
    outcome
}

#[test]
fn a_client_decides_itself() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    push_other(&scene, &daemon);
    let base = format!("docker-image://{}", scene.base());
    let other = format!("docker-image://{}", scene.registry.reference("other:latest"));
    let digest = scene.base_image.digest();

    let wants_to_know: Script = vec![
        Box::new(|known| {
            assert!(known.image.is_none());
            Answer::Request(ResolveSourceMetaRequest { source: known.source, ..Default::default() })
        }),
        Box::new(move |known| {
            assert_eq!(known.image.unwrap().digest, digest);
            decision(PolicyAction::Allow, None, &[])
        }),
    ];
    decided(&daemon, &scene.base(), wants_to_know).unwrap();

    // Of an image with attestations, it may see them before it decides.
    let provenance = "https://slsa.dev/provenance/v1";
    let wants_proof: Script = vec![
        Box::new(|known| {
            let predicates = vec![provenance.to_string()];
            let image = ResolveSourceImageRequest {
                no_config: true,
                resolve_attestations: predicates,
                ..Default::default()
            };
            let (source, image) = (known.source, Some(image));
            Answer::Request(ResolveSourceMetaRequest { source, image, ..Default::default() })
        }),
        Box::new(|known| {
            let image = known.image.unwrap();
            assert!(image.config.is_empty());
            let chain = image.attestation_chain.unwrap();
            let states =
                |blob: &Blob| blob.data.windows(provenance.len()).any(|w| w == provenance.as_bytes());
            assert!(states(&chain.blobs[&chain.attestation_manifest]));
            assert_eq!(chain.blobs.values().filter(|blob| states(blob)).count(), 2, "manifest and statement");
            decision(PolicyAction::Allow, None, &[])
        }),
    ];
    decided(&daemon, &scene.registry.reference("other:latest"), wants_proof).unwrap();

    let expected = other.clone();
    let converts: Script = vec![
        Box::new(move |known| {
            let update = pb::SourceOp { identifier: other.clone(), ..known.source.unwrap() };
            decision(PolicyAction::Convert, Some(update), &[])
        }),
        Box::new(move |known| {
            assert_eq!(known.source.unwrap().identifier, expected);
            decision(PolicyAction::Allow, None, &[])
        }),
    ];
    decided(&daemon, &scene.registry.reference("missing:latest"), converts).unwrap();

    let denies: Script = vec![Box::new(|_| decision(PolicyAction::Deny, None, &["too old", "take 2"]))];
    let refused = decided(&daemon, &scene.base(), denies).unwrap_err();
    let text = format!("source \"{base}\" not allowed by policy: action DENY");
    assert!(refused.message().contains(&text), "{refused}");
    let messages = ErrorDetails::from_status(&refused).decision.unwrap().deny_messages;
    assert_eq!(messages.iter().map(|m| m.message.as_str()).collect::<Vec<_>>(), ["too old", "take 2"]);

    let again = |known: ResolveSourceMetaResponse| decision(PolicyAction::Convert, known.source, &[]);
    let endless: Script = (0..10).map(|_| Box::new(again) as Box<_>).collect();
    let refused = decided(&daemon, &scene.base(), endless).unwrap_err();
    assert!(refused.message().contains("too many policy requests"), "{refused}");
    daemon.stop();
}
