//! The base image of the tests: busybox for eight platforms, made here from its static programs.

use crate::digest_of;
use crate::parts::Parts;
use crate::registry::Registry;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;

/// The platforms the base image has, in the order of its index.
pub const PLATFORMS: [&str; 8] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/386",
    "linux/riscv64",
    "linux/loong64",
    "linux/ppc64le",
    "linux/s390x",
];

/// The commands of busybox that get a link in `/bin`.
const APPLETS: &str = "[ ash awk base64 basename cat chmod chown cmp cp cut date dd df dirname du echo env expr \
    false find grep gzip gunzip head hexdump hostname id ip ipcs kill less ln ls md5sum mkdir mkfifo mknod mktemp \
    mount mv nc od pgrep printenv printf ps pwd readlink realpath rm rmdir sed seq sh sha256sum sleep sort stat su \
    sync tail tar tee test time timeout top touch tr true umount uname uniq unshare vi wc wget which whoami xargs \
    yes zcat";

/// Modification time of everything in the image, in seconds since 1970.
const MTIME: u64 = 1_700_000_000;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a platform's folder is called in a split local output: `linux_arm_v7`.
pub fn folder_name(platform: &str) -> String {
    platform.replace('/', "_")
}

/// The image as bytes.
pub struct BaseImage {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<(String, Vec<u8>)>,
    index: Vec<u8>,
}

impl BaseImage {
    /// Makes the image. The same parts give the same bytes.
    pub fn make(parts: &Parts) -> BaseImage {
        let mut image = BaseImage { blobs: Vec::new(), manifests: Vec::new(), index: Vec::new() };
        let mut entries = Vec::new();
        for platform in PLATFORMS {
            entries.push(image.add(parts, platform));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        image.index = index.to_string().into_bytes();
        image
    }

    /// Digest of the index.
    pub fn digest(&self) -> String {
        digest_of(&self.index)
    }

    /// The layer's digest of a platform, compressed as it is in the registry.
    pub fn layer_digest(&self, platform: &str) -> String {
        let at = PLATFORMS.iter().position(|known| *known == platform).expect("a platform of the base image");
        digest_of(&self.blobs[2 * at])
    }

    /// Pushes the image under a name and a tag.
    pub fn push(&self, registry: &Registry, name: &str, tag: &str) {
        for blob in &self.blobs {
            registry.push_blob(name, blob);
        }
        for (digest, manifest) in &self.manifests {
            registry.push_manifest(name, digest, MANIFEST, manifest);
        }
        registry.push_manifest(name, tag, INDEX, &self.index);
    }

    /// Adds a platform and gives its entry for the index.
    fn add(&mut self, parts: &Parts, platform: &str) -> Value {
        let mut words = platform.split('/').skip(1);
        let architecture = words.next().expect("a platform has an architecture");
        let variant = words.next();
        let busybox = std::fs::read(parts.busybox(architecture)).expect("read busybox");
        let layer = layer_tar(&busybox, architecture);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&layer).expect("compress into memory");
        let compressed = gzip.finish().expect("compress into memory");
        let mut config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["sh"],
                "Labels": {"made.by": "the test harness"},
            },
            "created": "2023-11-14T22:13:20Z",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(&layer)]},
            "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "busybox, static"}],
        });
        let mut about = json!({"architecture": architecture, "os": "linux"});
        if let Some(variant) = variant {
            config["variant"] = variant.into();
            about["variant"] = variant.into();
        }
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(&config),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest_of(&compressed),
                "size": compressed.len(),
            }],
        })
        .to_string()
        .into_bytes();
        let entry = json!({
            "mediaType": MANIFEST,
            "digest": digest_of(&manifest),
            "size": manifest.len(),
            "platform": about,
        });
        self.blobs.push(compressed);
        self.blobs.push(config);
        self.manifests.push((digest_of(&manifest), manifest));
        entry
    }
}

fn layer_tar(busybox: &[u8], architecture: &str) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for (folder, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
        ("var/", 0o755),
    ] {
        append(&mut layer, tar::EntryType::Directory, folder, mode, b"");
    }
    append(&mut layer, tar::EntryType::Regular, "bin/busybox", 0o755, busybox);
    for applet in APPLETS.split_whitespace() {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("write a link");
    }
    let users = b"root:x:0:0:root:/root:/bin/sh\nbuilder:x:1000:1000:builder:/home:/bin/sh\n";
    append(&mut layer, tar::EntryType::Regular, "etc/passwd", 0o644, users);
    append(
        &mut layer,
        tar::EntryType::Regular,
        "etc/group",
        0o644,
        b"root:x:0:\nbuilder:x:1000:\nextra:x:2000:builder\n",
    );
    append(&mut layer, tar::EntryType::Regular, "etc/base", 0o644, format!("{architecture}\n").as_bytes());
    layer.into_inner().expect("finish a tar in memory")
}

fn append(layer: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, mode: u32, content: &[u8]) {
    let mut header = header(kind, mode, content.len() as u64);
    layer.append_data(&mut header, path, content).expect("write an entry");
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header
}
