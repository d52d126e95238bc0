//! `buildctl` and `buildkitd` as scripts use them: addresses, certificates, standard input, files, variables.

#[path = "farm/certificates.rs"]
mod certificates;

use certificates::Authority;
use crosskit_llb::{Builder, Constraints, Exec, ImageSource, LocalSource};
use crosskit_multiarch::{
    Daemon, DaemonOptions, Ran, Running, Scene, Tree, mounts_below, processes_of, until,
};
use prost::Message;
use serde_json::Value;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn buildctl(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = Command::new(scene.programs.path("buildctl"));
    command.args(arguments);
    command
}

/// Runs a command with something on its standard input.
fn told(command: &mut Command, input: &[u8]) -> std::process::Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start it");
    child.stdin.take().expect("its standard input").write_all(input).expect("write to it");
    child.wait_with_output().expect("its end")
}

/// A graph that copies a file which the client lends through a step.
fn graph(scene: &Scene) -> Vec<u8> {
    let mut builder = Builder::new();
    let image = ImageSource { reference: scene.base(), ..ImageSource::default() };
    let root = Some(builder.image(&image, Constraints::default()));
    let lent =
        builder.local(&LocalSource { name: "lent".into(), ..LocalSource::default() }, Constraints::default());
    let mount = crosskit_llb::ExecMount { target: "/lent".into(), source: Some(lent), ..Default::default() };
    let args = ["/bin/sh", "-c", "cp /lent/file /copied"].map(String::from).to_vec();
    let exec = Exec { root, args, cwd: "/".into(), mounts: vec![mount], ..Exec::default() };
    let made = builder.exec(exec, Constraints::default()).root;
    builder.graph(made).expect("a graph").to_definition().encode_to_vec()
}

#[test]
fn a_graph_on_standard_input_is_built_with_what_is_lent() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let lent = scene.context("lent", &[("file", "of the client")]);
    let out = scene.path("out");
    let address = daemon.address();
    let (local, output) = (format!("lent={}", lent.display()), format!("type=local,dest={}", out.display()));
    let arguments = ["--addr", &address, "build", "--progress=plain", "--local", &local, "--output", &output];
    let ran = told(&mut buildctl(&scene, &arguments), &graph(&scene));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(Tree::of_folder(&out).text("copied"), "of the client");
    // Again from the cache, and once more on demand.
    let ran = told(&mut buildctl(&scene, &arguments), &graph(&scene));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("CACHED"));
    let anew = [&arguments[..], &["--no-cache"]].concat();
    let ran = told(&mut buildctl(&scene, &anew), &graph(&scene));
    assert!(ran.status.success() && !String::from_utf8_lossy(&ran.stderr).contains("CACHED"));
    // What is not lent is named.
    let ran = told(&mut buildctl(&scene, &["--addr", &address, "build", "--progress=plain"]), &graph(&scene));
    let said = String::from_utf8_lossy(&ran.stderr).to_string();
    assert!(!ran.status.success() && said.contains("lent"), "{said}");
    daemon.stop();
}

#[test]
fn files_of_a_build_hold_what_they_say() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context =
        scene.context("c", &[("Dockerfile", "FROM BASE\nRUN echo said-by-a-step > /made && cat /made\n")]);
    let file = |name: &str| scene.path(name);
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let (trace, metrics, key) = (file("trace.json"), file("metrics.json"), file("ref"));
    daemon
        .build(&context)
        .argument(&flag("trace", &trace))
        .argument(&flag("debug-json-cache-metrics", &metrics))
        .argument(&flag("ref-file", &key))
        .run()
        .ok();
    let lines = std::fs::read_to_string(&trace).expect("a trace");
    let parts: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("an object in each line")).collect();
    let names = parts.iter().flat_map(|part| part["vertexes"].as_array().cloned().unwrap_or_default());
    let names: Vec<String> =
        names.map(|vertex| vertex["name"].as_str().unwrap_or_default().to_string()).collect();
    assert!(names.iter().any(|name| name.contains("RUN echo said-by-a-step")), "{names:?}");
    // What was not cached, each by its name, and then numbers.
    let numbers = std::fs::read_to_string(&metrics).expect("metrics");
    let (missed, numbers) = numbers.trim_end().rsplit_once('\n').expect("two lines and more");
    assert!(missed.contains("cache miss: [2/2] RUN echo said-by-a-step"), "{missed}");
    let numbers: Value = serde_json::from_str(numbers).expect("JSON");
    assert_eq!((&numbers["user_total"], &numbers["user_cached"]), (&2.into(), &0.into()), "{numbers}");
    let key = std::fs::read_to_string(&key).expect("a name");
    daemon.buildctl(&["debug", "logs", key.trim()]).ok().says("said-by-a-step");

    // An image in a folder of the client stands for another one.
    let layout = scene.path("layout");
    daemon.build(&context).output(&format!("type=oci,tar=false,dest={}", layout.display())).run().ok();
    let index: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).expect("index")).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    let other = scene.context("other", &[("Dockerfile", "FROM made\nRUN cat /made > /again\n")]);
    let out = scene.path("out");
    daemon
        .build(&other)
        .argument("--oci-layout")
        .argument(&format!("stored={}", layout.display()))
        .opt("context:made", &format!("oci-layout://stored@{digest}"))
        .into(&out)
        .run()
        .ok();
    assert_eq!(Tree::of_folder(&out).text("again"), "said-by-a-step\n");
    daemon.stop();
}

