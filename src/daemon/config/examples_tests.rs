//! The examples are what the daemon, and Kubernetes, would take.

use super::*;
use crosskit_platforms::Architecture;
use crosskit_workers::discover::Place;
use std::collections::BTreeSet;
use yaml_rust2::{Yaml, YamlLoader};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/farm")
}

fn load(path: &Path) -> Config {
    let (config, warnings) = Config::load(path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(warnings, Vec::<String>::new());
    config
}

#[test]
fn the_configs_are_read_without_a_warning() {
    let endpoint = load(&folder().join("buildkitd.toml"));
    let runs = |arch: &str| {
        let all =
            endpoint.farm.workers.iter().chain(endpoint.farm.searches.iter().map(|search| &search.like));
        all.flat_map(|worker| &worker.platforms).any(|platform| platform.architecture == arch)
    };
    assert!(["loong64", "riscv64", "arm64", "s390x"].into_iter().all(runs), "{:?}", endpoint.farm);
    let worker = load(&folder().join("worker.toml"));
    assert!(worker.farm.workers.is_empty() && worker.tls.ca.is_some() && worker.worker.max_parallelism == 8);
}

pub(super) fn text(yaml: &Yaml) -> &str {
    yaml.as_str().unwrap_or_else(|| panic!("no text: {yaml:?}"))
}

pub(super) fn list(yaml: &Yaml) -> &[Yaml] {
    yaml.as_vec().map_or(&[], Vec::as_slice)
}

pub(super) fn labels(yaml: &Yaml) -> BTreeSet<(String, String)> {
    let all = yaml.as_hash().into_iter().flatten();
    all.map(|(key, value)| (text(key).to_string(), text(value).to_string())).collect()
}

/// Objects by kind and name.
fn objects() -> BTreeMap<(String, String), Yaml> {
    let all = std::fs::read_to_string(folder().join("kubernetes.yaml")).unwrap();
    let all = YamlLoader::load_from_str(&all).unwrap();
    let named = |object: Yaml| {
        let versions = BTreeMap::from([
            ("Service", "v1"),
            ("ServiceAccount", "v1"),
            ("ConfigMap", "v1"),
            ("StatefulSet", "apps/v1"),
            ("Role", "rbac.authorization.k8s.io/v1"),
            ("RoleBinding", "rbac.authorization.k8s.io/v1"),
        ]);
        let kind = text(&object["kind"]).to_string();
        assert_eq!(versions.get(kind.as_str()).copied(), Some(text(&object["apiVersion"])), "{kind}");
        ((kind, text(&object["metadata"]["name"]).to_string()), object)
    };
    let count = all.len();
    let all: BTreeMap<_, _> = all.into_iter().map(named).collect();
    assert_eq!(all.len(), count, "no name twice");
    all
}

fn of_kind<'a>(all: &'a BTreeMap<(String, String), Yaml>, kind: &str) -> Vec<(&'a str, &'a Yaml)> {
    all.iter()
        .filter(|((other, _), _)| other == kind)
        .map(|((_, name), yaml)| (name.as_str(), yaml))
        .collect()
}

