//! What a request can say beside the Dockerfile: contexts, named contexts, options, the epoch; and what is said where it
//! fails. Each test is a table: rows are requests to one daemon.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "dockerfile/web.rs"]
mod web;

use crosskit_multiarch::{Buildx, Daemon, Images, Ran, Scene, Tree};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use web::{MADE, Web};

/// A repository with two branches, a tag, a submodule and archives of a folder.
const SERVED: &str = r#"
git init -q -b main part; echo part > part/part; git -C part add .; git -C part commit -qm part
git clone -q --bare part part.git; git -C part.git config uploadpack.allowAnySHA1InWant true
git init -q -b main work; cd work
printf 'FROM scratch\nCOPY . /\n' > Dockerfile; echo one > f; mkdir -p dir/deep; echo deep > dir/deep/f
printf 'FROM scratch\nCOPY deep /\n' > dir/Dockerfile; printf 'FROM scratch\nCOPY f /other\n' > other.Dockerfile
git add .; git commit -qm one; git tag v1
git submodule --quiet add PART part
git commit -qm two; git checkout -qb dev/two; echo dev > dev; git add .; git commit -qm three; git checkout -q main
cd ..; git clone -q --bare work work.git; git -C work.git config uploadpack.allowAnySHA1InWant true
mkdir -p tree/sub; cd tree; printf 'FROM scratch\nCOPY . /\n' > Dockerfile; echo x > x
printf 'FROM scratch\nCOPY y /\n' > sub/Dockerfile; echo y > sub/y; touch -d 2020-02-02T02:02:02Z x sub/y Dockerfile sub/Dockerfile
tar cf ../tree.tar *; tar czf ../tree.tar.gz *; tar cjf ../tree.tar.bz2 *; tar cJf ../tree.tar.xz *
cd ..; cp tree.tar.gz timeless.tgz; printf 'FROM scratch\nCOPY context /plain\n' > plain; cp plain timeless
"#;

fn served(scene: &Scene) -> Web {
    let web = Web::start(scene.path("web"));
    web.sh(&SERVED.replace("PART", &web.url("part.git")));
    web
}

/// The files of a folder, without those of git.
fn files(folder: &Path) -> String {
    let tree = Tree::of_folder(folder);
    let files = tree.0.iter().filter(|(path, entry)| entry.kind == '0' && !path.contains(".git/"));
    files.map(|(path, _)| path.as_str()).collect::<Vec<_>>().join(" ")
}

/// Runs a build into a new folder, and gives it.
fn built(scene: &Scene, build: impl FnOnce(&Path) -> Ran) -> PathBuf {
    let out = scene.path("out");
    let _ = std::fs::remove_dir_all(&out);
    build(&out).ok();
    out
}

/// Runs buildx with something on its standard input.
fn piped(buildx: &Buildx, arguments: &[&str], input: &[u8]) -> bool {
    let mut command = buildx.command();
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait().unwrap().success()
}