/// A folder with certificates under the names that `--tlsdir` looks for.
fn tls_folder(scene: &Scene, name: &str, own: [&Path; 3], names: [&str; 3]) -> PathBuf {
    let folder = scene.path(name);
    std::fs::create_dir_all(&folder).expect("create a folder");
    for (file, name) in own.iter().zip(names) {
        std::fs::copy(file, folder.join(name)).expect("copy a certificate");
    }
    folder
}

#[test]
fn certificates_of_the_client_and_of_the_daemon_count() {
    let scene = Scene::set();
    let authority = Authority::new(&scene.path("authority"));
    let path = |file: &Option<PathBuf>| file.clone().expect("a file");
    let own = authority.issue("daemon", 2);
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    let arguments = vec![
        format!("--addr=tcp://127.0.0.1:{port}"),
        format!("--tlscert={}", path(&own.cert).display()),
        format!("--tlskey={}", path(&own.key).display()),
        format!("--tlscacert={}", path(&own.ca).display()),
    ];
    let daemon = scene.daemon_with(DaemonOptions { arguments, ..Default::default() });
    let mine = authority.issue("client", 2);
    let files = [path(&mine.ca), path(&mine.cert), path(&mine.key)];
    let files = [files[0].as_path(), files[1].as_path(), files[2].as_path()];
    let address = format!("tcp://127.0.0.1:{port}");
    let ask = |more: &[&str]| {
        Ran::run(&mut buildctl(&scene, &[&["--addr", &address], more, &["debug", "workers"]].concat()))
    };
    for (name, names) in [("a", ["ca.pem", "cert.pem", "key.pem"]), ("b", ["ca.crt", "tls.crt", "tls.key"])] {
        let folder = tls_folder(&scene, name, files, names).display().to_string();
        ask(&["--tlsdir", &folder]).ok().says("linux/amd64");
        ask(&["--tlsdir", &folder, "--tlsservername", "worker.test"]).ok();
        ask(&["--tlsdir", &folder, "--tlsservername", "elsewhere.test"]).fails().says("elsewhere.test");
    }
    let flags = ["--tlscacert", "--tlscert", "--tlskey"].map(String::from);
    let each: Vec<String> =
        flags.into_iter().zip(files).flat_map(|(flag, file)| [flag, file.display().to_string()]).collect();
    ask(&each.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    // Without its own certificate the client is sent away; without TLS nobody is heard.
    ask(&each[..2].iter().map(String::as_str).collect::<Vec<_>>()).fails();
    ask(&[]).fails();
    daemon.stop();
}

#[test]
fn sockets_that_are_handed_over_have_tls_where_the_daemon_has_a_certificate() {
    let scene = Scene::set();
    let authority = Authority::new(&scene.path("authority"));
    let path = |file: &Option<PathBuf>| file.clone().expect("a file");
    let own = authority.issue("daemon", 2);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    // For the shell, which has one digit for a descriptor.
    // SAFETY: nothing else is there yet; what is put there is never closed.
    let mut ninth = unsafe { std::os::fd::OwnedFd::from_raw_fd(9) };
    rustix::io::dup2(&listener, &mut ninth).expect("hand it over");
    let through = ["sh", "-c", "exec 3<&9; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"];
    let arguments = vec![
        "--addr=fd://".to_string(),
        format!("--tlscert={}", path(&own.cert).display()),
        format!("--tlskey={}", path(&own.key).display()),
    ];
    let through = through.iter().map(Into::into).collect();
    let daemon = scene.daemon_with(DaemonOptions { arguments, through, ..Default::default() });
    let address = format!("tcp://127.0.0.1:{port}");
    let ca = path(&own.ca).display().to_string();
    let ask = |more: &[&str]| {
        Ran::run(&mut buildctl(
            &scene,
            &[&["--addr", &address, "--timeout=5"], more, &["debug", "info"]].concat(),
        ))
    };
    ask(&["--tlscacert", &ca]).ok().says("BuildKit");
    ask(&[]).fails();
    std::mem::forget(ninth);
    daemon.stop();
}

#[test]
fn a_service_manager_hears_that_the_daemon_is_ready_and_that_it_stops() {
    let scene = Scene::set();
    let socket = scene.path("notify");
    let listener = UnixDatagram::bind(&socket).expect("a socket");
    listener.set_read_timeout(Some(LONG)).expect("a limit");
    let environment = vec![("NOTIFY_SOCKET".to_string(), socket.display().to_string())];
    let daemon = scene.daemon_with(DaemonOptions { environment, ..Default::default() });
    let hear = || {
        let mut heard = [0; 64];
        let length = listener.recv(&mut heard).expect("a word of the daemon");
        String::from_utf8_lossy(&heard[..length]).to_string()
    };
    assert_eq!(hear(), "READY=1");
    daemon.stop();
    assert_eq!(hear(), "STOPPING=1");
}

#[test]
fn clients_wait_for_a_daemon_and_not_for_ever() {
    let scene = Scene::set();
    let address = format!("unix://{}", scene.path("daemon/buildkitd.sock").display());
    let waiting = ["--addr", &address, "--wait", "--timeout=60", "debug", "info"];
    let waiting = Running::start(&mut buildctl(&scene, &waiting));
    let daemon = scene.daemon();
    waiting.finish(LONG).ok().says("BuildKit");
    daemon.stop();
    // One that takes connections and says nothing.
    let silent = scene.path("silent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&silent).expect("a socket");
    let address = format!("unix://{}", silent.display());
    let ran = Ran::run(&mut buildctl(&scene, &["--addr", &address, "--timeout=1", "debug", "info"])).fails();
    assert!(ran.took < Duration::from_secs(20), "{ran}");
    assert!(ran.said().contains("deadline exceeded"), "{ran}");
}

/// A program in the place of `docker`, which runs here what it shall run in a container.
fn container_program(scene: &Scene, daemon: &Daemon) -> PathBuf {
    let folder = scene.path("bin");
    std::fs::create_dir_all(&folder).expect("create a folder");
    let program = folder.join("docker");
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2\" = 'exec -i' ] || {{ echo \"unknown: $*\" >&2; exit 2; }}\n\
         [ \"$3\" = here ] || {{ echo \"Error: No such container: $3\" >&2; exit 1; }}\n\
         shift 3; program=$1; shift\nexec {}/$program --addr unix://{} \"$@\"\n",
        scene.programs.folder().display(),
        daemon.socket.display(),
    );
    std::fs::write(&program, script).expect("write a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("make it one");
    folder
}

#[test]
fn daemons_in_containers_are_reached_through_programs() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let folder = container_program(&scene, &daemon);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let context =
        scene.context("c", &[("Dockerfile", "FROM BASE\nCOPY file /\n"), ("file", "of the client")]);
    let out = scene.path("out");
    let local = |name: &str| format!("{name}={}", context.display());
    let mut command =
        buildctl(&scene, &["--addr", "docker-container://here", "build", "--frontend=dockerfile.v0"]);
    command.args(["--local", &local("context"), "--local", &local("dockerfile"), "--progress=plain"]);
    command.args(["--output", &format!("type=local,dest={}", out.display())]).env("PATH", &path);
    Ran::run(&mut command).ok();
    assert_eq!(Tree::of_folder(&out).text("file"), "of the client");
    // What the program complains about is told.
    let mut command = buildctl(&scene, &["--addr", "docker-container://elsewhere", "debug", "info"]);
    Ran::run(command.env("PATH", &path)).fails().says("No such container: elsewhere");
    let mut command = buildctl(&scene, &["--addr", "nerdctl-container://here", "debug", "info"]);
    Ran::run(command.env("PATH", folder)).fails().says("starting nerdctl");
    daemon.stop();
}

#[test]
fn the_metadata_of_a_stopped_daemon_can_be_read() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    daemon.build(&context).run().ok();
    let root = daemon.root.display().to_string();
    let dump = || Ran::run(&mut buildctl(&scene, &["debug", "dump-metadata", "--root", &root]));
    dump().fails().says("already open in another process");
    daemon.stop();
    dump().ok().says("bucket \"history\":").says("bucket \"snapshots\"");
}

