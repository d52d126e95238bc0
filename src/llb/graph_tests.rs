use crosskit_api::pb;
use prost::Message;

use crate::*;

fn amd64() -> pb::Platform {
    pb::Platform { os: "linux".into(), architecture: "amd64".into(), ..Default::default() }
}

fn alpine(b: &mut Builder) -> Output {
    let image = ImageSource {
        reference: "docker.io/library/alpine:latest@sha256:6f564e2cc2d3a0dc0e2fe4fdf39e52a61088d020222f1939c7aa1d229f06a6dc".into(),
        ..ImageSource::default()
    };
    b.image(&image, Constraints::on(amd64()))
}

/// The digests are those that BuildKit's Dockerfile frontend prints for
/// `FROM alpine`, `ENV A=b`, `WORKDIR /src`, `COPY . .`, `RUN echo hi`.
#[test]
fn digests_are_those_of_buildkit() {
    let mut b = Builder::new();
    let base = alpine(&mut b);
    let workdir =
        MkdirAction { path: "/src".into(), mode: 0o755, make_parents: true, ..MkdirAction::default() };
    let dir = b.file(Some(base), vec![FileActionSpec::Mkdir(workdir)], Constraints::default());
    let local = LocalSource {
        name: "context".into(),
        session: "labsession".into(),
        shared_key_hint: "context".into(),
        ..LocalSource::default()
    };
    let context = b.local(&local, Constraints::default());
    let copy = CopyAction {
        from: Some(context),
        src: ".".into(),
        dest: "/src/".into(),
        follow_symlinks: true,
        dir_contents_only: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    };
    let copied = b.file(Some(dir), vec![FileActionSpec::Copy(copy)], Constraints::default());
    let exec = Exec {
        root: Some(copied),
        args: ["/bin/sh", "-c", "echo hi"].map(String::from).to_vec(),
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(), "A=b".into()],
        cwd: "/src".into(),
        default_path: true,
        ..Exec::default()
    };
    let run = b.exec(exec, Constraints::on(amd64()).named("[4/4] RUN echo hi"));
    let graph = b.graph(run.root).unwrap();
    let digests: Vec<_> = graph.vertices().iter().map(|v| v.digest.to_string()).collect();
    assert_eq!(
        digests,
        [
            "sha256:d39f68d1c36a6612cc18a0fceb4f6379d2f3363ca06497d9a86231364b14408c",
            "sha256:d9d3d9a8ff59e001c99191b24e107a401831c5693e4e304d8d4891754f2d944a",
            "sha256:1ce2720edffae2942a591f6fabb748f800d48cf763e5a720762c03565f41b7e1",
            "sha256:39ea9ebe0c02f62777b0a3b92b8d39759cd4e27e00360f7c0e691f5d3d5c1a53",
            "sha256:095407f9b50772b50997b00c7483d11521c3e0bfd10019fbb4547fe010163cae",
        ]
    );
    let def = graph.to_definition();
    assert_eq!(
        Digest::of(&def.def[5]).to_string(),
        "sha256:a221c32ecf0c1cf7298193202fcd7ad32dc939ff602466f81640acbc37454498"
    );
    let last = graph.vertices().last().unwrap();
    assert_eq!(
        json::dump_line(&last.op, &last.digest, &last.wire_metadata()),
        r#"{"Op":{"inputs":[{"digest":"sha256:39ea9ebe0c02f62777b0a3b92b8d39759cd4e27e00360f7c0e691f5d3d5c1a53"}],"Op":{"exec":{"meta":{"args":["/bin/sh","-c","echo hi"],"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=b"],"cwd":"/src","removeMountStubsRecursive":true},"mounts":[{"dest":"/"}]}},"platform":{"Architecture":"amd64","OS":"linux"},"constraints":{}},"Digest":"sha256:095407f9b50772b50997b00c7483d11521c3e0bfd10019fbb4547fe010163cae","OpMetadata":{"description":{"llb.customname":"[4/4] RUN echo hi"},"caps":{"exec.meta.base":true,"exec.meta.setsdefaultpath":true,"exec.mount.bind":true}}}"#
    );

    let decoded = Graph::decode(def.clone(), &Limits::default()).unwrap();
    assert_eq!(decoded.head(), graph.head());
    assert_eq!(decoded.to_definition(), def);
    let names = names::vertex_names(&decoded);
    assert_eq!(names[&decoded.vertices()[1].digest], "mkdir /src");
    assert_eq!(names[&decoded.head().unwrap().vertex], "[4/4] RUN echo hi");
}

