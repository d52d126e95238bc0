//! File operations, merges and differences: what is in the layers that they make.

use crate::graphs::{Llb, bind, mkfile, native, nested};
use crate::stage::{Ask, Stage, talk};
use crosskit_api::control::SolveRequest;
use crosskit_api::pb;
use crosskit_api::sourcepolicy::{Policy, PolicyAction, Rule, Selector};
use crosskit_llb::{
    Chown, Constraints, CopyAction, Exec, FileActionSpec, MkdirAction, MkfileAction, RmAction, SymlinkAction,
};

fn rm(path: &str) -> FileActionSpec {
    FileActionSpec::Rm(RmAction { path: path.into(), ..RmAction::default() })
}

fn mkdir(path: &str) -> FileActionSpec {
    FileActionSpec::Mkdir(MkdirAction { path: path.into(), mode: 0o755, ..MkdirAction::default() })
}

fn owner(text: &str) -> Option<Chown> {
    Some(Chown::parse(text))
}

#[test]
fn merges_and_differences_have_exactly_what_was_changed() {
    let stage = Stage::set();
    talk(async {
        let mut llb = stage.graph();
        let actions = vec![
            mkdir("/dir"),
            mkfile("/dir/gone", ""),
            mkfile("/dir/kept", "1"),
            mkdir("/all"),
            mkfile("/all/x", ""),
        ];
        let lower = llb.file(None, actions);
        let actions =
            vec![rm("/dir/gone"), rm("/all"), mkfile("/dir/new", "2"), mkfile("/dir/kept", "1 and more")];
        let upper = llb.file(Some(lower), actions);
        let changes = llb.builder.diff(Some(lower), Some(upper), native()).unwrap();
        let expected = [".wh.all", "dir/", "dir/.wh.gone", "dir/kept", "dir/new"];
        let layers = stage.ask(llb.definition(Some(changes))).layers().await;
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0], expected);

        // Over something else, layer by layer; what was removed there is hidden here as well.
        let other = llb.file(None, vec![mkdir("/dir"), mkfile("/dir/gone", "other"), mkfile("/other", "")]);
        let merged = llb.builder.merge(&[Some(other), Some(changes)], native()).unwrap();
        let layers = stage.ask(llb.definition(Some(merged))).layers().await;
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[1], expected);
        let tree = stage.files(llb.definition(Some(merged))).await;
        assert_eq!(tree.0.keys().collect::<Vec<_>>(), ["dir", "dir/kept", "dir/new", "other"]);
        assert_eq!(tree.text("dir/kept"), "1 and more");

        // Of results without a common origin the files differ that differ.
        let changes = llb.builder.diff(Some(other), Some(upper), native()).unwrap();
        let tree = stage.files(llb.definition(Some(changes))).await;
        assert_eq!(tree.0.keys().collect::<Vec<_>>(), ["dir", "dir/kept", "dir/new"]);

        // The same twice, and less than before: nothing is left, or only what hides.
        let none = llb.builder.diff(Some(upper), Some(upper), native()).unwrap();
        assert!(stage.files(llb.definition(Some(none))).await.0.is_empty());
        let without = llb.file(Some(lower), vec![rm("/all")]);
        let changes = llb.builder.diff(Some(lower), Some(without), native()).unwrap();
        assert_eq!(stage.ask(llb.definition(Some(changes))).layers().await, [[".wh.all"]]);
    });
    stage.daemon.stop();
}

#[test]
fn links_stay_links_in_differences_and_merges() {
    let stage = Stage::set();
    talk(async {
        let mut llb = stage.graph();
        let linked = llb.run(llb.base, "mkdir /l; echo 1 > /l/one; ln /l/one /l/two; ln -s one /l/three");
        let changes = llb.builder.diff(Some(llb.base), Some(linked), native()).unwrap();
        let other = llb.text("/other", "");
        let merged = llb.builder.merge(&[Some(other), Some(changes)], native()).unwrap();
        let expected = ["l/", "l/one", "l/three -> one", "l/two = l/one"];
        for (at, output) in [(0, changes), (1, merged)] {
            assert_eq!(stage.ask(llb.definition(Some(output))).layers().await[at], expected);
        }
        let exec = Exec {
            mounts: vec![bind("/m", merged)],
            ..llb.sh("cd /m/l; test one -ef two && readlink three")
        };
        let output = llb.exec(exec);
        assert_eq!(stage.solve(llb.definition(Some(output))).await.ok().said(), "one\n");
    });
    stage.daemon.stop();
}

