//! A source policy demands signatures of what a build takes from repositories and the web.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_multiarch::{Daemon, Scene};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder on the web. It is served as long as the test runs.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let folder = folder.to_path_buf();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let folder = folder.clone();
            std::thread::spawn(move || answer(connection, &folder));
        }
    });
    address
}

fn answer(mut connection: TcpStream, folder: &Path) -> std::io::Result<()> {
    let lines = BufReader::new(connection.try_clone()?).lines();
    let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let request = head.first().map_or("", String::as_str);
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/");
    let (status, body) = match std::fs::read(folder.join(path.trim_start_matches('/'))) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    write!(connection, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
    if !request.starts_with("HEAD ") {
        connection.write_all(&body)?;
    }
    Ok(())
}

/// Somebody's keys.
struct Signer(PathBuf);

impl Signer {
    fn new(scene: &Scene, name: &str) -> Signer {
        let folder = scene.path(name);
        std::fs::create_dir(&folder).unwrap();
        let signer = Signer(folder);
        signer.shell("chmod 700 .; gpg --passphrase '' --quick-generate-key me ed25519 sign never");
        signer
    }

    /// Runs a script that signs, in the folder of the keys. Returns what it says.
    fn shell(&self, script: &str) -> String {
        let folder = self.0.display();
        let script = format!(
            "gpg() {{ command gpg --homedir '{folder}' --batch --yes --no-tty --pinentry-mode loopback \"$@\"; }}\n{script}"
        );
        let mut shell = Command::new("sh");
        shell.args(["-ec", &script]).current_dir(&self.0).env("GNUPGHOME", &self.0);
        shell.env("GIT_CONFIG_GLOBAL", "/dev/null");
        for name in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            shell.env(format!("{name}_NAME"), "me").env(format!("{name}_EMAIL"), "me@example.com");
        }
        let out = shell.output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn public(&self) -> String {
        self.shell("gpg --armor --export me")
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let mut agent = Command::new("gpgconf");
        let _ = agent.args(["--kill", "gpg-agent"]).env("GNUPGHOME", &self.0).status();
    }
}

/// Builds with a source that has these attributes by a policy; the file `found` of the result, or what was said.
fn build(
    scene: &Scene,
    daemon: &Daemon,
    context: &Path,
    (identifier, attrs): (&str, Value),
) -> Result<String, String> {
    let rule = json!({
        "action": "CONVERT",
        "selector": { "identifier": identifier },
        "updates": { "attrs": attrs },
    });
    let policy = scene.path("policy.json");
    std::fs::write(&policy, json!({ "version": 1, "rules": [rule] }).to_string()).unwrap();
    let out = scene.path("out");
    let _ = std::fs::remove_dir_all(&out);
    let build = daemon.build(context).into(&out).argument("--source-policy-file");
    let ran = build.argument(&policy.display().to_string()).run();
    match ran.status.success() {
        true => Ok(std::fs::read_to_string(out.join("found")).unwrap().trim().to_string()),
        false => Err(ran.fails().said()),
    }
}

#[test]
fn a_commit_has_to_be_signed() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let (ann, eve) = (Signer::new(&scene, "ann"), Signer::new(&scene, "eve"));
    let web = scene.path("web");
    std::fs::create_dir(&web).unwrap();
    ann.shell(&format!(
        "git init -q -b plain '{web}/repository.git'; cd '{web}/repository.git'; echo plain >found; git add .; git commit -qm plain; \
         git checkout -qb signed; echo signed >found; git -c user.signingkey=me commit -q -S -am signed; git update-server-info",
        web = web.display()
    ));
    // What a server gives is the folder `.git`.
    let address = serve(&web);
    let repository = format!("{address}/repository.git/.git");
    let context = scene.context("c", &[("Dockerfile", "")]);
    let of = |branch: &str| {
        let text = format!("FROM scratch\nADD http://{repository}#{branch} /\n");
        scene.write("c", "Dockerfile", &text);
        format!("git://{repository}#{branch}")
    };
    let demand = |signer: &Signer| json!({ "git.sig.pubkey": signer.public() });

    let signed = of("signed");
    assert_eq!(build(&scene, &daemon, &context, (&signed, demand(&ann))), Ok("signed".into()));
    // The result is in the cache, and is not given to who demands another signature.
    let said = build(&scene, &daemon, &context, (&signed, demand(&eve))).unwrap_err();
    assert!(said.contains("signature made by unknown entity: no key of git.sig.pubkey"), "{said}");
    assert_eq!(build(&scene, &daemon, &context, (&signed, demand(&ann))), Ok("signed".into()));
    let mut of_tag = demand(&ann);
    of_tag["git.sig.requiresignedtag"] = json!("true");
    let said = build(&scene, &daemon, &context, (&signed, of_tag)).unwrap_err();
    assert!(said.contains("signed tag required but no signed tag found"), "{said}");

    let plain = of("plain");
    let nothing = json!({ "git.checksum": "" });
    assert_eq!(build(&scene, &daemon, &context, (&plain, nothing)), Ok("plain".into()));
    let said = build(&scene, &daemon, &context, (&plain, demand(&ann))).unwrap_err();
    assert!(said.contains("git object is not signed"), "{said}");
    daemon.stop();
}

#[test]
fn a_file_has_to_be_signed() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let (ann, eve) = (Signer::new(&scene, "ann"), Signer::new(&scene, "eve"));
    let web = scene.path("web");
    std::fs::create_dir(&web).unwrap();
    let file = web.join("found");
    std::fs::write(&file, "released").unwrap();
    let url = format!("http://{}/found", serve(&web));
    let context = scene.context("c", &[("Dockerfile", &format!("FROM scratch\nADD {url} /found\n"))]);
    let signature = ann.shell(&format!("gpg --armor --output - --detach-sign '{}'", file.display()));
    let demand =
        |signer: &Signer| json!({ "http.sig.pubkey": signer.public(), "http.sig.signature": signature });

    assert_eq!(build(&scene, &daemon, &context, (&url, demand(&ann))), Ok("released".into()));
    let said = build(&scene, &daemon, &context, (&url, demand(&eve))).unwrap_err();
    assert!(said.contains(&format!("failed to verify pgp signature: {url}: signature by ")), "{said}");
    let half = json!({ "http.sig.pubkey": ann.public() });
    let said = build(&scene, &daemon, &context, (&url, half)).unwrap_err();
    assert!(said.contains("http signature verification requires both pubkey and signature"), "{said}");
    std::fs::write(&file, "tampered").unwrap();
    let said = build(&scene, &daemon, &context, (&url, demand(&ann))).unwrap_err();
    assert!(said.contains("failed to verify pgp signature: "), "{said}");
    assert!(said.contains("it does not belong to this content"), "{said}");
    daemon.stop();
}
