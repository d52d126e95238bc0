//! What clients are told of a build while it runs.

use crate::graphs::native;
use crate::stage::{Ask, Stage, talk};
use crosskit_api::control::SolveRequest;
use crosskit_api::frontend as api;
use crosskit_api::pb;
use crosskit_llb::SourceFile;
use crosskit_multiarch::DaemonOptions;
use std::collections::BTreeMap;
use std::sync::Arc;

#[test]
fn vertices_are_told_with_their_names_and_groups() {
    let stage = Stage::set();
    talk(async {
        let group = pb::ProgressGroup { id: "g".into(), name: "all of it".into(), weak: true };
        let step = stage.step("echo hello; echo oops >&2", |_, constraints| {
            *constraints = native().named("say hello");
            constraints.metadata.progress_group = Some(group.clone());
        });
        let told = stage.solve(step).await.ok();
        let vertices = told.vertices();
        let step = vertices.values().find(|vertex| vertex.name == "say hello").unwrap();
        assert_eq!(step.progress_group, Some(group));
        assert_eq!(step.inputs.len(), 1);
        assert!(vertices[step.inputs[0].as_str()].name.starts_with("docker-image://"));
        let mut streams: Vec<_> = told.logs().map(|log| (log.stream, log.msg.as_slice())).collect();
        streams.sort();
        assert_eq!(streams, [(1, b"hello\n".as_slice()), (2, b"oops\n")]);
        assert!(told.logs().all(|log| log.vertex == step.digest));
    });
    stage.daemon.stop();
}

#[test]
fn warnings_of_frontends_reach_clients_whole() {
    let stage = Stage::set();
    crate::frontend::conversation(async {
        let mut frontend = crate::frontend::Frontend::begin(&stage.daemon, &[]).await;
        let status = frontend.status().await;
        let graph = crate::frontend::image(&stage.scene.base(), None, Some("true"));
        frontend.solve(&graph).await.unwrap();
        let digest = graph.head().unwrap().vertex.to_string();
        let info = pb::SourceInfo {
            filename: "Made".into(),
            data: b"one\ntwo\n".to_vec(),
            ..pb::SourceInfo::default()
        };
        let position = |line| Some(pb::Position { line, character: 0 });
        let warning = api::WarnRequest {
            digest: digest.clone(),
            level: 1,
            short: b"do not".to_vec(),
            detail: vec![b"because".to_vec(), b"of that".to_vec()],
            url: "https://example.com/rule".into(),
            info: Some(info.clone()),
            ranges: vec![pb::Range { start: position(2), end: position(2) }],
        };
        let call = frontend.call(warning.clone());
        frontend.bridge.warn(call).await.unwrap();
        frontend.end().await;
        let warnings = status.await.unwrap().warnings;
        let [told] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert_eq!((&told.vertex, told.level, &told.short), (&digest, 1, &warning.short));
        assert_eq!((&told.detail, &told.url, &told.ranges), (&warning.detail, &warning.url, &warning.ranges));
        assert_eq!(told.info.as_ref(), Some(&info));
    });
    stage.daemon.stop();
}

#[test]
fn lint_warnings_of_a_dockerfile_reach_clients() {
    let stage = Stage::set();
    let folder = stage.scene.context("c", &[("Dockerfile", "FROM BASE\nrun true\nMAINTAINER me\n")]);
    talk(async {
        let request = SolveRequest { frontend: "dockerfile.v0".into(), ..SolveRequest::default() };
        let ask = Ask::new(&stage.daemon, request);
        let told = ask.folder("context", folder.clone()).folder("dockerfile", folder).solve().await.ok();
        let mut warnings: Vec<_> = told
            .warnings()
            .iter()
            .map(|warning| {
                let short = String::from_utf8_lossy(&warning.short).into_owned();
                let lines: Vec<i32> = warning.ranges.iter().map(|r| r.start.as_ref().unwrap().line).collect();
                let info = warning.info.as_ref().unwrap();
                assert!(info.filename == "Dockerfile" && info.data.starts_with(b"FROM "), "{info:?}");
                assert!(
                    !warning.detail.is_empty() && warning.url.starts_with("https://docs.docker.com/"),
                    "{warning:?}"
                );
                (short, warning.level, lines)
            })
            .collect();
        warnings.sort();
        assert_eq!(warnings, [
            (
                "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 2)"
                    .to_string(),
                1,
                vec![2]
            ),
            ("MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 3)".to_string(), 1, vec![3]),
        ]);
    });
    stage.daemon.stop();
}

