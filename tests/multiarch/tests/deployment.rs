//! What a daemon is set up with elsewhere: certificates, manifests, units.

use crosskit_multiarch::{DaemonOptions, Ran, Scene};
use std::path::{Path, PathBuf};
use std::process::Command;

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
    ask(&["--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]).fails();
    daemon.wait_for_log("TLS handshake: invalid peer certificate: UnknownIssuer");
    // A daemon's certificate does not make a client.
    ask(&["--tlsdir", &daemon_folder]).fails();
    daemon.wait_for_log("certificate does not allow extended key usage for client authentication");
    // One that comes later, of the same authority, needs nothing new at the daemon.
    make(&own, &["--client=late", "--days=7"]);
    ask(&["--tlsdir", &file(&own, "late")]).ok();
    daemon.stop();
}