#[test]
fn a_context_comes_from_anywhere() {
    let scene = Scene::set();
    let web = served(&scene);
    let daemon = scene.daemon();
    let empty = scene.context("empty", &[]);
    let whole = "Dockerfile dir/Dockerfile dir/deep/f f other.Dockerfile";
    let more = ".gitmodules Dockerfile dir/Dockerfile dir/deep/f f other.Dockerfile part/.git part/part";
    let tree = "Dockerfile sub/Dockerfile sub/y x";
    for (address, options, expected) in [
        ("work.git#v1", &[][..], whole.to_owned()),
        ("work.git", &[], more.to_owned()),
        ("work.git#dev/two", &[], more.replace("Dockerfile dir/D", "Dockerfile dev dir/D")),
        ("work.git#main:dir", &[], "f".to_owned()),
        ("work.git?ref=v1", &[], whole.to_owned()),
        ("work.git?branch=main&subdir=dir", &[], "f".to_owned()),
        ("work.git?tag=v1&subdir=dir", &[], "f".to_owned()),
        ("work.git?submodules=false", &[], more.replace(" part/.git part/part", "")),
        ("work.git#v1", &["filename=other.Dockerfile"], "other".to_owned()),
        ("tree.tar", &[], tree.to_owned()),
        ("tree.tar.gz", &[], tree.to_owned()),
        ("tree.tar.bz2", &[], tree.to_owned()),
        ("tree.tar.xz", &["filename=sub/Dockerfile", "contextsubdir=sub"], "y".to_owned()),
        ("plain", &[], "plain".to_owned()),
    ] {
        let out = built(&scene, |out| {
            let build = daemon.build(&empty).opt("context", &web.url(address)).into(out);
            let options = options.iter().map(|option| option.split_once('=').unwrap());
            options.fold(build, |build, (key, value)| build.opt(key, value)).run()
        });
        assert_eq!(files(&out), expected, "{address} {options:?}");
    }
    for (address, option) in
        [("work.git?keep-git-dir=1", "x=y"), ("work.git", "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")]
    {
        let (key, value) = option.split_once('=').unwrap();
        let context = web.url(address);
        let out = built(&scene, |out| {
            daemon.build(&empty).opt("context", &context).opt(key, value).into(out).run()
        });
        assert!(out.join(".git/HEAD").exists(), "{address}");
    }
    for (address, why) in [
        ("work.git?tag=v1&checksum=deadbeef", "expected checksum to match deadbeef"),
        ("work.git?ref=v1&colour=red", "unexpected query \"colour\""),
        (
            "work.git#main:nowhere",
            "invalid subdir nowhere: failed to lstat \"nowhere\": no such file or directory",
        ),
        ("nothing", "invalid response status 404"),
    ] {
        daemon.build(&empty).opt("context", &web.url(address)).run().fails().says(why);
    }

    let buildx = Buildx::create(&scene, &daemon);
    let local = scene.context("local", &[("f", "x"), ("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let archive = std::fs::read(scene.path("web/tree.tar.gz")).unwrap();
    let output = format!("type=local,dest={}", scene.path("out").display());
    let (local, remote) = (local.to_str().unwrap(), web.url("work.git?ref=v1"));
    for (arguments, input, expected) in [
        (&[local][..], &b""[..], "Dockerfile f"),
        (&["-f", "-", local], b"FROM scratch\nCOPY f /g\n", "g"),
        (&["-"], b"FROM scratch\nCOPY <<a /h\na\n", "h"),
        (&["-"], &archive, tree),
        (&["-f", "-", &remote], b"FROM scratch\nCOPY other.Dockerfile /\n", "other.Dockerfile"),
    ] {
        let _ = std::fs::remove_dir_all(scene.path("out"));
        let all = [&["build", "--output", &output], arguments].concat();
        assert!(piped(&buildx, &all, input), "{arguments:?}");
        assert_eq!(files(&scene.path("out")), expected, "{arguments:?}");
    }
    daemon.stop();
}

#[test]
fn named_contexts_take_the_place_of_stages_and_images() {
    let scene = Scene::set();
    let web = served(&scene);
    let daemon = scene.daemon();
    let layout = scene.path("layout");
    let text = "FROM BASE\nENV WORD=layout\nWORKDIR /here\n";
    let made = scene.context("made", &[("Dockerfile", text)]);
    daemon.build(&made).output(&format!("type=oci,tar=false,dest={}", layout.display())).run().ok();
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let in_layout = format!("oci-layout://store@{}", index["manifests"][0]["digest"].as_str().unwrap());
    let other = scene.context("other", &[("a", ""), ("b/c", ""), (".dockerignore", "a\n")]);
    let lent = format!("other={}", other.display());
    let store = format!("store={}", layout.display());
    let (git, http, image) =
        (web.url("work.git#v1:dir"), web.url("plain"), format!("docker-image://{}", scene.base()));
    let copies = "FROM scratch\nCOPY --from=named . /\n";
    let stage = "FROM no/such:image AS named\nRUN false\nFROM scratch\nCOPY --from=named . /\n";
    let stands = "FROM named\nRUN read base < /etc/base; echo \"$WORD $PWD $base\" > /f\nFROM scratch\nCOPY --from=0 /f /\n";
    let by_platform = "FROM no/such:tag\nRUN read base < /etc/base; echo \"$WORD $PWD $base\" > /f\nFROM scratch\nCOPY --from=0 /f /\n";
    for (dockerfile, name, context, platform, expected) in [
        (copies, "named", "local:other", "", ".dockerignore b/c"),
        (stage, "named", "local:other", "", ".dockerignore b/c"),
        (copies, "named", &git, "", "Dockerfile deep/f"),
        (copies, "named", &http, "", "context"),
        (copies, "named", "docker-image://scratch", "", ""),
        (stands, "named", &image, "", "f: / amd64"),
        (stands, "named", &in_layout, "", "f:layout /here amd64"),
        (by_platform, "no/such:tag", &image, "linux/arm64", "f: / arm64"),
        (by_platform, "no/such:tag::linux/arm64", &image, "linux/arm64", "f: / arm64"),
        (by_platform, "docker.io/no/such:tag", &image, "", "failed to resolve"),
        (by_platform, "no/such:tag::linux/arm64", &image, "linux/amd64", "failed to resolve"),
        (copies, "named", "local:nobody", "", "no access allowed to dir \"nobody\""),
        (copies, "named", "input:nobody", "", "invalid input nobody for named"),
        (copies, "named", "target:stage", "", "unsupported context source target for named"),
        (copies, "named", "oci-layout://store", "", "has no digest"),
        (copies, "named", "nowhere", "", "invalid context specifier nowhere for named"),
    ] {
        let context_folder = scene.context("c", &[("Dockerfile", dockerfile)]);
        let out = scene.path("out");
        let _ = std::fs::remove_dir_all(&out);
        let build =
            daemon.build(&context_folder).opt(&format!("context:{name}"), context).opt("platform", platform);
        let build = build.argument("--local").argument(&lent).argument("--oci-layout").argument(&store);
        let ran = build.into(&out).run();
        let row = format!("{name}={context} {platform}");
        if !ran.status.success() {
            assert!(ran.said().contains(expected), "{row}: {ran}");
            continue;
        }
        let found = match expected.split_once(':') {
            Some((file, _)) => {
                format!("{file}:{}", std::fs::read_to_string(out.join(file)).unwrap().trim_end())
            }
            None => files(&out),
        };
        assert_eq!(found, expected, "{row}");
    }
    let ran = daemon
        .build(&scene.context("c", &[("Dockerfile", copies)]))
        .opt("context:named", "local:nobody")
        .run();
    ran.fails().says("#2 [context named] load .dockerignore").says("#2 ERROR: ");
    daemon.stop();
}

/// Whether a step was found in the cache.
fn is_cached(ran: &Ran, name: &str) -> bool {
    let said = ran.said();
    let line = said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name}: {ran}"));
    said.contains(&format!("{} CACHED", line.split(' ').next().unwrap()))
}

/// Requests of one option, which a step sees.
fn seen(scene: &Scene, daemon: &Daemon, script: &str, arguments: &[&str]) -> Result<String, Ran> {
    let text = format!("FROM BASE\nRUN {{ {script}; }} > /seen\nFROM scratch\nCOPY --from=0 /seen /\n");
    let context = scene.context("seen", &[("Dockerfile", &text)]);
    let out = scene.path("out");
    let mut build = daemon.build(&context).into(&out);
    for argument in arguments {
        build = build.argument(argument);
    }
    let ran = build.run();
    if !ran.status.success() {
        return Err(ran);
    }
    Ok(std::fs::read_to_string(out.join("seen")).unwrap().trim_end().to_owned())
}

#[test]
fn options_are_what_steps_see() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let memory =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
    for (options, flags, script, expected) in [
        (
            &["ulimit=nofile=100:200"][..],
            &["--ulimit", "nofile=100:200"][..],
            "ulimit -Sn; ulimit -Hn",
            "100\n200",
        ),
        (&["shm-size=1048576"], &["--shm-size", "1m"], "df -k /dev/shm | awk 'END{print $2}'", "1024"),
        (
            &["add-hosts=One.example=192.0.2.1,two=::1"],
            &["--add-host", "One.example=192.0.2.1", "--add-host", "two:::1"],
            "tail -2 /etc/hosts",
            "192.0.2.1\tone.example\n::1\ttwo",
        ),
        (&["force-network-mode=none"], &["--network", "none"], "ls /sys/class/net", "lo"),
        (&["hostname=mine"], &[], "hostname", "mine"),
        (&["hostname="], &[], "hostname", "buildkitsandbox"),
        (
            &["build-arg:BUILDKIT_SANDBOX_HOSTNAME=arg", "hostname=no"],
            &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=arg"],
            "hostname",
            "arg",
        ),
        (&["memory=67108864", "memswap=-1", "cpushares=512", "cpusetcpus=0, 0-0,"], &[], memory, "67108864"),
        (
            &["build-arg:HTTP_PROXY=http://p", "build-arg:no_proxy=n"],
            &["--build-arg", "HTTP_PROXY=http://p", "--build-arg", "no_proxy=n"],
            "env | grep -i proxy | sort",
            "HTTP_PROXY=http://p\nNO_PROXY=n\nhttp_proxy=http://p\nno_proxy=n",
        ),
    ] {
        let arguments: Vec<&str> = options.iter().flat_map(|option| ["--opt", option]).collect();
        let seen =
            seen(&scene, &daemon, script, &arguments).unwrap_or_else(|ran| panic!("{options:?}: {ran}"));
        assert_eq!(seen, expected, "{options:?}");
        if !flags.is_empty() {
            let (folder, output) =
                (scene.path("seen"), format!("type=local,dest={}", scene.path("x").display()));
            let all =
                [&["build", "--no-cache", "--output", &output], flags, &[folder.to_str().unwrap()]].concat();
            buildx.run(&all).ok();
            let seen = std::fs::read_to_string(scene.path("x/seen")).unwrap();
            assert_eq!(seen.trim_end(), expected, "{flags:?}");
        }
    }
    let parent = seen(&scene, &daemon, "cat /proc/self/cgroup", &["--opt", "cgroup-parent=/crosskit-parent"]);
    assert!(parent.unwrap().contains("/crosskit-parent/"));
    // Proxies are not part of what a step is cached by; whatever else it may see is.
    seen(&scene, &daemon, "env", &[]).unwrap();
    for option in ["build-arg:FTP_PROXY=x", "hostname=other"] {
        let context = scene.path("seen");
        let (key, value) = option.split_once('=').unwrap();
        let ran = daemon.build(&context).opt(key, value).run().ok();
        assert_eq!(is_cached(&ran, "] RUN {"), key.ends_with("PROXY"), "{option}: {ran}");
    }
    for (option, why) in [
        ("platform=linux/", "failed to parse target platform linux/"),
        ("multi-platform=maybe", "invalid boolean value for multi-platform: maybe"),
        ("image-resolve-mode=never", "invalid image-resolve-mode: never"),
        ("force-network-mode=mesh", "invalid netmode mesh"),
        ("force-network-mode=host", "network.host is not allowed"),
        ("add-hosts=one", "failed to parse additional hosts: invalid key-value pair one"),
        ("add-hosts=one=1.2", "failed to parse additional hosts: failed to parse IP 1.2"),
        ("shm-size=1m", "failed to parse shm size: strconv.ParseInt: parsing \"1m\": invalid syntax"),
        ("ulimit=colour=1", "failed to parse ulimit: invalid ulimit type: colour"),
        ("ulimit=nofile=3:2", "ulimit soft limit must be less than or equal to hard limit: 3 > 2"),
        ("memory=-1", "invalid memory value: -1: must be > 0"),
        ("memswap=0", "invalid memswap value: 0: must be -1 (unlimited) or > 0"),
        ("cpushares=-1", "invalid cpushares value: -1: strconv.ParseUint: parsing \"-1\": invalid syntax"),
        ("cpuperiod=x", "invalid cpuperiod value: x: strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("cpuperiod=0", "invalid cpuperiod value: 0: must be > 0"),
        ("cpusetcpus=3-1", "invalid cpusetcpus value: 3-1: invalid cpuset range \"3-1\""),
        ("cpusetmems=1,a", "invalid cpusetmems value: 1,a: invalid cpuset element \"a\""),
        ("cpusetcpus=0-9999", "cpuset range \"0-9999\" exceeds maximum 8192"),
        ("build-arg:BUILDKIT_DOCKERFILE_CHECK=all", "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK"),
        ("build-arg:SOURCE_DATE_EPOCH=soon", "invalid SOURCE_DATE_EPOCH: soon"),
        ("frontend.caps=colours", "unsupported frontend capability colours"),
    ] {
        let ran = seen(&scene, &daemon, "true", &["--opt", option]).unwrap_err();
        assert!(ran.said().contains(why), "{option}: {ran}");
    }
    daemon.stop();
}

#[test]
fn some_stages_or_all_are_built_again() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let text = "FROM BASE AS one\nRUN echo 1 > /1\nFROM BASE AS Two\nRUN echo 2 > /2\nFROM scratch\nCOPY --from=one /1 /\nCOPY --from=Two /2 /\n";
    let context = scene.context("c", &[("Dockerfile", text)]);
    daemon.build(&context).run().ok();
    for (stages, cached) in [
        (None, [true, true]),
        (Some("two"), [true, false]),
        (Some("x,ONE"), [false, true]),
        (Some(""), [false; 2]),
    ] {
        let build = daemon.build(&context);
        let ran = match stages {
            Some(stages) => build.opt("no-cache", stages).run().ok(),
            None => build.run().ok(),
        };
        assert_eq!(
            ["[one 2/2] RUN", "[two 2/2] RUN"].map(|name| is_cached(&ran, name)),
            cached,
            "{stages:?}: {ran}"
        );
    }
    // One platform, asked for twice, is one folder.
    let out = built(&scene, |out| {
        daemon.build(&context).platforms(&["linux/amd64", "linux/amd64"]).into(out).run()
    });
    assert_eq!(files(&out), "linux_amd64/1 linux_amd64/2");
    daemon.stop();
}

#[test]
fn the_epoch_is_told_in_many_ways() {
    let scene = Scene::set();
    let web = served(&scene);
    let daemon = scene.daemon();
    let (git, archive) = (web.url("work.git#v1"), web.url("timeless.tgz"));
    let (plain, timeless) = (web.url("plain"), web.url("timeless"));
    let body = "FROM BASE\nARG SOURCE_DATE_EPOCH\nRUN echo \"$SOURCE_DATE_EPOCH\" > /seen\n";
    let (stage, default) =
        (format!("FROM scratch AS from\nADD {plain} /\n{body}"), format!("ARG SOURCE_DATE_EPOCH=99\n{body}"));
    let arg = "build-arg:SOURCE_DATE_EPOCH";
    // When the files of the archive were changed last.
    const CHANGED: i64 = 1_580_608_922;
    for (text, options, of_client, expected) in [
        (body, &[(arg, "5")][..], "", Some(5)),
        (body, &[], "7", Some(7)),
        (body, &[(arg, "")], "7", None),
        (body, &[(arg, "5")], "7", Some(5)),
        (&default, &[], "", Some(99)),
        (body, &[(arg, "context"), ("context", &git)], "", Some(MADE.1)),
        (body, &[(arg, "named"), ("context:named", &plain)], "", Some(MADE.1)),
        (body, &[(arg, "context"), ("context", &archive)], "", Some(CHANGED)),
        (body, &[(arg, "named"), ("context:named", &timeless)], "", None),
        (body, &[(arg, "context")], "", None),
        (body, &[(arg, "named"), ("context:named", &git)], "", Some(MADE.1)),
        (body, &[(arg, "named"), ("context:named", &archive)], "", Some(CHANGED)),
        (&stage, &[(arg, "from")], "", Some(MADE.1)),
    ] {
        let context = scene.context("c", &[("Dockerfile", text)]);
        let file = scene.path("image.tar");
        let _ = std::fs::remove_file(&file);
        let output = format!("type=oci,dest={},rewrite-timestamp=true", file.display());
        // The Dockerfile is the client's whatever the context is.
        let mut build = daemon.build(&context).opt("dockerfilekey", "dockerfile").output(&output);
        for (key, value) in options {
            build = build.opt(key, value);
        }
        if !of_client.is_empty() {
            build = build.environment("SOURCE_DATE_EPOCH", of_client);
        }
        build.run().ok();
        let images = Images::archive(&file);
        let index = images.index_json();
        let image = images.json(&index["manifests"][0]);
        let seen = images.tree(&image).text("seen");
        assert_eq!(
            seen.trim(),
            expected.map(|e| e.to_string()).unwrap_or_default(),
            "{options:?} {of_client}"
        );
        let Some(expected) = expected else { continue };
        let config = images.json(&image["config"]);
        let time = match expected {
            made if made == MADE.1 => MADE.0.to_owned(),
            CHANGED => "2020-02-02T02:02:02Z".to_owned(),
            seconds => format!("1970-01-01T00:{:02}:{:02}Z", seconds / 60, seconds % 60),
        };
        for told in
            [&config["created"], &index["manifests"][0]["annotations"]["org.opencontainers.image.created"]]
        {
            assert_eq!(told, time.as_str(), "{options:?} {of_client}");
        }
        let layer = images.layer_tar(&image["layers"][1]);
        let mut layer = tar::Archive::new(&layer[..]);
        let times: Vec<_> =
            layer.entries().unwrap().map(|entry| entry.unwrap().header().mtime().unwrap()).collect();
        assert!(times.iter().all(|time| *time <= expected as u64), "{options:?}: {times:?}");
    }
    for (text, value, why) in [
        (
            "FROM BASE AS from\nADD URL /\nFROM scratch\n",
            "from",
            "SOURCE_DATE_EPOCH stage must use FROM scratch",
        ),
        (
            "FROM scratch AS from\nCOPY x /\nFROM scratch\n",
            "from",
            "source-only requirements: unsupported COPY",
        ),
        ("FROM scratch AS from\nFROM scratch\n", "from", "must contain exactly one remote ADD"),
        ("FROM scratch\n", "nobody", "invalid SOURCE_DATE_EPOCH: nobody"),
    ] {
        let context = scene.context("c", &[("Dockerfile", &text.replace("URL", &plain))]);
        daemon.build(&context).opt(arg, value).run().fails().says(why);
    }
    daemon.stop();
}

#[test]
fn a_failure_shows_its_place_and_its_reason_in_both_clients() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let missing = scene.registry.reference("nothing:here");
    let base = scene.base();
    for (name, files, platforms, lines) in [
        (
            "a step of one platform",
            &[(
                "Dockerfile",
                // The one that fails waits for the other: both have begun.
                "FROM BASE AS made\nRUN --mount=type=cache,target=/met read a < /etc/base; echo on $a; \\\n\
                 if test $a = amd64; then touch /met/CLIENT; else until test -e /met/CLIENT; do sleep 0.01; done; exit 3; fi\n",
            )][..],
            "linux/amd64,linux/arm64",
            &[
                "[linux/amd64 made 2/2] RUN --mount=type=cache,target=/met read a",
                "[linux/arm64 made 2/2] RUN --mount=type=cache,target=/met read a",
                "on arm64",
                "   2 | >>> RUN --mount=type=cache,target=/met read a",
                "exit code: 3",
            ][..],
        ),
        (
            "a step of the only stage under QEMU",
            &[(
                "Dockerfile",
                "FROM BASE AS made\nRUN read a < /etc/base; echo on $a; test $a = amd64 || exit 3\n",
            )],
            "linux/amd64,linux/arm64",
            &["[linux/arm64 2/2] RUN read a", "on arm64", "   2 | >>> RUN read a", "exit code: 3"],
        ),
        (
            "a step of the only stage, natively",
            &[(
                "Dockerfile",
                "FROM BASE AS made\nRUN read a < /etc/base; echo on $a; test $a = arm64 || exit 3\n",
            )],
            "linux/amd64,linux/arm64",
            &["[linux/amd64 2/2] RUN read a", "on amd64", "   2 | >>> RUN read a", "exit code: 3"],
        ),
        (
            "a user that nobody knows",
            &[("Dockerfile", "FROM BASE\nUSER nobody-knows\nRUN true\n")],
            "",
            &[
                "Dockerfile:3",
                "process \"/bin/sh -c true\" did not complete successfully: unable to find user nobody-knows: no matching entries in passwd file",
            ],
        ),
        (
            "a file that is ignored",
            &[
                ("Dockerfile", "FROM scratch\nCOPY f* a /x/\n"),
                (".dockerignore", "a\nf*\n"),
                ("a", ""),
                ("f1", ""),
            ],
            "",
            &[
                "CopyIgnoredFile: Attempting to Copy file \"a\" that is excluded by .dockerignore (line 2)",
                "CopyIgnoredFile: Attempting to Copy file \"f*\" that is excluded by .dockerignore (line 2)",
                "[1/1] COPY f* a /x/",
                "\"/a\": not found",
                "   2 | >>> COPY f* a /x/",
            ],
        ),
        (
            "a stage with a slip in its name",
            &[("Dockerfile", "FROM BASE AS build\nFROM scratch\nCOPY --from=biuld /x /\n")],
            "",
            &["Dockerfile:3", "(did you mean build?)"],
        ),
        (
            "a frontend that is not there",
            &[("Dockerfile", "# syntax=MISSING\nFROM BASE\n")],
            "",
            &[
                "resolve image config for docker-image://MISSING",
                "   1 | >>> # syntax=MISSING",
                "MISSING: not found",
            ],
        ),
        (
            "a frontend that is none",
            &[("Dockerfile", "# syntax=BASE\nFROM BASE\n")],
            "",
            &["   1 | >>> # syntax=BASE", "failed to solve: exit code: "],
        ),
        (
            "a frontend without a proper name",
            &[("Dockerfile", "# syntax=No\nFROM BASE\n")],
            "",
            &["   1 | >>> # syntax=No", "invalid context name No: invalid reference format"],
        ),
        (
            "a flag with a slip",
            &[("Dockerfile", "FROM BASE\nCOPY --form=x a \\\n  /b\n")],
            "",
            &[
                "   2 | >>> COPY --form=x a \\",
                "   3 | >>>   /b",
                "unknown flag: --form (did you mean from?)",
            ],
        ),
    ] {
        let context = |client: &str| {
            let filled = |text: &str| text.replace("MISSING", &missing).replace("CLIENT", client);
            let files: Vec<(&str, String)> = files.iter().map(|(path, text)| (*path, filled(text))).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
            scene.context(&format!("{client}-{}", name.replace(' ', "-")), &files)
        };
        let (ours, theirs) = (context("buildctl"), context("buildx"));
        let mut build = daemon.build(&ours);
        let mut arguments = vec!["build"];
        if !platforms.is_empty() {
            build = build.opt("platform", platforms);
            arguments.extend(["--platform", platforms]);
        }
        arguments.push(theirs.to_str().unwrap());
        for ran in [build.run().fails(), buildx.run(&arguments).fails()] {
            for line in lines {
                let line = line.replace("MISSING", &missing).replace("BASE", &base);
                assert!(ran.said().contains(&line), "{name}: no {line:?} in {ran}");
            }
        }
    }
    daemon.stop();
}

