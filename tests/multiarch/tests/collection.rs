//! Giving room back: as configured, beside builds, and never what is in use.

use crosskit_multiarch::{Daemon, DaemonOptions, Scene, Tree, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn records(daemon: &Daemon) -> Vec<Value> {
    let ran = daemon.buildctl(&["du", "--format", "{{json .}}"]).ok();
    serde_json::from_str::<Option<Vec<Value>>>(ran.stdout.trim()).expect("JSON").unwrap_or_default()
}

fn of_type<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["recordType"] == kind).collect()
}

fn bytes(records: &[Value]) -> u64 {
    records.iter().filter_map(|record| record["size"].as_u64()).sum()
}

/// Four stages with four million bytes each, and a cache mount with two.
fn heavy(scene: &Scene) -> PathBuf {
    let mut dockerfile = String::new();
    for stage in 0..4 {
        dockerfile.push_str(&format!(
            "FROM BASE AS s{stage}\nRUN dd if=/dev/urandom of=/f bs=1M count=4 && echo {stage} > /n{stage}\n"
        ));
    }
    dockerfile.push_str("FROM BASE AS c\nRUN --mount=type=cache,target=/c dd if=/dev/urandom of=/c/x bs=1M count=2\nRUN touch /n\n");
    dockerfile.push_str("FROM scratch\nCOPY --from=c /n /\n");
    for stage in 0..4 {
        dockerfile.push_str(&format!("COPY --from=s{stage} /n{stage} /\n"));
    }
    scene.context("heavy", &[("Dockerfile", &dockerfile)])
}

#[test]
fn policies_take_in_their_order_what_they_are_for() {
    let scene = Scene::set();
    let out = scene.path("out");
    let context = heavy(&scene);
    // What the policies are, and what is left when the daemon has collected by itself.
    type Left = fn(&[Value]) -> bool;
    let table: [(&str, Left); 4] = [
        ("[[worker.oci.gcpolicy]]\nfilters = [\"type==exec.cachemount\"]\n", |left| {
            of_type(left, "exec.cachemount").is_empty() && bytes(left) > 16 << 20
        }),
        (
            "[[worker.oci.gcpolicy]]\nfilters = [\"type==exec.cachemount\"]\nkeepDuration = \"48h\"\n\
             [[worker.oci.gcpolicy]]\nall = true\nfilters = [\"type==regular\"]\nmaxUsedSpace = \"10MB\"\n",
            |left| bytes(left) <= 10_000_000 && of_type(left, "exec.cachemount").len() == 1,
        ),
        ("[[worker.oci.gcpolicy]]\nall = true\nkeepBytes = \"10MB\"\n", |left| {
            (1..=10_000_000).contains(&bytes(left))
        }),
        ("[[worker.oci.gcpolicy]]\nreservedSpace = \"12MB\"\nminFreeSpace = \"100%\"\n", |left| {
            (1..=12_000_000).contains(&bytes(left))
        }),
    ];
    for (policies, is_right) in table {
        let daemon = scene.daemon_with(DaemonOptions { config: policies.to_owned(), ..Default::default() });
        daemon.build(&context).into(&out).run().ok();
        until(&format!("{policies} to be kept to"), LONG, || is_right(&records(&daemon)).then_some(()));
        // What was taken is made again, and only that is missing.
        daemon.build(&context).into(&out).run().ok();
        assert_eq!(Tree::of_folder(&out).text("n3"), "3\n");
        daemon.buildctl(&["prune", "--all"]).ok();
        daemon.stop();
    }
}

#[test]
fn what_a_build_uses_is_not_taken() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let out = scene.path("out");
    let dockerfile = "FROM BASE AS a\nCOPY file /kept\nRUN echo made > /below\n\
        RUN --mount=type=cache,target=/c echo ours > /c/here && echo it wai''ts && \
        until [ -e /c/go-on ]; do sleep 0.1; done && cat /c/here /kept /below > /all\n\
        FROM scratch\nCOPY --from=a /all /\n";
    let context = scene.context("waits", &[("Dockerfile", dockerfile), ("file", "sent\n")]);
    let other = scene.context("other", &[("Dockerfile", "FROM BASE\nRUN echo nobody needs me > /x\n")]);
    daemon.build(&other).run().ok();
    let mut building = daemon.build(&context).into(&out).start();
    // Said by the step, not by its name.
    building.wait_for("it waits", LONG);
    let pruned = daemon.buildctl(&["prune", "--all", "--verbose"]).ok();
    pruned.says("nobody needs me").never_says("echo made").never_says("cached mount");
    std::fs::write(file_below(&scene.path("daemon"), "here").with_file_name("go-on"), "").expect("write");
    building.finish(LONG).ok();
    assert_eq!(Tree::of_folder(&out).text("all"), "ours\nsent\nmade\n");

    daemon.buildctl(&["prune", "--all"]).ok();
    assert!(records(&daemon).is_empty());
    daemon.stop();
}

/// The one file with a name below a folder.
fn file_below(folder: &Path, name: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) if entry.file_name() == name => return entry.path(),
                _ => {}
            }
        }
    }
    panic!("no {name} below {}", folder.display());
}

#[test]
fn filters_that_are_none_are_told_as_buildkit_tells_them() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let why = "filters: parse error: [type==x >| |< y]: unexpected input:  : invalid argument";
    for (command, what) in [("prune", "prune"), ("du", "diskusage")] {
        let told = format!("failed to parse {what} filters [type==x y]: {why}");
        daemon.buildctl(&[command, "--filter", "type==x y"]).fails().says(&told);
    }
    daemon.buildctl(&["debug", "workers", "--filter", "type==x y"]).fails().says(why);
    daemon.stop();
}
