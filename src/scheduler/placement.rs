//! Keys by which work finds the worker that has done it before.

use std::fmt;

use crosskit_api::pb::{self, file_action::Action, op};
use crosskit_llb::Graph;
use crosskit_platforms::Platform;
use serde::{Deserialize, Serialize};

use crate::convex::NONE;
use crate::shape::Shape;

/// Says what a group of steps does, and for which platform: its commands and file operations,
/// the ids of its cache mounts, and its sources by name. What changes from build to build
/// leaves it as it is: the content of files, digests and commits of sources, values of variables,
/// ids of sessions. So a repeat, also after an edit, has the same key, and goes where the caches
/// are warm. The same graph has the same key in every release.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct PlacementKey(pub u64);

impl PlacementKey {
    /// The key of a group that does nothing yet.
    pub(crate) fn of(platform: &Platform) -> Self {
        let mut name = Name::new("group");
        for part in [&platform.os, &platform.architecture, &platform.variant] {
            name.text(part);
        }
        PlacementKey(name.end())
    }

    /// With one more step. The order of steps does not count, as it says more about the rest of
    /// the graph than about the group.
    pub(crate) fn add(&mut self, step: u64) {
        self.0 = self.0.wrapping_add(mix(step, STEP));
    }

    /// The same work of another project: keeps those apart that happen to do the same.
    #[must_use]
    pub fn within(self, project: &str) -> Self {
        let mut name = Name::new("project");
        name.word(self.0);
        name.text(project);
        PlacementKey(name.end())
    }
}

impl fmt::Display for PlacementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PlacementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Odd numbers without pattern: the fractional digits of the golden ratio and of square roots.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const FOLD: u64 = 0x6a09_e667_f3bc_c909;

/// Both halves of a product, so that every bit of both numbers counts.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ STEP) * u128::from(b ^ FOLD);
    product as u64 ^ (product >> 64) as u64
}

/// The hash of a text: what a worker's name is for the placement.
pub(crate) fn text_hash(text: &str) -> u64 {
    let mut name = Name::new("worker");
    name.text(text);
    name.end()
}

/// A hash that is the same in every release and on every machine. It is not made to resist
/// someone who looks for collisions: these only bring work to the same worker.
struct Name(u64);

impl Name {
    fn new(kind: &str) -> Self {
        let mut name = Name(FOLD);
        name.text(kind);
        name
    }

    fn word(&mut self, word: u64) {
        self.0 = mix(self.0.rotate_left(23), word);
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        let mut words = text.as_bytes().chunks_exact(8);
        for word in &mut words {
            let mut le = [0; 8];
            le.copy_from_slice(word);
            self.word(u64::from_le_bytes(le));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.word(u64::from_le_bytes(last));
    }

    fn end(self) -> u64 {
        mix(self.0, self.0.rotate_left(32))
    }
}

/// The names of vertices, one after the other.
pub(crate) struct Names<'a> {
    graph: &'a Graph,
    shape: &'a Shape,
    groups: &'a [u32],
    names: Vec<u64>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(graph: &'a Graph, shape: &'a Shape, groups: &'a [u32]) -> Self {
        Names { graph, shape, groups, names: Vec::with_capacity(groups.len()) }
    }

    /// The name of the next vertex, from its operation and the names of its inputs. A step of
    /// another group is nothing but a step, so that a change there does not move this one.
    pub(crate) fn next(&mut self, position: usize) -> u64 {
        let mut name = Name::new("vertex");
        operation(&mut name, self.graph.vertices()[position].op.op.as_ref());
        for input in self.shape.inputs(position) {
            let own = self.groups[input] != NONE && self.groups[input] == self.groups[position];
            let step = self.shape.platform(input).is_some();
            name.word(if step && !own { STEP } else { self.names[input] });
        }
        let name = name.end();
        self.names.push(name);
        name
    }
}

fn operation(name: &mut Name, operation: Option<&op::Op>) {
    match operation {
        Some(op::Op::Source(source)) => {
            name.text("source");
            let (start, end) = source_name(&source.identifier);
            name.text(start);
            name.text(end);
        }
        Some(op::Op::Exec(exec)) => step(name, exec),
        Some(op::Op::File(file)) => {
            name.text("file");
            file.actions.iter().for_each(|it| action(name, it));
        }
        Some(op::Op::Merge(_)) => name.text("merge"),
        Some(op::Op::Diff(diff)) => {
            name.text("diff");
            for input in [diff.lower.map(|it| it.input), diff.upper.map(|it| it.input)] {
                name.word(input.unwrap_or(-1) as u64);
            }
        }
        Some(op::Op::Build(_)) => name.text("build"),
        Some(op::Op::Passthrough(_)) | None => name.text("other"),
    }
}

/// An identifier without what changes with the content: the digest of an image, the commit or
/// branch of a repository, the query of an address. It may be in two parts.
fn source_name(identifier: &str) -> (&str, &str) {
    let (scheme, rest) = identifier.split_once("://").unwrap_or(("", identifier));
    match scheme {
        "git" => {
            let (repository, fragment) = identifier.split_once('#').unwrap_or((identifier, ""));
            (repository, fragment.split_once(':').map_or("", |(_, folder)| folder))
        }
        "http" | "https" => (identifier.split(['?', '#']).next().unwrap_or_default(), ""),
        _ => (scheme, rest.split('@').next().unwrap_or_default()),
    }
}

fn step(name: &mut Name, exec: &pb::ExecOp) {
    name.text("step");
    if let Some(meta) = &exec.meta {
        name.word(meta.args.len() as u64);
        meta.args.iter().for_each(|argument| name.text(argument));
        name.text(&meta.cwd);
        name.text(&meta.user);
        for variable in &meta.env {
            name.text(variable.split('=').next().unwrap_or_default());
        }
    }
    name.word(exec.network as u64);
    name.word(exec.security as u64);
    for mount in &exec.mounts {
        name.text(&mount.dest);
        name.text(&mount.selector);
        name.word(mount.mount_type as u64);
        name.word(mount.input as u64);
        name.word(u64::from(mount.readonly));
        if let Some(cache) = &mount.cache_opt {
            name.text(&cache.id);
            name.word(cache.sharing as u64);
        }
        if let Some(secret) = &mount.secret_opt {
            name.text(&secret.id);
        }
        if let Some(ssh) = &mount.ssh_opt {
            name.text(&ssh.id);
        }
    }
    for secret in &exec.secretenv {
        name.text(&secret.id);
        name.text(&secret.name);
    }
    for device in &exec.cdi_devices {
        name.text(&device.name);
    }
}

fn action(name: &mut Name, action: &pb::FileAction) {
    name.word(action.input as u64);
    name.word(action.secondary_input as u64);
    let (kind, paths) = match &action.action {
        Some(Action::Copy(copy)) => ("copy", [&*copy.src, &*copy.dest]),
        Some(Action::Mkfile(file)) => ("mkfile", [&*file.path, ""]),
        Some(Action::Mkdir(folder)) => ("mkdir", [&*folder.path, ""]),
        Some(Action::Rm(gone)) => ("rm", [&*gone.path, ""]),
        Some(Action::Symlink(link)) => ("symlink", [&*link.oldpath, &*link.newpath]),
        None => ("none", ["", ""]),
    };
    name.text(kind);
    paths.iter().for_each(|path| name.text(path));
}
