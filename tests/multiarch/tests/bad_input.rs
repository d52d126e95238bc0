//! What goes wrong is said: each test reads the message.

use crosskit_multiarch::{CutAfter, CuttingProxy, Daemon, DaemonOptions, Registry, Scene};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

#[test]
fn a_syntax_error_names_its_line() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\n\nRUNN true\n")]);
    daemon
        .build(&context)
        .run()
        .fails()
        .says("dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)")
        .says(">>> RUNN true");
    scene.write("c", "Dockerfile", "");
    daemon.build(&context).run().fails().says("empty");
    std::fs::remove_file(context.join("Dockerfile")).expect("remove the Dockerfile");
    daemon
        .build(&context)
        .run()
        .fails()
        .says("failed to read dockerfile: open Dockerfile: no such file or directory");
    daemon.stop();
}

#[test]
fn a_stage_that_is_not_there_is_named() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE AS here\nRUN true\n")]);
    daemon
        .build(&context)
        .opt("target", "nowhere")
        .run()
        .fails()
        .says("target stage \"nowhere\" could not be found");
    scene.write("c", "Dockerfile", "FROM BASE\nCOPY --from=7 /etc/base /x\n");
    daemon.build(&context).run().fails().says("7");
    daemon.stop();
}

#[test]
fn a_missing_file_is_named() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nCOPY missing.txt /\n")]);
    daemon.build(&context).run().fails().says("\"/missing.txt\": not found").says(">>> COPY missing.txt /");
    scene.write("c", "Dockerfile", "FROM BASE AS a\nFROM BASE\nCOPY --from=a /no/such /\n");
    daemon.build(&context).run().fails().says("/no/such");
    daemon.stop();
}

#[test]
fn nothing_outside_the_context_can_be_reached() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    std::fs::write(scene.path("secret"), "outside\n").expect("write beside the context");
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nCOPY ../secret /\n")]);
    daemon.build(&context).run().fails().says("\"/secret\": not found");
    symlink(scene.path("secret"), context.join("out")).expect("link out of the context");
    symlink("/etc", context.join("of-machine")).expect("link out of the context");
    scene.write("c", "Dockerfile", "FROM BASE\nCOPY out /\n");
    daemon.build(&context).run().fails().says("not found");
    scene.write("c", "Dockerfile", "FROM BASE\nCOPY of-machine/passwd /\n");
    daemon.build(&context).run().fails().says("not found");
    daemon.stop();
}

#[test]
fn links_in_a_rootfs_lead_inside_it() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let probe = scene.path("probe");
    std::fs::create_dir_all(&probe).expect("create a folder on the machine");
    let dockerfile = format!(
        "FROM BASE AS a\nRUN ln -s {probe} /way && ln -s ../../../../../../.. /up && mkdir -p {probe}\n\
         COPY file /way/file\nCOPY file /up/etc/copied\nRUN cat {probe}/file /etc/copied > /both\n\
         FROM scratch\nCOPY --from=a /both /\n",
        probe = probe.display()
    );
    let context = scene.context("c", &[("Dockerfile", &dockerfile), ("file", "in\n")]);
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    assert_eq!(std::fs::read_to_string(out.join("both")).expect("the result"), "in\nin\n");
    assert!(
        std::fs::read_dir(&probe).expect("list").next().is_none(),
        "the machine's own folder was written"
    );
    daemon.stop();
}

#[test]
fn a_damaged_blob_is_refused() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let out = scene.path("out");
    let context = scene.context(
        "c",
        &[("Dockerfile", "FROM BASE AS a\nRUN true\nFROM scratch\nCOPY --from=a /etc/base /\n")],
    );
    let digest = scene.base_image.layer_digest("linux/amd64");
    let file = scene.registry.blob_file(&digest);
    let good = std::fs::read(&file).expect("read the blob");

    std::fs::write(&file, &good[..good.len() / 2]).expect("truncate the blob");
    daemon.build(&context).platforms(&["linux/amd64"]).into(&out).run().fails().says(&digest);

    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&file, bad).expect("change the blob");
    daemon.build(&context).platforms(&["linux/amd64"]).into(&out).run().fails().says(&digest);

    std::fs::write(&file, good).expect("repair the blob");
    daemon.build(&context).platforms(&["linux/amd64"]).into(&out).run().ok();
    daemon.stop();
}

#[test]
fn a_registry_that_goes_away_half_way_is_named_and_the_next_build_works() {
    let scene = Scene::set();
    let proxy = CuttingProxy::start(scene.registry.address(), CutAfter(200_000));
    let config = format!("[registry.\"{}\"]\n  http = true\n", proxy.address());
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    let out = scene.path("out");
    let dockerfile = format!(
        "FROM {}/base:latest AS a\nRUN true\nFROM scratch\nCOPY --from=a /etc/base /\n",
        proxy.address()
    );
    let context = scene.context("c", &[("Dockerfile", &dockerfile)]);
    daemon.build(&context).into(&out).run().fails().says(proxy.address());
    scene.write("c", "Dockerfile", "FROM BASE AS a\nRUN true\nFROM scratch\nCOPY --from=a /etc/base /\n");
    daemon.build(&context).into(&out).run().ok();
    daemon.stop();
}

