//! What is asked of sources: folders of clients, images, repositories.

use crate::frontend::{Frontend, conversation};
use crate::graphs::{Llb, native};
use crate::stage::{Stage, talk};
use crosskit_api::frontend::{ResolveSourceImageRequest, ResolveSourceMetaRequest};
use crosskit_api::pb;
use crosskit_llb::{Constraints, GitSource, ImageSource, LocalSource, ResolveMode};
use crosskit_multiarch::{Tree, digest_of};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn of_a_folder_comes_what_was_asked_for() {
    let stage = Stage::set();
    let files = [("a.c", "c"), ("b.h", "h"), ("sub/d.c", "d"), ("real", "r")];
    let folder = stage.scene.context("folder", &files);
    std::os::unix::fs::symlink("real", folder.join("link")).unwrap();
    let list = |words: &[&str]| words.iter().map(|w| (*w).to_string()).collect::<Vec<_>>();
    let whole = LocalSource { name: "context".into(), ..LocalSource::default() };
    talk(async {
        let get = async |local: LocalSource| -> Tree {
            let mut llb = stage.graph();
            let output = llb.builder.local(&local, Constraints::default());
            stage.ask(llb.definition(Some(output))).folder("context", folder.clone()).tar().await
        };
        let names = |tree: Tree| tree.0.into_keys().collect::<Vec<_>>();
        let all = ["a.c", "b.h", "link", "real", "sub", "sub/d.c"];
        assert_eq!(names(get(whole.clone()).await), all);
        let some = LocalSource { include_patterns: list(&["**/*.c"]), ..whole.clone() };
        assert_eq!(names(get(some).await), ["a.c", "sub", "sub/d.c"]);
        let some = LocalSource { exclude_patterns: list(&["sub", "*.h"]), ..whole.clone() };
        assert_eq!(names(get(some).await), ["a.c", "link", "real"]);
        let some = LocalSource { follow_paths: list(&["link"]), ..whole.clone() };
        assert_eq!(names(get(some).await), ["link", "real"]);

        // Of this build alone, kept beside the others of its name, or compared with nothing.
        for local in [
            LocalSource { unique: "1".into(), ..whole.clone() },
            LocalSource { shared_key_hint: "hint".into(), ..whole.clone() },
            LocalSource { differ: "none".into(), differ_required: true, ..whole.clone() },
        ] {
            assert_eq!(get(local).await.text("a.c"), "c");
        }

        // With a difference by metadata, a file that looks the same is taken to be the same.
        let time = std::fs::metadata(folder.join("a.c")).unwrap().modified().unwrap();
        std::fs::write(folder.join("a.c"), "x").unwrap();
        std::fs::File::options().write(true).open(folder.join("a.c")).unwrap().set_modified(time).unwrap();
        for (differ, text) in [("metadata", "c"), ("none", "x")] {
            let local = LocalSource { differ: differ.into(), ..whole.clone() };
            assert_eq!(get(local).await.text("a.c"), text, "{differ}");
        }

        // Names, modes and times without contents, but for some.
        let mut llb = stage.graph();
        let output = llb.builder.local(&whole, Constraints::default());
        let definition = crate::graphs::changed(llb.definition(Some(output)), |op| {
            if let Some(crosskit_api::pb::op::Op::Source(source)) = &mut op.op {
                source.attrs.insert("local.metadatatransfer".into(), "true".into());
                source.attrs.insert("local.metadatatransferexclude".into(), "[\"real\"]".into());
            }
        });
        let tree = stage.ask(definition).folder("context", folder.clone()).tar().await;
        assert_eq!(tree.text("real"), "r");
        assert!(!tree.has("b.h"), "only what is an exception has come");
    });
    stage.daemon.stop();
}

#[test]
fn a_folder_may_be_that_of_another_session() {
    let stage = Stage::set();
    let (mine, theirs) =
        (stage.scene.context("mine", &[("who", "me")]), stage.scene.context("theirs", &[("who", "them")]));
    talk(async {
        // Somebody else's build lends its folder while it runs.
        let step = stage.step("echo up; exec /bin/sleep 1000.5", |_, _| {});
        let other = stage.ask(step).folder("context", theirs).start().await;
        other.hear("up").await;
        let local =
            LocalSource { name: "context".into(), session: other.session.clone(), ..LocalSource::default() };
        let mut llb = stage.graph();
        let output = llb.builder.local(&local, Constraints::default());
        let tree = stage.ask(llb.definition(Some(output))).folder("context", mine).tar().await;
        assert_eq!(tree.text("who"), "them");
        other.vanish().await;
    });
    stage.daemon.stop();
}

