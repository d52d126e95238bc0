//! Repositories and files that have to be signed.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_api::frontend::{ResolveSourceGitRequest, ResolveSourceMetaRequest};
use crosskit_sources::{ErrorKind, SourceContext};
use std::sync::Arc;
use support::git_daemon::Server;
use support::signers::Signers;
use support::web::Web;
use support::{Build, Daemon, folder, op, shell};

const GIT: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";

const KEYS: &str = "git.sig.pubkey";
const REQUIRE_TAG: (&str, &str) = ("git.sig.requiresignedtag", "true");
const IGNORE_TAG: (&str, &str) = ("git.sig.ignoresignedtag", "true");
const REJECT_EXPIRED: (&str, &str) = ("git.sig.rejectexpired", "true");

/// A repository with a commit `plain` that nobody signed and a tag `v0` of it, a commit `pgp` that Ann signed by PGP and
/// a tag `v1` of it that Bob signed by SSH, and a commit `ssh` that Bob signed, with a tag `v2` that Ann signed. The
/// commits `forged-pgp` and `forged-ssh` have these commits' signatures, and other messages.
struct Repository {
    server: Server,
    ann: String,
    bob: String,
    signers: Signers,
}

fn repository(format: &str) -> Repository {
    let signers = Signers::new();
    let ann = signers.pgp("ann", "ed25519", "", "never");
    let (bob, by_bob) = signers.ssh("bob", "-t ed25519");
    let by_ann = signers.git_pgp("ann", "");
    let (guard, dir) = folder();
    let commit = |name: &str, options: &str, sign: &str| {
        format!(
            "git checkout -q -B {name}; echo {name} >file; git add .; git {options} commit -q {sign} -m {name}"
        )
    };
    let steps = [
        format!("{GIT}; umask 022; git init -q --object-format={format} -b plain repo; cd repo"),
        commit("plain", "", ""),
        "git tag -a v0 -m plain".into(),
        commit("pgp", &by_ann, "-S"),
        format!("git {by_bob} tag -s v1 -m pgp"),
        commit("ssh", &by_bob, "-S"),
        format!("git {by_ann} tag -s v2 -m ssh"),
        "for of in pgp ssh; do git cat-file commit $of | sed s/^$of$/forged/ | git hash-object -t commit -w --stdin | \
         xargs git update-ref refs/heads/forged-$of; done"
            .into(),
        "git config uploadpack.allowAnySHA1InWant true; git update-server-info".into(),
    ];
    shell(&dir, &steps.join("; "));
    Repository { server: Server::start((guard, dir)), ann, bob, signers }
}