#[test]
fn a_linked_copy_is_a_layer_of_its_own() {
    let stage = Stage::set();
    let dockerfile = "FROM BASE\nRUN mkdir /x && echo before > /x/file\nCOPY --link file /x/\n";
    let folder = stage.scene.context("c", &[("Dockerfile", dockerfile), ("file", "after\n")]);
    talk(async {
        let request = SolveRequest { frontend: "dockerfile.v0".into(), ..SolveRequest::default() };
        let ask = |request: &SolveRequest| {
            let ask = Ask::new(&stage.daemon, request.clone());
            ask.folder("context", folder.clone()).folder("dockerfile", folder.clone())
        };
        let layers = ask(&request).layers().await;
        assert_eq!(layers[2], ["x/", "x/file"]);
        assert_eq!(ask(&request).tar().await.text("x/file"), "after\n");
        // Another image below takes the same layer.
        stage.scene.write("c", "Dockerfile", &dockerfile.replace("before", "other"));
        assert_eq!(ask(&request).layers().await[2], ["x/", "x/file"]);
    });
    stage.daemon.stop();
}

#[test]
fn what_is_passed_through_waits_for_the_rest() {
    let stage = Stage::set();
    talk(async {
        let build = |rest: &str| {
            let mut llb = stage.graph();
            let main = llb.text("/main", "it\n");
            let rest = llb.run(llb.base, rest);
            let output = llb.builder.passthrough("id", main, &[rest], Constraints::default());
            llb.definition(Some(output))
        };
        let told = stage.solve(build("echo the rest")).await.ok();
        assert_eq!(told.said(), "the rest\n");
        let tree = stage.files(build("echo the rest")).await;
        assert_eq!(tree.texts().into_iter().collect::<Vec<_>>(), [("main", "it\n".to_string())]);
        stage.solve(build("exit 9")).await.refused("exit code: 9");
    });
    stage.daemon.stop();
}

#[test]
fn a_graph_in_a_file_is_solved_under_the_same_rules() {
    let stage = Stage::set();
    talk(async {
        let mut llb = stage.graph();
        let root = llb.run(llb.base, "echo from within > /made");
        let inner = llb.definition(Some(root));
        let made = |stage: &Stage, file: &str, attrs: &[(&str, &str)]| {
            nested(&mut stage.graph(), &inner, file, attrs)
        };
        let named = made(&stage, "/other.llb", &[("llbbuild.filename", "other.llb")]);
        assert_eq!(stage.files(named).await.text("made"), "from within\n");
        let usual = made(&stage, "/buildkit.llb.definition", &[]);
        assert_eq!(stage.files(usual).await.text("made"), "from within\n");
        let missing = made(&stage, "/other.llb", &[("llbbuild.filename", "missing.llb")]);
        stage.solve(missing).await.refused("missing.llb");

        let mut ask = stage.ask(made(&stage, "/denied.llb", &[("llbbuild.filename", "denied.llb")]));
        let identifier = format!("docker-image://{}", stage.scene.base());
        let selector = Some(Selector { identifier: identifier.clone(), ..Selector::default() });
        let rule = Rule { action: PolicyAction::Deny.into(), selector, updates: None };
        ask.request.source_policy = Some(Policy { version: 1, rules: vec![rule] });
        ask.solve().await.refused(&format!("source \"{identifier}\" denied by policy"));
    });
    stage.daemon.stop();
}

