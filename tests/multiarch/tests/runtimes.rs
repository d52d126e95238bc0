//! What a step runs in: both runtimes, and the protections around it.

use crosskit_multiarch::{DaemonOptions, Scene, Tree};

/// Everything a step can tell about its own confinement, in words that do not differ from run to run.
const LOOK: &str = r#"FROM BASE AS a
RUN grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status > /status; \
    { stat -c '%F' /proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/scsi /proc/acpi 2>&1 | sort | uniq; } > /masked; \
    for f in /proc/keys /proc/timer_list; do wc -c < $f; done > /empty; \
    (touch /proc/sys/x || echo refused) > /sysrw 2>/dev/null; (touch /sys/x || echo refused) >> /sysrw 2>/dev/null; \
    (mount -t tmpfs t /tmp 2>/dev/null || echo refused) > /mount; (unshare -m true 2>/dev/null || echo refused) >> /mount; \
    hostname > /hostname; id -u > /id; ps -o pid= | head -1 | tr -d ' ' > /pid; umask > /umask; env > /env; \
    cat /etc/hosts > /hosts
FROM scratch
COPY --from=a /status /masked /empty /sysrw /mount /hostname /id /pid /umask /env /hosts /
"#;

fn look(runtime: &str) {
    let scene = Scene::set();
    let binary = scene.parts.on_machine(runtime);
    let arguments = vec![format!("--oci-worker-binary={}", binary.display())];
    let daemon = scene.daemon_with(DaemonOptions { arguments, ..Default::default() });
    let context = scene.context("look", &[("Dockerfile", LOOK)]);
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    let tree = Tree::of_folder(&out);
    // The default of the field's builders: fourteen capabilities, none inheritable, a filter.
    let status = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                  CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n";
    assert_eq!(tree.text("status"), status);
    assert_eq!(tree.text("empty"), "0\n0\n", "masked files read as empty");
    assert_eq!(tree.text("sysrw"), "refused\nrefused\n");
    assert_eq!(tree.text("mount"), "refused\nrefused\n");
    assert_eq!(tree.text("hostname"), "buildkitsandbox\n");
    assert_eq!(tree.text("id"), "0\n");
    assert_eq!(tree.text("pid"), "1\n");
    assert_eq!(tree.text("umask"), "0022\n");
    assert_eq!(
        tree.text("hosts"),
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    let env = tree.text("env");
    assert!(env.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"), "{env}");
    assert!(env.contains("HOME=/root\n"), "{env}");
    daemon.stop();
}

#[test]
fn runc_confines_a_step_as_clients_expect() {
    look("runc");
}

#[test]
fn crun_confines_a_step_as_clients_expect() {
    look("crun");
}

#[test]
fn a_step_may_not_own_more_than_its_user() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM BASE AS a\nUSER builder\nRUN grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status > /tmp/status\n\
                      FROM scratch\nCOPY --from=a /tmp/status /\n";
    let context = scene.context("user", &[("Dockerfile", dockerfile)]);
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    let status = Tree::of_folder(&out).text("status");
    let words: Vec<Vec<&str>> = status.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["Uid:", "1000", "1000", "1000", "1000"]);
    assert_eq!(words[1], ["Gid:", "1000", "1000", "1000", "1000"]);
    assert!(words[2].contains(&"2000"), "the groups of /etc/group: {status}");
    assert_eq!(words[3], ["CapEff:", "0000000000000000"]);
    daemon.stop();
}

#[test]
fn the_choice_of_the_runtime_is_told() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    daemon.build(&context).run().ok();
    if !scene.programs.are_foreign() {
        let said = daemon.buildctl(&["debug", "workers", "-v"]).ok();
        assert!(said.said().contains("crun") || said.said().contains("runc"), "{said}");
        let log = daemon.log();
        assert!(log.contains("crun") || log.contains("runc"), "{log}");
    }
    daemon.stop();
}

#[test]
fn exit_codes_and_output_come_through() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM BASE\nRUN echo to-stdout; echo to-stderr >&2; exit 7\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    daemon.build(&context).run().fails().says("to-stdout").says("to-stderr").says("exit code: 7");
    scene.write("c", "Dockerfile", "FROM BASE\nUSER nobody-knows\nRUN true\n");
    daemon.build(&context).run().fails().says("nobody-knows");
    daemon.stop();
}

#[test]
fn the_network_is_what_was_asked_for() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM BASE AS a\nRUN --network=none ip -o link | wc -l > /none\nRUN --network=none ip -o link | head -1 > /which\n\
                      FROM scratch\nCOPY --from=a /none /which /\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    let tree = Tree::of_folder(&out);
    assert!(tree.text("which").starts_with("1: lo:"), "{}", tree.text("which"));
    daemon.stop();
}
