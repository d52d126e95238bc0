//! Caches with GitHub's runners whose indexes need a signature.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_multiarch::{Daemon, DaemonOptions, GithubStore, Ran, Scene, digest_of};
use crosskit_notary::{Form, Notary, Order};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// One step, which never makes the same twice.
const DOCKERFILE: &str = "FROM BASE\nRUN /bin/cat /proc/sys/kernel/random/uuid > /made\n";

/// The workflow that may sign.
const WORKFLOW: &str = "https://git.example.com/house/.workflows/cache@refs/heads/main";

/// A policy for that.
const POLICY: &str = "timestampThreshold = 2\ntlogThreshold = 1\n\
    subjectAlternativeName = \"https://git.example.com/house/*\"\ncertificateIssuer = \"*,O=example.com\"\n\
    sourceRepositoryURI = \"https://git.example.com/house\"\n";

struct House {
    scene: Scene,
    store: GithubStore,
    notary: Arc<Notary>,
    context: PathBuf,
}

impl House {
    fn new() -> House {
        let scene = Scene::set();
        let notary = Arc::new(Notary::new());
        std::fs::write(scene.path("trusted_root.json"), notary.trusted_root().to_string()).unwrap();
        let context = scene.context("context", &[("Dockerfile", DOCKERFILE)]);
        House { scene, store: GithubStore::start(), notary, context }
    }

    /// Lines of the config with which indexes are verified.
    fn verifying(&self) -> String {
        let root = self.scene.path("trusted_root.json");
        format!(
            "[cache.gha.verify]\nrequired = true\ntrustedRoot = {root:?}\n[cache.gha.verify.policy]\n{POLICY}"
        )
    }