/// What comes of one demand: nothing, or what is said.
async fn bring(
    daemon: &Daemon,
    repository: &Repository,
    name: &str,
    keys: &str,
    more: &[(&str, &str)],
) -> Result<String, String> {
    let attrs = [&[(KEYS, keys)][..], more].concat();
    let brought = daemon.bring(&Build::alone(), repository.server.op(&format!("#{name}"), &attrs)).await?;
    let files = brought.files().await;
    Ok(files.into_iter().find_map(|line| line.strip_prefix("file f 644 0:0  ").map(String::from)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_and_tags_are_signed_by_whom_they_have_to_be() {
    judge("sha1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_are_those_with_longer_ids() {
    judge("sha256").await;
}

async fn judge(format: &str) {
    let repository = repository(format);
    let (daemon, other) = (Daemon::new(), Signers::new());
    let (ann, bob) = (repository.ann.as_str(), repository.bob.as_str());
    let eve = other.pgp("eve", "ed25519", "", "never");
    let (eves_ssh, _) = other.ssh("eve", "-t ed25519");
    let (both, mixed) = (format!("{eve}\n{ann}"), format!("{ann}\n{bob}"));
    let (commit, tag) = (repository.server.rev("pgp"), repository.server.rev("v1"));
    for (name, keys, more, expected) in [
        ("pgp", ann, &[][..], Ok("pgp")),
        ("pgp", ann, &[REJECT_EXPIRED, ("git.sig.ignoresignedtag", "false")], Ok("pgp")),
        ("pgp", &both, &[("git.keepgitdir", "true")], Ok("pgp")),
        (&commit, ann, &[], Ok("pgp")),
        (&commit, ann, &[("git.checksum", &commit), ("git.fetchbycommit", "true")], Ok("pgp")),
        ("ssh", bob, &[], Ok("ssh")),
        ("v1", bob, &[REQUIRE_TAG], Ok("pgp")),
        ("v1", bob, &[REQUIRE_TAG, ("git.keepgitdir", "true")], Ok("pgp")),
        (&tag, bob, &[REQUIRE_TAG], Ok("pgp")),
        ("v2", ann, &[REQUIRE_TAG], Ok("ssh")),
        ("v2", &mixed, &[IGNORE_TAG], Ok("ssh")),
        // A tag by somebody else, of a commit that is signed.
        ("v1", ann, &[], Ok("pgp")),
        ("v1", ann, &[IGNORE_TAG], Ok("pgp")),
        // What is in the cache by now.
        ("pgp", &eve, &[], Err("signature made by unknown entity")),
        ("pgp", &eve, &[], Err("failed to verify pgp signature: commit ")),
        ("pgp", &eve, &[], Err("signature by ")),
        ("pgp", &eve, &[("git.keepgitdir", "true")], Err("signature made by unknown entity")),
        (&commit, &eve, &[], Err("signature made by unknown entity")),
        ("pgp", bob, &[], Err("failed to read armored public key of git.sig.pubkey: no armored data")),
        ("ssh", &eves_ssh, &[], Err("failed to verify ssh signature: commit ")),
        ("ssh", &eves_ssh, &[], Err("public key does not match: signature by SHA256:")),
        ("v1", ann, &[REQUIRE_TAG], Err("failed to parse ssh public key")),
        ("v1", &eves_ssh, &[REQUIRE_TAG], Err("failed to verify ssh signature: tag ")),
        ("v1", bob, &[IGNORE_TAG], Err("failed to read armored public key")),
        ("v1", &eves_ssh, &[], Err("(nor is its tag: failed to verify ssh signature: tag ")),
        ("v0", ann, &[], Err("git object is not signed")),
        ("v0", ann, &[REQUIRE_TAG], Err("git object is not signed")),
        ("plain", ann, &[], Err("git object is not signed")),
        ("forged-pgp", ann, &[], Err("it does not belong to this content")),
        ("forged-ssh", bob, &[], Err("does not belong to it: one of them was changed")),
        ("pgp", ann, &[REQUIRE_TAG], Err("signed tag required but no signed tag found")),
        ("v1", bob, &[REQUIRE_TAG, IGNORE_TAG], Err("signed tag required but no signed tag found")),
        ("pgp", "nothing", &[], Err("no armored data found")),
    ] {
        let found = bring(&daemon, &repository, name, keys, more).await;
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{format} {name} {more:?}"),
            (Err(err), Err(text)) => assert!(err.contains(text), "{format} {name} {more:?}: {err}"),
            _ => panic!("{format} {name} {more:?}: {found:?} instead of {expected:?}"),
        }
    }
    let scratch = daemon.dir.path().join("scratch");
    while std::fs::read_dir(&scratch).unwrap().count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_count_no_more_are_refused() {
    let signers = Signers::new();
    let old = signers.pgp("old", "ed25519", "20200101T000000!", "1y");
    let (short, by_short) = signers.ssh("short", "-t rsa -b 1024");
    let (guard, dir) = folder();
    let by_old = signers.git_pgp("old", "20200601T000000!");
    shell(
        &dir,
        &format!(
            "{GIT}; umask 022; git init -q -b old repo; cd repo; echo old >file; git add .; git {by_old} commit -q -S -m old; git checkout -q -b short; git {by_short} commit -q --allow-empty -S -m short"
        ),
    );
    let server = Server::start((guard, dir));
    let repository = Repository { server, ann: String::new(), bob: String::new(), signers };
    let daemon = Daemon::new();
    assert_eq!(bring(&daemon, &repository, "old", &old, &[]).await, Ok("old".into()));
    let err = bring(&daemon, &repository, "old", &old, &[REJECT_EXPIRED]).await.unwrap_err();
    assert!(err.contains("key expired at 2020-12-31T"), "{err}");
    let err = bring(&daemon, &repository, "short", &short, &[]).await.unwrap_err();
    assert!(err.contains("RSA key too short: 1024 bits"), "{err}");
    drop(repository.signers);
}

/// Metadata is told of what is signed alone, and with the objects.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_what_is_not_signed() {
    let (daemon, repository) = (Daemon::new(), repository("sha1"));
    let cx: Arc<dyn SourceContext> = Build::alone();
    let ask = async |name: &str, attrs: &[(&str, &str)]| {
        let request = ResolveSourceMetaRequest {
            source: Some(repository.server.op(&format!("#{name}"), attrs)),
            git: Some(ResolveSourceGitRequest { return_object: false }),
            ..ResolveSourceMetaRequest::default()
        };
        daemon.sources.resolve_source_meta(&request, &cx).await
    };
    let plain = ask("v1", &[]).await.unwrap().git.unwrap();
    assert!(plain.commit_object.is_empty() && plain.tag_object.is_empty());
    let attrs = [(KEYS, repository.bob.as_str()), REQUIRE_TAG];
    let known = ask("v1", &attrs).await.unwrap().git.unwrap();
    assert_eq!((&known.checksum, &known.commit_checksum), (&plain.checksum, &plain.commit_checksum));
    assert_eq!(known.commit_checksum, repository.server.rev("pgp"));
    assert!(String::from_utf8_lossy(&known.tag_object).contains("BEGIN SSH SIGNATURE"));
    assert!(String::from_utf8_lossy(&known.commit_object).contains("gpgsig -----BEGIN PGP"));
    let err = ask("v0", &attrs).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::User);
    let text = format!("tag {} of git://127.0.0.1", repository.server.rev("v0"));
    assert!(err.to_string().starts_with(&text), "{err}");
    assert!(err.to_string().contains("git object is not signed"), "{err}");
}

/// A remote may not pass off what is in the cache as what a signed tag names.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_remote_says_of_a_tag_is_not_believed() {
    let (daemon, repository) = (Daemon::new(), repository("sha1"));
    let web = Web::of(&repository.server.dir).await;
    let (plain, signed) = (repository.server.rev("plain"), repository.server.rev("pgp"));
    let url = format!("{}/repo/.git", web.url);
    let name = format!("git://{}", url.trim_start_matches("http://"));
    let bring = async |fragment: &str, attrs: &[(&str, &str)]| {
        let attrs = [&[("git.fullurl", url.as_str())][..], attrs].concat();
        daemon
            .bring(&Build::alone(), op(&format!("{name}#{fragment}"), &attrs))
            .await
            .map(|brought| brought.keys)
    };
    let by_bob = [(KEYS, repository.bob.as_str()), REQUIRE_TAG];
    let by_ann = [(KEYS, repository.ann.as_str())];
    assert_eq!(bring("plain", &[]).await.unwrap(), [plain.as_str()]);
    assert_eq!(bring("v1", &by_bob).await.unwrap(), [signed.as_str()]);
    let refs = repository.server.dir.join("repo/.git/info/refs");
    let honest = std::fs::read_to_string(&refs).unwrap();
    let peeled = format!("{signed}\trefs/tags/v1^{{}}");
    assert!(honest.contains(&peeled), "{honest}");
    std::fs::write(&refs, honest.replace(&peeled, &format!("{plain}\trefs/tags/v1^{{}}"))).unwrap();
    let err = bring("v1", &by_bob).await.unwrap_err();
    assert!(err.contains(&format!("says that refs/tags/v1 is commit {plain}, but it is {signed}")), "{err}");
    // A commit that is said to be a tag of another.
    let tag = repository.server.rev("v1");
    let lie = honest.replace(&format!("{tag}\trefs/tags/v1\n"), &format!("{signed}\trefs/tags/v1\n"));
    std::fs::write(&refs, lie.replace(&peeled, &format!("{plain}\trefs/tags/v1^{{}}"))).unwrap();
    let err = bring("v1", &by_ann).await.unwrap_err();
    assert!(err.contains(&format!("is commit {plain}, but it is {signed}")), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_signed_by_whom_they_have_to_be() {
    let (daemon, signers) = (Daemon::new(), Signers::new());
    let (_guard, dir) = folder();
    let file = dir.join("artifact");
    std::fs::write(&file, "payload").unwrap();
    let web = Web::of(&dir).await;
    let url = format!("{}/artifact", web.url);
    let key = |name: &str, algorithm: &str, expires: &str| {
        signers.pgp(name, algorithm, "20200101T000000!", expires)
    };
    let (ann, eve) = (key("ann", "ed25519", "never"), key("eve", "rsa3072", "never"));
    let (old, short) = (key("old", "nistp256", "1y"), key("short", "rsa1024", "never"));
    let by = |name: &str, made: &str, more: &[&str]| signers.sign(name, made, more, &file);
    let good = by("ann", "", &[]);
    let (both, all) = (format!("text\n{eve}\n{ann}"), signers.gpg(&["--armor", "--export"]));
    let inline =
        signers.gpg(&["--armor", "--local-user", "ann", "--output", "-", "--sign", &file.to_string_lossy()]);
    let passed_off = inline.replace("PGP MESSAGE", "PGP SIGNATURE");
    let private = signers.gpg(&["--armor", "--export-secret-keys", "ann"]);
    let another = dir.join("another");
    std::fs::write(&another, "other payload").unwrap();
    let of_another = signers.sign("ann", "", &[], &another);
    let huge = format!("{ann}{}", "x".repeat(1 << 20));
    let bring = async |keys: &str, signature: &str, more: &[(&str, &str)]| {
        let attrs = [&[("http.sig.pubkey", keys), ("http.sig.signature", signature)][..], more].concat();
        daemon.bring(&Build::alone(), op(&url, &attrs)).await
    };
    let twice = [by("eve", "", &[]), good.clone()];
    let digest = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix("payload"));
    let digest = format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let pinned = [("http.checksum", digest.as_str())];
    for (keys, signature, expected) in [
        (ann.as_str(), good.as_str(), ""),
        (&both, &good, ""),
        (&all, &good, ""),
        (&eve, &by("eve", "", &["--digest-algo", "SHA256"]), ""),
        (&old, &by("old", "20200601T000000!", &[]), ""),
        (&ann, &by("ann", "20200601T000000!", &["--default-sig-expire", "1d"]), ""),
        (&ann, &by("ann", "", &["--textmode"]), ""),
        (&eve, &good, "failed to verify pgp signature: http://127.0.0.1"),
        (&eve, &good, "signature made by unknown entity: no key of http.sig.pubkey"),
        (&ann, &of_another, "it does not belong to this content"),
        (&ann, &by("ann", "20600101T000000!", &[]), "creation time is in the future: 2060-01-01"),
        (&ann, &by("ann", "", &["--digest-algo", "SHA1"]), "rejecting weak/unknown hash: SHA1"),
        (&short, &by("short", "", &[]), "RSA key too short: 1024 bits"),
        (&ann, &passed_off, "not a detached signature"),
        (&ann, &inline, "failed to decode armored signature: it is a PGP MESSAGE"),
        (&ann, "nothing", "failed to decode armored signature: no armored data found"),
        (&private, &good, "it is a private key"),
        (&good, &good, "failed to read armored public key of http.sig.pubkey: it is a PGP SIGNATURE"),
        (&ann[..ann.len() / 2], &good, "failed to read armored public key"),
        (&huge, &good, "1048576 are the most"),
        ("", &good, "http signature verification requires both pubkey and signature"),
        (&ann, "", "http signature verification requires both pubkey and signature"),
    ] {
        for more in [&[][..], &pinned] {
            let found = bring(keys, signature, more).await;
            match (found, expected) {
                (Ok(found), "") => assert_eq!(found.files().await, ["artifact f 600 0:0  payload"]),
                (Err(err), text) => assert!(!text.is_empty() && err.contains(text), "{text:?}: {err}"),
                (Ok(_), text) => panic!("{text:?} was not said"),
            }
        }
    }
    // Of several signatures, one is enough.
    let dearmored = dir.join("two");
    for (at, one) in twice.iter().enumerate() {
        std::fs::write(dir.join(format!("{at}.asc")), one).unwrap();
    }
    let home = signers.dir.display();
    shell(&dir, &format!("for i in 0 1; do gpg --homedir {home} --dearmor <$i.asc; done >two"));
    let two = signers.gpg(&["--output", "-", "--enarmor", &dearmored.to_string_lossy()]);
    let two = two.replace("PGP ARMORED FILE", "PGP SIGNATURE");
    bring(&ann, &two, &[]).await.unwrap();
    assert!(bring(&old, &two, &[]).await.is_err());

    // Revoked since, in the key that is given.
    let fingerprint = signers.gpg(&["--with-colons", "--list-keys", "ann"]);
    let fingerprint = fingerprint.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let certificate = signers.dir.join(format!("openpgp-revocs.d/{}.rev", fingerprint.trim_end_matches(':')));
    let text = std::fs::read_to_string(&certificate).unwrap().replace("\n:---", "\n---");
    std::fs::write(&certificate, text).unwrap();
    signers.gpg(&["--import", &certificate.to_string_lossy()]);
    let err = bring(&signers.public("ann"), &good, &[]).await.err().unwrap();
    assert!(err.contains("key revoked: "), "{err}");

    // The file changes.
    bring(&ann, &good, &[]).await.unwrap();
    std::fs::write(&file, "tampered").unwrap();
    let err = bring(&ann, &good, &[]).await.err().unwrap();
    assert!(err.contains("it does not belong to this content"), "{err}");
    let err = bring(&ann, &good, &pinned).await.err().unwrap();
    assert!(err.contains("digest mismatch for"), "{err}");
    let scratch = daemon.dir.path().join("scratch");
    while std::fs::read_dir(&scratch).unwrap().count() > 0 {
        tokio::task::yield_now().await;
    }
}