#[test]
fn an_image_is_taken_as_it_was_asked_for() {
    let stage = Stage::set();
    talk(async {
        let image = ImageSource { reference: stage.scene.base(), ..ImageSource::default() };
        let get = |image: ImageSource| {
            let mut llb: Llb = stage.graph();
            let output = llb.builder.image(&image, native());
            llb.definition(Some(output))
        };
        let digest = stage.scene.base_image.digest();
        for good in [
            ImageSource { resolve_mode: ResolveMode::ForcePull, ..image.clone() },
            ImageSource { resolve_mode: ResolveMode::PreferLocal, ..image.clone() },
            ImageSource { checksum: digest, ..image.clone() },
            ImageSource { layer_limit: Some(1), ..image.clone() },
            ImageSource { record_type: "internal".into(), ..image.clone() },
        ] {
            stage.solve(get(good)).await.ok();
        }
        let other = format!("sha256:{:064}", 1);
        let wrong = ImageSource { checksum: other.clone(), ..image.clone() };
        stage.solve(get(wrong)).await.refused(&format!("does not match expected checksum {other}"));
        let few = ImageSource { layer_limit: Some(2), ..image };
        stage
            .solve(get(few))
            .await
            .refused("layer limit 2 is greater than the number of layers in the image 1");
    });
    stage.daemon.stop();
}

#[test]
fn an_image_tells_who_signed_its_attestations() {
    let stage = Stage::set();
    let registry = &stage.scene.registry;
    let context = stage.scene.context("c", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let output = format!("type=image,name={},push=true", registry.reference("signed:1"));
    stage.daemon.build(&context).output(&output).opt("attest:provenance", "mode=min").run().ok();
    let index: Value = serde_json::from_slice(&registry.manifest("signed", "1").unwrap()).unwrap();
    let attestation = &index["manifests"][1];
    let about = attestation["digest"].as_str().unwrap();
    assert_eq!(attestation["annotations"]["vnd.docker.reference.type"], "attestation-manifest");

    // Signatures of two kinds, and something else; this registry lists them by a tag.
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let empty = registry.push_blob("signed", b"{}");
    let mut listed = Vec::new();
    let mut layers = Vec::new();
    for kind in [
        "application/vnd.example.other",
        "application/vnd.dev.cosign.artifact.sig.v1+json",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    ] {
        let layer = registry.push_blob("signed", kind.as_bytes());
        let signature = json!({
            "schemaVersion": 2, "mediaType": manifest, "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [{"mediaType": kind, "digest": layer, "size": kind.len()}],
            "subject": {"mediaType": manifest, "digest": about, "size": attestation["size"]},
        });
        let signature = signature.to_string();
        let digest = digest_of(signature.as_bytes());
        registry.push_manifest("signed", &digest, manifest, signature.as_bytes());
        listed.push(
            json!({"mediaType": manifest, "artifactType": kind, "digest": digest, "size": signature.len()}),
        );
        layers.push(layer);
    }
    let chain = |listed: &[Value]| {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let list = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": listed}).to_string();
        registry.push_manifest("signed", &about.replace(':', "-"), media_type, list.as_bytes());
        conversation(async {
            let mut frontend = Frontend::begin(&stage.daemon, &[]).await;
            let identifier = format!("docker-image://{}", registry.reference("signed:1"));
            let source = Some(pb::SourceOp { identifier, ..pb::SourceOp::default() });
            let image = Some(ResolveSourceImageRequest { attestation_chain: true, ..Default::default() });
            let request = ResolveSourceMetaRequest { source, image, ..ResolveSourceMetaRequest::default() };
            let chain = frontend.meta(request).await.unwrap().image.unwrap().attestation_chain.unwrap();
            frontend.end().await;
            chain
        })
    };
    let found = chain(&listed[..1]);
    assert_eq!((found.attestation_manifest.as_str(), found.signature_manifests.len()), (about, 0));
    for (from, at) in [(&listed[..2], 1), (&listed[..], 2)] {
        let found = chain(from);
        assert_eq!(found.signature_manifests, [listed[at]["digest"].as_str().unwrap()]);
        let blob = &found.blobs[&layers[at]];
        assert_eq!(String::from_utf8_lossy(&blob.data), listed[at]["artifactType"].as_str().unwrap());
        let digests: Vec<&String> = found.blobs.keys().collect();
        assert_eq!(digests.len(), 4, "index, attestation, signature and what it signs with: {digests:?}");
        assert_eq!(blob.descriptor.as_ref().unwrap().digest, layers[at]);
    }
    stage.daemon.stop();
}

/// A repository over the web, for those who say a word.
fn serve_to(word: &'static str, projects: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let projects = projects.clone();
            std::thread::spawn(move || answer(connection, word, &projects));
        }
    });
    format!("http://{address}/repo")
}

