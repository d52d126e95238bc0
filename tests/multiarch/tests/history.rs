//! What is remembered of builds: by `buildctl debug`, over restarts, and for whoever comes late.

use crosskit_api::content::content_client::ContentClient;
use crosskit_api::content::{DeleteContentRequest, UpdateRequest};
use crosskit_api::control::UpdateBuildHistoryRequest;
use crosskit_api::control::control_client::ControlClient;
use crosskit_multiarch::{Buildx, Daemon, Running, Scene, until};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A step whose output is long enough to come in several parts.
const TALKS: &str = "FROM BASE\nRUN for i in 1 2 3 4 5 6 7 8 9; do echo line $i of many; done\n";

/// Says something and then waits until it is let go by another file of the mount.
const WAITS: &str = "FROM BASE\nRUN --mount=type=cache,target=/m,id=door \
    echo it-runs && while ! /bin/test -e /m/open; do /bin/sleep 0.05; done; echo it-went-on\n";
const OPENS: &str = "FROM BASE\nRUN --mount=type=cache,target=/m,id=door touch /m/open\n";

/// The records, as JSON, oldest first.
fn records(daemon: &Daemon) -> Vec<Value> {
    let ran = daemon.buildctl(&["debug", "histories", "--format", "{{json .}}"]).ok();
    let events = ran.stdout.lines().filter(|line| !line.is_empty());
    events.map(|line| serde_json::from_str::<Value>(line).expect("JSON")["record"].clone()).collect()
}

fn name(record: &Value) -> &str {
    record["Ref"].as_str().expect("a name")
}

fn blob(daemon: &Daemon, descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap_or_else(|| panic!("no digest: {descriptor}"));
    daemon.buildctl(&["debug", "get", digest]).ok().stdout
}

