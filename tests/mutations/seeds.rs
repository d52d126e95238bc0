//! The binary seeds, made by our own writers. Those that are text lie in `fuzz/corpus` as somebody wrote them.

use crate::bundles::DOCUMENT;
use crate::corpus;
use bytes::Bytes;
use crosskit_api::fsutil::packet::PacketType;
use crosskit_api::fsutil::{Packet, Stat};
use crosskit_api::pb;
use crosskit_images::tar::{Header, Kind, Writer};
use crosskit_llb::{
    Builder, CacheMount, Constraints, CopyAction, Exec, ExecMount, FileActionSpec, ImageSource, LocalSource,
    MkdirAction, MkfileAction, SecretMount, SymlinkAction,
};
use crosskit_notary::{Form, Notary, Order};
use crosskit_session::transfer::mode_from_unix;
use prost::Message;
use std::io;
use std::path::Path;

/// Writes the seeds that programs make.
///
/// # Errors
/// A file that cannot be written.
pub fn write() -> io::Result<()> {
    for (name, bytes) in [
        ("llb/exec", exec().encode_to_vec()),
        ("llb/files", files().encode_to_vec()),
        ("llb/sources", sources().encode_to_vec()),
        ("packets/tree", packets(tree())),
        ("packets/data", packets(data())),
        ("packets/requests", packets(requests())),
        ("layers/kinds", kinds()?),
        ("layers/whiteouts", whiteouts()?),
        ("layers/long", long()?),
    ] {
        std::fs::write(corpus().join(name), bytes)?;
    }
    bundles()
}

/// Signatures, and the only root that trusts them.
fn bundles() -> io::Result<()> {
    let (notary, usual) = (Notary::new(), Order::default());
    for (name, order) in [
        ("message.json", usual.clone()),
        ("statement.json", Order { form: Form::Statement, ..usual.clone() }),
        ("unstamped.json", Order { stamped: false, ..usual }),
    ] {
        std::fs::write(corpus().join("bundles").join(name), notary.bundle(DOCUMENT, &order).to_string())?;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("trusted_root.json");
    std::fs::write(root, notary.trusted_root().to_string())
}

fn on() -> Constraints {
    Constraints::on(pb::Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..pb::Platform::default()
    })
}

fn definition(builder: &Builder, head: Option<crosskit_llb::Output>) -> pb::Definition {
    builder.graph(head).expect("a graph of our own").to_definition()
}

fn exec() -> pb::Definition {
    let mut builder = Builder::new();
    let image = ImageSource { reference: "example.com/base:1".into(), ..ImageSource::default() };
    let root = Some(builder.image(&image, on()));
    let cache = CacheMount { id: "c".into(), sharing: pb::CacheSharingOpt::Locked };
    let exec = Exec {
        root,
        args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
        env: vec!["A=b".into()],
        cwd: "/w".into(),
        user: "1:2".into(),
        mounts: vec![
            ExecMount { target: "/c".into(), cache: Some(cache), ..ExecMount::default() },
            ExecMount { target: "/m".into(), tmpfs: Some(1 << 20), ..ExecMount::default() },
            ExecMount {
                target: "/b".into(),
                source: root,
                selector: "etc".into(),
                readonly: true,
                ..ExecMount::default()
            },
        ],
        secrets: vec![SecretMount { id: "s".into(), target: Some("/s".into()), ..SecretMount::default() }],
        valid_exit_codes: vec![0, 3],
        ..Exec::default()
    };
    let made = builder.exec(exec, on()).root;
    let merged = builder.merge(&[root, made], on());
    let head = builder.diff(root, merged, on());
    definition(&builder, head)
}

fn files() -> pb::Definition {
    let mut builder = Builder::new();
    let local = LocalSource {
        name: "context".into(),
        include_patterns: vec!["*.c".into()],
        ..LocalSource::default()
    };
    let from = Some(builder.local(&local, Constraints::default()));
    let copy = CopyAction {
        from,
        src: "/*.c".into(),
        dest: "/d/".into(),
        allow_wildcard: true,
        ..CopyAction::default()
    };
    let actions = vec![
        FileActionSpec::Mkdir(MkdirAction { path: "/d".into(), mode: 0o755, ..MkdirAction::default() }),
        FileActionSpec::Mkfile(MkfileAction {
            path: "/d/f".into(),
            data: b"x".to_vec(),
            ..MkfileAction::default()
        }),
        FileActionSpec::Symlink(SymlinkAction::default()),
        FileActionSpec::Copy(copy),
    ];
    let head = builder.file(None, actions, on());
    definition(&builder, Some(head))
}