    /// Lines of the config with which indexes are signed: by a program that asks us.
    fn signing(&self, name: &str, order: Order) -> String {
        let [asked, given] = ["asked", "given"].map(|end| self.scene.path(&format!("{name}-{end}")));
        for pipe in [&asked, &given] {
            mknodat(CWD, pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        }
        let command = format!("cat > {} && cat {}", asked.display(), given.display());
        let notary = self.notary.clone();
        std::thread::spawn(move || {
            // Opening waits for whoever opens the other end.
            while let Ok(document) = std::fs::read(&asked) {
                drop(std::fs::write(&given, notary.bundle(&document, &order).to_string()));
            }
        });
        format!("[cache.gha.sign]\ncommand = [\"sh\", \"-c\", {command:?}]\n")
    }

    fn daemon(&self, config: &str) -> Daemon {
        let options =
            DaemonOptions { name: "once".into(), config: config.to_owned(), ..DaemonOptions::default() };
        self.scene.daemon_with(options)
    }

    /// Builds in a daemon of its own.
    fn build(&self, config: &str, context: &Path, arguments: &[&str]) -> Ran {
        let daemon = self.daemon(config);
        let cache = self.store.keys();
        let mut build = daemon.build(context);
        for argument in arguments {
            build = build.argument(argument).argument(&cache);
        }
        let ran = build.run();
        daemon.stop();
        std::fs::remove_dir_all(self.scene.path("once")).unwrap();
        ran
    }

    fn export(&self, config: &str) -> Ran {
        self.build(config, &self.context, &["--export-cache"])
    }

    fn import(&self, config: &str) -> Ran {
        self.build(config, &self.context, &["--import-cache"])
    }

    /// The newest signed index: its key, and what is in it.
    fn index(&self) -> (String, Vec<u8>) {
        let branch = digest_of(b"refs/heads/work");
        self.store.get(&format!("index-buildkit-1-{}-sig#", &branch[7..15])).expect("a signed index")
    }

    /// The key of the signature of an index.
    fn signature(index: &[u8]) -> String {
        format!("buildkit-blob-1-{}-sig", digest_of(index))
    }
}

fn cached(ran: &Ran) -> usize {
    ran.said().lines().filter(|line| line.ends_with(" CACHED")).count()
}

fn blobs(index: &[u8]) -> Vec<String> {
    let index: Value = serde_json::from_slice(index).unwrap();
    let layers = index["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["blob"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_cache_with_the_signature_it_needs_is_used() {
    let house = House::new();
    let signing = format!("{}{}", house.signing("signer", Order::default()), house.verifying());
    house.export(&signing).ok();
    assert_eq!(cached(&house.import(&house.verifying()).ok()), 1);
    assert_eq!(cached(&house.import(&signing).ok()), 1);
    // What is there is verified, and then kept beside what comes.
    let other = house.scene.context("other", &[("Dockerfile", &*DOCKERFILE.replace("/made", "/other"))]);
    house.build(&signing, &other, &["--export-cache"]).ok();
    let (key, index) = house.index();
    assert!(key.ends_with("#2"), "{key}");
    assert_eq!(blobs(&index).len(), 3, "{:?}", blobs(&index));
    assert_eq!(cached(&house.import(&house.verifying()).ok()), 1);
}

#[test]
fn a_cache_without_the_signature_it_needs_is_told_and_not_used() {
    let house = House::new();
    let verifying = house.verifying();
    // One for everybody has another name.
    house.export("").ok();
    assert_eq!(cached(&house.import(&verifying).ok().never_says("ERROR: ")), 0);
    let signing = format!("{}{verifying}", house.signing("signer", Order::default()));
    house.export(&signing).ok();
    assert_eq!(cached(&house.import(&verifying).ok()), 1);
    let (key, index) = house.index();
    let signature = House::signature(&index);
    let (_, good) = house.store.get(&signature).unwrap();
    let subject = WORKFLOW.replace("/house/", "/elsewhere/");
    let elsewhere = Order { subject, ..Order::default() };
    let unstamped = Order { stamped: false, ..Order::default() };
    for (bundle, why) in [
        (b"signed".to_vec(), "signature verification failed: it is no sigstore bundle"),
        (
            Notary::new().bundle(&index, &Order::default()).to_string().into_bytes(),
            "signature verification failed: ",
        ),
        (
            house.notary.bundle(b"{}", &Order::default()).to_string().into_bytes(),
            "signature verification failed: artifact mismatch",
        ),
        (
            house.notary.bundle(&index, &elsewhere).to_string().into_bytes(),
            "signature verification failed: certificate field \"subjectAlternativeName\" does not match policy",
        ),
        (
            house.notary.bundle(&index, &unstamped).to_string().into_bytes(),
            "signature verification failed: not enough timestamp authorities: have 1, need 2",
        ),
    ] {
        house.store.put(&signature, &bundle);
        let ran = house.import(&verifying).ok().says("ERROR: ").says(why);
        assert_eq!(cached(&ran), 0, "{ran}");
    }
    house.store.put(&signature, &good);
    assert_eq!(cached(&house.import(&verifying).ok()), 1);
    // A changed index has no signature of its own.
    let changed = [&index[..], b" "].concat();
    house.store.put(&key, &changed);
    let ran =
        house.import(&verifying).ok().says("ERROR: ").says("missing signature for github actions cache");
    assert_eq!(cached(&ran), 0, "{ran}");
    // Whoever needs none does not mind.
    assert_eq!(cached(&house.import("").ok()), 1);
}

#[test]
fn a_signature_that_does_not_hold_is_given_to_nobody() {
    let house = House::new();
    let subject = WORKFLOW.replace("/house/", "/elsewhere/");
    let elsewhere = house.signing("elsewhere", Order { subject, ..Order::default() });
    let ran = house.export(&format!("{elsewhere}{}", house.verifying())).fails();
    ran.says(
        "signature verification failed: certificate field \"subjectAlternativeName\" does not match policy",
    );
    assert!(house.store.get("index-").is_none());
    if let Some((key, _)) = house.store.get("buildkit-blob-") {
        assert!(!key.ends_with("-sig"), "{key}");
    }
}

#[test]
fn nobody_signs_what_others_have_put_there_unsigned() {
    let house = House::new();
    let other = house.scene.context("other", &[("Dockerfile", &*DOCKERFILE.replace("/made", "/other"))]);
    house.build("", &other, &["--export-cache"]).ok();
    let (_, foreign) = house.store.get("index-buildkit-1-").unwrap();
    let signer = house.signing("signer", Order::default());
    // With and without knowing whose signatures hold.
    for config in [format!("{signer}{}", house.verifying()), signer.clone()] {
        house.export(&config).ok();
        let (key, own) = house.index();
        house.store.put(&key, &foreign);
        house.export(&config).ok();
        let (next, index) = house.index();
        assert_ne!(next, key);
        let foreign = blobs(&foreign).into_iter().filter(|blob| !blobs(&own).contains(blob));
        for blob in foreign {
            assert!(!blobs(&index).contains(&blob), "{next}: {blob}");
        }
    }
}

#[test]
fn a_daemon_that_knows_nobody_to_believe_does_not_start() {
    let house = House::new();
    let missing = house.scene.path("nowhere.json");
    let empty = house.scene.path("empty.json");
    std::fs::write(&empty, "{}").unwrap();
    for (root, why) in [(missing, "No such file or directory"), (empty, "it is no trusted root")] {
        let config = format!("[cache.gha.verify]\nrequired = true\ntrustedRoot = {root:?}\n");
        let options = DaemonOptions { name: "none".into(), config, ..DaemonOptions::default() };
        let ran = Daemon::fails_to_start(&house.scene, options);
        ran.says(&root.display().to_string()).says(why).says("cosign trusted-root create");
    }
}

/// Verifies what is in the current folder with sigstore's own library.
const VERIFIER: &str = "\
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import AllOf, Identity, OIDCSourceRepositoryURI
import sys
verifier = Verifier(trusted_root=TrustedRoot.from_file('trusted_root.json'))
signer = Identity(identity=sys.argv[1], issuer='https://tokens.example.com')
policy = AllOf([signer, OIDCSourceRepositoryURI('https://git.example.com/house')])
message, statement = [Bundle.from_json(open(name).read()) for name in ('message', 'statement')]
verifier.verify_artifact(b'{}', message, policy)
print(verifier.verify_dsse(statement, policy)[1].decode())
";

#[test]
fn signatures_of_these_tests_hold_for_sigstore_s_own_library() {
    let house = House::new();
    for (name, form) in [("message", Form::Message), ("statement", Form::Statement)] {
        let bundle = house.notary.bundle(b"{}", &Order { form, ..Order::default() });
        std::fs::write(house.scene.path(name), bundle.to_string()).unwrap();
    }
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", VERIFIER, WORKFLOW]).current_dir(house.scene.path("."));
    command.env("PYTHONPATH", house.scene.parts.attestations()).env("PYTHONDONTWRITEBYTECODE", "1");
    Ran::run(&mut command).ok().says(&digest_of(b"{}")["sha256:".len()..]);
}