#[test]
fn actions_do_to_files_what_they_say() {
    let stage = Stage::set();
    // 2001-09-09, in nanoseconds.
    let then = 1_000_000_000_000_000_000;
    talk(async {
        let mut llb = stage.graph();
        let actions = vec![
            FileActionSpec::Mkdir(MkdirAction {
                path: "/d/e".into(),
                mode: 0o750,
                make_parents: true,
                owner: owner("builder:extra"),
                timestamp: Some(then),
            }),
            FileActionSpec::Mkfile(MkfileAction {
                path: "/d/f".into(),
                mode: 0o640,
                data: b"1".to_vec(),
                owner: owner("builder"),
                timestamp: Some(then),
            }),
            FileActionSpec::Symlink(SymlinkAction {
                oldpath: "f".into(),
                newpath: "/d/l".into(),
                owner: owner("1234:extra"),
                timestamp: Some(then),
            }),
            FileActionSpec::Symlink(SymlinkAction {
                oldpath: "f".into(),
                newpath: "/d/gone".into(),
                ..SymlinkAction::default()
            }),
            rm("/d/gone"),
        ];
        let made = llb.file(Some(llb.base), actions);
        let script = "cd /d; stat -c '%n %F %u:%g %a %Y' e f l; ls; cat l; stat -c %Y:%u .";
        let output = llb.run(made, script);
        let said = stage.solve(llb.definition(Some(output))).await.ok().said();
        let expected = "e directory 1000:2000 750 1000000000\nf regular file 1000:1000 640 1000000000\n\
            l symbolic link 1234:2000 777 1000000000\ne\nf\nl\n1";
        assert!(said.starts_with(expected), "{said}");
        // Folders on the way are the owner's too.
        assert!(said.ends_with(":1000\n"), "{said}");
    });
    stage.daemon.stop();
}

#[test]
fn copies_choose_their_files() {
    let stage = Stage::set();
    talk(async {
        let source = |llb: &mut Llb| {
            let actions = vec![
                mkdir("/s"),
                mkfile("/s/a.c", "c"),
                mkfile("/s/b.h", "h"),
                mkdir("/s/sub"),
                mkfile("/s/sub/d.c", "d"),
            ];
            llb.file(None, actions)
        };
        let copy = |change: &dyn Fn(&mut CopyAction)| {
            let mut llb = stage.graph();
            let from = Some(source(&mut llb));
            let mut copy = CopyAction {
                from,
                src: "/s".into(),
                dest: "/t/".into(),
                dir_contents_only: true,
                create_dest_path: true,
                ..CopyAction::default()
            };
            change(&mut copy);
            let mut actions = vec![mkdir("/t"), mkdir("/t/a.c")];
            if !copy.always_replace {
                actions.truncate(1);
            }
            let base = llb.file(None, actions);
            let output = llb.file(Some(base), vec![FileActionSpec::Copy(copy)]);
            llb.definition(Some(output))
        };
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_string()).collect::<Vec<_>>();
        let found = async |definition: pb::Definition| {
            let tree = stage.files(definition).await;
            tree.0
                .into_iter()
                .filter(|(_, entry)| entry.kind == '0')
                .map(|(path, entry)| format!("{path} {:o}", entry.mode))
                .collect::<Vec<_>>()
        };
        let included = copy(&|c| c.include_patterns = list(&["**/*.c"]));
        assert_eq!(found(included).await, ["t/a.c 644", "t/sub/d.c 644"]);
        let excluded = copy(&|c| c.exclude_patterns = list(&["sub", "*.h"]));
        assert_eq!(found(excluded).await, ["t/a.c 644"]);
        let symbolic = copy(&|c| {
            (c.src, c.dir_contents_only) = ("/s/a.c".into(), false);
            c.mode = Some(crosskit_llb::Mode::Symbolic("u+x,go-r".into()));
        });
        assert_eq!(found(symbolic).await, ["t/a.c 700"]);
        let replaced = copy(&|c| c.always_replace = true);
        assert_eq!(found(replaced).await, ["t/a.c 644", "t/b.h 644", "t/sub/d.c 644"]);

        let wildcard = |c: &mut CopyAction| {
            (c.src, c.allow_wildcard, c.allow_empty_wildcard) = ("/s/*.c".into(), true, true);
        };
        let required = copy(&|c| {
            wildcard(c);
            c.required_paths = list(&["/s/a.c"]);
        });
        assert_eq!(found(required).await, ["t/a.c 644"]);
        let missing = copy(&|c| {
            wildcard(c);
            c.required_paths = list(&["/s/z.c"]);
        });
        stage.solve(missing).await.refused("/s/z.c");
        let wild = |path: &str, allow_not_found| {
            let mut llb = stage.graph();
            let from = source(&mut llb);
            let action = RmAction { path: path.into(), allow_wildcard: true, allow_not_found };
            let output = llb.file(Some(from), vec![FileActionSpec::Rm(action)]);
            llb.definition(Some(output))
        };
        assert_eq!(found(wild("/s/*.c", false)).await, ["s/b.h 644", "s/sub/d.c 644"]);
    });
    stage.daemon.stop();
}
