use super::*;
use crosskit_exec::networks::NetworkMode;
use crosskit_scheduler::Kind;
use crosskit_workers::discover::{Place, Selection};

fn load(text: &str) -> Result<(Config, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buildkitd.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path)
        .map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
        .map(|(c, w)| (c, w.iter().map(|w| w.replace(&format!("{}/", dir.path().display()), "")).collect()))
}

#[test]
fn a_whole_file_is_understood() {
    let (config, warnings) = load(
        r#"
root = "/srv/build"
insecure-entitlements = ["network.host", "security.insecure"]
[log]
  level = "warn"
[grpc]
  address = ["tcp://127.0.0.1:1234", "unix:///tmp/x.sock"]
  gid = 100
[worker.oci]
  max-parallelism = 4
  gckeepstorage = "10GB"
  [worker.oci.labels]
    "com.example.rack" = "7"
  [[worker.oci.gcpolicy]]
    keepDuration = "48h"
    filters = ["type==source.local"]
    maxUsedSpace = "512MB"
  [[worker.oci.gcpolicy]]
    all = true
    reservedSpace = "20%"
[registry."docker.io"]
  mirrors = ["localhost:5000", "mirror.example/prefix"]
  http = true
[[registry."r.example:8443".keypair]]
  key = "/k"
  cert = "/c"
[dns]
  nameservers = ["10.0.0.1"]
[history]
  maxAge = 3600
"#,
    )
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.root, PathBuf::from("/srv/build"));
    assert_eq!(config.addresses.len(), 2);
    assert_eq!(config.gid, Some(100));
    assert_eq!(config.log_level, "warn");
    assert_eq!(config.worker.labels["com.example.rack"], "7");
    assert_eq!(config.worker.reserved_space, Some(Space::Bytes(10 << 30)));
    assert_eq!(config.worker.gc_policies[0].keep_duration, Some(Duration::from_secs(48 * 3600)));
    assert_eq!(config.worker.gc_policies[1].reserved_space, Some(Space::Percent(20)));
    assert_eq!(config.registries["docker.io"].mirrors[1], "mirror.example/prefix");
    assert_eq!(config.registries["r.example:8443"].keypairs.len(), 1);
    assert_eq!(config.dns.unwrap().nameservers, ["10.0.0.1"]);
    assert_eq!(config.history, History { max_age: Duration::from_secs(3600), max_entries: 50 });
}

#[test]
fn unknown_keys_are_warnings_with_line_and_nearest_key() {
    let (_, warnings) = load("[worker.oci]\nmax-paralelism = 2\ncolour = \"red\"\n").unwrap();
    assert_eq!(
        warnings,
        [
            "buildkitd.toml:2: unknown key \"worker.oci.max-paralelism\" (did you mean \"max-parallelism\"?); it has no effect",
            "buildkitd.toml:3: unknown key \"worker.oci.colour\"; it has no effect",
        ]
    );
}

#[test]
fn a_protection_that_is_not_there_is_an_error() {
    assert_eq!(
        load("\n[worker.oci]\nselinux = true\n").unwrap_err(),
        "buildkitd.toml:3: \"worker.oci.selinux\" is not supported: SELinux labels are not applied yet"
    );
    assert!(load("[worker.oci]\nselinux = false\n").is_ok());
}

#[test]
fn the_network_of_steps_is_read() {
    let (config, warnings) = load(
        r#"
[worker.oci]
  networkMode = "bridge"
  cniConfigPath = "/etc/net.conflist"
  cniBinaryPath = "/plugins"
  cniPoolSize = 16
  bridgeName = "steps0"
  bridgeSubnet = "10.99.0.0/20"
"#,
    )
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let network = NetworkOptions {
        mode: NetworkMode::Bridge,
        config: "/etc/net.conflist".into(),
        plugins: Some("/plugins".into()),
        pool_size: 16,
        bridge: "steps0".into(),
        subnet: "10.99.0.0/20".into(),
        ..NetworkOptions::default()
    };
    assert_eq!(config.worker.network, network);
    let (silent, _) = load("").unwrap();
    let network = silent.worker.network;
    assert_eq!((network.mode, network.pool_size), (NetworkMode::Auto, 0));
    assert_eq!(network.config, PathBuf::from("/etc/buildkit/cni.json"));
    assert_eq!((network.bridge.as_str(), network.subnet.as_str()), ("buildkit0", "10.10.0.0/16"));
    for (line, message) in [
        ("networkMode = \"wifi\"", "unknown network mode \"wifi\""),
        ("cniPoolSize = -1", "must not be negative"),
        ("bridgeName = \"a-name-that-is-too-long\"", "is no name of an interface"),
        ("bridgeSubnet = \"10.0.0.0/33\"", "is no subnet"),
        ("bridgeSubnet = \"10.0.0.0\"", "is no subnet"),
    ] {
        let error = load(&format!("[worker.oci]\n{line}\n")).unwrap_err();
        assert!(error.starts_with("buildkitd.toml:2: ") && error.contains(message), "{error}");
    }
}