/// Runs a client in a terminal of so many columns and lines, and gives all that came there.
fn in_a_terminal(command: &Command, more: &[(&str, &str)]) -> String {
    let mut line = vec!["stty cols 100 rows 40; exec".to_string()];
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        line.push(format!("'{}'", word.to_str().expect("text")));
    }
    let mut script = Command::new("script");
    script.args(["-qec", &line.join(" "), "/dev/null"]).envs(more.iter().copied()).stdin(Stdio::null());
    let ran = script.output().expect("script is on this machine: run tests/parts.sh");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    String::from_utf8_lossy(&ran.stdout).to_string()
}

#[test]
fn variables_choose_how_progress_is_shown() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    // The last line stays for longer than a terminal's picture does: a step that has ended shows none.
    let run = "RUN for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.1; done; sleep 0.5";
    let context = scene.context("c", &[("Dockerfile", &format!("FROM BASE\n{run}\n"))]);
    let (address, local) = (daemon.address(), format!("={}", context.display()));
    let (first, second) = (format!("context{local}"), format!("dockerfile{local}"));
    let arguments = [
        "--addr",
        &address,
        "build",
        "--frontend=dockerfile.v0",
        "--no-cache",
        "--local",
        &first,
        "--local",
        &second,
    ];
    let command = buildctl(&scene, &arguments);
    const ESCAPE: char = '\u{1b}';
    let blue = "\u{1b}[38;5;4m";

    let shown = in_a_terminal(&command, &[]);
    assert!(shown.contains(blue) && shown.contains("line 9"), "{shown}");
    let plain = in_a_terminal(&command, &[("BUILDKIT_PROGRESS", "plain")]);
    assert!(!plain.contains(ESCAPE) && plain.contains("line 1"), "{plain}");
    let json = in_a_terminal(&command, &[("BUILDKIT_PROGRESS", "rawjson")]);
    assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{json}");
    let colourless = in_a_terminal(&command, &[("NO_COLOR", "1")]);
    assert!(colourless.contains(ESCAPE) && !colourless.contains(blue), "{colourless}");
    let red = in_a_terminal(&command, &[("BUILDKIT_COLORS", "run=light-red")]);
    assert!(!red.contains(blue), "{red}");
    // Two lines of a step's output instead of six: the first of them go as others come.
    let few = in_a_terminal(&command, &[("BUILDKIT_TTY_LOG_LINES", "2")]);
    let at_once = |shown: &str| {
        let frames = shown.split("[+] Building");
        frames.map(|frame| (1..=9).filter(|i| frame.contains(&format!("line {i}"))).count()).max()
    };
    assert!(
        at_once(&few) <= Some(2) && at_once(&shown) > Some(2),
        "{:?} {:?}",
        at_once(&few),
        at_once(&shown)
    );
    let wrong = in_a_terminal(&command, &[("TTY_DISPLAY_RATE", "50")]);
    assert!(wrong.contains("line 9"), "{wrong}");
    daemon.stop();
}