fn sources() -> pb::Definition {
    let mut builder = Builder::new();
    let image = ImageSource { reference: "example.com/base:1".into(), ..ImageSource::default() };
    let head = builder.image(&image, on());
    let mut definition = definition(&builder, Some(head));
    let range = pb::Range {
        start: Some(pb::Position { line: 1, character: 0 }),
        end: Some(pb::Position { line: 2, character: 7 }),
    };
    let locations = pb::Locations { locations: vec![pb::Location { source_index: 0, ranges: vec![range] }] };
    let info = pb::SourceInfo {
        filename: "Dockerfile".into(),
        data: b"FROM x".to_vec(),
        ..pb::SourceInfo::default()
    };
    definition.source = Some(pb::Source {
        locations: definition.metadata.keys().map(|digest| (digest.clone(), locations.clone())).collect(),
        infos: vec![info],
    });
    definition
}

fn packets(packets: Vec<Packet>) -> Vec<u8> {
    packets.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

fn entry(path: &str, mode: u32, linkname: &str, size: i64) -> Packet {
    let stat = Stat {
        path: path.into(),
        mode: mode_from_unix(mode),
        linkname: linkname.into(),
        size,
        mod_time: 1_700_000_000_000_000_000,
        ..Stat::default()
    };
    Packet { stat: Some(stat), ..packet(PacketType::PacketStat) }
}

fn content(id: u32, bytes: &'static [u8]) -> Packet {
    Packet { id, data: Bytes::from_static(bytes), ..packet(PacketType::PacketData) }
}

fn tree() -> Vec<Packet> {
    vec![
        entry("a", 0o040755, "", 0),
        entry("a/b", 0o100644, "", 5),
        entry("a/c", 0o120777, "../a/b", 0),
        entry("a/d", 0o100644, "a/b", 5),
        entry("e", 0o010644, "", 0),
        entry("f", 0o040700, "", 0),
        packet(PacketType::PacketStat),
        content(1, b"hello"),
        content(1, b""),
        packet(PacketType::PacketFin),
    ]
}

fn data() -> Vec<Packet> {
    vec![
        entry("x", 0o100600, "", 6),
        entry("y", 0o100755, "", 0),
        packet(PacketType::PacketStat),
        content(1, b""),
        content(0, b"abc"),
        content(0, b"def"),
        content(0, b""),
        packet(PacketType::PacketFin),
    ]
}

fn requests() -> Vec<Packet> {
    let request = |id| Packet { id, ..packet(PacketType::PacketReq) };
    let error = Packet { data: Bytes::from_static(b"no"), ..packet(PacketType::PacketErr) };
    vec![request(0), request(0), request(u32::MAX), packet(PacketType::PacketFin), error]
}

fn header(name: &str, kind: Kind, link: &str) -> Header {
    let mut header = Header::new(name, kind);
    header.mode = 0o755;
    header.link = link.into();
    header
}

fn kinds() -> io::Result<Vec<u8>> {
    let mut tar = Writer::new(Vec::new());
    tar.entry(&header("d/", Kind::Directory, ""))?;
    let mut file = header("d/f", Kind::File, "");
    file.size = 3;
    file.set_xattr(b"user.a", b"b".to_vec());
    tar.entry(&file)?;
    tar.data(b"abc")?;
    tar.entry(&header("d/l", Kind::Symlink, "../d/f"))?;
    tar.entry(&header("out", Kind::Symlink, "../beside"))?;
    tar.entry(&header("h", Kind::HardLink, "d/f"))?;
    tar.entry(&header("p", Kind::Fifo, ""))?;
    tar.finish()
}

fn whiteouts() -> io::Result<Vec<u8>> {
    let mut tar = Writer::new(Vec::new());
    for name in ["a/", "a/b/"] {
        tar.entry(&header(name, Kind::Directory, ""))?;
    }
    for name in ["a/b/c", "a/.wh.b", "a/.wh..wh..opq", ".wh.gone"] {
        tar.entry(&header(name, Kind::File, ""))?;
    }
    tar.finish()
}

fn long() -> io::Result<Vec<u8>> {
    let mut tar = Writer::new(Vec::new());
    let mut file = header(&format!("{}/{}", "n".repeat(120), "m".repeat(150)), Kind::File, "");
    file.size = 600;
    tar.entry(&file)?;
    tar.data(&[7; 600])?;
    tar.entry(&header("l", Kind::Symlink, &"../".repeat(60)))?;
    tar.finish()
}
