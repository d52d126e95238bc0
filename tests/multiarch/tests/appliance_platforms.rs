//! The appliance's images for machines of several platforms, made by the script that `make image` calls, of programs that
//! stand in for the real ones: what lands where does not depend on what they do.

use crosskit_multiarch::{Images, Ran, Scene, Tree, workspace};
use crosskit_platforms::Architecture;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The platforms whose machines can be hosts, with QEMU's names for them.
const HOSTS: [(&str, &str); 4] =
    [("amd64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64"), ("loong64", "loongarch64")];

/// A base that has all that an image would install, so that it is not installed here.
const BASE: &str = "FROM BASE\n\
    RUN mkdir -p /usr/lib/git-core /etc/ssl/certs && touch /etc/ssl/certs/ca-certificates.crt \
    && for name in crun runc git ssh gpg fuse-overlayfs; do echo \"$name of $(uname -m)\" > /usr/bin/$name; \
    chmod +x /usr/bin/$name; done\n";

/// A program that only machines of an architecture run.
fn program_of(architecture: &str) -> Vec<u8> {
    let known = Architecture::by_name(architecture).expect("a known architecture");
    crosskit_qemu::program(known).expect("its instructions are known")
}

fn write(path: PathBuf, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("make a folder");
    std::fs::write(path, content).expect("write a program");
}

/// The bytes of a file.
fn content<'t>(tree: &'t Tree, path: &str) -> &'t [u8] {
    let entry = tree.0.get(path).unwrap_or_else(|| panic!("no {path} among {:?}", tree.0.keys()));
    &entry.content
}

/// Calls the script with programs and emulators that stand in.
fn make_image(scene: &Scene, stage: &str, platforms: &str, output: &Path) -> Command {
    let mut script = Command::new(workspace().join("appliance/make-image.sh"));
    script
        .arg(stage)
        .env("PLATFORMS", platforms)
        .env("PROGRAM", scene.programs.path("crosskit"))
        .env("PROGRAMS", scene.path("programs-of-hosts"))
        .env("EMULATORS", scene.path("emulators-of-hosts"))
        .env("BASE", scene.registry.reference("stands:1"))
        .env("PLACE", scene.path("place"))
        .env("OUTPUT", format!("type=oci,dest={}", output.display()));
    script
}

#[test]
fn each_platform_s_image_has_its_own_programs_and_emulators() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let platforms = HOSTS.map(|(architecture, _)| format!("linux/{architecture}"));
    let base = scene.context("stands", &[("Dockerfile", BASE)]);
    let output = format!("type=image,name={},push=true", scene.registry.reference("stands:1"));
    daemon.build(&base).platforms(&platforms.each_ref().map(String::as_str)).output(&output).run().ok();
    daemon.stop();
    for (architecture, _) in HOSTS {
        let folder = format!("linux_{architecture}");
        write(scene.path("programs-of-hosts").join(&folder).join("crosskit"), &program_of(architecture));
        for (_, emulated) in HOSTS {
            let emulator = format!("qemu-{emulated}");
            write(scene.path("emulators-of-hosts").join(&folder).join(emulator), &program_of(architecture));
        }
    }

    for (stage, program) in [("daemon", "crosskit"), ("binfmt", "binfmt")] {
        let archive = scene.path(&format!("{stage}.tar"));
        Ran::run(&mut make_image(&scene, stage, &platforms.join(","), &archive)).ok();
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        for ((architecture, machine), platform) in HOSTS.iter().zip(&platforms) {
            let manifest = images.json(Images::entry(&index, platform));
            let config = images.json(&manifest["config"]);
            assert_eq!(config["architecture"], *architecture, "{stage}");
            let own = program_of(architecture);
            let tree = images.tree(&manifest);
            assert_eq!(content(&tree, &format!("usr/bin/{program}")), own, "{stage} {platform}");
            // The emulators are in a layer of their own, which the daemon's next release leaves as it is.
            let layers = manifest["layers"].as_array().expect("layers");
            let mut first = Tree::default();
            first.apply(&images.layer_tar(&layers[0]));
            let emulators = BTreeSet::from_iter(HOSTS.iter().map(|(_, name)| format!("usr/bin/qemu-{name}")));
            let found: BTreeSet<String> = first.texts().into_keys().map(str::to_owned).collect();
            assert_eq!(found, emulators, "{stage} {platform}");
            for emulator in &emulators {
                assert_eq!(content(&tree, emulator), own, "{stage} {platform} {emulator}");
            }
            assert_eq!(layers.len(), 2, "{stage} {platform}");
            // What the base has is of its machine too.
            if stage == "daemon" {
                assert_eq!(tree.text("usr/bin/crun"), format!("crun of {machine}\n"));
            }
        }
    }

    // What was put into a wrong folder is noticed before it is in an image.
    let wrong = scene.path("programs-of-hosts/linux_arm64/crosskit");
    write(wrong.clone(), &program_of("riscv64"));
    let refused = format!(
        "{} is no program for linux/arm64",
        scene.path("place/binaries/linux_arm64/crosskit").display()
    );
    Ran::run(&mut make_image(&scene, "binfmt", "linux/arm64", &scene.path("wrong.tar")))
        .fails()
        .says(&refused);
}
