//! What a vertex is called where people watch a build.

use crosskit_api::pb::{self, file_action::Action};

use crate::{DigestMap, Graph, Vertex};

/// A name is cut here: those of merges contain the names of their inputs.
const MAX_NAME: usize = 16 << 10;

/// The description that overrides a vertex's own name.
pub const CUSTOM_NAME: &str = "llb.customname";

/// The names of all vertices of a graph.
pub fn vertex_names(graph: &Graph) -> DigestMap<String> {
    let mut names = DigestMap::default();
    names.reserve(graph.len());
    for vertex in graph.vertices() {
        let name = match vertex.metadata.description.get(CUSTOM_NAME) {
            Some(custom) => custom.clone(),
            None => own_name(vertex, &names),
        };
        let name = if name.contains("://") { redacted(&name) } else { name };
        names.insert(vertex.digest, name);
    }
    names
}

/// A text with the names and passwords in its URLs masked, as BuildKit masks them. A name alone is masked where it may be
/// a token, which is in URLs of the web.
pub fn redacted(text: &str) -> String {
    const MASK: &str = "xxxxx";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>');
        let (authority, behind) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        let web = before.ends_with("http://") || before.ends_with("https://");
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => out.push_str(&format!("{MASK}:{MASK}@{host}")),
            Some((user, host)) if web && !user.is_empty() => out.push_str(&format!("{MASK}@{host}")),
            _ => out.push_str(authority),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The name without a custom one. `names` knows those of the inputs.
fn own_name(vertex: &Vertex, names: &DigestMap<String>) -> String {
    let input = |index: i64| -> &str {
        let edge = usize::try_from(index).ok().and_then(|i| vertex.inputs.get(i));
        edge.and_then(|edge| names.get(&edge.vertex)).map_or("", String::as_str)
    };
    let mut name = match &vertex.op.op {
        None => "unknown".to_owned(),
        Some(pb::op::Op::Source(source)) => source.identifier.clone(),
        Some(pb::op::Op::Exec(exec)) => {
            exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default()
        }
        Some(pb::op::Op::File(file)) => {
            let parts: Vec<_> = file.actions.iter().filter_map(action_name).collect();
            parts.join(", ")
        }
        Some(pb::op::Op::Build(_)) => "build".to_owned(),
        Some(pb::op::Op::Merge(_)) => {
            let mut list = String::from("merge (");
            for index in 0..vertex.inputs.len() {
                if index > 0 {
                    list.push_str(", ");
                }
                list.push_str(input(index as i64));
                if list.len() > MAX_NAME {
                    break;
                }
            }
            list + ")"
        }
        Some(pb::op::Op::Diff(diff)) => {
            let side = |index: Option<i64>| match index {
                None | Some(-1) => "scratch".to_owned(),
                Some(index) => format!("({})", input(index)),
            };
            let lower = side(diff.lower.map(|lower| lower.input));
            let upper = side(diff.upper.map(|upper| upper.input));
            format!("diff {lower} -> {upper}")
        }
        Some(pb::op::Op::Passthrough(pass)) => format!("passthrough {}", pass.id),
    };
    if name.len() > MAX_NAME {
        let end = (0..=MAX_NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        name.truncate(end);
        name.push('…');
    }
    name
}

fn action_name(action: &pb::FileAction) -> Option<String> {
    Some(match action.action.as_ref()? {
        Action::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
        Action::Mkfile(file) => format!("mkfile {}", file.path),
        Action::Mkdir(dir) => format!("mkdir {}", dir.path),
        Action::Rm(rm) => format!("rm {}", rm.path),
        Action::Symlink(link) => format!("symlink {} -> {}", link.newpath, link.oldpath),
    })
}
