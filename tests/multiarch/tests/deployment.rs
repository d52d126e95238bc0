//! What a daemon is set up with elsewhere: certificates, manifests, units.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_multiarch::{DaemonOptions, OrdinaryUser, Parts, Programs, Ran, Running, Scene, Tree};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use yaml_rust2::YamlLoader;

/// For what takes no time on a machine that has nothing else to do.
const LONG: Duration = Duration::from_secs(60);

/// One of the programs, with arguments.
fn program(scene: &Scene, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(scene.programs.path(name));
    command.args(arguments);
    command
}

fn openssl(scene: &Scene, arguments: &[&str], files: &[&Path]) -> Ran {
    let mut command = Command::new(scene.parts.on_machine("openssl"));
    Ran::run(command.args(arguments).args(files))
}

/// The lines that were printed as advice, word by word, for a port that is free here.
fn advised(ran: &Ran, port: u16) -> Vec<Vec<String>> {
    let lines = ran.stdout.lines().filter(|line| line.contains("tcp://"));
    let here = |word: &str| word.replace("0.0.0.0", "127.0.0.1").replace(":1234", &format!(":{port}"));
    lines.map(|line| line.split(' ').map(here).collect()).collect()
}

#[test]
fn certificates_that_were_made_let_the_right_clients_in_and_nobody_else() {
    let scene = Scene::set();
    let make = |into: &Path, more: &[&str]| {
        let into = format!("--into={}", into.display());
        Ran::run(&mut program(&scene, "crosskit", &[&["certs", &into], more].concat())).ok()
    };
    let (own, other) = (scene.path("own"), scene.path("other"));
    let made = make(&own, &["--for", "127.0.0.1,builder.test,*.farm.test", "--client=client,ci"]);
    make(&other, &["--for", "127.0.0.1"]);
    Ran::run(&mut program(&scene, "crosskit", &["--help"])).ok().says("make certificates");
    Ran::run(&mut program(&scene, "crosskit", &["--debug", "certs"])).fails().says("crosskit certs --help");
    // What reads them elsewhere takes them for what they are.
    let ca = own.join("ca/ca.pem").display().to_string();
    let check = |purpose: &str, more: &[&str], cert: PathBuf| {
        let all = [&["verify", "-x509_strict", "-CAfile", &ca, "-purpose", purpose], more].concat();
        openssl(&scene, &all, &[&cert])
    };
    for name in [
        &["-verify_ip", "127.0.0.1"],
        &["-verify_hostname", "builder.test"],
        &["-verify_hostname", "a.farm.test"],
    ] {
        check("sslserver", name, own.join("daemon/cert.pem")).ok();
    }
    check("sslserver", &["-verify_hostname", "b.test"], own.join("daemon/cert.pem"))
        .fails()
        .says("hostname mismatch");
    check("sslclient", &[], own.join("ci/cert.pem")).ok();
    check("sslserver", &[], own.join("ci/cert.pem")).fails().says("purpose");
    check("sslclient", &[], own.join("daemon/cert.pem")).fails();
    check("sslclient", &[], other.join("client/cert.pem")).fails().says("unable to get local issuer");

    // A daemon and clients that are started as was advised.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    let lines = advised(&made, port);
    let [daemon, buildctl, buildx] = lines.as_slice() else { panic!("three lines: {made}") };
    assert_eq!([&daemon[0], &buildctl[0], &buildx[0]], ["buildkitd", "buildctl", "docker"]);
    let arguments = daemon[1..].iter().filter(|word| !word.is_empty()).cloned().collect();
    let mut daemon = scene.daemon_with(DaemonOptions { arguments, ..Default::default() });
    let words: Vec<&str> = buildctl[1..].iter().map(String::as_str).collect();
    Ran::run(&mut program(&scene, "buildctl", &words)).ok().says("linux/amd64");
    let config = scene.path("docker");
    std::fs::create_dir_all(&config).expect("create a folder");
    let run_buildx = |arguments: &[&str]| {
        let mut command = Command::new(scene.parts.docker_buildx());
        Ran::run(command.args(arguments).env("DOCKER_CONFIG", &config))
    };
    let words: Vec<&str> = buildx[2..].iter().map(String::as_str).collect();
    run_buildx(&[&words[..], &["--name=made"]].concat()).ok();
    run_buildx(&["inspect", "--bootstrap", "made"]).ok().says("running").says("linux/amd64");

    let address = format!("tcp://127.0.0.1:{port}");
    let ask = |more: &[&str]| {
        Ran::run(&mut program(
            &scene,
            "buildctl",
            &[&["--addr", &address], more, &["debug", "info"]].concat(),
        ))
    };
    let file = |folder: &Path, name: &str| folder.join(name).display().to_string();
    let [ci, foreign, daemon_folder] = [file(&own, "ci"), file(&other, "client"), file(&own, "daemon")];
    ask(&["--tlsdir", &ci, "--tlsservername", "builder.test"]).ok();
    ask(&["--tlsdir", &ci, "--tlsservername", "elsewhere.test"])
        .fails()
        .says("elsewhere.test")
        .says("certificate is only valid for IpAddress(127.0.0.1)");
    // The daemon of somebody else is not trusted.
    ask(&["--tlsdir", &foreign]).fails().says("invalid peer certificate: UnknownIssuer");
    // Nor is the client.
    let [cert, key] = ["client/cert.pem", "client/key.pem"].map(|name| file(&other, name));
    ask(&["--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]).fails().says("UnknownCA");
    daemon.wait_for_log("TLS handshake: invalid peer certificate: UnknownIssuer");
    // A daemon's certificate does not make a client.
    ask(&["--tlsdir", &daemon_folder]).fails().says("UnsupportedCertificate");
    daemon.wait_for_log("certificate does not allow extended key usage for client authentication");
    // Who has none hears what is wanted.
    ask(&["--tlscacert", &ca]).fails().says("CertificateRequired");
    ask(&[]).fails().says("the daemon wants TLS; name certificates");
    // One that comes later, of the same authority, needs nothing new at the daemon.
    make(&own, &["--client=late", "--days=7"]);
    ask(&["--tlsdir", &file(&own, "late")]).ok();
    daemon.stop();
}

fn examples() -> PathBuf {
    crosskit_multiarch::workspace().join("examples")
}

/// All files below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path, ending)),
            false if path.extension().is_some_and(|own| own == ending) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// What the validator says, without failing, of a kind that there is not.
const UNKNOWN: &str = "Couldn't find schema";

/// Asks what Kubernetes' own schemas say, of the first version that has all that is used and of a new one.
fn validate(parts: &Parts, manifests: &[PathBuf]) -> Ran {
    let mut command = Command::new(parts.kubernetes_validate());
    Ran::run(command.args(["--strict", "-k", "1.33", "-k", "1.37"]).args(manifests))
}

#[test]
fn manifests_are_what_kubernetes_takes() {
    let (parts, folder) = (Parts::find(), tempfile::tempdir().expect("a folder"));
    let manifests = files(&examples(), "yaml");
    assert_eq!(manifests.len(), 16, "five kinds in three variants and a farm: {manifests:?}");
    validate(&parts, &manifests)
        .ok()
        .says("statefulset/buildkitd against version 1.37")
        .says("version 1.33")
        .never_says(UNKNOWN);
    // The judge is not blind: each slip is seen, at the place where it is.
    let good = examples().join("kubernetes/rootless/statefulset.yaml");
    let good = std::fs::read_to_string(good).expect("read a manifest");
    let bad = folder.path().join("bad.yaml");
    for (right, wrong, told) in [
        ("readinessProbe:", "readynessProbe:", "readynessProbe"),
        ("appArmorProfile:", "apparmorProfile:", "apparmorProfile"),
        ("replicas: 3", "replicas: three", "three"),
        ("  serviceName: buildkitd\n", "  servicename: buildkitd\n", "servicename"),
        ("apps/v1", "apps/v1beta1", UNKNOWN),
    ] {
        assert!(good.contains(right), "{right}");
        std::fs::write(&bad, good.replace(right, wrong)).expect("write it");
        let ran = validate(&parts, std::slice::from_ref(&bad)).says(told);
        assert!(told == UNKNOWN || !ran.status.success(), "{ran}");
    }
    // So are the Secrets, which have the name that the manifests ask for, and the files that the daemon is told of.
    let programs = Programs::link_into(folder.path());
    let certs = |into: &str, arguments: &[&str]| {
        let mut command = Command::new(programs.path("crosskit"));
        Ran::run(command.current_dir(folder.path()).args(["certs", "--into", into]).args(arguments)).ok()
    };
    let made = certs("certs", &["--for=buildkitd", "--kubernetes"]);
    let secrets = folder.path().join("secrets.yaml");
    std::fs::write(&secrets, &made.stdout).expect("write them");
    validate(&parts, &[secrets])
        .ok()
        .says("secret/crosskit-daemon-tls")
        .says("secret/crosskit-client-tls")
        .never_says(UNKNOWN);
    assert!(good.contains("secretName: crosskit-daemon-tls") && good.contains("--tlskey=/tls/key.pem"));
    assert!(made.stdout.contains("\n  key.pem: "), "{made}");
    certs("farm", &["--for", "worker", "--daemon", "worker", "--client", "farm"]);
    let made = certs("farm", &["--for", "crosskit", "--daemon", "endpoint", "--kubernetes"]);
    let farm = std::fs::read_to_string(examples().join("farm/kubernetes.yaml")).expect("read a manifest");
    for name in farm.split("secretName: ").skip(1).filter_map(|rest| rest.split([' ', '\n']).next()) {
        assert!(made.stdout.contains(&format!("\n  name: {name}\n")), "{name}: {made}");
    }
    // And what a Job builds is said as buildctl wants it: only nobody is there.
    for variant in ["privileged", "rootless", "userns"] {
        let job = examples().join("kubernetes").join(variant).join("job.yaml");
        let job = std::fs::read_to_string(job).expect("read a manifest");
        let job = YamlLoader::load_from_str(&job).expect("YAML").remove(0);
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["command"][0].as_str(), Some("buildctl-daemonless.sh"));
        let arguments =
            container["args"].as_vec().expect("arguments").iter().map(|one| one.as_str().expect("text"));
        let mut command = Command::new(programs.path("buildctl"));
        Ran::run(command.arg("--addr=unix:///nonexistent.sock").args(arguments))
            .fails()
            .says("dial unix /nonexistent.sock");
    }
}

#[test]
fn a_daemon_as_kubernetes_would_start_it_answers_its_probe_and_its_clients() {
    let scene = Scene::set();
    let into = scene.path("certs").display().to_string();
    let arguments = ["certs", "--for=buildkitd", "--kubernetes", "--into", &into];
    let secrets = Ran::run(&mut program(&scene, "crosskit", &arguments)).ok().stdout;
    // What a Secret holds is what a container sees of it.
    for secret in YamlLoader::load_from_str(&secrets).expect("YAML") {
        let folder = scene.path(secret["metadata"]["name"].as_str().expect("a name"));
        std::fs::create_dir(&folder).expect("create a folder");
        for (file, content) in secret["data"].as_hash().expect("files") {
            let content = STANDARD.decode(content.as_str().expect("text")).expect("base64");
            std::fs::write(folder.join(file.as_str().expect("a name")), content).expect("write it");
        }
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    let manifest = examples().join("kubernetes/privileged/deployment.yaml");
    let manifest = std::fs::read_to_string(manifest).expect("read a manifest");
    let all = YamlLoader::load_from_str(&manifest).expect("YAML");
    let pod =
        &all.iter().find(|one| one["kind"].as_str() == Some("Deployment")).expect("one")["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let volume = pod["spec"]["volumes"]
        .as_vec()
        .expect("volumes")
        .iter()
        .find(|one| one["name"].as_str() == Some("tls"));
    let secret = volume.and_then(|one| one["secret"]["secretName"].as_str()).expect("a Secret");
    let places = [("/tls/", scene.path(secret)), ("/run/buildkit/", scene.path("run"))]
        .map(|(there, here)| (there, format!("{}/", here.display())));
    let here = |text: &str| {
        let text = text.replace("0.0.0.0:1234", &format!("127.0.0.1:{port}"));
        places.iter().fold(text, |text, (there, here)| text.replace(there, here))
    };
    let words = |list: &yaml_rust2::Yaml| -> Vec<String> {
        list.as_vec().expect("words").iter().map(|one| here(one.as_str().expect("text"))).collect()
    };
    let daemon =
        scene.daemon_with(DaemonOptions { arguments: words(&container["args"]), ..Default::default() });
    for probe in ["readinessProbe", "livenessProbe"] {
        let probe = words(&container[probe]["exec"]["command"]);
        let mut command = Command::new(scene.programs.path(&probe[0]));
        command.args(&probe[1..]).env("BUILDKIT_HOST", here("unix:///run/buildkit/buildkitd.sock"));
        Ran::run(&mut command).ok().says("linux/amd64");
    }
    let (address, tls) =
        (format!("tcp://127.0.0.1:{port}"), scene.path("crosskit-client-tls").display().to_string());
    let ask = |more: &[&str]| {
        Ran::run(&mut program(
            &scene,
            "buildctl",
            &[&["--addr", &address], more, &["debug", "info"]].concat(),
        ))
    };
    ask(&["--tlsdir", &tls, "--tlsservername", "buildkitd"]).ok();
    ask(&["--tlsdir", &tls]).fails().says("certificate is only valid for DnsName(");
    ask(&[]).fails();
    daemon.stop();
}

/// A pod with `hostUsers: false` as far as a daemon sees it: root of a user namespace whose users are nobody outside, with all its
/// rights, and a cgroup of its own. It becomes the daemon, with the process's number. `$1` is the scene's folder.
const POD: &str = r#"
set -eu
scene=$1 program=$2
shift 2
mount -t tmpfs none "$scene/tree"
mkdir "$scene/tree/all"
mount -t cgroup2 none "$scene/tree/all"
group=$scene/tree/all/$(basename "$scene")
mkdir "$group"
chown 100000:100000 "$group" "$group/cgroup.procs" "$group/cgroup.subtree_control" "$group/cgroup.threads"
echo $$ > "$group/cgroup.procs"
# What the daemon is given is its own, and where it can reach it.
mkdir "$scene/daemon/bin"
cp -L "$program" "$scene/daemon/bin/buildkitd"
chmod 755 "$scene"
chown -R 100000:100000 "$scene/daemon"
unshare --user sleep 60 &
holder=$!
until [ "$(readlink /proc/$holder/ns/user)" != "$(readlink /proc/$$/ns/user)" ]; do :; done
echo 0 100000 65536 > /proc/$holder/uid_map
echo 0 100000 65536 > /proc/$holder/gid_map
exec nsenter --user --target "$holder" --setuid 0 --setgid 0 unshare --mount --net --ipc --uts --cgroup sh -c '
  kill "$0"
  umount -R "$1/tree" 2> /dev/null || true
  mount -t cgroup2 none /sys/fs/cgroup
  mount -t tmpfs none /run
  shift
  exec "$@"' "$holder" "$scene" "$scene/daemon/bin/buildkitd" "$@"
"#;

/// A scene's cgroup, which goes away with this.
struct Cgroup<'a>(&'a Scene);

impl Drop for Cgroup<'_> {
    fn drop(&mut self) {
        let script = "mount -t cgroup2 none \"$1\" && find \"$1/$2\" -depth -type d -exec rmdir {} +";
        let name = self.0.folder().file_name().expect("a name");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(self.0.path("tree")).arg(name);
        let ran = Ran::run(&mut command);
        assert!(ran.status.success() || std::thread::panicking(), "{ran}");
    }
}

/// The manifests whose pods have user namespaces start the daemon without a word about them.
#[test]
fn a_daemon_in_a_user_namespace_of_its_pod_builds() {
    let scene = Scene::set();
    for folder in ["tree", "daemon"] {
        std::fs::create_dir(scene.path(folder)).expect("create a folder");
    }
    let through = ["unshare", "--mount", "sh", "-c", POD, "sh"].map(Into::into).into_iter();
    let through = through.chain([scene.folder().into()]).collect();
    let cgroup = Cgroup(&scene);
    let daemon = scene.daemon_with(DaemonOptions { through, ..Default::default() });
    // There is no network in there.
    let dockerfile = "FROM scratch\nCOPY busybox /bin/\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n\
                      RUN b=/bin/busybox; $b cat /proc/self/uid_map > /map; $b mkdir /own; $b id -u > /own/id; $b chown 7:8 /own\n\
                      RUN [ \"$(/bin/busybox stat -c %u:%g /own)\" = 7:8 ]\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    let busybox = scene.parts.busybox(&crosskit_platforms::native().architecture);
    std::fs::copy(busybox, context.join("busybox")).expect("copy busybox");
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    let made = Tree::of_folder(&out);
    assert_eq!(made.text("map").split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(made.text("own/id"), "0\n");
    daemon.stop();
    drop(cgroup);
}

/// What the script prints for a key.
fn choose(arguments: &[&str], path: Option<&Path>) -> Ran {
    let mut command = Command::new(examples().join("kubernetes/choose-builder.sh"));
    if let Some(path) = path {
        command.env("PATH", with_own(path));
    }
    Ran::run(command.args(arguments))
}

fn with_own(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn keys_stay_with_their_builder_when_others_come_and_go() {
    let pods: Vec<String> = (0..6).map(|number| format!("buildkitd-{number}")).collect();
    let keys: Vec<String> = (0..90).map(|number| format!("team/app-{number}")).collect();
    let chosen = |key: &str, pods: &[&str]| {
        choose(&[&["-t", "%s", key], pods].concat(), None).ok().stdout.trim_end().to_string()
    };
    let (five, six): (Vec<&str>, Vec<&str>) =
        (pods[..5].iter().map(String::as_str).collect(), pods.iter().rev().map(String::as_str).collect());
    let mut shares = BTreeMap::<String, u32>::new();
    let mut moved = 0;
    for key in &keys {
        let (before, after) = (chosen(key, &five), chosen(key, &six));
        // Whatever the order in which they are named: the highest number that is drawn, as the next release draws it too.
        let drawn = |pod: &&&str| hex::encode(sha2::Sha256::digest(format!("{key}\n{pod}")));
        assert_eq!(Some(&before.as_str()), five.iter().max_by_key(drawn), "{key}");
        assert!(after == before || after == pods[5], "{key} moves from {before} to {after}");
        moved += u32::from(after != before);
        *shares.entry(before).or_default() += 1;
    }
    // A fifth each, and a sixth moves: 18 and 15 of 90, give or take.
    assert!(shares.len() == 5 && shares.values().all(|share| (9..=27).contains(share)), "{shares:?}");
    assert!((7..=23).contains(&moved), "{moved} of {}", keys.len());
    // The whole order: without the first the second is chosen.
    let all = choose(&[&["-a", "-t", "%s", "app"], &six[..]].concat(), None).ok().stdout;
    let all: Vec<&str> = all.lines().collect();
    assert_eq!(all.len(), 6);
    assert_eq!(chosen("app", &all[1..]), all[1]);
}

/// A program in the place of another one. It notes its arguments, and runs what it shall run elsewhere here, where the daemon
/// is that the environment names.
fn stand_in(scene: &Scene, name: &str, more: &str) -> PathBuf {
    let folder = scene.path("bin");
    std::fs::create_dir_all(&folder).expect("create a folder");
    let script = format!(
        "#!/bin/sh\nprintf '%s' {name} >> '{log}'; printf ' %s' \"$@\" >> '{log}'; echo >> '{log}'\n{more}\n\
         while [ \"$1\" != buildctl ]; do shift || exit 3; done\nshift\nexec '{program}' \"$@\"\n",
        log = scene.path("called").display(),
        program = scene.programs.path("buildctl").display(),
    );
    std::fs::write(folder.join(name), script).expect("write a program");
    std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755)).expect("make it one");
    folder
}

/// What was called since the last time.
fn called(scene: &Scene) -> Vec<String> {
    let text = std::fs::read_to_string(scene.path("called")).unwrap_or_default();
    let _ = std::fs::remove_file(scene.path("called"));
    text.lines().map(str::to_string).collect()
}

#[test]
fn daemons_are_reached_through_the_programs_that_reach_them() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let socket = daemon.socket.display().to_string();
    let mut folder = PathBuf::new();
    for name in ["docker", "podman", "nerdctl", "ssh"] {
        folder = stand_in(&scene, name, "");
    }
    // The cluster has two pods that are ready, and one that is not is not shown by kubectl.
    stand_in(&scene, "kubectl", "[ \"$1\" != get ] || { printf 'b-0\\nb-1\\n'; exit 0; }");
    let ask = |address: &str, end: &[&str]| {
        let mut command = program(&scene, "buildctl", &[&["--addr", address], end].concat());
        // For who runs where the daemon is.
        command.env("PATH", with_own(&folder)).env("BUILDKIT_HOST", daemon.address());
        Ran::run(&mut command)
    };
    let remote = format!("ssh://me@host.example:2222{socket}");
    let through_ssh = format!("ssh -l me -p 2222 -- host.example buildctl --addr unix://{socket} dial-stdio");
    for (address, expected) in [
        ("docker-container://here", "docker exec -i here buildctl dial-stdio"),
        ("docker-container://here?context=far", "docker --context=far exec -i here buildctl dial-stdio"),
        ("podman-container://here", "podman exec -i here buildctl dial-stdio"),
        ("nerdctl-container://here?namespace=n", "nerdctl exec --namespace=n -i here buildctl dial-stdio"),
        ("kube-pod://b-0", "kubectl exec -i b-0 -- buildctl dial-stdio"),
        (
            "kube-pod://b-0?context=c&namespace=n&container=buildkitd",
            "kubectl --context=c --namespace=n exec --container=buildkitd -i b-0 -- buildctl dial-stdio",
        ),
        ("ssh://host.example", "ssh -- host.example buildctl dial-stdio"),
        (&remote, &through_ssh),
    ] {
        ask(address, &["debug", "workers"]).ok().says("linux/amd64");
        assert_eq!(called(&scene), [expected], "{address}");
    }
    // A whole build, with the pod that is chosen for it.
    let address = choose(&["-n", "ci", "-l", "app=buildkitd,pool=a", "app"], Some(&folder)).ok().stdout;
    let address = address.trim_end();
    let [asked] = called(&scene).try_into().expect("kubectl is asked once");
    assert!(asked.starts_with(
        "kubectl get pods --namespace=ci --selector=app=buildkitd,pool=a --output=go-template="
    ));
    assert!(
        ["b-0", "b-1"].map(|pod| format!("kube-pod://{pod}?namespace=ci")).contains(&address.to_string())
    );
    let context =
        scene.context("c", &[("Dockerfile", "FROM BASE\nCOPY file /\n"), ("file", "of the client")]);
    let local = |name: &str| format!("--local={name}={}", context.display());
    let out = scene.path("out");
    let output = format!("--output=type=local,dest={}", out.display());
    let build = ["build", "--frontend=dockerfile.v0", &local("context"), &local("dockerfile"), &output];
    ask(address, &build).ok();
    assert_eq!(Tree::of_folder(&out).text("file"), "of the client");
    called(&scene);
    // Nobody is asked where there can be nobody.
    for (address, told) in [
        ("npipe:////./pipe/buildkitd", "Windows"),
        ("kube-pod://Upper_case", "unsupported pod name"),
        ("docker-container://-x", "names no container"),
        ("ssh://me:secret@host", "password is not supported"),
        ("tcp://host", "no port"),
        ("fax://host", "unknown scheme"),
    ] {
        ask(address, &["debug", "workers"]).fails().says(told);
        assert_eq!(called(&scene), Vec::<String>::new(), "{address}");
    }
    stand_in(&scene, "kubectl", "exit 0");
    choose(&["-l", "app=other", "app"], Some(&folder)).fails().says("no pod with app=other is ready");
    choose(&[], None).fails().says("choose-builder.sh [-n NAMESPACE]");
    // The carrier itself: nothing to say is no failure, nobody there is.
    ask(&daemon.address(), &["dial-stdio"]).ok();
    ask("unix:///nonexistent.sock", &["dial-stdio"]).fails().says("no such file or directory");
    daemon.stop();
}