#[test]
fn ended_builds_tell_what_was_said_how_they_were_made_and_what_took_how_long() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", TALKS)]);
    daemon.build(&context).platforms(&["linux/amd64", "linux/arm64"]).run().ok();
    scene.write("c", "Dockerfile", "FROM BASE\nRUN echo before && false\n");
    daemon.build(&context).run().fails();

    let records = records(&daemon);
    let [worked, failed] = records.as_slice() else { panic!("{records:?}") };
    // Both platforms tell how they were made, in full.
    for platform in ["linux/amd64", "linux/arm64"] {
        let attested = &worked["Results"][platform]["Attestations"][0];
        assert_eq!(attested["annotations"]["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
        let told: Value = serde_json::from_str(&blob(&daemon, attested)).expect("JSON");
        let definition = &told["buildDefinition"];
        assert_eq!(definition["externalParameters"]["request"]["frontend"], "dockerfile.v0");
        assert!(definition["internalParameters"]["buildConfig"]["llbDefinition"].is_array(), "{told}");
        assert!(definition["resolvedDependencies"][0]["uri"].as_str().expect("an image").contains("base"));
        // What the step and the machine have used is told without being asked for.
        let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].as_array();
        let used: Vec<_> = steps.into_iter().flatten().filter_map(|step| step.get("resourceUsage")).collect();
        let [used] = used[..] else { panic!("one step: {told}") };
        assert!(used["samples"][0]["cpuStat"]["usageNanos"].as_u64() > Some(0), "{used}");
        let machine = &told["runDetails"]["metadata"]["buildkit_metadata"]["sysUsage"];
        assert!(machine[0]["memoryStat"]["total"].as_u64() > Some(0), "{machine}");
    }
    assert_eq!(worked["numTotalSteps"], worked["numCompletedSteps"]);

    // What was said comes again, byte for byte.
    let again = daemon.buildctl(&["debug", "logs", name(worked)]).ok();
    for line in 1..=9 {
        let said = again.said().matches(&format!(" line {line} of many")).count();
        assert_eq!(said, 2, "line {line} in {again}");
    }
    daemon.buildctl(&["debug", "logs", name(failed)]).ok().says("before").says("exit code: 1");

    // The trace has the step that failed, below the build.
    let trace = daemon.buildctl(&["debug", "logs", "--trace", name(failed)]).ok().stdout;
    let spans: Vec<Value> =
        serde_json::Deserializer::from_str(&trace).into_iter().map(|span| span.expect("JSON")).collect();
    let step =
        spans.iter().find(|span| span["Name"].as_str().is_some_and(|name| name.contains("RUN echo before")));
    let step = step.unwrap_or_else(|| panic!("no such span: {trace}"));
    assert_eq!(step["Status"]["Code"], "Error");
    assert_eq!(step["Parent"]["SpanID"], spans[0]["SpanContext"]["SpanID"]);
    assert!(failed["externalError"]["size"].as_str().or(failed["error"]["message"].as_str()).is_some());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_lead_to_the_images_that_were_made_and_to_all_they_are_made_of() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("made", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nENV A=b\n")]);
    let platforms = ["linux/amd64", "linux/arm64"];
    let output = format!("type=image,name={},push=true", scene.registry.reference("made:1"));
    let (_, told) = daemon.build(&context).platforms(&platforms).output(&output).run_for_metadata();
    let known = records(&daemon);
    let [record] = known.as_slice() else { panic!("{known:?}") };

    // Whoever asks for a record to be final finds all of it afterwards.
    let stream = tokio::net::UnixStream::connect(&daemon.socket).await.unwrap();
    let channel = crosskit_client::channel_over(stream).await.unwrap();
    let finalize =
        UpdateBuildHistoryRequest { r#ref: name(record).into(), finalize: true, ..Default::default() };
    ControlClient::new(channel.clone()).update_build_history(finalize).await.expect("finalized");
    let known = records(&daemon);
    let record = &known[0];
    assert!(record["trace"]["digest"].is_string() && record["logs"]["digest"].is_string());
    assert_ne!(record["pinned"], true, "to finalize is not to pin");

    let said = &record["ExporterResponse"];
    assert_eq!(said["containerimage.digest"], told["containerimage.digest"]);
    for platform in platforms {
        let config = said[format!("containerimage.config/{platform}")].as_str().expect("a configuration");
        assert!(config.contains("A=b"), "{config}");
        assert!(said["refs.platforms"].as_str().expect("platforms").contains(platform));
    }
    // The image's documents and layers stay as long as its record does.
    let index = &record["Result"]["Results"]["0"];
    assert_eq!(index["digest"], told["containerimage.digest"]);
    daemon.buildctl(&["prune", "--all"]).ok();
    let index: Value = serde_json::from_str(&blob(&daemon, index)).expect("JSON");
    for manifest in index["manifests"].as_array().expect("manifests") {
        let manifest: Value = serde_json::from_str(&blob(&daemon, manifest)).expect("JSON");
        assert!(blob(&daemon, &manifest["config"]).contains("rootfs"));
    }
    // Nobody changes anything there.
    let layer = index["manifests"][0]["digest"].as_str().expect("a digest").to_owned();
    let mut content = ContentClient::new(channel.clone());
    let refused = content.delete(DeleteContentRequest { digest: layer.clone() }).await.unwrap_err();
    assert!(refused.message().contains("read-only"), "{refused}");
    let refused = content.update(UpdateRequest::default()).await.unwrap_err();
    assert!(refused.message().contains("read-only"), "{refused}");
    daemon.buildctl(&["debug", "get", &layer]).ok();
    daemon.stop();
}

#[test]
fn records_tell_the_time_that_exporters_were_given() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let out = scene.path("out.tar").display().to_string();
    for (argument, output, told) in [
        ("7", format!("type=tar,dest={out}"), Some("7")),
        ("7", format!("type=tar,source-date-epoch=9,dest={out}"), Some("9")),
        ("context", format!("type=tar,dest={out}"), None),
        ("", format!("type=tar,dest={out}"), Some("")),
    ] {
        daemon.build(&context).opt("build-arg:SOURCE_DATE_EPOCH", argument).output(&output).run();
        let records = records(&daemon);
        let last = records.last().expect("a record");
        assert_eq!(last["Exporters"][0]["Type"], "tar", "{last}");
        let epoch = last["Exporters"][0]["Attrs"]["source-date-epoch"].as_str();
        assert_eq!(epoch, told, "{argument:?} {output}: {last}");
    }
    daemon.stop();
}

#[test]
fn buildx_shows_records_with_their_logs_and_attachments() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let context = scene.context("shown", &[("Dockerfile", TALKS)]);
    let folder = context.display().to_string();
    let platforms = "linux/amd64,linux/arm64";
    buildx.run(&["build", "--platform", platforms, "--build-arg", "WORD=said", &folder]).ok();
    let shown = buildx.run(&["history", "inspect"]).ok();
    let shown = shown.says("linux/amd64, linux/arm64").says("WORD").says("https://slsa.dev/provenance/v1");
    let key =
        shown.stdout.lines().find_map(|line| line.strip_prefix("Ref:")).expect("a name").trim().to_owned();
    let attachment = ["--platform", "linux/arm64", "--type", "https://slsa.dev/provenance/v1"];
    let attached =
        buildx.run(&[&["history", "inspect", "attachment", &key][..], &attachment].concat()).ok().stdout;
    assert!(attached.lines().count() > 50, "on many lines, to be read: {attached}");
    let attached: Value = serde_json::from_str(&attached).expect("JSON");
    assert_eq!(attached["buildDefinition"]["externalParameters"]["request"]["frontend"], "dockerfile.v0");
    buildx.run(&["history", "logs", &key]).ok().says("line 9 of many");
    let bundle = scene.path("record.dockerbuild");
    buildx.run(&["history", "export", "--output", &bundle.display().to_string(), &key]).ok();
    let listed = Command::new("tar").arg("-tzf").arg(&bundle).output().expect("tar").stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let logs = records(&daemon)[0]["logs"]["digest"].as_str().expect("a log").replace(':', "/");
    assert!(listed.contains("index.json") && listed.contains(&logs), "{listed}");
    buildx.run(&["history", "rm", &key]).ok();
    assert!(records(&daemon).is_empty());
    daemon.stop();
}