#[test]
fn steps_run_at_once_as_the_limit_says() {
    let scene = Scene::set();
    // Each waits for the other, for two seconds at most.
    let dockerfile = "FROM BASE AS base\n\
        FROM base AS a\nRUN --mount=type=cache,target=/m,id=meet \
        touch /m/a; i=0; while [ $i -lt 40 ] && ! [ -e /m/b ]; do sleep 0.05; i=$((i+1)); done; test -e /m/b\n\
        FROM base AS b\nRUN --mount=type=cache,target=/m,id=meet \
        touch /m/b; i=0; while [ $i -lt 40 ] && ! [ -e /m/a ]; do sleep 0.05; i=$((i+1)); done; test -e /m/a\n\
        FROM scratch\nCOPY --from=a /etc/passwd /1\nCOPY --from=b /etc/passwd /2\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    for (name, limit, meet) in [("one", 1, false), ("two", 2, true)] {
        let config = format!("[worker.oci]\n  max-parallelism = {limit}\n");
        let daemon = scene.daemon_with(DaemonOptions { name: name.into(), config, ..Default::default() });
        let ran = daemon.build(&context).run();
        assert_eq!(ran.status.success(), meet, "{ran}");
        daemon.stop();
    }
}

#[test]
fn prune_and_du_take_what_they_are_told() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile =
        "FROM BASE\nCOPY file /\nRUN --mount=type=cache,target=/m dd if=/dev/zero of=/m/big bs=1M count=3\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile), ("file", "x")]);
    daemon.build(&context).run().ok();
    let records = |filter: &str| {
        let ran = daemon.buildctl(&["du", "--filter", filter, "--format", "{{json .}}"]).ok();
        let all: Value = serde_json::from_str(ran.stdout.trim()).unwrap_or(Value::Null);
        all.as_array().map_or(0, Vec::len)
    };
    for kind in ["source.local", "exec.cachemount", "regular"] {
        assert!(records(&format!("type=={kind}")) > 0, "{kind}");
    }
    daemon.buildctl(&["du", "-v"]).ok().says("Type:").says("exec.cachemount").says("Usage count:");
    // Young ones stay, and so does what fits.
    daemon.buildctl(&["prune", "--all", "--keep-duration=1h"]).ok();
    daemon.buildctl(&["prune", "--all", "--keep-storage=100000"]).ok();
    assert_eq!(records("type==exec.cachemount"), 1, "{}", daemon.buildctl(&["du", "-v"]).said());
    daemon.buildctl(&["prune", "--filter", "type==exec.cachemount"]).ok();
    assert_eq!((records("type==exec.cachemount"), records("type==source.local") > 0), (0, true));
    daemon.buildctl(&["prune", "--all", "--format", "{{.ID}}"]).ok();
    until("everything to be gone", LONG, || (records("type==regular") == 0).then_some(()));
    daemon.stop();
}