#[test]
fn a_farm_is_read_strictly() {
    let (config, _) = load(
        r#"
[farm]
  prefer = ["remote", "native"]
  emulated-slots = 2
  probe-interval = "500ms"
[[farm.worker]]
  name = "loong-1"
  addr = "tcp://loong-1.example:1234"
  platforms = ["linux/loong64"]
  slots = 8
  tls = { ca = "/ca", cert = "/cert", key = "/key", server-name = "builder" }
[[farm.worker]]
  name = "near"
  addr = "unix:///run/near.sock"
  allow-secret-env = true
"#,
    )
    .unwrap();
    let farm = config.farm;
    assert_eq!(farm.prefer, [Kind::Remote, Kind::Native]);
    assert_eq!((farm.emulated_slots, farm.workers.len()), (Some(2), 2));
    assert_eq!((farm.probe_interval, farm.dead_after), (Duration::from_millis(500), Duration::from_secs(5)));
    let far = &farm.workers[0];
    assert_eq!((far.platforms[0].format(), far.slots), ("linux/loong64".to_string(), Some(8)));
    assert_eq!(far.tls.as_ref().unwrap().server_name, "builder");
    assert!(farm.workers[1].allow_secret_env && !far.allow_secret_env);
}

#[test]
fn searches_for_workers_take_what_workers_take() {
    let (config, _) = load(
        r#"
[farm]
  probe-interval = "500ms"
[[farm.discover]]
  dns-srv = "_buildkit._tcp.arm.example."
  platforms = ["linux/arm64"]
  slots = 3
  insecure = true
[[farm.discover]]
  kubernetes = { namespace = "ci", selector = "app=buildkitd", port = 1234 }
  tls = { ca = "/ca", cert = "/cert", key = "/key", server-name = "builder" }
  allow-secret-env = true
"#,
    )
    .unwrap();
    let [names, cluster] = config.farm.searches.as_slice() else { panic!("two searches") };
    assert_eq!(names.place, Place::DnsSrv("_buildkit._tcp.arm.example".into()));
    assert_eq!((names.like.platforms[0].format(), names.like.slots), ("linux/arm64".to_string(), Some(3)));
    assert_eq!((names.like.insecure, names.like.probe_interval), (true, Duration::from_millis(500)));
    let selection = Selection {
        namespace: Some("ci".into()),
        selector: "app=buildkitd".into(),
        port: Some("1234".into()),
    };
    assert_eq!(cluster.place, Place::Kubernetes(selection));
    assert_eq!(cluster.place.to_string(), "kubernetes ci/app=buildkitd");
    assert_eq!(cluster.like.tls.as_ref().unwrap().server_name, "builder");
    assert!(cluster.like.allow_secret_env);
}

