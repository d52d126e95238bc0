//! Plans made of friendly command lines.

use super::*;
use crate::commands::CROSSKIT;
use crate::flags::{Wish, parse};

fn plan_of(words: &[&str]) -> Result<Plan, String> {
    let words: Vec<String> =
        std::iter::once("build").chain(words.iter().copied()).map(str::to_owned).collect();
    match parse(&CROSSKIT, &words) {
        Wish::Run(flags) => plan(&flags).map_err(|e| e.to_string()),
        other => panic!("{other:?}"),
    }
}

fn context() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/other"), "FROM scratch\n").unwrap();
    folder
}

#[test]
fn a_folder_becomes_a_dockerfile_build() {
    let folder = context();
    let path = folder.path().to_str().unwrap();
    let plan = plan_of(&[
        "--platform",
        "linux/amd64,linux/arm64/v8",
        "--platform=riscv64",
        "-t",
        "a:1",
        "-t",
        "b",
        "--build-arg",
        "K=v",
        "--target",
        "t",
        path,
    ])
    .unwrap();
    assert_eq!(plan.frontend, "dockerfile.v0");
    assert_eq!(plan.options["platform"], "linux/amd64,linux/arm64,linux/riscv64");
    assert_eq!(
        (
            plan.options["build-arg:K"].as_str(),
            plan.options["target"].as_str(),
            plan.options["filename"].as_str()
        ),
        ("v", "t", "Dockerfile")
    );
    assert_eq!(
        (plan.folders["context"].as_path(), plan.folders["dockerfile"].as_path()),
        (folder.path(), folder.path())
    );
    assert_eq!((plan.exports[0].kind.as_str(), plan.exports[0].attrs["name"].as_str()), ("image", "a:1,b"));
    assert_eq!(plan.shared_key, plan_of(&[path]).unwrap().shared_key);
}

#[test]
fn the_dockerfile_may_lie_elsewhere() {
    let folder = context();
    let path = folder.path().to_str().unwrap();
    let file = folder.path().join("sub/other");
    let plan = plan_of(&["-f", file.to_str().unwrap(), path]).unwrap();
    assert_eq!(
        (plan.folders["dockerfile"].as_path(), plan.options["filename"].as_str()),
        (folder.path().join("sub").as_path(), "other")
    );
    let plan = plan_of(&["--file=docker/Dockerfile", "https://example.com/x.git#main"]).unwrap();
    assert_eq!(
        (plan.options["context"].as_str(), plan.options["filename"].as_str()),
        ("https://example.com/x.git#main", "docker/Dockerfile")
    );
    assert!(plan.folders.is_empty());
}

#[test]
fn results_go_where_they_are_wanted() {
    let folder = context();
    let path = folder.path().to_str().unwrap();
    let exports = |words: &[&str]| plan_of(&[words, &[path]].concat()).map(|p| p.exports);
    assert_eq!(exports(&[]).unwrap(), []);
    assert_eq!(exports(&["-o", "out"]).unwrap()[0].to, Destination::Folder("out".into(), Leftovers::Keep));
    let pushed = exports(&["--push", "-t", "a"]).unwrap();
    assert_eq!((pushed[0].attrs["name"].as_str(), pushed[0].attrs["push"].as_str()), ("a", "true"));
    let both =
        exports(&["--push", "-t", "a", "-o", "out", "--annotation", "index:k=v", "--annotation", "x=y"])
            .unwrap();
    assert_eq!(both.len(), 2);
    assert_eq!(
        (both[1].attrs["annotation-index.k"].as_str(), both[1].attrs["annotation.x"].as_str()),
        ("v", "y")
    );
    let archive = exports(&["-t", "a", "-o", "type=oci,dest=/tmp/x.tar"]).unwrap();
    assert_eq!((archive.len(), archive[0].attrs["name"].as_str()), (1, "a"));
    assert_eq!(exports(&["--push"]).unwrap_err(), "--push needs a name for the image; give one with --tag");
    assert!(exports(&["--push", "--load"]).unwrap_err().contains("can't be used together"));
}

#[test]
fn other_contexts_have_names() {
    let folder = context();
    let path = folder.path().to_str().unwrap();
    let src = format!("src={path}");
    let plan = plan_of(&[
        "--build-context",
        &src,
        "--build-context",
        "base=docker-image://alpine",
        "--build-context",
        "l=oci-layout:///x/y:tag",
        path,
    ])
    .unwrap();
    assert_eq!(
        (plan.options["context:src"].as_str(), plan.folders["src"].as_path()),
        ("local:src", folder.path())
    );
    assert_eq!(plan.options["context:base"], "docker-image://alpine");
    assert_eq!(
        (plan.options["context:l"].as_str(), plan.layouts["l"].as_path()),
        ("oci-layout://l:tag", Path::new("/x/y"))
    );
}

#[test]
fn mistakes_are_told_before_anything_is_asked_of_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let told = |words: &[&str]| plan_of(words).unwrap_err();
    assert!(told(&[]).contains("crosskit build ."));
    assert!(told(&["a", "b"]).contains("takes one PATH"));
    assert!(told(&["/nope"]).contains("no folder /nope"));
    assert!(told(&[path]).contains(&format!("no Dockerfile at {path}/Dockerfile")));
    assert!(told(&["--platform", "linux/nope/x/y", path]).contains("linux/nope/x/y"));
    assert!(told(&["--network", "bridge", path]).contains("use default, none or host"));
    assert!(told(&["-"]).contains("standard input"));
}

#[test]
fn warnings_are_counted_at_the_end() {
    assert_eq!(closing_words(&[], false), "");
    assert_eq!(closing_words(&["a (line 1)".into()], false), "\n 1 warning found:\n - a (line 1)\n");
    assert!(
        closing_words(&["a".into(), "b".into()], true)
            .starts_with("\n 2 warnings found:\n - a\n - b\n\n nothing takes")
    );
}
