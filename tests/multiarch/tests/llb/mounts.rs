//! What is mounted into steps, and what becomes of it.

use crate::frontend::{Frontend, conversation, image};
use crate::graphs::{bind, changed_exec, mkfile, native};
use crate::stage::{Stage, talk};
use crosskit_api::pb;
use crosskit_llb::{CacheMount, Exec, ExecMount, SecretMount, SshMount};
use crosskit_multiarch::{processes_of, until};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn cache(target: &str, id: &str, sharing: pb::CacheSharingOpt) -> ExecMount {
    let cache = Some(CacheMount { id: id.into(), sharing });
    ExecMount { target: target.into(), cache, ..ExecMount::default() }
}

#[test]
fn what_is_written_to_a_mount_without_output_is_gone() {
    let stage = Stage::set();
    talk(async {
        let mut llb = stage.graph();
        let lent = llb.text("/lent", "as it was\n");
        for (no_output, after) in [(true, "as it was\n"), (false, "changed\n")] {
            let mount = ExecMount { no_output, ..bind("/m", lent) };
            let script = "cat /m/lent; echo changed > /m/lent; cat /m/lent > /seen";
            let exec = Exec { mounts: vec![mount], ..llb.sh(script) };
            let outputs = llb.builder.exec(exec, native());
            assert_eq!(outputs.mounts[0].is_none(), no_output);
            let tree = stage.files(llb.definition(outputs.root)).await;
            assert_eq!(tree.text("seen"), "changed\n");
            let tree = stage.files(llb.definition(Some(outputs.mounts[0].unwrap_or(lent)))).await;
            assert_eq!(tree.text("lent"), after);
        }
        // Read-only ones are; and a part of a result may be mounted instead of all of it.
        let parts = vec![mkfile("/one", "1\n"), mkfile("/two", "2\n")];
        let parts = llb.file(None, parts);
        let mounts = vec![
            ExecMount { readonly: true, ..bind("/all", parts) },
            ExecMount { selector: "two".into(), ..bind("/part", parts) },
        ];
        let exec = Exec { mounts, ..llb.sh("cat /all/one /part; echo x > /all/one") };
        let output = llb.exec(exec);
        let told = stage.solve(llb.definition(Some(output))).await;
        assert!(told.said().contains("1\n2\n"), "{}", told.said());
        assert!(told.said().contains("Read-only file system"));
        told.refused("exit code: 1");
    });
    stage.daemon.stop();
}

#[test]
fn caches_are_kept_and_shared_as_asked() {
    use pb::CacheSharingOpt::{Locked, Private, Shared};
    let stage = Stage::set();
    talk(async {
        let with = |script: &str, mounts: Vec<ExecMount>| stage.step(script, |exec, _| exec.mounts = mounts);
        // Kept from one step to the next; two of one step that have the same id are the same folder.
        let kept = || vec![cache("/a", "kept", Locked), cache("/b", "kept", Locked)];
        stage.solve(with("echo 1 > /a/file; cat /b/file", kept())).await.ok();
        assert_eq!(stage.solve(with("cat /a/file /b/file", kept())).await.ok().said(), "1\n1\n");
        let records = stage.daemon.buildctl(&["du", "--verbose"]).ok();
        records.says("cached mount /a from exec /bin/sh -c echo 1 > /a/file; cat /b/file with id \"kept\"");
        stage.solve(with("true", vec![cache("/same", "/same", Shared)])).await.ok();
        let records = stage.daemon.buildctl(&["du", "--verbose"]).ok();
        records.says("cached mount /same from exec /bin/sh -c true").never_says("true with id");

        // One that starts from a result, beside one of the same id that does not.
        let mut llb = stage.graph();
        let base = llb.text("/from", "base\n");
        let based = |id: &str| ExecMount { source: Some(base), ..cache("/c", id, Shared) };
        for (script, said) in
            [("cat /c/from; echo more > /c/from", "base\n"), ("cat /c/from; ls /d", "more\n")]
        {
            let exec = Exec { mounts: vec![based("kept"), cache("/d", "other", Shared)], ..llb.sh(script) };
            let output = llb.exec(exec);
            assert_eq!(stage.solve(llb.definition(Some(output))).await.ok().said(), said);
        }
        assert_eq!(stage.solve(with("ls /a", kept())).await.ok().said(), "file\n");

        // A second user at the same time gets the same folder, one of its own, or waits.
        for (id, sharing) in [("shared", Shared), ("private", Private), ("locked", Locked)] {
            let mount = || vec![cache("/c", id, sharing), cache("/gate", &format!("{id}-gate"), Shared)];
            let script = format!(
                "echo first > /c/file; echo inside; : {id}; until test -e /gate/open; do /bin/sleep 0.02; done"
            );
            let first = stage.ask(with(&script, mount())).start().await;
            first.hear("inside").await;
            let open = "touch /gate/open";
            match sharing {
                Shared => {
                    let second = stage.solve(with("cat /c/file; touch /gate/open", mount())).await.ok();
                    assert_eq!(second.said(), "first\n");
                }
                Private => {
                    let second = stage.solve(with("ls /c; touch /gate/open", mount())).await.ok();
                    assert_eq!(second.said(), "");
                }
                Locked => {
                    let second = stage.ask(with("cat /c/file; echo second", mount())).start().await;
                    let gate = with(open, vec![cache("/gate", "locked-gate", Shared)]);
                    let (opened, _) = tokio::join!(stage.solve(gate), second.hear("second"));
                    opened.ok();
                    assert_eq!(second.end().await.ok().said(), "first\nsecond\n");
                }
            }
            first.end().await.ok();
        }
    });
    stage.daemon.stop();
}

