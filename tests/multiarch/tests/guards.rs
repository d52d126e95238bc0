//! What others' builds may try, and must not get: each test fails without its guard (docs/security.md).

use crosskit_multiarch::{DaemonOptions, Registry, Scene};
use std::path::Path;

/// Names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("list").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_link_in_a_cache_mount_leads_no_step_out_of_it() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let probe = scene.path("probe");
    std::fs::create_dir_all(&probe).expect("create a folder on the machine");
    std::fs::write(probe.join("secret"), "of the machine").expect("write on the machine");
    let dockerfile = format!(
        "FROM BASE AS a\n\
         RUN --mount=type=cache,id=x,target=/c mkdir -p /c{probe} && ln -s {probe} /c/part && \
         ln -s ../../../../../../../..{probe} /c/up\n\
         RUN --mount=type=cache,id=x,source=/part,target=/d --mount=type=cache,id=x,source=/up,target=/e \
         ls -A /d /e > /seen && touch /d/one /e/two\n\
         RUN --mount=type=cache,id=x,target=/c ls /c{probe} > /made\n\
         FROM scratch\nCOPY --from=a /seen /made /\n",
        probe = probe.display()
    );
    let context = scene.context("c", &[("Dockerfile", &dockerfile)]);
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("a result");
    assert_eq!(read("made"), "one\ntwo\n");
    assert!(!read("seen").contains("secret"), "{}", read("seen"));
    assert_eq!(names(&probe), ["secret"]);
    daemon.stop();
}

#[test]
fn what_is_cleaned_up_after_a_step_is_in_its_root() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let probe = scene.path("probe");
    std::fs::create_dir_all(probe.join("mount")).expect("create a folder on the machine");
    for name in ["resolv.conf", "hosts"] {
        // Empty, as what the runtime makes for its mounts is.
        std::fs::write(probe.join(name), "").expect("write on the machine");
    }
    let modified = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).expect("a time");
    let before = modified(&probe);
    // Without a folder of its own at /etc, the runtime makes that one too, and the step can move it away.
    let dockerfile = format!(
        "FROM BASE AS base\nFROM scratch\nCOPY --from=base /bin /bin\nENV PATH=/bin\n\
         RUN --mount=type=tmpfs,target=/data/mount mv /etc /was && ln -s {probe} /etc && \
         mv /data /data.was && ln -s ../../../../../../../..{probe} /data\n",
        probe = probe.display()
    );
    let context = scene.context("c", &[("Dockerfile", &dockerfile)]);
    daemon.build(&context).run().ok();
    assert_eq!(names(&probe), ["hosts", "mount", "resolv.conf"]);
    assert_eq!(modified(&probe), before);
    daemon.stop();
}

#[test]
fn a_step_of_a_dockerfile_is_not_privileged_without_the_entitlement() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN --security=insecure true\n")]);
    daemon.build(&context).run().fails().says("security.insecure is not allowed");
    // What the client allows, the daemon has to allow as well.
    daemon
        .build(&context)
        .argument("--allow=security.insecure")
        .run()
        .fails()
        .says("granting entitlement security.insecure is not allowed by build daemon configuration");
    scene.write("c", "Dockerfile", "FROM BASE\nRUN --network=host true\n");
    daemon.build(&context).run().fails().says("network.host is not allowed");
    daemon.stop();
}

/// Passwords in names of sources: whoever sees the progress, the log, or the history, sees none.
#[test]
fn passwords_in_urls_are_in_no_log_and_no_progress() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let password = "hunter2swordfish";
    let url = |path: &str| format!("https://someone:{password}@127.0.0.1:1/{path}");
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    for (key, value) in [
        ("context", url("repository.git")),
        ("context", url("repository.git#main:sub")),
        ("build-context:more", url("repository.git")),
    ] {
        scene.write("c", "Dockerfile", "FROM BASE\nCOPY --from=more / /\n");
        let ran = daemon.build(&context).opt(key, &value).run();
        // The client's own command line is shown first.
        assert!(!ran.stderr.contains(password) && !ran.stdout.contains(password), "{}", ran.stderr);
    }
    // One that works, and what is attested of it: any file that the registry serves.
    let served = scene.registry.address();
    let dockerfile = format!("FROM scratch\nADD http://someone:{password}@{served}/v2/ /file\n");
    scene.write("c", "Dockerfile", &dockerfile);
    let out = scene.path("out");
    daemon.build(&context).opt("attest:provenance", "mode=max").into(&out).run().ok();
    let provenance = std::fs::read_to_string(out.join("provenance.json")).expect("the provenance");
    assert!(provenance.contains("/v2/") && !provenance.contains(password), "{provenance}");
    let ran = daemon.buildctl(&["debug", "histories", "--format", "{{json .}}"]).ok();
    assert!(ran.said().contains("repository.git") && !ran.said().contains(password), "{ran}");
    assert!(!daemon.log().contains(password), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn what_a_client_lends_is_in_no_log_and_no_attestation() {
    let scene = Scene::set();
    let locked = Registry::start_with_password(&scene.parts, &scene.path("locked"));
    let config = format!("[registry.\"{}\"]\n  http = true\n", locked.address());
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    let value = "correct-horse-battery";
    let lent = scene.path("lent");
    std::fs::write(&lent, value).expect("write a secret");
    // "builder:secret"
    let code = "YnVpbGRlcjpzZWNyZXQ=";
    let login = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{code}\"}}}}}}", locked.address());
    let known = scene.context("login", &[("config.json", &login)]);
    let dockerfile = "FROM BASE AS a\nRUN --mount=type=secret,id=lent test -s /run/secrets/lent\n\
         RUN --mount=type=secret,id=lent,env=LENT test -n \"$LENT\"\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    let run = |output: &str| {
        daemon
            .build(&context)
            .environment("DOCKER_CONFIG", &known.display().to_string())
            .argument(&format!("--secret=id=lent,src={}", lent.display()))
            .opt("attest:provenance", "mode=max")
            .output(output)
            .run()
            .ok()
    };
    let pushed = run(&format!("type=image,name={},push=true", locked.reference("private/app:1")));
    let out = scene.path("out");
    let shown = run(&format!("type=local,dest={}", out.display()));
    let provenance = std::fs::read_to_string(out.join("provenance.json")).expect("the provenance");
    assert!(provenance.contains("lent"), "that there was a secret is told: {provenance}");
    for hidden in [value, code, "builder:secret"] {
        for (what, text) in [
            ("log", &daemon.log()),
            ("progress", &pushed.said()),
            ("progress", &shown.said()),
            ("provenance", &provenance),
        ] {
            assert!(!text.contains(hidden), "{hidden:?} is in the {what}: {text}");
        }
    }
    daemon.stop();
}

#[test]
fn what_is_too_large_to_be_read_is_refused_and_the_daemon_lives() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\n")]);
    let line = format!("# {}\n", "x".repeat(1 << 10));
    std::fs::write(context.join("Dockerfile"), format!("FROM scratch\n{}", line.repeat(20 << 10)))
        .expect("write");
    let ran = daemon.build(&context).run().fails();
    ran.says("more than the 16711680 that one call returns");
    let doubled = "ENV A=$A$A\n".repeat(64);
    scene.write("c", "Dockerfile", &format!("FROM BASE\nENV A=xxxxxxxxxxxxxxxx\n{doubled}"));
    daemon.build(&context).run().fails().says("the variables have");
    scene.write("c", "Dockerfile", "FROM BASE\nRUN true\n");
    daemon.build(&context).run().ok();
    daemon.stop();
}
