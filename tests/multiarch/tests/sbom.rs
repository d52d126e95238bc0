//! The daemon finds itself what is in a result, and programs of others agree with what is attested.

use crosskit_multiarch::{Buildx, Images, Parts, Ran, Scene, workspace};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

const TWO: [&str; 2] = ["linux/amd64", "linux/arm64"];

const STATUS: &str = "Package: hello\\nStatus: install ok installed\\nArchitecture: all\\nVersion: 2.10-3\\nMaintainer: Some One <one@example.com>\\n";

const CARGO: &str = "[[package]]\nname = \"found\"\nversion = \"1.0.0\"\n";

/// A stage and the context are scanned as well; the result has a package of Debian's with a file.
const DOCKERFILE: &str = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n\
    FROM BASE AS needed\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n\
    RUN mkdir -p /var/lib/dpkg/info && printf 'STATUS' > /var/lib/dpkg/status\n\
    RUN echo /usr/bin/hello > /var/lib/dpkg/info/hello.list && mkdir -p /usr/bin && echo hi > /usr/bin/hello\n\
    FROM BASE\nCOPY --from=needed /var/lib/dpkg /var/lib/dpkg\nCOPY --from=needed /usr/bin/hello /usr/bin/hello\nCOPY Cargo.lock /src/\n";

fn dockerfile() -> String {
    DOCKERFILE.replace("STATUS", STATUS)
}

/// Runs the verifier of the examples, which knows nothing of crosskit.
fn verify(parts: &Parts, arguments: &[&str]) -> Ran {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(workspace().join("examples/attestations/verify.py")).args(arguments);
    command.env("PYTHONPATH", parts.attestations()).env("PYTHONDONTWRITEBYTECODE", "1");
    Ran::run(&mut command)
}

/// The statements about a platform's image in an index.
fn statements(images: &Images<'_>, index: &Value, platform: &str) -> Vec<Value> {
    let digest = &Images::entry(index, platform)["digest"];
    let entries = index["manifests"].as_array().expect("manifests").iter();
    let mut about = entries.filter(|entry| &entry["annotations"]["vnd.docker.reference.digest"] == digest);
    let manifest = images.json(about.next().unwrap_or_else(|| panic!("attested of {platform} in {index:#}")));
    manifest["layers"].as_array().expect("layers").iter().map(|layer| images.json(layer)).collect()
}

/// The names of the packages that each SBOM lists, by the SBOM's name.
fn listed(statements: &[Value]) -> Vec<(String, Vec<String>)> {
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let sboms = statements.iter().filter(|one| one["predicateType"] == "https://spdx.dev/Document");
    let packages = |one: &Value| {
        one["predicate"]["packages"].as_array().expect("packages").iter().skip(1).map(name).collect()
    };
    sboms.map(|one| (name(&one["predicate"]), packages(one))).collect()
}

fn sbom(name: &str, packages: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), packages.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn the_daemon_finds_itself_what_is_in_a_result() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", &dockerfile()), ("Cargo.lock", CARGO)]);
    let archive = scene.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let build =
        |options: &str| daemon.build(&context).platforms(&TWO).opt("attest:sbom", options).output(&output);
    let all = [
        sbom("sbom", &["found", "hello"]),
        sbom("sbom-context", &["found"]),
        sbom("sbom-needed", &["hello"]),
    ];
    let check = |who: &str| {
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        for platform in TWO {
            let statements = statements(&images, &index, platform);
            assert_eq!(listed(&statements), all, "{platform} by {who}");
            let document = &statements[0]["predicate"];
            let of_file = |name: &str| {
                let files = document["files"].as_array().unwrap();
                files.iter().find(|file| file["fileName"] == name).unwrap_or_else(|| panic!("no {name}"))
            };
            let manifest = images.json(Images::entry(&index, platform));
            let layers = manifest["layers"].as_array().unwrap();
            // One layer for each COPY, above that of the base.
            for (name, layer) in [("usr/bin/hello", 2), ("src/Cargo.lock", 3)] {
                let layer = layers[layer]["digest"].as_str().unwrap();
                assert_eq!(of_file(name)["comment"], format!("layerID: {layer}"), "{name}");
            }
        }
    };
    build("generator=builtin").run().ok().says("generating sbom using builtin");
    check("buildctl");
    // It calls the frontend itself, and hands its result back.
    let buildx = Buildx::create(&scene, &daemon);
    let platforms = TWO.join(",");
    let folder = context.display().to_string();
    buildx
        .run(&[
            "build",
            "--provenance=false",
            "--sbom=generator=builtin",
            "--platform",
            &platforms,
            "-o",
            &output,
            &folder,
        ])
        .ok();
    check("buildx");
    let refused = build("generator=builtin,WORD=x").run().fails();
    refused.says("sbom generator builtin has no option \"WORD\"");
    daemon.stop();
}

