//! What builds share while they run and afterwards, and what caches elsewhere get of it.

use crate::frontend::{Frontend, conversation};
use crate::graphs::{Llb, bind, checked, mkfile, native};
use crate::stage::{Stage, talk};
use crosskit_api::control::{CacheOptions, CacheOptionsEntry};
use crosskit_api::frontend as api;
use crosskit_api::pb;
use crosskit_llb::{CacheMount, Exec, ExecMount, FileActionSpec, MkfileAction};
use serde_json::Value;
use std::collections::BTreeMap;

/// A folder that all steps of a stage see.
fn common(target: &str) -> ExecMount {
    let cache = Some(CacheMount { id: "common".into(), ..CacheMount::default() });
    ExecMount { target: target.into(), cache, ..ExecMount::default() }
}

/// Counts itself and waits.
fn gated(count: &str) -> String {
    format!("echo x >> /common/{count}; echo waiting; until test -e /common/open; do /bin/sleep 0.02; done")
}

async fn open(stage: &Stage) {
    let step = stage.step("touch /common/open", |exec, _| exec.mounts = vec![common("/common")]);
    stage.solve(step).await.ok();
}

/// What was counted under a name.
async fn counted(stage: &Stage, count: &str) -> usize {
    let script = format!(": {}; cat /common/{count}", rand::random::<u64>());
    let step = stage.step(&script, |exec, _| exec.mounts = vec![common("/common")]);
    stage.solve(step).await.ok().said().lines().count()
}

#[test]
fn a_step_outlives_the_first_of_two_clients_that_want_it() {
    let stage = Stage::set();
    talk(async {
        let step = || stage.step(&gated("runs"), |exec, _| exec.mounts = vec![common("/common")]);
        let first = stage.ask(step()).start().await;
        first.hear("waiting").await;
        let second = stage.ask(step()).start().await;
        second.hear("waiting").await;
        first.vanish().await;
        open(&stage).await;
        second.end().await.ok();
        assert_eq!(counted(&stage, "runs").await, 1);
    });
    stage.daemon.stop();
}

#[test]
fn steps_on_equal_files_are_one_step() {
    let stage = Stage::set();
    talk(async {
        // Two graphs that make the same file in different ways.
        let build = |way: fn(&mut Llb) -> crosskit_llb::Output, script: &str| {
            let mut llb = stage.graph();
            let made = way(&mut llb);
            let mounts = vec![ExecMount { readonly: true, ..bind("/made", made) }, common("/common")];
            let exec = Exec { mounts, ..llb.sh(script) };
            let output = llb.exec(exec);
            llb.definition(Some(output))
        };
        let written: fn(&mut Llb) -> crosskit_llb::Output = |llb| llb.text("/file", "same");
        let ran: fn(&mut Llb) -> crosskit_llb::Output = |llb| {
            let scratch = ExecMount { target: "/out".into(), ..ExecMount::default() };
            let exec = Exec { mounts: vec![scratch], ..llb.sh("echo -n same > /out/file") };
            llb.builder.exec(exec, native()).mounts[0].unwrap()
        };
        // At the same time.
        let first = stage.ask(build(written, &gated("together"))).start().await;
        first.hear("waiting").await;
        let second = stage.ask(build(ran, &gated("together"))).start().await;
        second.hear("waiting").await;
        open(&stage).await;
        first.end().await.ok();
        second.end().await.ok();
        assert_eq!(counted(&stage, "together").await, 1);
        // One after the other.
        stage.solve(build(written, "echo x >> /common/later")).await.ok();
        stage.solve(build(ran, "echo x >> /common/later")).await.ok();
        assert_eq!(counted(&stage, "later").await, 1);
        // Other files are other steps.
        let other: fn(&mut Llb) -> crosskit_llb::Output = |llb| llb.text("/file", "other");
        stage.solve(build(other, "echo x >> /common/later")).await.ok();
        assert_eq!(counted(&stage, "later").await, 2);
    });
    stage.daemon.stop();
}

#[test]
fn a_result_is_the_next_graphs_input() {
    let stage = Stage::set();
    conversation(async {
        let mut frontend = Frontend::begin(&stage.daemon, &[]).await;
        let step = stage.step("echo x >> /common/sub; echo made > /made", |exec, _| {
            exec.mounts = vec![common("/common")];
        });
        let found = frontend.reference(step).await.unwrap();
        // A ref tells its graph, which goes into the next one.
        let mut llb = stage.graph();
        let input = llb.builder.import(&checked(found.def.unwrap())).unwrap();
        let output = llb.file(Some(input), vec![mkfile("/more", "added")]);
        let next = frontend.reference(llb.definition(Some(output))).await.unwrap();
        assert_eq!(frontend.text(&next.id, "/made").await, "made\n");
        assert_eq!(frontend.text(&next.id, "/more").await, "added");
        frontend.end().await;
    });
    talk(async { assert_eq!(counted(&stage, "sub").await, 1) });
    stage.daemon.stop();
}

