//! Graphs from standard input or files: encoded `pb.Definition` messages.

use crate::error::ClientError;
use crosskit_api::pb;
use crosskit_llb::{Digest, json};
use prost::Message;

/// Decodes a graph.
///
/// # Errors
/// It is none.
pub(crate) fn read(bytes: &[u8]) -> Result<pb::Definition, ClientError> {
    pb::Definition::decode(bytes).map_err(|e| ClientError::invalid(format!("not a build graph: {e}")))
}

/// A vertex's name: the digest of its bytes.
pub(crate) fn digest(vertex: &[u8]) -> String {
    Digest::of(vertex).to_string()
}

/// Makes every vertex run again.
pub(crate) fn ignore_cache(graph: &mut pb::Definition) {
    for vertex in &graph.def {
        graph.metadata.entry(digest(vertex)).or_default().ignore_cache = true;
    }
}

/// The names of the folders that a graph takes from the client.
///
/// # Errors
/// A vertex that can't be decoded.
pub(crate) fn local_names(graph: &pb::Definition) -> Result<Vec<String>, ClientError> {
    let mut names = Vec::new();
    for op in ops(graph)? {
        if let Some(pb::op::Op::Source(source)) = op.1.op
            && let Some(name) = source.identifier.strip_prefix("local://")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn ops(graph: &pb::Definition) -> Result<Vec<(String, pb::Op)>, ClientError> {
    graph.def.iter().map(|bytes| Ok((digest(bytes), decode(bytes)?))).collect()
}

fn decode(bytes: &[u8]) -> Result<pb::Op, ClientError> {
    pb::Op::decode(bytes).map_err(|e| ClientError::invalid(format!("failed to parse op: {e}")))
}

/// The graph as one line of JSON for each vertex.
///
/// # Errors
/// A vertex that can't be decoded.
pub(crate) fn as_json(graph: &pb::Definition) -> Result<Vec<u8>, ClientError> {
    let mut out = Vec::new();
    let none = pb::OpMetadata::default();
    for bytes in &graph.def {
        let digest = Digest::of(bytes);
        let op = decode(bytes)?;
        let metadata = graph.metadata.get(&digest.to_string()).unwrap_or(&none);
        out.extend(json::dump_line(&op, &digest, metadata).into_bytes());
        out.push(b'\n');
    }
    Ok(out)
}

/// The graph in the language of Graphviz.
///
/// # Errors
/// A vertex that can't be decoded.
pub(crate) fn as_dot(graph: &pb::Definition) -> Result<String, ClientError> {
    let ops = ops(graph)?;
    let mut out = String::from("digraph {\n");
    for (digest, op) in &ops {
        let (label, shape) = shown(digest, op);
        out += &format!("  {digest:?} [label={label:?} shape={shape:?}];\n");
    }
    for (digest, op) in &ops {
        for (at, input) in op.inputs.iter().enumerate() {
            let label = match &op.op {
                Some(pb::op::Op::Exec(exec)) => exec
                    .mounts
                    .iter()
                    .filter(|m| usize::try_from(m.input) == Ok(at) && m.dest != "/")
                    .map(|m| m.dest.as_str())
                    .next_back()
                    .unwrap_or_default(),
                _ => "",
            };
            out += &format!("  {:?} -> {digest:?} [label={label:?}];\n", input.digest);
        }
    }
    out.push_str("}\n");
    Ok(out)
}

fn shown(digest: &str, op: &pb::Op) -> (String, &'static str) {
    use pb::file_action::Action;
    use pb::op::Op;
    match &op.op {
        Some(Op::Source(source)) => (source.identifier.clone(), "ellipse"),
        Some(Op::Exec(exec)) => (exec.meta.as_ref().map(|m| m.args.join(" ")).unwrap_or_default(), "box"),
        Some(Op::Build(_)) => ("build".into(), "box3d"),
        Some(Op::Merge(_)) => ("merge".into(), "invtriangle"),
        Some(Op::Diff(_)) => ("diff".into(), "doublecircle"),
        Some(Op::File(file)) => {
            let action = |a: &pb::FileAction| match &a.action {
                Some(Action::Copy(a)) => format!("copy{{src={}, dest={}}}", a.src, a.dest),
                Some(Action::Mkfile(a)) => format!("mkfile{{path={}}}", a.path),
                Some(Action::Mkdir(a)) => format!("mkdir{{path={}}}", a.path),
                Some(Action::Rm(a)) => format!("rm{{path={}}}", a.path),
                Some(Action::Symlink(a)) => {
                    format!("symlink{{oldpath={}, newpath={}}}", a.oldpath, a.newpath)
                }
                None => String::new(),
            };
            (file.actions.iter().map(action).collect::<Vec<_>>().join(","), "note")
        }
        Some(Op::Passthrough(_)) | None => (digest.to_owned(), "plaintext"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> pb::Definition {
        let source = pb::Op {
            op: Some(pb::op::Op::Source(pb::SourceOp {
                identifier: "local://ctx".into(),
                ..Default::default()
            })),
            ..Default::default()
        }
        .encode_to_vec();
        let exec = pb::Op {
            inputs: vec![pb::Input { digest: digest(&source), index: 0 }],
            op: Some(pb::op::Op::Exec(pb::ExecOp {
                meta: Some(pb::Meta { args: vec!["ls".into(), "/m".into()], ..Default::default() }),
                mounts: vec![pb::Mount { input: 0, dest: "/m".into(), ..Default::default() }],
                ..Default::default()
            })),
            ..Default::default()
        }
        .encode_to_vec();
        pb::Definition { def: vec![source, exec], ..Default::default() }
    }

    #[test]
    fn graphs_are_shown_as_json_and_dot() {
        let graph = graph();
        let (a, b) = (digest(&graph.def[0]), digest(&graph.def[1]));
        assert_eq!(
            String::from_utf8(as_json(&graph).unwrap()).unwrap(),
            format!(
                "{{\"Op\":{{\"Op\":{{\"source\":{{\"identifier\":\"local://ctx\"}}}}}},\"Digest\":\"{a}\",\"OpMetadata\":{{}}}}\n\
                 {{\"Op\":{{\"inputs\":[{{\"digest\":\"{a}\"}}],\"Op\":{{\"exec\":{{\"meta\":{{\"args\":[\"ls\",\"/m\"]}},\"mounts\":[{{\"dest\":\"/m\"}}]}}}}}},\"Digest\":\"{b}\",\"OpMetadata\":{{}}}}\n"
            )
        );
        assert_eq!(
            as_dot(&graph).unwrap(),
            format!(
                "digraph {{\n  \"{a}\" [label=\"local://ctx\" shape=\"ellipse\"];\n  \"{b}\" [label=\"ls /m\" shape=\"box\"];\n  \"{a}\" -> \"{b}\" [label=\"/m\"];\n}}\n"
            )
        );
    }

    #[test]
    fn no_cache_marks_every_vertex() {
        let mut graph = graph();
        ignore_cache(&mut graph);
        assert!(graph.def.iter().all(|v| graph.metadata[&digest(v)].ignore_cache));
        assert_eq!(local_names(&graph).unwrap(), ["ctx"]);
    }

    #[test]
    fn something_else_is_no_graph() {
        assert!(read(b"x").is_err());
        assert!(as_json(&pb::Definition { def: vec![vec![0xff]], ..Default::default() }).is_err());
    }
}