#[test]
fn what_was_scanned_is_not_scanned_again_while_it_is_kept() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context =
        scene.context("c", &[("Dockerfile", "FROM BASE\nCOPY Cargo.lock /src/\n"), ("Cargo.lock", CARGO)]);
    let archive = scene.path("image.tar");
    let scan = || {
        let build = daemon.build(&context).platforms(&TWO).opt("attest:sbom", "generator=builtin");
        let ran = build.output(&format!("type=oci,dest={}", archive.display())).run().ok();
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        let documents = TWO.map(|platform| {
            let mut statement = statements(&images, &index, platform).remove(0);
            // It names the moment.
            for of_now in ["creationInfo", "documentNamespace"] {
                statement["predicate"].as_object_mut().expect("a document").remove(of_now);
            }
            statement
        });
        let said = ran.said();
        let steps: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("generating sbom using builtin"))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let found = |step: &&&str| said.lines().any(|line| line == format!("{step} CACHED"));
        let again = steps.iter().filter(|step| !found(step)).count();
        assert_eq!(steps.len(), TWO.len(), "{ran}");
        (again, documents)
    };
    let (scanned, first) = scan();
    assert_eq!(scanned, TWO.len());
    assert_eq!(listed(&first[..1]), [sbom("sbom", &["found"])]);
    let (scanned, again) = scan();
    assert_eq!((scanned, &again), (0, &first), "nothing was looked through, and the same was told");
    scene.write("c", "Cargo.lock", &CARGO.replace("found", "other"));
    let (scanned, other) = scan();
    assert_eq!(scanned, TWO.len(), "other files");
    assert_eq!(listed(&other[..1]), [sbom("sbom", &["other"])]);
    // What was found goes with the files.
    daemon.buildctl(&["prune", "--all"]).ok();
    assert_eq!(scan().0, TWO.len());
    daemon.stop();
}

#[test]
fn empty_results_of_dockerfiles_are_scanned() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let scanner = scene.push_scanner(&daemon);
    let archive = scene.path("image.tar");
    let dockerfile =
        "FROM scratch AS of-amd64\nFROM BASE AS of-arm64\nARG TARGETARCH\nFROM of-${TARGETARCH}\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    for (generator, names) in [("builtin", "sbom"), (&format!("{scanner},WORD=scan"), "scan")] {
        for platforms in [&TWO[..], &TWO[..1]] {
            let ran = daemon
                .build(&context)
                .platforms(platforms)
                .opt("attest:sbom", &format!("generator={generator}"))
                .opt("attest:provenance", "mode=max")
                .output(&format!("type=oci,dest={}", archive.display()))
                .run();
            ran.ok();
            let images = Images::archive(&archive);
            let index = images.json(&images.index_json()["manifests"][0]);
            for platform in platforms {
                let statements = statements(&images, &index, platform);
                assert_eq!(statements[0]["predicate"]["name"], names, "{generator}");
                // Of a result that is nothing there is no provenance, as BuildKit has it.
                assert_eq!(statements.len(), if *platform == TWO[0] { 1 } else { 2 }, "{statements:#?}");
            }
        }
    }
    daemon.stop();
}

#[test]
fn the_same_build_attests_the_same() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", &dockerfile()), ("Cargo.lock", CARGO)]);
    let attested = |version: &str, number: usize| {
        let archive = scene.path(&format!("{version}-{number}.tar"));
        let ran = daemon
            .build(&context)
            .platforms(&TWO)
            .opt("attest:sbom", "generator=builtin")
            .opt("attest:provenance", &format!("mode=max,version={version}"))
            .opt("build-arg:SOURCE_DATE_EPOCH", "1700000000")
            .argument("--no-cache")
            .output(&format!("type=oci,dest={},rewrite-timestamp=true", archive.display()))
            .run();
        ran.ok();
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        TWO.map(|platform| {
            let mut statements = statements(&images, &index, platform);
            for statement in &mut statements {
                forget_the_run(&mut statement["predicate"]);
            }
            statements
        })
    };
    for version in ["v1", "v0.2"] {
        let (one, other) = (attested(version, 1), attested(version, 2));
        for (one, other) in one.iter().flatten().zip(other.iter().flatten()) {
            assert!(one == other, "{one:#}\n{other:#}");
        }
        let created = &one[0][0]["predicate"]["creationInfo"]["created"];
        assert_eq!(created, "2023-11-14T22:13:20Z");
    }
    daemon.stop();
}

/// Takes out what is of one run of a build: when it was, its number, and the digests of steps that name the client's session.
fn forget_the_run(predicate: &mut Value) {
    for path in ["/runDetails/metadata", "/metadata"] {
        let Some(metadata) = predicate.pointer_mut(path).and_then(Value::as_object_mut) else { continue };
        let of_the_run: Vec<String> = metadata
            .keys()
            .filter(|key| key.to_lowercase().contains("invocationid") || key.ends_with("On"))
            .cloned()
            .collect();
        assert_eq!(of_the_run.len(), 3, "start, end and number: {metadata:?}");
        of_the_run.iter().for_each(|key| drop(metadata.remove(key)));
    }
    forget_digests(predicate);
}