#[test]
fn content_counts_for_the_cache_as_the_mount_says() {
    use pb::MountContentCache::{Default, Off, On};
    let stage = Stage::set();
    talk(async {
        for (at, (content_cache, other, inside)) in
            // Whether the step runs again when something else of the input changes, and the part that is mounted.
            [(Default, false, true), (On, false, true), (Off, true, true)].into_iter().enumerate()
        {
            let mut round = 0;
            let mut build = async |part: &str, rest: &str| {
                let mut llb = stage.graph();
                let folder = |path: &str| {
                    let action = crosskit_llb::MkdirAction {
                        path: path.into(),
                        mode: 0o755,
                        ..crosskit_llb::MkdirAction::default()
                    };
                    crosskit_llb::FileActionSpec::Mkdir(action)
                };
                let actions = vec![folder("/part"), mkfile("/part/file", part), mkfile("/rest", rest)];
                let input = llb.file(None, actions);
                let mount = ExecMount {
                    selector: "/part".into(),
                    readonly: true,
                    content_cache,
                    ..bind("/m", input)
                };
                let script = format!("cat /m/file > /dev/null; echo {at}");
                let exec = Exec { mounts: vec![mount], ..llb.sh(&script) };
                let output = llb.exec(exec);
                round += 1;
                !stage.solve(llb.definition(Some(output))).await.ok().said().is_empty()
            };
            assert!(build("a", "a").await, "{content_cache:?}");
            assert!(!build("a", "a").await, "{content_cache:?}");
            assert_eq!(build("a", "b").await, other, "{content_cache:?}: something else");
            assert_eq!(build("b", "b").await, inside, "{content_cache:?}: the part");
        }
        // Not where a writable part of a result would be one of its own.
        let mut llb = stage.graph();
        let input = llb.text("/file", "");
        let mount = ExecMount { selector: "/file".into(), content_cache: On, ..bind("/m", input) };
        let exec = Exec { mounts: vec![mount], ..llb.sh("true") };
        let output = llb.exec(exec);
        stage.solve(llb.definition(Some(output))).await.refused("invalid mount cache content /m");
    });
    stage.daemon.stop();
}

#[test]
fn a_tmpfs_is_as_large_as_asked_and_may_be_read_only() {
    let stage = Stage::set();
    talk(async {
        let tmpfs = ExecMount { target: "/t".into(), tmpfs: Some(2 << 20), ..ExecMount::default() };
        let script = "df -k /t | tail -n 1 | awk '{print $2}'; grep -o ' /t tmpfs [a-z,]*' /proc/mounts; \
            head -c 3000000 /dev/zero > /t/file 2> /dev/null || echo full";
        let step = stage.step(script, |exec, _| exec.mounts = vec![tmpfs.clone()]);
        let said = stage.solve(step).await.ok().said();
        assert_eq!(said, "2048\n /t tmpfs rw,nosuid,relatime,size\nfull\n");
        let readonly = ExecMount { readonly: true, ..tmpfs };
        let step = stage.step("touch /t/file 2>&1 || true", |exec, _| exec.mounts = vec![readonly]);
        assert!(stage.solve(step).await.ok().said().contains("Read-only file system"));
    });
    stage.daemon.stop();
}