#[test]
fn systemd_takes_the_units_of_a_user() {
    let scene = Scene::set();
    let daemon = scene.programs.path("buildkitd").display().to_string();
    let verify = |change: &dyn Fn(&str) -> String| {
        let mut command = Command::new(scene.parts.on_machine("systemd-analyze"));
        command.args(["verify", "--user", "--man=no"]);
        for unit in ["buildkit.service", "buildkit.socket"] {
            let text =
                std::fs::read_to_string(examples().join("systemd/user").join(unit)).expect("read a unit");
            scene.write("units", unit, &change(&text.replace("/usr/local/bin/buildkitd", &daemon)));
            command.arg(scene.path("units").join(unit));
        }
        // Of a user who is signed in.
        Ran::run(command.env("XDG_RUNTIME_DIR", scene.folder()).env("HOME", scene.folder()))
    };
    // What it does not understand it says, and succeeds.
    assert_eq!(verify(&str::to_string).ok().said().trim(), "");
    verify(&|text| text.replace("Delegate=", "Delegates=")).says("Delegates");
    verify(&|text| text.replace("SocketMode=0600", "SocketMode=x")).says("Failed to parse mode");
}

#[test]
fn sockets_of_units_are_told_apart_by_their_names_and_stay() {
    let scene = Scene::set();
    let [unix, root] = ["handed.sock", "root"].map(|name| scene.path(name).display().to_string());
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    let [local, net] = [format!("unix://{unix}"), format!("tcp://127.0.0.1:{port}")];
    // systemd's own program: it listens, and becomes the daemon when somebody comes.
    let start = |addresses: &[&str]| {
        let _ = std::fs::remove_file(&unix);
        let mut command = Command::new(scene.parts.on_machine("systemd-socket-activate"));
        command.args([&format!("--listen={unix}"), &format!("--listen=127.0.0.1:{port}")]);
        command.args(["--fdname=local:net", &format!("--setenv=PATH={}", with_own(scene.programs.folder()))]);
        command.arg(scene.programs.path("buildkitd")).args(["--root", &root]).args(addresses);
        let mut daemon = Running::start(&mut command);
        daemon.wait_for(&format!("127.0.0.1:{port}"), LONG);
        daemon
    };
    let ask = |address: &str| {
        Ran::run(&mut program(&scene, "buildctl", &["--addr", address, "--timeout=30", "debug", "info"]))
    };
    let end = |mut daemon: Running| {
        daemon.signal(rustix::process::Signal::TERM);
        daemon.finish(LONG).ok()
    };
    for addresses in [&["--addr=fd://"][..], &["--addr=fd://net", "--addr=fd://local"]] {
        let daemon = start(addresses);
        ask(&local).ok().says("BuildKit");
        ask(&net).ok().says("BuildKit");
        // What the daemon starts does not get them (open(2): O_CLOEXEC is 02000000).
        for descriptor in [3, 4] {
            let about = format!("/proc/{}/fdinfo/{descriptor}", daemon.id());
            let about = std::fs::read_to_string(about).expect("a descriptor");
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
            assert!(u32::from_str_radix(flags, 8).expect("octal") & 0o2000000 != 0, "{about}");
        }
        end(daemon);
        assert!(Path::new(&unix).exists(), "the socket is systemd's, which listens on");
    }
    // One that nobody asked for is told of, one that is not there is an error.
    let daemon = start(&["--addr=fd://local"]);
    ask(&local).ok();
    end(daemon).says("a socket called \"net\" was handed over, and no --addr fd:// takes it");
    for (addresses, told) in [
        (
            &["--addr=fd://lan"][..],
            "listening at fd://lan: no socket of this name was handed over, or another address has it; left are [\"local\", \"net\"]",
        ),
        (&["--addr=fd://", "--addr=fd://net"], "listening at fd://net: no socket of this name"),
        (&["--addr=fd://", "--addr=fd://"], "every socket that was handed over is another address's"),
    ] {
        let daemon = start(addresses);
        let _client = std::os::unix::net::UnixStream::connect(&unix).expect("connect");
        daemon.finish(LONG).fails().says(told);
    }
}