#[test]
fn records_outlive_the_daemon_and_go_when_they_are_told_to() {
    let scene = Scene::set();
    let context = scene.context("c", &[("Dockerfile", TALKS)]);
    let daemon = scene.daemon();
    for _ in 0..3 {
        daemon.build(&context).argument("--no-cache").run().ok();
    }
    let known = records(&daemon);
    let names: Vec<&str> = known.iter().map(name).collect();
    daemon.buildctl(&["debug", "ctl", "--pin", names[1]]).ok();
    daemon.buildctl(&["debug", "ctl", "--delete", names[0]]).ok();
    let gone = known[0]["logs"]["digest"].as_str().expect("a log").to_string();
    daemon.stop();

    let daemon = scene.daemon();
    let kept = records(&daemon);
    assert_eq!(kept.iter().map(name).collect::<Vec<_>>(), names[1..]);
    assert_eq!(kept[0]["pinned"], true);
    daemon.buildctl(&["debug", "logs", names[1]]).ok().says("line 9 of many");
    daemon.buildctl(&["debug", "get", &gone]).fails().says("not found");
    // Also collection leaves alone what records name.
    daemon.buildctl(&["prune", "--all"]).ok();
    daemon.buildctl(&["debug", "logs", names[2]]).ok().says("line 9 of many");
    daemon.buildctl(&["prune-histories"]).ok().says(names[2]).never_says(names[1]);
    assert_eq!(records(&daemon).iter().map(name).collect::<Vec<_>>(), names[1..2]);
    daemon.buildctl(&["debug", "ctl", "--unpin", names[1]]).ok();
    daemon.buildctl(&["prune-histories"]).ok();
    assert!(records(&daemon).is_empty());
    daemon.stop();
}

#[test]
fn whoever_comes_late_hears_everything_and_followers_hear_what_happens() {
    let scene = Scene::set();
    let mut daemon = scene.daemon();
    let waits = scene.context("waits", &[("Dockerfile", WAITS)]);
    let opens = scene.context("opens", &[("Dockerfile", OPENS)]);
    let address = daemon.address();
    let buildctl = |arguments: &[&str]| {
        let mut command = Command::new(scene.programs.path("buildctl"));
        command.args(["--addr", &address]).args(arguments);
        command
    };
    let mut follower = Running::start(&mut buildctl(&["debug", "monitor"]));
    let mut building = daemon.build(&waits).start();
    building.wait_for(" it-runs", LONG);
    follower.wait_for("event: STARTED", LONG);
    let events = daemon.buildctl(&["debug", "histories", "--format", "{{json .}}"]).ok();
    let event: Value = serde_json::from_str(events.stdout.trim()).expect("one event");
    let key = event["record"]["Ref"].as_str().expect("a name").to_string();
    let mut late = Running::start(&mut buildctl(&["debug", "logs", "--progress=plain", &key]));
    late.wait_for(" it-runs", LONG);
    daemon.build(&opens).run().ok();
    building.finish(LONG).ok();
    let late = late.finish(LONG).ok();
    let after = daemon.buildctl(&["debug", "logs", "--progress=plain", &key]).ok();
    for said in [&late, &after] {
        assert!(said.said().contains(" it-went-on"), "{said}");
    }
    follower.wait_for("event: COMPLETE", LONG);
    daemon.buildctl(&["debug", "ctl", "--delete", &key]).ok();
    follower.wait_for("event: DELETED", LONG);
    // Whoever follows doesn't hold up the daemon's end.
    daemon.terminate();
    daemon.ended(LONG);
    assert!(!daemon.log().contains("some connections did not end"), "{}", daemon.log());
    until("the follower to hear of it", LONG, || follower.has_ended().then_some(()));
}
