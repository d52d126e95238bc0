//! Which devices files describe, and what a name means.

use super::{Devices, Edits, Registry, Wanted};
use std::path::{Path, PathBuf};

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

fn read(folders: &[&Path], auto_allowed: &[&str]) -> Registry {
    let folders = folders.iter().map(|f| PathBuf::from(*f)).collect();
    Devices::new(folders, auto_allowed.iter().map(|a| (*a).to_owned()).collect()).read().unwrap()
}

fn found(registry: &Registry, name: &str) -> Vec<String> {
    registry.find(&[Wanted { name: name.to_owned(), optional: true }]).unwrap()
}

const YAML: &str = r#"
cdiVersion: "0.7.0"
kind: acme.example/gpu
annotations:
  org.mobyproject.buildkit.device.autoallow: true
  acme.example/slots: 2
containerEdits:
  env: [ACME=1]
devices:
- name: "1"
  annotations:
    org.mobyproject.buildkit.device.class: fast
  containerEdits:
    env: [GPU=1]
    deviceNodes:
    - {path: /dev/gpu1, hostPath: /dev/null, permissions: rw}
    mounts:
    - {hostPath: /usr/share/acme, containerPath: /acme, options: [ro, rbind]}
    hooks:
    - {hookName: createContainer, path: /bin/ldconfig, args: [ldconfig, -r, /], timeout: 3}
    additionalGids: [44, 0]
- name: 0
  annotations: {org.mobyproject.buildkit.device.class: fast}
  containerEdits: {env: [GPU=0]}
"#;

#[test]
fn a_name_means_one_the_first_all_or_a_class() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "acme.yaml", YAML);
    let json = r#"{"cdiVersion": "0.3.0", "kind": "other.example/net", "devices": [
        {"name": "eth", "containerEdits": {"env": ["NET=eth"]}}]}"#;
    write(dir.path(), "other.json", json);
    write(dir.path(), "README.md", "no specification");
    let registry = read(&[dir.path()], &["other.example/net"]);
    assert_eq!(registry.problems(), Vec::<String>::new());
    let all = ["acme.example/gpu=0", "acme.example/gpu=1"];
    assert_eq!(found(&registry, "acme.example/gpu=1"), ["acme.example/gpu=1"]);
    assert_eq!(found(&registry, "acme.example/gpu"), ["acme.example/gpu=0"]);
    assert_eq!(found(&registry, "acme.example/gpu=*"), all);
    assert_eq!(found(&registry, "fast"), all);
    assert_eq!(found(&registry, "acme.example/gpu=7"), Vec::<String>::new());
    let required = Wanted { name: "acme.example/gpu=7".into(), optional: false };
    assert_eq!(
        registry.find(&[required]).unwrap_err().to_string(),
        "required device \"acme.example/gpu=7\" is not registered"
    );
    let listed: Vec<_> = registry.list().map(|d| (d.name.as_str(), d.auto_allow)).collect();
    assert_eq!(listed, [(all[0], true), (all[1], true), ("other.example/net=eth", true)]);
    assert_eq!(registry.get(all[1]).unwrap().annotations["acme.example/slots"], "2");
    assert!(!read(&[dir.path()], &[]).get("other.example/net=eth").unwrap().auto_allow);
}

#[test]
fn what_a_file_says_of_all_its_devices_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "acme.yaml", YAML);
    let registry = read(&[dir.path()], &[]);
    let edits = registry.edits(&found(&registry, "acme.example/gpu=*")).unwrap();
    assert_eq!(edits.env, ["ACME=1", "GPU=0", "GPU=1"]);
    assert_eq!((edits.device_nodes.len(), edits.mounts.len(), edits.hooks.len()), (1, 1, 1));
    assert_eq!(registry.edits(&[]).unwrap(), Edits::default());
}

#[test]
fn a_later_folder_wins_and_two_of_a_name_in_one_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let (low, high) = (dir.path().join("low"), dir.path().join("high"));
    let spec = |value: &str| {
        format!(
            "cdiVersion: 0.6.0\nkind: a.b/c\ndevices:\n- name: d\n  containerEdits: {{env: [V={value}]}}\n"
        )
    };
    write(&low, "a.yaml", &spec("low"));
    write(&high, "a.yaml", &spec("high"));
    let registry = read(&[&low, &high, &dir.path().join("missing")], &[]);
    assert_eq!(registry.edits(&["a.b/c=d".to_owned()]).unwrap().env, ["V=high"]);
    write(&high, "b.yaml", &spec("again"));
    let registry = read(&[&low, &high], &[]);
    assert!(registry.get("a.b/c=d").is_none());
    assert_eq!(registry.problems().len(), 1);
    assert!(registry.problems()[0].starts_with("conflicting device \"a.b/c=d\" (specs "), "{registry:?}");
}

#[test]
fn files_that_make_no_sense_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let problem = |text: &str| {
        write(dir.path(), "x.yaml", text);
        let registry = read(&[dir.path()], &[]);
        assert_eq!(registry.list().count(), 0);
        registry.problems()[0].rsplit_once("x.yaml: ").unwrap().1.to_owned()
    };
    let spec = |version: &str, kind: &str, devices: &str| {
        format!("cdiVersion: \"{version}\"\nkind: {kind}\ndevices: {devices}\n")
    };
    let device = "[{name: d, containerEdits: {env: [A=1]}}]";
    assert_eq!(problem(&spec("9.0.0", "a.b/c", device)), "invalid version \"9.0.0\"");
    assert_eq!(problem(&spec("0.6.0", "a.b", device)), "invalid kind \"a.b\": not vendor/class");
    assert_eq!(problem(&spec("0.6.0", "a.b/c", "[]")), "invalid spec, no devices");
    assert_eq!(
        problem(&spec("0.6.0", "a.b/c", "[{name: d, containerEdits: {}}]")),
        "invalid device \"d\", empty device edits"
    );
    assert_eq!(
        problem(&spec("0.6.0", "a.b/c", "[{name: d, containerEdits: {additionalGids: [1]}}]")),
        "the spec version must be at least v0.7.0"
    );
    assert_eq!(
        problem(&spec(
            "0.6.0",
            "a.b/c",
            "[{name: d, containerEdits: {deviceNodes: [{path: /dev/x, type: z}]}}]"
        )),
        "invalid device \"d\": device \"/dev/x\": invalid type \"z\""
    );
    assert!(problem("cdiVersion: [").contains("while parsing"), "{}", problem("cdiVersion: ["));
    assert!(
        problem(&format!("{}more: 1\n", spec("0.6.0", "a.b/c", device))).contains("unknown field `more`")
    );
}

#[test]
fn disabled_devices_say_how_to_have_them() {
    let refused = Devices::disabled().read().unwrap_err().to_string();
    assert_eq!(
        refused,
        "CDI devices are disabled on this daemon; remove disabled = true from [cdi] in its config"
    );
}