#[test]
fn a_machine_is_told_whether_it_can_build() {
    let scene = Scene::set();
    let crosskit = |arguments: &[&str]| {
        let output =
            Command::new(scene.programs.path("crosskit")).args(arguments).output().expect("start it");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let root = format!("--root={}", scene.path("state").display());
    let (code, said) = crosskit(&["doctor", &root, "--format=json"]);
    assert_eq!(code, Some(0), "{said}");
    let all: Vec<Value> = serde_json::from_str(&said).expect("JSON");
    let emulators = all.iter().find(|finding| finding["check"] == "emulators").expect("something of them");
    assert!(emulators["verdict"].is_string() && emulators["found"].is_string(), "{emulators}");
    assert!(crosskit(&["--help"]).1.contains("doctor"), "a person finds it");
    assert!(!scene.path("state").exists(), "looking changes nothing");
}

/// One call with a daemon of its own, on the machine itself.
fn daemonless(scene: &Scene, arguments: &[&str]) -> Command {
    let folder = scene.path("daemonless");
    std::fs::create_dir_all(&folder).expect("create a folder");
    let config = folder.join("buildkitd.toml");
    let text = format!("[registry.\"{}\"]\n  http = true\n", scene.registry.address());
    std::fs::write(&config, text).expect("write a config");
    let mut command = Command::new(crosskit_multiarch::workspace().join("appliance/buildctl-daemonless.sh"));
    let flags = format!("--root {} --config {}", folder.join("root").display(), config.display());
    command
        .args(arguments)
        .env("BUILDKITD", scene.programs.path("buildkitd"))
        .env("BUILDCTL", scene.programs.path("buildctl"))
        .env("BUILDKITD_FLAGS", flags)
        .env("TMPDIR", &folder);
    command
}

#[test]
fn a_call_with_a_daemon_of_its_own_leaves_nothing() {
    let scene = Scene::set();
    let folder = scene.path("daemonless");
    let nothing_left = || {
        let processes = processes_of(&folder);
        assert!(processes.is_empty(), "{processes:?}");
        assert!(mounts_below(&folder).is_empty());
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).expect("list").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["buildkitd.toml", "root"]);
    };
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN echo made > /made\n")]);
    let local = |name: &str| format!("--local={name}={}", context.display());
    let (first, second) = (local("context"), local("dockerfile"));
    let build = ["build", "--progress=plain", "--frontend=dockerfile.v0", &first, &second];
    Ran::run(&mut daemonless(&scene, &build)).ok().says("RUN echo made > /made");
    nothing_left();
    // The state is where the flags say, for the next one.
    Ran::run(&mut daemonless(&scene, &build)).ok().says("CACHED");
    // A graph on the standard input, and an exit code.
    let out = scene.path("out");
    let lent = scene.context("lent", &[("file", "of the client")]);
    let (lent, output) = (format!("lent={}", lent.display()), format!("type=local,dest={}", out.display()));
    let ran =
        told(&mut daemonless(&scene, &["build", "--local", &lent, "--output", &output]), &graph(&scene));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(Tree::of_folder(&out).text("copied"), "of the client");
    Ran::run(&mut daemonless(&scene, &["debug", "nonsense"])).fails();
    nothing_left();

    // Who is told to end, ends, with all that runs.
    scene.write("c", "Dockerfile", "FROM BASE\nRUN echo it-ru''ns && /bin/sleep 987\n");
    let mut building = Running::start(&mut daemonless(&scene, &build));
    building.wait_for(" it-runs", LONG);
    building.signal(rustix::process::Signal::TERM);
    assert_eq!(building.wait(LONG).code(), Some(143));
    nothing_left();

    // A daemon that does not start is asked why.
    let mut command = daemonless(&scene, &["debug", "workers"]);
    command.env("BUILDKITD_FLAGS", "--no-such-flag").env("BUILDCTL_CONNECT_RETRIES_MAX", "5");
    Ran::run(&mut command).fails().says("could not connect to unix://").says("--no-such-flag");
}