fn answer(mut connection: TcpStream, word: &str, projects: &Path) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim() {
            "" => break,
            line => lines.push(line.to_string()),
        }
    }
    let Some(first) = lines.first() else { return };
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_string())
        })
    };
    let length = header("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    if header("authorization").as_deref() != Some(word) {
        connection
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        return;
    }
    let words: Vec<&str> = first.split(' ').collect();
    let (path, query) = words[1].split_once('?').unwrap_or((words[1], ""));
    let mut program = Command::new("git");
    program.arg("http-backend").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    program.env("GIT_PROJECT_ROOT", projects).env("GIT_HTTP_EXPORT_ALL", "1");
    program.env("REQUEST_METHOD", words[0]).env("PATH_INFO", path).env("QUERY_STRING", query);
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        program.env(variable, header(name).unwrap_or_default());
    }
    let mut child = program.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    connection.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n").unwrap();
    connection.write_all(&said).unwrap();
}

#[test]
fn a_repository_lets_those_in_whose_secret_it_knows() {
    let stage = Stage::set();
    let repository = Repository::serve(stage.scene.path("git"));
    // x-access-token:open
    let full_url = serve_to("basic eC1hY2Nlc3MtdG9rZW46b3Blbg==", stage.scene.path("git"));
    talk(async {
        let git = GitSource {
            host_path: full_url.replace("http://", ""),
            reference: "main".into(),
            full_url,
            ..GitSource::default()
        };
        let mut llb = stage.graph();
        let output = llb.builder.git(&git, Constraints::default());
        let definition = llb.definition(Some(output));
        stage.solve(definition.clone()).await.refused("git");
        let tree = stage.ask(definition.clone()).secret("GIT_AUTH_TOKEN", "open").tar().await;
        assert_eq!(tree.text("file"), "hello\n");
        assert_eq!(repository.commit.len(), 40);
    });
    stage.daemon.stop();
}

/// Notes how it was called, then does what git asks for.
const SSH: &str = r#"#!/bin/sh
test -S "$SSH_AUTH_SOCK" && echo "an agent" >> LOG
for word; do
  case $word in UserKnownHostsFile=*) cat "${word#UserKnownHostsFile=}" >> LOG ;; *@*) echo "$word" >> LOG ;; esac
  last=$word
done
exec sh -c "$last"
"#;

#[test]
fn a_repository_is_reached_by_ssh_with_the_clients_agent() {
    let stage = Stage::set();
    let _repository = Repository::serve(stage.scene.path("git"));
    let (ssh, log) = (stage.scene.programs.path("ssh"), stage.scene.path("ssh.log"));
    std::fs::write(&ssh, SSH.replace("LOG", &log.display().to_string())).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = stage.scene.path("agent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&agent).unwrap();
    talk(async {
        let path = stage.scene.path("git/repo").display().to_string();
        let git = GitSource {
            host_path: format!("host.example{path}"),
            reference: "main".into(),
            full_url: format!("ssh://me@host.example{path}"),
            ssh: true,
            known_ssh_hosts: "host.example its-key\n".into(),
            ssh_socket: "mine".into(),
            ..GitSource::default()
        };
        let mut llb = stage.graph();
        let output = llb.builder.git(&git, Constraints::default());
        let definition = llb.definition(Some(output));
        stage.solve(definition.clone()).await.refused("unset ssh forward key mine");
        let tree = stage.ask(definition).agent("mine", agent.clone(), true).await.tar().await;
        assert_eq!(tree.text("file"), "hello\n");
    });
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.starts_with("an agent\nhost.example its-key\nme@host.example\n"), "{log}");
    stage.daemon.stop();
}

/// A repository's files and the facts that are asked of it, by git's own daemon.
pub struct Repository {
    daemon: std::process::Child,
    pub url: String,
    pub commit: String,
}

impl Repository {
    pub fn serve(folder: PathBuf) -> Repository {
        std::fs::create_dir_all(&folder).unwrap();
        let run = |line: &str| {
            let environment = "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
                GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";
            let mut command = std::process::Command::new("sh");
            let ran = command
                .arg("-c")
                .arg(format!("{environment}; {line}"))
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(ran.status.success(), "{line}: {ran:?}");
            String::from_utf8(ran.stdout).unwrap().trim().to_string()
        };
        run(
            "git init -q -b main repo; cd repo; echo hello > file; git add .; git commit -qm one; git tag -a v1 -m tagged",
        );
        let commit = run("cd repo; git rev-parse HEAD");
        let program = PathBuf::from(run("git --exec-path")).join("git-daemon");
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut daemon = std::process::Command::new(&program)
                .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")])
                .arg(format!("--base-path={}", folder.display()))
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            while daemon.try_wait().unwrap().is_none() {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Repository { daemon, url: format!("git://127.0.0.1:{port}/repo"), commit };
                }
                std::thread::yield_now();
            }
        }
        panic!("git's daemon does not start");
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