#[test]
fn a_failing_vertex_is_named_with_its_place() {
    let stage = Stage::set();
    talk(async {
        let file = SourceFile {
            filename: "Made".into(),
            language: "Made".into(),
            data: b"copy\n".to_vec(),
            definition: None,
        };
        let file = Arc::new(file);
        let position = |line| Some(pb::Position { line, character: 0 });
        let mut llb = stage.graph();
        let from = llb.text("/there", "");
        let copy = crosskit_llb::CopyAction {
            from: Some(from),
            src: "/missing".into(),
            dest: "/".into(),
            ..Default::default()
        };
        let mut constraints = native().named("copy it");
        constraints.locations.push(crosskit_llb::SourceLocation {
            file,
            ranges: vec![pb::Range { start: position(1), end: position(1) }],
        });
        let action = crosskit_llb::FileActionSpec::Copy(copy);
        let output = llb.builder.file(Some(llb.base), vec![action], constraints);
        let failed = stage.solve(llb.definition(Some(output))).await;
        let vertex = failed.vertices().values().find(|v| v.name == "copy it").unwrap().digest.clone();
        let status = failed.refused("missing");
        let details = crosskit_api::errors::ErrorDetails::from_status(&status);
        assert_eq!(details.vertex.as_deref(), Some(vertex.as_str()));
        let source = &details.sources[0];
        assert_eq!(source.info.as_ref().unwrap().filename, "Made");
        assert_eq!(source.ranges[0].start.as_ref().unwrap().line, 1);

        // Also where only a key is made of a content that isn't there.
        let input = llb.text("/file", "");
        let mount = crosskit_llb::ExecMount {
            selector: "/absent".into(),
            readonly: true,
            ..crate::graphs::bind("/m", input)
        };
        let exec = crosskit_llb::Exec { mounts: vec![mount], ..llb.sh("true") };
        let output = llb.builder.exec(exec, native().named("use it")).root;
        let failed = stage.solve(llb.definition(output)).await;
        let vertex = failed.vertices().values().find(|v| v.name == "use it").unwrap().digest.clone();
        let status = failed.refused("absent");
        let details = crosskit_api::errors::ErrorDetails::from_status(&status);
        assert_eq!(details.vertex.as_deref(), Some(vertex.as_str()));
    });
    stage.daemon.stop();
}

/// What a step says beyond the limit is left out, but for its end.
#[test]
fn output_of_steps_is_limited_as_the_environment_says() {
    let line = "0123456789012345678901234567890123456789012345678901234567890123456789012345678\n";
    for (size, clipped) in [("1000", true), ("-1", false)] {
        let stage = Stage::with(|_| {
            let environment = vec![("BUILDKIT_STEP_LOG_MAX_SIZE".to_string(), size.to_string())];
            DaemonOptions { environment, ..DaemonOptions::default() }
        });
        talk(async {
            // More than one second's worth at the usual speed.
            let script = format!("yes '{}' | head -n 10000; echo the end", line.trim());
            let said = stage.solve(stage.step(&script, |_, _| {})).await.ok().said();
            let note = "\n[output clipped, log limit 1000B reached]\n";
            assert_eq!(said.find(note), clipped.then_some(1000), "{size}");
            assert_eq!(said == format!("{}the end\n", line.repeat(10_000)), !clipped, "{size}");
            assert!(said.ends_with("\nthe end\n"), "{size}");
        });
        stage.daemon.stop();
    }
}

#[test]
fn a_filter_of_workers_is_no_hindrance() {
    let stage = Stage::set();
    talk(async {
        let step = stage.step("echo ran", |_, constraints| {
            constraints.worker_filters = vec!["label.org.mobyproject.buildkit.worker.executor==oci".into()];
            constraints.metadata.caps =
                BTreeMap::from([("constraints".into(), true), ("platform".into(), true)]);
        });
        assert_eq!(stage.solve(step).await.ok().said(), "ran\n");
    });
    stage.daemon.stop();
}