#[test]
fn questions_are_answered_on_standard_output_with_an_exit_code() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let good = "# made makes it\nFROM BASE AS made\nARG WORD=x\nRUN --mount=type=secret,id=key,required echo $WORD\n";
    let slip = "FROM BASE as Made\n";
    let strict = "# check=error=true\nFROM BASE as Made\n";
    let broken = "FROM BASE\nRUNN x\n";
    for (text, call, code, expected) in [
        (good, "check", 0, "Check complete, no warnings found."),
        (slip, "check", 1, "WARNING: StageNameCasing"),
        (slip, "check,format=json", 1, "\"ruleName\": \"StageNameCasing\""),
        (strict, "check", 1, "WARNING: FromAsCasing"),
        (broken, "check", 1, "unknown instruction: RUNN (did you mean RUN?)"),
        (broken, "check,format=json", 1, "\"buildError\""),
        (good, "outline", 0, "WORD        x"),
        (good, "outline,format=json", 0, "\"required\": true"),
        (good, "targets", 0, "made (default)"),
        (good, "targets,format=json", 0, "\"description\": \"makes it\""),
        (broken, "outline", 1, "unknown instruction: RUNN (did you mean RUN?)"),
        (broken, "targets", 1, "Dockerfile:2"),
        (good, "subrequests.describe", 0, "List available subrequest types"),
        (good, "colours", 1, "frontend.colours"),
    ] {
        let context = scene.context("c", &[("Dockerfile", text)]);
        let ran = buildx.run(&["build", "--call", call, context.to_str().unwrap()]);
        let told = if code == 0 { &ran.stdout } else { &ran.said() };
        assert_eq!(ran.status.code(), Some(code), "{call}: {ran}");
        assert!(told.contains(expected), "{call}: no {expected:?} in {ran}");
    }
    // Our client prints the text.
    let context = scene.context("c", &[("Dockerfile", slip)]);
    let ask = |id: &str| daemon.build(&context).opt("requestid", id).run_for_metadata();
    let (ran, metadata) = ask("frontend.lint");
    assert!(ran.stdout.contains("WARNING: StageNameCasing"), "{ran}");
    assert_eq!(metadata, serde_json::json!({}));
    let (ran, _) = ask("frontend.outline");
    assert!(ran.stdout.starts_with("TARGET:"), "{ran}");
    assert!(ran.stderr.contains("StageNameCasing"), "who asks for an outline is warned as well: {ran}");
    daemon
        .build(&context)
        .opt("requestid", "frontend.colours")
        .run()
        .fails()
        .says("unsupported request frontend.colours");
    daemon.stop();
}