#[test]
fn a_name_without_permission_is_refused_with_the_name() {
    let scene = Scene::set();
    let locked = Registry::start_with_password(&scene.parts, &scene.path("locked"));
    let config = format!("[registry.\"{}\"]\n  http = true\n", locked.address());
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    let name = locked.reference("private/app:1");
    let output = format!("type=image,name={name},push=true");
    let empty = scene.context("no-login", &[]);
    daemon
        .build(&context)
        .environment("DOCKER_CONFIG", &empty.display().to_string())
        .output(&output)
        .run()
        .fails()
        .says(&name)
        .says("401 Unauthorized");

    // "builder:secret"
    let login = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"YnVpbGRlcjpzZWNyZXQ=\"}}}}}}", locked.address());
    let known = scene.context("login", &[("config.json", &login)]);
    daemon
        .build(&context)
        .environment("DOCKER_CONFIG", &known.display().to_string())
        .output(&output)
        .run()
        .ok();
    daemon.stop();
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let missing = scene.registry.reference("nothing:here");
    let context = scene.context("c", &[("Dockerfile", &format!("FROM {missing}\nRUN true\n"))]);
    daemon.build(&context).run().fails().says(&missing).says("not found").says(">>> FROM");
    let unreachable = "127.0.0.1:1/nothing:here";
    scene.write("c", "Dockerfile", &format!("FROM {unreachable}\nRUN true\n"));
    daemon.build(&context).run().fails().says(unreachable).says("connection refused");
    daemon.stop();
}

#[test]
fn an_image_without_the_platform_says_so() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    daemon
        .build(&context)
        .platforms(&["linux/mips64le"])
        .run()
        .fails()
        .says("no match for platform in manifest");
    daemon.stop();
}

#[test]
fn an_unknown_output_type_or_key_is_named() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\n")]);
    daemon.build(&context).output("type=sculpture").run().fails().says("sculpture");
    let archive = scene.path("x.tar");
    let odd = format!("type=oci,dest={},compression=lzma", archive.display());
    daemon.build(&context).output(&odd).run().fails().says("lzma");
    if !scene.programs.are_foreign() {
        // BuildKit passes over keys that it does not know.
        let odd = format!("type=oci,dest={},colour=blue", archive.display());
        daemon.build(&context).output(&odd).run().ok().says("unknown option colour is ignored");
    }
    let docker = format!("type=docker,dest={}", archive.display());
    daemon
        .build(&context)
        .platforms(&["linux/amd64", "linux/arm64"])
        .output(&docker)
        .run()
        .fails()
        .says("docker exporter does not currently support exporting manifest lists");
    daemon.stop();
}

#[test]
fn an_unknown_frontend_is_named() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let ran = daemon.buildctl(&["build", "--frontend", "nope.v0"]);
    ran.fails().says("nope.v0");
    daemon.stop();
}

#[test]
fn a_malformed_graph_is_refused_and_the_daemon_lives() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    for (name, graph) in [
        ("noise", vec![0xff_u8; 4096]),
        ("an empty graph", Vec::new()),
        // Definition{def: [Op{inputs: [Input{digest: "sha256:00…"}]}]}: an input nobody defined.
        ("a missing input", definition(&op_with_input(&"0".repeat(64)))),
        ("an input that is no digest", definition(&op_with_input("../../etc/passwd"))),
    ] {
        let file = scene.path("graph");
        std::fs::write(&file, &graph).expect("write a graph");
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg("exec \"$0\" --addr \"$1\" build < \"$2\"");
        command.arg(scene.programs.path("buildctl")).arg(daemon.address()).arg(&file);
        let ran = crosskit_multiarch::Ran::run(&mut command);
        assert!(!ran.said().contains("panick"), "{name}: {ran}");
        assert_eq!(ran.status.code(), Some(1), "{name}: {ran}");
    }
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    daemon.build(&context).run().ok();
    daemon.stop();
}

/// One length-delimited protobuf field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a short field");
    // Lengths of 128 and more take a second byte.
    let mut bytes = vec![number << 3 | 2];
    if length < 128 {
        bytes.push(length)
    } else {
        bytes.extend([length & 0x7f | 0x80, 1])
    }
    bytes.extend_from_slice(content);
    bytes
}

fn op_with_input(hex: &str) -> Vec<u8> {
    field(1, &field(1, format!("sha256:{hex}").as_bytes()))
}

fn definition(op: &[u8]) -> Vec<u8> {
    field(1, op)
}

#[test]
fn a_config_that_cannot_be_read_is_named_with_its_line() {
    let scene = Scene::set();
    let config = "debug = true\nroot = = 3\n".to_owned();
    let ran = Daemon::fails_to_start(&scene, DaemonOptions { config, ..Default::default() });
    let ran = ran.says("buildkitd.toml");
    assert!(
        ran.said().contains("line 2") || ran.said().contains("(2, ") || ran.said().contains(":2:"),
        "{ran}"
    );
}