/// Who is not root is told what a daemon without root's rights lacks, and not to become root.
#[test]
fn who_is_not_root_is_told_whether_a_daemon_without_its_rights_can_build() {
    let scene = Scene::set();
    std::fs::set_permissions(scene.folder(), PermissionsExt::from_mode(0o755)).expect("open the scene");
    let program = scene.path("crosskit");
    std::fs::copy(scene.programs.path("crosskit").canonicalize().expect("it"), &program).expect("copy it");
    let home = scene.path("home");
    std::fs::create_dir(&home).expect("create a folder");
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).expect("give it away");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["doctor", "--format=json"]).env("HOME", &home).env_remove("XDG_DATA_HOME");
    let ran = Ran::run(command.env("XDG_RUNTIME_DIR", &home));
    let all: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let of = |check: &str| {
        let found = all.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("nothing about {check}: {ran}"))
    };
    assert_eq!(
        (&of("rights")["verdict"], &of("namespaces")["verdict"]),
        (&"ok".into(), &"ok".into()),
        "{ran}"
    );
    // Nobody has ids to give: this is what makes it fail here.
    let ids = of("ids");
    assert_eq!(ids["verdict"], "fail", "{ran}");
    assert!(ids["advice"].as_str().is_some_and(|advice| advice.contains("usermod --add-subuids")), "{ran}");
    assert_eq!(ran.status.code(), Some(1), "{ran}");
    assert_eq!(
        (&of("snapshots")["verdict"], &of("sockets")["verdict"]),
        (&"ok".into(), &"ok".into()),
        "{ran}"
    );
    for check in ["id mapping", "runtime", "cgroups", "platforms"] {
        of(check);
    }
    let disk = of("disk")["found"].as_str().unwrap_or_default();
    assert!(disk.contains(&home.display().to_string()), "{disk}");
    assert_eq!(std::fs::read_dir(&home).expect("list").count(), 0, "looking changes nothing");
}

/// buildx asks a container's daemon in this way, and wants four words.
#[test]
fn versions_have_a_package_a_number_and_a_revision() {
    let scene = Scene::set();
    for (program, name) in [("buildkitd", "buildkitd"), ("buildctl", "buildctl")] {
        let output = Command::new(scene.programs.path(program)).arg("--version").output().expect("start it");
        let said = String::from_utf8(output.stdout).expect("text");
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[0], name, "{said}");
        assert_eq!(words[1], "crosskit", "{said}");
        assert!(words[2].starts_with('v'), "{said}");
        assert!(program == "buildctl" || words.len() == 4, "{said}");
    }
}

#[test]
fn the_examples_of_units_are_ones_that_systemd_takes() {
    let scene = Scene::set();
    let program = scene.programs.path("buildkitd").display().to_string();
    let mut command = Command::new(scene.parts.on_machine("systemd-analyze"));
    command.args(["verify", "--man=no"]);
    for unit in ["buildkit.service", "buildkit.socket"] {
        let example = crosskit_multiarch::workspace().join("examples/systemd").join(unit);
        let text = std::fs::read_to_string(example).expect("read the example");
        assert!(
            !unit.ends_with("service") || text.contains("ExecStart=/usr/local/bin/buildkitd --addr fd://\n")
        );
        scene.write("units", unit, &text.replace("/usr/local/bin/buildkitd", &program));
        command.arg(scene.path("units").join(unit));
    }
    // What it does not understand it says, and succeeds.
    assert_eq!(Ran::run(&mut command).ok().said().trim(), "");
}