/// What a datagram says, and the number of the process that has sent it.
fn notified(listener: &UnixDatagram) -> (String, u32) {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut about = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let length = recvmsg(listener, &mut parts, &mut about, RecvFlags::empty()).expect("a word").bytes;
    let sender = about.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmCredentials(sender) => {
            Some(sender.pid.as_raw_nonzero().get().cast_unsigned())
        }
        _ => None,
    });
    (String::from_utf8_lossy(&bytes[..length]).to_string(), sender.expect("a sender"))
}

#[test]
fn the_units_of_a_user_start_their_daemon_with_the_first_client() {
    let scene = Scene::set();
    let user = OrdinaryUser::new(&scene, "100000:65536");
    let unit = |name: &str, key: &str| {
        let text = std::fs::read_to_string(examples().join("systemd/user").join(name)).expect("read a unit");
        let found =
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_string));
        found.unwrap_or_else(|| panic!("{name} says {key}"))
    };
    assert_eq!(unit("buildkit.service", "Type"), "notify");
    let command = unit("buildkit.service", "ExecStart").replace("/usr/local/bin/buildkitd", "buildkitd");
    let runtime = user.runtime_folder().display().to_string();
    let socket = unit("buildkit.socket", "ListenStream").replace("%t", &runtime);
    let folder = Path::new(&socket).parent().expect("a folder");
    std::fs::create_dir_all(folder).expect("make a folder");
    user.give(folder);
    // Whom the daemon tells has to hear it from the process that was started (NotifyAccess=main).
    let notify = user.runtime_folder().join("notify");
    let listener = UnixDatagram::bind(&notify).expect("a socket");
    user.give(&notify);
    rustix::net::sockopt::set_socket_passcred(&listener, true).expect("ask for senders");
    listener.set_read_timeout(Some(LONG)).expect("a limit");
    let through = user.through();
    let mut start = Command::new(&through[0]);
    start.args(&through[1..]).arg(scene.parts.on_machine("systemd-socket-activate"));
    start.args([&format!("--listen={socket}"), &format!("--setenv=NOTIFY_SOCKET={}", notify.display())]);
    start.args(["--setenv=XDG_RUNTIME_DIR", "--setenv=TMPDIR"]).args(command.split(' '));
    let mut daemon = Running::start(&mut start);
    daemon.wait_for(&format!("Listening on {socket}"), LONG);
    let address = format!("unix://{socket}");
    let ask = ["--addr", &address, "--timeout=60", "debug", "workers", "--verbose"];
    Ran::run(&mut program(&scene, "buildctl", &ask)).ok().says("oci.process-mode").says("linux/amd64");
    assert_eq!(notified(&listener), ("READY=1".to_string(), daemon.id()));
    assert!(user.home().join(".local/share/buildkit").is_dir(), "its state is the user's");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(notified(&listener), ("STOPPING=1".to_string(), daemon.id()));
    daemon.finish(LONG).ok();
}