#[test]
fn map_entries_keep_empty_values() {
    let mut source = pb::SourceOp { identifier: "x://y".into(), ..Default::default() };
    source.attrs.insert("a".into(), String::new());
    let op = pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() };
    let bytes = encode_op(&op);
    assert!(bytes.ends_with(&[0x12, 5, 0x0a, 1, b'a', 0x12, 0]), "{bytes:?}");
    assert_eq!(pb::Op::decode(bytes.as_slice()).unwrap(), op);
}

fn definition(ops: &[pb::Op]) -> pb::Definition {
    pb::Definition { def: ops.iter().map(encode_op).collect(), ..Default::default() }
}

fn source() -> pb::Op {
    let source = pb::SourceOp { identifier: "docker-image://x".into(), ..Default::default() };
    pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }
}

fn input(op: &pb::Op, index: i64) -> pb::Input {
    pb::Input { digest: Digest::of(&encode_op(op)).to_string(), index }
}

fn pointing_at(op: &pb::Op) -> pb::Op {
    pb::Op { inputs: vec![input(op, 0)], ..Default::default() }
}

fn refuse(ops: &[pb::Op]) -> String {
    Graph::decode(definition(ops), &Limits::default()).unwrap_err().to_string()
}

#[test]
fn malformed_definitions_are_refused() {
    let exec = |exec: pb::ExecOp| pb::Op {
        inputs: vec![input(&source(), 0)],
        op: Some(pb::op::Op::Exec(exec)),
        ..Default::default()
    };
    let wrapped = |op: pb::Op| refuse(&[source(), op.clone(), pointing_at(&op)]);
    let meta = || Some(pb::Meta { args: vec!["true".into()], ..Default::default() });
    let root = |input| pb::Mount { dest: "/".into(), input, ..Default::default() };

    assert_eq!(refuse(&[]), "invalid empty definition");
    assert_eq!(refuse(&[source()]), "invalid LLB with 1 vertexes");
    assert_eq!(refuse(&[pointing_at(&source()), source()]), "invalid LLB with no inputs on last vertex");
    let lost = pb::Op { inputs: vec![input(&pb::Op::default(), 0)], ..Default::default() };
    assert!(refuse(&[source(), lost]).starts_with("invalid missing input digest sha256:"));
    let odd = pb::Op { inputs: vec![input(&source(), -1)], ..Default::default() };
    assert_eq!(refuse(&[source(), odd]), "invalid input 0 output index -1");
    assert_eq!(wrapped(pb::Op::default()), "invalid op with no operation");
    assert_eq!(wrapped(exec(pb::ExecOp::default())), "invalid exec op with no meta");
    let no_args = pb::ExecOp { meta: Some(pb::Meta::default()), ..Default::default() };
    assert_eq!(wrapped(exec(no_args)), "invalid exec op with no args");
    let no_mounts = pb::ExecOp { meta: meta(), ..Default::default() };
    assert_eq!(wrapped(exec(no_mounts)), "invalid exec op with no mounts");
    let no_root = pb::Mount { dest: "/x".into(), ..Default::default() };
    let no_root = pb::ExecOp { meta: meta(), mounts: vec![no_root], ..Default::default() };
    assert_eq!(wrapped(exec(no_root)), "invalid exec op with no rootfs");
    let outside = pb::ExecOp { meta: meta(), mounts: vec![root(7)], ..Default::default() };
    assert_eq!(wrapped(exec(outside)), "invalid mountinput 7 of mount \"/\", 1 provided");
    let odd = |mount_type| pb::Mount { mount_type, ..root(0) };
    let odd = |kind| exec(pb::ExecOp { meta: meta(), mounts: vec![odd(kind)], ..Default::default() });
    assert_eq!(wrapped(odd(9)), "mount type 9 of mount \"/\" not implemented");
    assert_eq!(wrapped(odd(pb::MountType::Tmpfs.into())), "invalid mount type TMPFS for /");
    let file = |actions| pb::Op {
        inputs: vec![input(&source(), 0)],
        op: Some(pb::op::Op::File(pb::FileOp { actions })),
        ..Default::default()
    };
    assert_eq!(wrapped(file(vec![])), "invalid file op with no actions");
    let rm = |input, output| pb::FileAction {
        input,
        secondary_input: -1,
        output,
        action: Some(pb::file_action::Action::Rm(pb::FileActionRm::default())),
    };
    assert_eq!(wrapped(file(vec![rm(5, 0)])), "invalid input index 5, 2 provided");
    assert_eq!(wrapped(file(vec![rm(1, 0)])), "loop from index 1");
    assert_eq!(wrapped(file(vec![rm(0, 0), rm(1, 0)])), "duplicate output 0");
    assert_eq!(wrapped(file(vec![rm(0, -1)])), "no outputs specified");
    assert_eq!(wrapped(file(vec![rm(0, 1), rm(1, -1)])), "missing output index 0");
    let diff = pb::Op { op: Some(pb::op::Op::Diff(pb::DiffOp::default())), ..Default::default() };
    assert_eq!(wrapped(diff), "invalid diff op with nil lower or upper input");
    let garbage = pb::Definition { def: vec![vec![0xff; 9]], ..Default::default() };
    let error = Graph::decode(garbage, &Limits::default()).unwrap_err().to_string();
    assert!(error.starts_with("failed to parse llb proto op: "), "{error}");
    let limits = Limits { vertices: 1, ..Limits::default() };
    let error = Graph::decode(definition(&[source(), pointing_at(&source())]), &limits);
    assert_eq!(error.unwrap_err().to_string(), "invalid LLB: number of vertexes 2 is over the limit of 1");
}