#[test]
fn mistakes_in_a_farm_are_errors() {
    for (text, message) in [
        (
            "[farm]\nprobe-intervall = 1",
            "2: unknown key \"farm.probe-intervall\" (did you mean \"probe-interval\"?)",
        ),
        ("[farm]\nprefer = [\"qemu\"]", "2: \"farm.prefer\": \"qemu\" is none of"),
        ("[farm]\non-platform-failure = \"go\"", "2: \"farm.on-platform-failure\": \"go\" is neither"),
        ("[farm]\nallow-partial = true", "2: \"farm.allow-partial\": needs on-platform-failure"),
        ("[farm]\nemulated-slots = 0", "2: \"farm.emulated-slots\": must be greater than zero"),
        ("[farm]\ndead-after = \"1s\"", "2: \"farm.dead-after\": must be longer than farm.probe-interval"),
        ("[[farm.worker]]\naddr = \"unix:///x\"", "\"farm.worker.name\": every worker needs a name"),
        (
            "[[farm.worker]]\nname = \"a\"\naddr = \"tcp://h:1\"",
            "3: \"farm.worker.addr\": \"a\" would be reached without TLS",
        ),
        (
            "[[farm.worker]]\nname = \"a\"\naddr = \"h:1\"",
            "3: \"farm.worker.addr\": \"h:1\" of \"a\" is neither",
        ),
        ("[[farm.worker]]\nname = \"native\"\naddr = \"unix:///x\"", "two workers are called \"native\""),
        (
            "[[farm.worker]]\nname = \"a\"\nplatforms = [\"lin!ux\"]",
            "3: \"farm.worker.platforms\": \"lin!ux\" of \"a\"",
        ),
        ("[[farm.discover]]\ninsecure = true", "\"farm.discover\": needs dns-srv or kubernetes"),
        (
            "[[farm.discover]]\ndns-srv = \"x\"\nkubernetes = { selector = \"a=b\" }",
            "\"farm.discover\": takes dns-srv or kubernetes, not both",
        ),
        (
            "[[farm.discover]]\ndns-srv = \"_b._tcp.x\"",
            "\"farm.discover\": \"dns-srv _b._tcp.x\" would be reached without TLS",
        ),
        ("[[farm.discover]]\nkubernetes = {}", "\"farm.discover.kubernetes.selector\": says which services"),
        (
            "[[farm.discover]]\nkubernetes = { selector = \"a=b\", namespace = \"../x\" }",
            "\"farm.discover.kubernetes.namespace\": \"../x\" may have",
        ),
        (
            "[[farm.discover]]\nkubernetes = { selektor = \"a=b\" }",
            "unknown key \"farm.discover.kubernetes.selektor\" (did you mean \"selector\"?)",
        ),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn mistakes_name_their_line() {
    assert!(load("root = \"/x\"\nroot = ").unwrap_err().starts_with("buildkitd.toml:2: not valid TOML"));
    assert_eq!(
        load("[worker.oci]\n\nenabled = \"yes\"").unwrap_err(),
        "buildkitd.toml:3: \"worker.oci.enabled\" takes true or false"
    );
    assert_eq!(
        load("[system]\nmaxRegistryConcurrency = 0").unwrap_err(),
        "buildkitd.toml:2: \"system.maxRegistryConcurrency\": must be greater than zero"
    );
    let missing = Config::load(Path::new("/nonexistent/buildkitd.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/buildkitd.toml:0: cannot read the config file"), "{missing}");
}

#[test]
fn a_policy_for_signatures_names_fields_of_certificates() {
    let (config, warnings) = load(
        r#"
[cache.gha.sign]
  command = ["sign", "--quickly"]
[cache.gha.verify]
  required = true
  trustedRoot = "/srv/trusted_root.json"
  [cache.gha.verify.policy]
    timestampThreshold = 2
    tlogThreshold = 1
    subjectAlternativeName = "https://git.example.com/house/*"
    runnerEnvironment = "self-hosted"
"#,
    )
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.github_caches.sign, ["sign", "--quickly"]);
    let verify = config.github_caches.verify.unwrap();
    assert_eq!(verify.trusted_root, PathBuf::from("/srv/trusted_root.json"));
    assert_eq!((verify.policy.timestamps, verify.policy.logs), (2, 1));
    let fields: Vec<_> = verify.policy.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected =
        [("runnerEnvironment", "self-hosted"), ("subjectAlternativeName", "https://git.example.com/house/*")];
    assert_eq!(fields, expected);
    let (config, _) = load("[cache.gha.verify]\nrequired = true\n").unwrap();
    let usual = config.github_caches.verify.unwrap();
    assert_eq!(usual.trusted_root.file_name().unwrap(), "trusted_root.json");
    let (config, _) = load("[cache.gha.verify]\nrequired = false\n").unwrap();
    assert_eq!(config.github_caches.verify, None);
}

#[test]
fn a_slip_in_a_policy_for_signatures_is_an_error() {
    for (text, expected) in [
        (
            "[cache.gha.verify.policy]\nsourceRepositoryURL = \"*\"",
            "buildkitd.toml:2: \"cache.gha.verify.policy.sourceRepositoryURL\": certificates have no such field; \
             did you mean \"sourceRepositoryURI\"?",
        ),
        (
            "[cache.gha.verify.policy]\ntlogThreshold = -1",
            "buildkitd.toml:2: \"cache.gha.verify.policy.tlogThreshold\": must not be negative",
        ),
        (
            "[cache.gha.verify]\nrequire = true",
            "buildkitd.toml:2: unknown key \"cache.gha.verify.require\" (did you mean \"required\"?)",
        ),
    ] {
        assert_eq!(load(text).unwrap_err(), expected);
    }
}
