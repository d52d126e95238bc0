//! The manifests for Kubernetes start daemons that the daemon itself would start, and that others find.

use super::examples_tests::{labels, list, text};
use super::*;
use std::collections::BTreeSet;
use yaml_rust2::{Yaml, YamlLoader};

const VARIANTS: [&str; 3] = ["privileged", "rootless", "userns"];
const KINDS: [(&str, &str); 5] = [
    ("pod", "Pod"),
    ("daemonset", "DaemonSet"),
    ("deployment", "Deployment"),
    ("statefulset", "StatefulSet"),
    ("job", "Job"),
];
/// For rootless daemons: the image's user, and where it listens.
const USER: i64 = 1000;
const ROOTLESS: &str = "unix:///run/user/1000/buildkit/buildkitd.sock";

fn objects(variant: &str, kind: &str) -> Vec<Yaml> {
    let path = format!("{}/../../examples/kubernetes/{variant}/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
    YamlLoader::load_from_str(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
        .unwrap()
}

/// All that there is, each with the variant, the kind as in the file's name, and the spec of its pods.
fn each(mut look: impl FnMut(&str, &str, &Yaml, &Yaml)) {
    for variant in VARIANTS {
        for (file, kind) in KINDS {
            let all = objects(variant, file);
            let [object] = all.iter().filter(|o| text(&o["kind"]) == kind).collect::<Vec<_>>()[..] else {
                panic!("{variant}/{file}: one {kind}");
            };
            let pod = if kind == "Pod" { object } else { &object["spec"]["template"] };
            look(variant, file, object, pod);
        }
    }
}

fn names(all: &Yaml) -> BTreeSet<&str> {
    list(all).iter().map(|one| text(&one["name"])).collect()
}

#[test]
fn pods_are_whole_and_their_variants_differ_by_their_rights_only() {
    each(|variant, kind, object, pod| {
        let at = format!("{variant}/{kind}");
        let (pod_labels, spec) = (labels(&pod["metadata"]["labels"]), &pod["spec"]);
        let [container] = list(&spec["containers"]) else { panic!("{at}: one container") };
        assert!(labels(&object["spec"]["selector"]["matchLabels"]).is_subset(&pod_labels), "{at}");
        for service in objects(variant, kind).iter().filter(|o| text(&o["kind"]) == "Service") {
            assert!(labels(&service["spec"]["selector"]).is_subset(&pod_labels), "{at}");
            assert_eq!(names(&service["spec"]["ports"]), names(&container["ports"]), "{at}");
            assert!(
                kind != "statefulset" || object["spec"]["serviceName"] == service["metadata"]["name"],
                "{at}"
            );
        }
        let claims = list(&object["spec"]["volumeClaimTemplates"])
            .iter()
            .map(|claim| text(&claim["metadata"]["name"]));
        let volumes: BTreeSet<_> = names(&spec["volumes"]).into_iter().chain(claims).collect();
        assert_eq!(names(&container["volumeMounts"]), volumes, "{at}");
        // Who runs it.
        let security = &container["securityContext"];
        assert_eq!(security["privileged"].as_bool(), (variant != "rootless").then_some(true), "{at}");
        assert_eq!(spec["hostUsers"].as_bool(), (variant == "userns").then_some(false), "{at}");
        let image = if variant == "rootless" { "crosskit:rootless" } else { "crosskit:daemon" };
        assert_eq!(text(&container["image"]), image, "{at}");
        if variant == "rootless" {
            for profile in ["seccompProfile", "appArmorProfile"] {
                assert_eq!(text(&security[profile]["type"]), "Unconfined", "{at}");
            }
            for user in [&security["runAsUser"], &security["runAsGroup"], &spec["securityContext"]["fsGroup"]]
            {
                assert_eq!(user.as_i64(), Some(USER), "{at}");
            }
        }
        assert!(
            object["metadata"]["annotations"].is_badvalue() && pod["metadata"]["annotations"].is_badvalue()
        );
        assert_eq!(spec["automountServiceAccountToken"].as_bool(), Some(false), "{at}");
    });
    // What is reached is the same for all.
    let service = |variant: &str| objects(variant, "deployment").remove(0);
    assert!(VARIANTS.iter().all(|variant| service(variant) == service("privileged")));
}

#[test]
fn their_daemons_start_and_answer_those_who_ask() {
    each(|variant, kind, _, pod| {
        let at = format!("{variant}/{kind}");
        let [container] = list(&pod["spec"]["containers"]) else { panic!("{at}: one container") };
        let variable = |name: &str| {
            let found = list(&container["env"]).iter().find(|one| text(&one["name"]) == name);
            found.map(|one| text(&one["value"]))
        };
        let own = variable("BUILDKITD_FLAGS").unwrap_or_default().split_whitespace();
        let flags: Vec<&str> = match kind {
            "job" => own.collect(),
            _ => list(&container["args"]).iter().map(text).collect(),
        };
        // Before them is what the image starts, or what the daemon of a single call gets from who is not root.
        let rootless = (variant == "rootless").then_some("--rootless");
        let line = ["buildkitd"].into_iter().chain(rootless).chain(flags.iter().copied());
        let given = flags::command().try_get_matches_from(line).unwrap_or_else(|e| panic!("{at}: {e}"));
        let folder = |name: &str| {
            let found = list(&container["volumeMounts"]).iter().find(|mount| text(&mount["name"]) == name);
            found.map(|mount| text(&mount["mountPath"]))
        };
        let (config, warnings) = flags::resolve(&given).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(warnings, Vec::<String>::new(), "{at}");
        let rootless = (config.worker.rootless, config.worker.no_process_sandbox);
        assert_eq!(rootless, (variant == "rootless", variant == "rootless"), "{at}");
        // Where the image's user keeps it, who is not who runs this.
        let state = match variant {
            "rootless" => Path::new("/home/user/.local/share/buildkit"),
            _ => config.root.as_path(),
        };
        assert_eq!(folder("state").map(Path::new), Some(state), "{at}");
        let addresses = config.addresses;
        if kind == "job" {
            return;
        }
        // Probes ask at an address that it listens at, as do those who come through kubectl.
        for probe in ["readinessProbe", "livenessProbe"] {
            let command: Vec<&str> = list(&container[probe]["exec"]["command"]).iter().map(text).collect();
            assert_eq!(command, ["buildctl", "debug", "workers"], "{at}");
        }
        let asked = variable("BUILDKIT_HOST").unwrap_or("unix:///run/buildkit/buildkitd.sock");
        assert!(addresses.iter().any(|address| address == asked), "{at}: {addresses:?}");
        assert!(variant != "rootless" || asked == ROOTLESS, "{at}");
        if let Some(shared) = folder("socket") {
            assert!(asked.starts_with(&format!("unix://{shared}/")), "{at}");
        }
        // Whoever comes over the network has a certificate.
        let ports: Vec<i64> =
            list(&container["ports"]).iter().filter_map(|port| port["containerPort"].as_i64()).collect();
        let tcp = addresses.iter().filter_map(|address| address.strip_prefix("tcp://0.0.0.0:"));
        assert_eq!(tcp.map(|port| port.parse().unwrap()).collect::<Vec<i64>>(), ports, "{at}");
        let file = |flag: &str| given.get_one::<String>(flag).cloned();
        let tls = [("tlscacert", "ca"), ("tlscert", "cert"), ("tlskey", "key")];
        for (flag, name) in tls {
            let expected = folder("tls").map(|folder| format!("{folder}/{name}.pem"));
            assert_eq!((file(flag), expected.is_some()), (expected, !ports.is_empty()), "{at}");
        }
        let secrets = list(&pod["spec"]["volumes"]).iter().map(|volume| &volume["secret"]["secretName"]);
        let secrets: Vec<&str> = secrets.filter_map(Yaml::as_str).collect();
        assert_eq!(secrets, if ports.is_empty() { vec![] } else { vec!["crosskit-daemon-tls"] }, "{at}");
    });
}