#[test]
fn pods_fit_their_services_nodes_and_volumes() {
    let all = objects();
    let mut architectures = BTreeSet::new();
    for (name, set) in of_kind(&all, "StatefulSet") {
        let spec = &set["spec"];
        let pod = &spec["template"]["spec"];
        let pod_labels = labels(&spec["template"]["metadata"]["labels"]);
        assert!(labels(&spec["selector"]["matchLabels"]).is_subset(&pod_labels), "{name}");
        let service = &all[&("Service".to_string(), text(&spec["serviceName"]).to_string())];
        assert!(labels(&service["spec"]["selector"]).is_subset(&pod_labels), "{name}");
        let arch = text(&pod["nodeSelector"]["kubernetes.io/arch"]);
        assert!(Architecture::by_name(arch).is_some(), "{arch}");
        architectures.insert(arch.to_string());
        if let Some((_, of_pod)) = pod_labels.iter().find(|(key, _)| key == "arch") {
            assert_eq!(of_pod, arch);
        }
        let volumes = list(&pod["volumes"]).iter().map(|volume| &volume["name"]);
        let claims = list(&spec["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]["name"]);
        let volumes: BTreeSet<_> = volumes.chain(claims).map(text).collect();
        let [container] = list(&pod["containers"]) else { panic!("{name} has one container") };
        let mounted: BTreeSet<_> =
            list(&container["volumeMounts"]).iter().map(|mount| text(&mount["name"])).collect();
        assert_eq!(mounted, volumes, "{name}");
        let ports: BTreeSet<_> = list(&container["ports"]).iter().map(|port| text(&port["name"])).collect();
        assert!(ports.contains(text(&container["readinessProbe"]["tcpSocket"]["port"])), "{name}");
        // The daemon's own reader of arguments takes them.
        let arguments = list(&container["command"]).iter().chain(list(&container["args"])).map(text);
        flags::command().try_get_matches_from(arguments).unwrap_or_else(|e| panic!("{name}: {e}"));
        // What it reads is in a folder that is mounted.
        let folders: Vec<_> =
            list(&container["volumeMounts"]).iter().map(|mount| text(&mount["mountPath"])).collect();
        let files = list(&container["args"]).iter().filter_map(|argument| text(argument).split_once("=/"));
        for (flag, file) in files {
            assert!(
                folders.iter().any(|folder| format!("/{file}").starts_with(&format!("{folder}/"))),
                "{flag}"
            );
        }
    }
    let expected = ["amd64", "arm64", "loong64", "riscv64"].map(String::from);
    assert_eq!(architectures, BTreeSet::from(expected));
}

#[test]
fn the_endpoint_in_the_cluster_finds_every_worker_and_may_look_for_them() {
    let all = objects();
    let config =
        text(&all[&("ConfigMap".into(), "crosskit-endpoint".into())]["data"]["buildkitd.toml"]).to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buildkitd.toml");
    std::fs::write(&path, config).unwrap();
    let config = load(&path);
    let [search] = config.farm.searches.as_slice() else { panic!("one search") };
    let Place::Kubernetes(selection) = &search.place else { panic!("in Kubernetes") };
    let (key, value) = selection.selector.split_once('=').unwrap();
    let wanted = (key.to_string(), value.to_string());
    for (name, service) in of_kind(&all, "Service") {
        let found = labels(&service["metadata"]["labels"]).contains(&wanted);
        assert_eq!(found, name.starts_with("worker-"), "{name}");
        let ports: Vec<_> = list(&service["spec"]["ports"]).iter().map(|port| text(&port["name"])).collect();
        assert_eq!(ports, [selection.port.as_deref().unwrap()], "{name}");
    }
    // Who it is, and what that account may do.
    let pod = &all[&("StatefulSet".into(), "crosskit".into())]["spec"]["template"]["spec"];
    let account = text(&pod["serviceAccountName"]);
    assert!(all.contains_key(&("ServiceAccount".to_string(), account.to_string())));
    let [(_, binding)] = of_kind(&all, "RoleBinding")[..] else { panic!("one binding") };
    let [subject] = list(&binding["subjects"]) else { panic!("one subject") };
    assert_eq!((text(&subject["kind"]), text(&subject["name"])), ("ServiceAccount", account));
    let role =
        &all[&(text(&binding["roleRef"]["kind"]).to_string(), text(&binding["roleRef"]["name"]).to_string())];
    let [rule] = list(&role["rules"]) else { panic!("one rule") };
    let texts = |key: &str| list(&rule[key]).iter().map(text).collect::<Vec<_>>().join(",");
    assert_eq!(
        ["apiGroups", "resources", "verbs"].map(texts),
        ["discovery.k8s.io", "endpointslices", "list,watch"]
    );
}

#[test]
fn units_start_the_daemon_with_flags_that_there_are() {
    for unit in ["farm/buildkitd.service", "systemd/buildkit.service", "systemd/user/buildkit.service"] {
        let unit = folder().parent().unwrap().join(unit);
        let lines = std::fs::read_to_string(&unit).unwrap_or_else(|e| panic!("{}: {e}", unit.display()));
        let line = lines.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/")).unwrap();
        let given = flags::command().try_get_matches_from(line.split(' '));
        given.unwrap_or_else(|e| panic!("{}: {e}", unit.display()));
    }
}
