//! Graphs in the making, and graphs as no builder makes them.

use crosskit_api::pb;
use crosskit_llb::{
    Builder, Constraints, Digest, Exec, ExecMount, FileActionSpec, Graph, MkfileAction, Output,
};
use prost::Message;
use std::collections::BTreeMap;

/// For this machine.
pub fn native() -> Constraints {
    Constraints::on(crosskit_workers::platform_message(&crosskit_platforms::native().normalize()))
}

/// A graph in the making.
#[derive(Clone)]
pub struct Llb {
    pub builder: Builder,
    pub base: Output,
}

impl Llb {
    /// A shell's script on the base image.
    pub fn sh(&self, script: &str) -> Exec {
        Exec {
            root: Some(self.base),
            args: ["/bin/sh", "-c", script].map(str::to_string).to_vec(),
            cwd: "/".into(),
            ..Exec::default()
        }
    }

    pub fn exec(&mut self, exec: Exec) -> Output {
        self.builder.exec(exec, native()).root.unwrap()
    }

    pub fn run(&mut self, root: Output, script: &str) -> Output {
        let exec = Exec { root: Some(root), ..self.sh(script) };
        self.exec(exec)
    }

    pub fn file(&mut self, base: Option<Output>, actions: Vec<FileActionSpec>) -> Output {
        self.builder.file(base, actions, Constraints::default())
    }

    /// A file in nothing else.
    pub fn text(&mut self, path: &str, text: &str) -> Output {
        self.file(None, vec![mkfile(path, text)])
    }

    pub fn definition(&self, result: Option<Output>) -> pb::Definition {
        self.builder.graph(result).unwrap().to_definition()
    }
}

pub fn mkfile(path: &str, text: &str) -> FileActionSpec {
    let data = text.as_bytes().to_vec();
    FileActionSpec::Mkfile(MkfileAction { path: path.into(), mode: 0o644, data, ..MkfileAction::default() })
}

/// A mount of another result.
pub fn bind(target: &str, source: Output) -> ExecMount {
    ExecMount { target: target.into(), source: Some(source), ..ExecMount::default() }
}

/// The same graph with other operations: `change` sees each of them.
pub fn changed(definition: pb::Definition, mut change: impl FnMut(&mut pb::Op)) -> pb::Definition {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let mut new = pb::Definition { source: definition.source, ..pb::Definition::default() };
    for raw in definition.def {
        let old = Digest::of(&raw).to_string();
        let mut op = pb::Op::decode(raw.as_slice()).unwrap();
        for input in &mut op.inputs {
            input.digest.clone_from(&named[&input.digest]);
        }
        if op.op.is_some() {
            change(&mut op);
        }
        let raw = op.encode_to_vec();
        let digest = Digest::of(&raw).to_string();
        if let Some(metadata) = definition.metadata.get(&old) {
            new.metadata.insert(digest.clone(), metadata.clone());
        }
        named.insert(old, digest);
        new.def.push(raw);
    }
    new
}

/// The operation of a process, changed.
pub fn changed_exec(definition: pb::Definition, change: impl Fn(&mut pb::ExecOp)) -> pb::Definition {
    changed(definition, |op| {
        if let Some(pb::op::Op::Exec(exec)) = &mut op.op {
            change(exec);
        }
    })
}

/// The graph `definition` as an operation solves it that has it in the file `file`; its attributes say where.
pub fn nested(
    llb: &mut Llb,
    definition: &pb::Definition,
    file: &str,
    attrs: &[(&str, &str)],
) -> pb::Definition {
    let data = definition.encode_to_vec();
    let action = MkfileAction { path: file.into(), mode: 0o644, data, ..MkfileAction::default() };
    let file = llb.file(None, vec![FileActionSpec::Mkfile(action)]);
    let mut outer = llb.definition(Some(file));
    let last = outer.def.pop().unwrap();
    let inputs = pb::Op::decode(last.as_slice()).unwrap().inputs;
    let build = pb::BuildOp {
        builder: -1,
        inputs: BTreeMap::from([("buildkit.llb.definition".to_string(), pb::BuildInput { input: 0 })]),
        attrs: attrs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect(),
        ..pb::BuildOp::default()
    };
    let build = pb::Op { inputs, op: Some(pb::op::Op::Build(build)), ..pb::Op::default() }.encode_to_vec();
    let input = pb::Input { digest: Digest::of(&build).to_string(), index: 0 };
    outer.def.push(build);
    outer.def.push(pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec());
    outer
}

/// A graph, checked.
pub fn checked(definition: pb::Definition) -> Graph {
    Graph::decode(definition, &crosskit_llb::Limits::default()).unwrap()
}