#[test]
fn a_long_chain_and_any_order_are_fine() {
    let mut b = Builder::new();
    let mut at = alpine(&mut b);
    for n in 0..50_000 {
        let dir = MkdirAction { path: format!("/{n}"), mode: 0o755, ..MkdirAction::default() };
        at = b.file(Some(at), vec![FileActionSpec::Mkdir(dir)], Constraints::default());
    }
    let graph = b.graph(Some(at)).unwrap();
    let mut def = graph.to_definition();
    let last = def.def.len() - 1;
    def.def[..last].reverse();
    let decoded = Graph::decode(def, &Limits::default()).unwrap();
    assert_eq!(decoded.len(), 50_001);
    assert_eq!(decoded.vertices()[0].digest, graph.vertices()[0].digest);
}

#[test]
fn strings_are_escaped_as_go_does() {
    let list = ["a<b>&\"\\\n\u{1}\u{2028}é".to_owned()];
    assert_eq!(json::strings(&list), r#"["a\u003cb\u003e\u0026\"\\\n\u0001\u2028é"]"#);
}

#[test]
fn names_of_vertices_have_no_passwords() {
    for (text, shown) in [
        ("https://u:p@h/a", "https://xxxxx:xxxxx@h/a"),
        (
            "load git source http://token@h.example:80/r.git#main",
            "load git source http://xxxxx@h.example:80/r.git#main",
        ),
        (
            "RUN curl 'https://:p@h' && wget ftp://u:p@h/x?y@z",
            "RUN curl 'https://xxxxx:xxxxx@h' && wget ftp://xxxxx:xxxxx@h/x?y@z",
        ),
        (
            "ssh://git@h/a https://h/a@b docker-image://h/a@sha256:12",
            "ssh://git@h/a https://h/a@b docker-image://h/a@sha256:12",
        ),
        ("https://p@ss:w@rd@h/é ://", "https://xxxxx:xxxxx@h/é ://"),
    ] {
        assert_eq!(crate::names::redacted(text), shown);
    }
    let mut b = Builder::new();
    let named = Constraints::default().named("get https://u:p@h/a");
    let from = alpine(&mut b);
    let dir = MkdirAction { path: "/".into(), ..MkdirAction::default() };
    let head = b.file(Some(from), vec![FileActionSpec::Mkdir(dir)], named);
    let graph = b.graph(Some(head)).unwrap();
    let names = crate::names::vertex_names(&graph);
    assert_eq!(names[&graph.head().unwrap().vertex], "get https://xxxxx:xxxxx@h/a");
}

proptest::proptest! {
    #[test]
    fn bytes_never_panic(ops in proptest::collection::vec(
        proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), 0..6)) {
        let def = pb::Definition { def: ops, ..Default::default() };
        let _ = Graph::decode(def, &Limits::default());
    }
}