#[test]
fn programs_of_others_find_valid_what_is_attested() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", &dockerfile()), ("Cargo.lock", CARGO)]);
    let name = scene.registry.reference("attested:1");
    let image = format!("docker://{name}");
    let (v1, v02, spdx) =
        ("https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document");
    for (options, predicate, artifact) in [
        ("mode=max,version=v1", v1, "true"),
        ("mode=max,version=v0.2", v02, "false"),
        ("mode=min,version=v1", v1, "false"),
        ("mode=min,version=v0.2", v02, "true"),
    ] {
        daemon
            .build(&context)
            .platforms(&TWO)
            .opt("attest:provenance", options)
            .opt("attest:sbom", "generator=builtin")
            .output(&format!("type=image,name={name},push=true,oci-artifact={artifact}"))
            .run()
            .ok();
        let found = verify(&scene.parts, &["--insecure", &image, "--need", predicate, "--need", spdx]).ok();
        for platform in TWO {
            found.clone().says(&format!("{platform:<14} {predicate:<34} 1 materials"));
            found.clone().says(&format!("{platform:<14} {spdx:<34} sbom: 2 packages, 3 files"));
            found.clone().says(&format!("{platform:<14} {spdx:<34} sbom-context: 1 packages, 1 files"));
        }
    }
    verify(&scene.parts, &["--insecure", &image, "--need", "https://example.com/other"])
        .fails()
        .says("there is no");
    daemon.stop();
}

/// The packages that the daemon's scan finds in a folder, as `NAME VERSION`, of one kind, by a part of what tells of them.
fn found(folder: &Path, kind: &str, evidence: &str) -> BTreeSet<String> {
    let found = crosskit_sbom::scan(folder, &AtomicBool::new(false)).expect("a scan");
    assert_eq!(found.left_out, Vec::<String>::new());
    let packages = found.packages.iter().filter(|one| one.kind == kind);
    let told = packages.filter(|one| one.evidence.iter().any(|path| path.contains(evidence)));
    told.map(|one| format!("{} {}", one.name, one.version)).collect()
}

#[test]
fn a_scan_lists_what_package_managers_list() {
    let parts = Parts::find();
    let run = |program: &str, arguments: &[&str]| Ran::run(Command::new(program).args(arguments)).ok().stdout;

    let root = tempfile::tempdir().unwrap();
    let archive = std::fs::File::open(parts.appliance_base()).unwrap();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("var/lib/dpkg/status") {
            entry.unpack_in(root.path()).unwrap();
        }
    }
    let database = root.path().join("var/lib/dpkg").display().to_string();
    let listed = run("dpkg-query", &["--admindir", &database, "-W", "-f", "${Package} ${Version}\\n"]);
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    assert!(listed.len() > 50, "{listed:?}");
    assert_eq!(found(root.path(), "deb", "status"), listed);

    let moto = parts.moto();
    let folder = moto.display().to_string();
    let listed = run(
        "/usr/bin/python3",
        &["-m", "pip", "--disable-pip-version-check", "list", "--path", &folder, "--format", "json"],
    );
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let listed: BTreeSet<String> =
        listed.iter().map(|one| format!("{} {}", text(one, "name"), text(one, "version"))).collect();
    assert!(listed.len() > 10, "{listed:?}");
    assert_eq!(found(&moto, "pypi", "METADATA"), listed);

    let azurite = parts.azurite().ancestors().nth(6).unwrap().to_path_buf();
    let folder = azurite.display().to_string();
    let listed = run("npm", &["ls", "--all", "--parseable", "--long", "--prefix", &folder]);
    // `/path:name@version`, the first of which is the folder's own.
    let name = |line: &str| {
        let (_, id) = line.split_once(':')?;
        let (name, version) = id.split(':').next()?.rsplit_once('@')?;
        Some(format!("{name} {version}"))
    };
    let listed: BTreeSet<String> = listed.lines().skip(1).filter_map(name).collect();
    assert!(listed.len() > 100, "{listed:?}");
    assert_eq!(found(&azurite, "npm", "package.json"), listed);
}

fn forget_digests(value: &mut Value) {
    if let Some(Value::Object(mapping)) = value.get_mut("digestMapping") {
        let mut names: Vec<Value> = std::mem::take(mapping).into_iter().map(|(_, name)| name).collect();
        names.sort_by_key(Value::to_string);
        value["digestMapping"] = names.into();
    }
    match value {
        Value::Object(members) => members.values_mut().for_each(forget_digests),
        Value::Array(members) => members.iter_mut().for_each(forget_digests),
        _ => {}
    }
}