#[test]
fn a_root_folder_in_use_is_refused() {
    let scene = Scene::set();
    let first = scene.daemon();
    let second =
        DaemonOptions { name: "second".into(), root: Some(first.root.clone()), ..Default::default() };
    let ran = Daemon::fails_to_start(&scene, second).says(&first.root.display().to_string());
    ran.says("another instance running?").says("a folder of its own (--root)");
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    first.build(&context).run().ok();
    first.stop();
}

#[test]
fn a_daemon_without_the_rights_that_steps_need_says_which() {
    let scene = Scene::set();
    let through = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"].map(Into::into).to_vec();
    let ran = Daemon::fails_to_start(&scene, DaemonOptions { through, ..Default::default() });
    ran.says("buildkitd: CAP_SYS_ADMIN is needed")
        .says("container with --privileged")
        .says("crosskit doctor");
}

/// How a file of the daemon's is found after a disk was full or a machine fell.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Gone,
    Empty,
    Half,
    Noise,
}

impl Harm {
    fn do_to(self, file: &Path) {
        let length = std::fs::metadata(file).expect("a file").len();
        match self {
            Harm::Gone => std::fs::remove_file(file),
            Harm::Empty => std::fs::write(file, ""),
            Harm::Half => {
                std::fs::OpenOptions::new().write(true).open(file).and_then(|f| f.set_len(length / 2))
            }
            // Of the same length, so that only who reads it sees it.
            Harm::Noise => {
                let noise = (0..length).map(|at| (at * 167 + 13) as u8 ^ (at >> 8) as u8).collect::<Vec<_>>();
                std::fs::write(file, noise)
            }
        }
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// The daemon's own files below its root, as paths from there: not those of builds.
fn state_files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("list").flatten() {
            let kind = entry.file_type().expect("a kind");
            match entry.file_name().to_str() {
                Some("fs") => {}
                _ if kind.is_dir() => folders.push(entry.path()),
                _ if kind.is_file() => {
                    found.push(entry.path().strip_prefix(root).expect("below it").to_path_buf())
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_half_written_state_is_put_right_or_told_and_builds_work() {
    let scene = Scene::set();
    let dockerfile = "FROM BASE AS a\nRUN --mount=type=cache,target=/m cat /m/n > /before; echo was-here > /m/n\n\
         COPY file /\nRUN cat /file > /made\nFROM scratch\nCOPY --from=a /made /\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile), ("file", "of the client\n")]);
    let root = scene.path("good");
    let daemon = scene.daemon_with(DaemonOptions { root: Some(root.clone()), ..Default::default() });
    let archive = format!("type=oci,dest={}", scene.path("x.tar").display());
    daemon.build(&context).output(&archive).run().ok();
    daemon.stop();
    let files = state_files(&root);
    let like = |part: &str| -> Vec<PathBuf> {
        let found: Vec<_> =
            files.iter().filter(|file| file.to_str().is_some_and(|f| f.contains(part))).cloned().collect();
        assert!(!found.is_empty(), "nothing like {part} in {files:?}");
        found
    };
    // Which files, what becomes of each of them, and what the daemon says in its log, if it is a loss.
    let lost = "earlier results will be built again";
    let cases: [(&str, Harm, Option<&str>); 13] = [
        ("metadata.db", Harm::Gone, Some(lost)),
        ("metadata.db", Harm::Empty, None),
        ("metadata.db", Harm::Half, Some(lost)),
        ("metadata.db", Harm::Noise, Some(lost)),
        ("workerid", Harm::Half, None),
        ("workerid", Harm::Empty, None),
        ("buildkitd.lock", Harm::Noise, None),
        ("content/blobs", Harm::Gone, None),
        ("content/blobs", Harm::Half, None),
        ("content/blobs", Harm::Noise, Some("stored content was damaged")),
        ("checksums", Harm::Half, None),
        ("checksums", Harm::Noise, None),
        ("", Harm::Half, Some(lost)),
    ];
    for (number, (part, harm, told)) in cases.into_iter().enumerate() {
        let name = format!("case{number}");
        let root = scene.path(&name).join("root");
        std::fs::create_dir_all(scene.path(&name)).expect("create a folder");
        let mut copy = std::process::Command::new("cp");
        crosskit_multiarch::Ran::run(copy.arg("-a").arg(scene.path("good")).arg(&root)).ok();
        like(part).iter().for_each(|file| harm.do_to(&root.join(file)));
        let mut daemon = scene.daemon_with(DaemonOptions { name: name.clone(), ..Default::default() });
        for round in ["first", "second"] {
            let out = scene.path(&format!("{name}-{round}"));
            let ran = daemon.build(&context).into(&out).run();
            assert!(ran.status.success(), "{part:?} {harm:?}, {round}: {ran}\n{}", daemon.log());
            let made = std::fs::read_to_string(out.join("made")).expect("the result");
            assert_eq!(made, "of the client\n", "{part:?} {harm:?}, {round}");
            assert!(round == "first" || ran.said().contains("CACHED"), "{part:?} {harm:?}: {ran}");
        }
        if let Some(told) = told {
            daemon.wait_for_log(told);
        }
        daemon.stop();
        std::fs::remove_dir_all(scene.path(&name)).expect("make room");
    }
}