#[test]
fn a_vertex_that_ignores_the_cache_runs_anew_with_an_empty_cache_mount() {
    let stage = Stage::set();
    talk(async {
        let own = ExecMount {
            target: "/own".into(),
            cache: Some(CacheMount { id: "own".into(), ..CacheMount::default() }),
            ..ExecMount::default()
        };
        let build = |ignore_cache: bool| {
            let mut llb = stage.graph();
            let first = llb.run(llb.base, "echo first");
            let script = "echo second; ls /own; touch /own/used; cat /proc/sys/kernel/random/uuid > /made";
            let exec = Exec { root: Some(first), mounts: vec![own.clone()], ..llb.sh(script) };
            let mut constraints = native();
            constraints.metadata.ignore_cache = ignore_cache;
            let second = llb.builder.exec(exec, constraints).root.unwrap();
            let third = llb.run(second, "echo third");
            llb.definition(Some(third))
        };
        assert_eq!(stage.solve(build(false)).await.ok().said(), "first\nsecond\nthird\n");
        assert_eq!(stage.solve(build(false)).await.ok().said(), "");
        // What is below it is found, what is above it has another input; the folder was used before, and is empty.
        assert_eq!(stage.solve(build(true)).await.ok().said(), "second\nthird\n");
        assert_eq!(stage.solve(build(false)).await.ok().said(), "");
    });
    stage.daemon.stop();
}

#[test]
fn a_cache_elsewhere_has_what_may_be_given_away() {
    let stage = Stage::set();
    let name = stage.scene.registry.reference("cache:1");
    let entry = |more: &[(&str, &str)]| {
        let attrs = [&[("ref", name.as_str())], more].concat();
        attrs
            .iter()
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    let build = |export: bool, whole: bool| {
        let mut llb = stage.graph();
        let mut constraints = native();
        constraints.metadata.export_cache = Some(pb::ExportCache { value: export });
        let exec = llb.sh("echo first; cat /proc/sys/kernel/random/uuid > /made");
        let first = llb.builder.exec(exec, constraints).root.unwrap();
        let second = llb.run(first, "echo second");
        llb.definition(Some(if whole { second } else { first }))
    };
    // Keys are given away in any case: what was made of the result is found without it.
    for (export, again) in [(true, ["", ""]), (false, ["first\n", ""])] {
        talk(async {
            let mut ask = stage.ask(build(export, true));
            let exports = vec![CacheOptionsEntry {
                r#type: "registry".into(),
                attrs: entry(&[("mode", "max"), ("merge", "false")]),
            }];
            ask.request.cache = Some(CacheOptions { exports, ..CacheOptions::default() });
            assert_eq!(ask.solve().await.ok().said(), "first\nsecond\n");
        });
        let manifest = stage.scene.registry.manifest("cache", "1").unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert!(!manifest["layers"].as_array().unwrap().is_empty(), "{manifest}");
        // A frontend says where to look.
        for (whole, again) in [false, true].into_iter().zip(again) {
            stage.daemon.buildctl(&["prune", "--all"]).ok();
            conversation(async {
                let mut frontend = Frontend::begin(&stage.daemon, &[]).await;
                let status = frontend.status().await;
                let request = api::SolveRequest {
                    definition: Some(build(export, whole)),
                    allow_result_return: true,
                    evaluate: true,
                    cache_imports: vec![api::CacheOptionsEntry {
                        r#type: "registry".into(),
                        attrs: entry(&[]),
                    }],
                    ..api::SolveRequest::default()
                };
                let call = frontend.call(request);
                frontend.bridge.solve(call).await.unwrap();
                frontend.end().await;
                let logs = status.await.unwrap().logs;
                let said: String = logs.iter().map(|log| String::from_utf8_lossy(&log.msg)).collect();
                assert_eq!(said, again, "{export} {whole}");
            });
        }
        stage.daemon.buildctl(&["prune", "--all"]).ok();
    }
    stage.daemon.stop();
}

/// The time of a file does not count for who uses its content.
#[test]
fn times_of_files_do_not_count() {
    let stage = Stage::set();
    talk(async {
        for (time, said) in [(1, "ran\n"), (2, "")] {
            let mut llb = stage.graph();
            let file = MkfileAction {
                path: "/f".into(),
                mode: 0o644,
                timestamp: Some(time),
                ..MkfileAction::default()
            };
            let made = llb.file(None, vec![FileActionSpec::Mkfile(file)]);
            let mounts = vec![ExecMount { readonly: true, ..bind("/m", made) }];
            let exec = Exec { mounts, ..llb.sh("echo ran") };
            let output = llb.exec(exec);
            assert_eq!(stage.solve(llb.definition(Some(output))).await.ok().said(), said);
        }
    });
    stage.daemon.stop();
}
