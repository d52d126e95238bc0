use std::collections::HashMap;

use crosskit_api::pb::{self, op};
use crosskit_llb::{Graph, Vertex};
use crosskit_platforms::Platform;

/// What a vertex means for the division of its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A step for the platform of this number.
    Step(u32),
    /// A file, merge or diff operation, which any worker does, too.
    Carried,
    /// Everything else is done by the endpoint only.
    Fixed,
}

/// A graph as numbers: vertices by their position, inputs before what uses them.
pub(crate) struct Shape {
    pub(crate) roles: Vec<Role>,
    /// All platforms of steps, in normal form.
    pub(crate) platforms: Vec<Platform>,
    inputs: Vec<u32>,
    /// Where the inputs of each vertex start in `inputs`, and the end of them all.
    starts: Vec<u32>,
}

impl Shape {
    pub(crate) fn of(graph: &Graph, default: &Platform) -> Self {
        let vertices = graph.vertices();
        let mut platforms = Platforms::new(default);
        let mut roles = Vec::with_capacity(vertices.len());
        let mut inputs = Vec::with_capacity(vertices.len() * 2);
        let mut starts = Vec::with_capacity(vertices.len() + 1);
        for vertex in vertices {
            roles.push(match vertex.op.op {
                Some(op::Op::Exec(_)) => Role::Step(platforms.number(vertex.platform())),
                Some(op::Op::File(_) | op::Op::Merge(_) | op::Op::Diff(_)) => Role::Carried,
                _ => Role::Fixed,
            });
            starts.push(inputs.len() as u32);
            // A checked graph has every input.
            let positions = vertex.inputs.iter().filter_map(|edge| graph.position(&edge.vertex));
            inputs.extend(positions.map(|position| position as u32));
        }
        starts.push(inputs.len() as u32);
        Shape { roles, platforms: platforms.list, inputs, starts }
    }

    pub(crate) fn len(&self) -> usize {
        self.roles.len()
    }

    /// The platform of a step.
    pub(crate) fn platform(&self, vertex: usize) -> Option<&Platform> {
        match self.roles[vertex] {
            Role::Step(platform) => self.platforms.get(platform as usize),
            _ => None,
        }
    }

    pub(crate) fn inputs(&self, vertex: usize) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let range = self.starts[vertex] as usize..self.starts[vertex + 1] as usize;
        self.inputs[range].iter().map(|input| *input as usize)
    }
}

/// Numbers for platforms, so that each is brought into its normal form once.
struct Platforms<'a> {
    default: &'a Platform,
    list: Vec<Platform>,
    known: HashMap<Option<&'a pb::Platform>, u32>,
    last: Option<(Option<&'a pb::Platform>, u32)>,
}

impl<'a> Platforms<'a> {
    fn new(default: &'a Platform) -> Self {
        Platforms { default, list: Vec::new(), known: HashMap::new(), last: None }
    }

    fn number(&mut self, message: Option<&'a pb::Platform>) -> u32 {
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == message) {
            return number;
        }
        let number = *self.known.entry(message).or_insert_with(|| {
            let platform = normal(message, self.default);
            let known = self.list.iter().position(|known| *known == platform);
            known.unwrap_or_else(|| {
                self.list.push(platform);
                self.list.len() - 1
            }) as u32
        });
        self.last = Some((message, number));
        number
    }
}

fn normal(message: Option<&pb::Platform>, default: &Platform) -> Platform {
    let Some(platform) = message else { return default.normalize() };
    let platform = Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    };
    platform.normalize()
}

/// The platform whose programs a vertex runs, in normal form; none if it runs none and can be
/// done anywhere. A step that names no platform is for `default`.
pub fn executing_platform(vertex: &Vertex, default: &Platform) -> Option<Platform> {
    matches!(vertex.op.op, Some(op::Op::Exec(_))).then(|| normal(vertex.platform(), default))
}