#[test]
fn secrets_are_as_private_as_asked() {
    let stage = Stage::set();
    let flags = "awk '$5 == \"/s\" {print $6}' /proc/self/mountinfo | tr , '\\n' | grep -E 'ro|^no[sed]' | sort | xargs echo";
    talk(async {
        let secret = |mode: u32| SecretMount {
            id: "key".into(),
            target: Some("/s".into()),
            uid: 1000,
            gid: 2000,
            mode,
            ..SecretMount::default()
        };
        for (mode, shown, mounted) in [
            (0o400, "1000:2000:400", "nodev noexec nosuid ro"),
            (0o4640, "1000:2000:640", "nodev noexec nosuid ro"),
            (0o550, "1000:2000:550", "nodev nosuid ro"),
        ] {
            let script = format!("stat -c %u:%g:%a /s; cat /s; echo; {flags}");
            let step = stage.step(&script, |exec, _| exec.secrets = vec![secret(mode)]);
            let said = stage.ask(step).secret("key", "hidden").solve().await.ok().said();
            assert_eq!(said, format!("{shown}\nhidden\n{mounted}\n"));
        }
        let script = "test -e /s || echo no file; echo \"${S-unset}\"";
        let asked = |optional: bool, target: Option<&str>, env: Option<&str>| {
            let (target, env) = (target.map(String::from), env.map(String::from));
            SecretMount { target, env, optional, mode: 0o400, ..secret(0) }
        };
        let step = |secret: SecretMount| stage.step(script, |exec, _| exec.secrets = vec![secret]);
        let said =
            stage.ask(step(asked(false, None, Some("S")))).secret("key", "hidden").solve().await.ok().said();
        assert_eq!(said, "no file\nhidden\n");
        // Without the secret: what needn't be there isn't.
        assert_eq!(stage.solve(step(asked(true, Some("/s"), None))).await.ok().said(), "no file\nunset\n");
        assert_eq!(stage.solve(step(asked(true, None, Some("S")))).await.ok().said(), "no file\n\n");
        for secret in [asked(false, Some("/s"), None), asked(false, None, Some("S"))] {
            let secret = SecretMount { id: "other".into(), ..secret };
            stage.solve(step(secret)).await.refused("secret other: not found");
        }
    });
    stage.daemon.stop();
}

#[test]
fn agents_are_reached_by_their_sockets() {
    let stage = Stage::set();
    let path = stage.scene.path("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Says what it was told, which no agent's messages are made of.
    let echo = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut heard = [0; 5];
        connection.read_exact(&mut heard).unwrap();
        connection.write_all(&heard).unwrap();
    });
    talk(async {
        let ssh = |mode: u32, optional: bool| SshMount {
            id: "raw".into(),
            uid: 1000,
            gid: 2000,
            mode,
            optional,
            ..SshMount::default()
        };
        let script = "stat -c %F:%u:%g:%a $SSH_AUTH_SOCK; echo up; exec /bin/sleep 1000.125";
        let step = stage.step(script, |exec, _| exec.ssh = vec![ssh(0o4620, false)]);
        let building = stage.ask(step).agent("raw", path.clone(), true).await.start().await;
        assert_eq!(building.hear("up\n").await, "socket:1000:2000:620\nup\n");
        let sleeps = |(id, line): (u32, String)| line.starts_with("/bin/sleep 1000.125").then_some(id);
        let process = until("the step's process", LONG, || {
            processes_of(&stage.daemon.root).into_iter().find_map(sleeps)
        });
        // As seen by the step, by somebody who can talk to a socket.
        let inside = format!("/proc/{process}/root/run/buildkit/ssh_agent.0");
        let mut connection = UnixStream::connect(inside).unwrap();
        connection.write_all(b"ping\n").unwrap();
        let mut heard = String::new();
        connection.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "ping\n");
        building.vanish().await;
        let absent = "test -e /run/buildkit/ssh_agent.0 || echo no agent";
        let step = |optional: bool| stage.step(absent, |exec, _| exec.ssh = vec![ssh(0o600, optional)]);
        assert_eq!(stage.solve(step(true)).await.ok().said(), "no agent\n");
        stage.solve(step(false)).await.refused("unset ssh forward key raw");
    });
    echo.join().unwrap();
    stage.daemon.stop();
}

#[test]
fn only_files_of_a_result_are_a_root() {
    let stage = Stage::set();
    talk(async {
        for kind in [pb::MountType::Cache, pb::MountType::Tmpfs, pb::MountType::Secret, pb::MountType::Ssh] {
            let step = changed_exec(stage.step("true", |_, _| {}), |exec| {
                exec.mounts[0].mount_type = kind.into();
                exec.mounts[0].cache_opt = Some(pb::CacheOpt { id: "root".into(), sharing: 0 });
            });
            let message = format!("invalid mount type {} for /", kind.as_str_name());
            stage.solve(step).await.refused(&message);
        }
    });
    conversation(async {
        let mut frontend = Frontend::begin(&stage.daemon, &[]).await;
        let base = frontend.solve(&image(&stage.scene.base(), None, None)).await.unwrap();
        let cache_opt = Some(pb::CacheOpt { id: "root".into(), sharing: 0 });
        let kind = pb::MountType::Cache.into();
        let root = pb::Mount {
            dest: "/".into(),
            result_id: base,
            mount_type: kind,
            cache_opt,
            ..pb::Mount::default()
        };
        let refused = frontend.container("c", &[], vec![root]).await.unwrap_err();
        assert!(refused.message().contains("invalid mount type CACHE for /"), "{refused}");
        let unknown = pb::Mount { dest: "/x".into(), mount_type: 9, ..pb::Mount::default() };
        let refused = frontend.container("d", &[], vec![unknown]).await.unwrap_err();
        assert!(refused.message().contains("mount type 9 of mount \"/x\" not implemented"), "{refused}");
        frontend.end().await;
    });
    stage.daemon.stop();
}
