//! Which vertices make a group: two ways to label steps, and the check between them.
//!
//! *By returns*: a step's label counts how often the way to it has left its platform and come
//! back. Steps of one platform and label that hang together can't be left and entered again,
//! and nothing larger can be had without that. Two such groups may need one another, though:
//! then the graph is labelled *by stages*, which count how often the platform changes at all on
//! the way; stages only grow along a way, so groups of them never go round in a circle.

use crate::shape::{Role, Shape};

/// Not in a group.
pub(crate) const NONE: u32 = u32::MAX;

/// Platforms for which returns are counted; each has a bit. Graphs with more are rare, and are
/// labelled by stages.
const MOST_PLATFORMS: usize = u64::BITS as usize;

/// The groups of a graph.
pub(crate) struct Groups {
    /// The group of each vertex, or [`NONE`].
    pub(crate) of: Vec<u32>,
    /// How many groups of others lie on the longest way to each group.
    pub(crate) stages: Vec<u32>,
}

/// Divides a graph into convex groups that do not need one another in a circle. Takes time in
/// proportion to its size.
pub(crate) fn groups(shape: &Shape) -> Groups {
    if shape.platforms.is_empty() {
        return Groups { of: vec![NONE; shape.len()], stages: Vec::new() };
    }
    let by_returns = (shape.platforms.len() <= MOST_PLATFORMS).then(|| by_returns(shape)).flatten();
    let ordered = by_returns.and_then(|sets| numbered(shape, sets));
    ordered.or_else(|| numbered(shape, by_stages(shape))).unwrap_or_else(|| alone(shape))
}

/// Sets of vertices that hang together.
struct Sets {
    parents: Vec<u32>,
    /// Whether a vertex is in a set at all.
    members: Vec<bool>,
}

impl Sets {
    fn new(len: usize) -> Self {
        Sets { parents: (0..len as u32).collect(), members: vec![false; len] }
    }

    fn find(&mut self, mut vertex: u32) -> u32 {
        while self.parents[vertex as usize] != vertex {
            let parent = self.parents[vertex as usize];
            self.parents[vertex as usize] = self.parents[parent as usize];
            vertex = parent;
        }
        vertex
    }

    /// Joins two sets under their first vertex.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a as u32), self.find(b as u32));
        self.parents[a.max(b) as usize] = a.min(b);
    }
}

/// The platforms of the steps on the ways to each vertex and from it, itself among them.
fn between(shape: &Shape) -> Vec<u64> {
    let own = |vertex: usize| match shape.roles[vertex] {
        Role::Step(platform) => 1u64 << platform,
        _ => 0,
    };
    let mut above = vec![0u64; shape.len()];
    for vertex in 0..shape.len() {
        above[vertex] = shape.inputs(vertex).fold(own(vertex), |all, input| all | above[input]);
    }
    let mut below = vec![0u64; shape.len()];
    for vertex in (0..shape.len()).rev() {
        below[vertex] |= own(vertex);
        for input in shape.inputs(vertex) {
            below[input] |= below[vertex];
        }
    }
    above.iter().zip(below).map(|(above, below)| above & below).collect()
}

/// None where a file operation lies between steps of two groups: these need one another.
fn by_returns(shape: &Shape) -> Option<Sets> {
    let between = between(shape);
    let mut concerned: Vec<Vec<u32>> = vec![Vec::new(); shape.platforms.len()];
    for (vertex, bits) in between.iter().enumerate() {
        let mut bits = *bits;
        while bits != 0 {
            concerned[bits.trailing_zeros() as usize].push(vertex as u32);
            bits &= bits - 1;
        }
    }
    let mut sets = Sets::new(shape.len());
    // What a step that comes next would be labelled; the highest label above; the lowest below.
    let (mut next, mut above, mut below) =
        (vec![0u32; shape.len()], vec![0u32; shape.len()], vec![NONE; shape.len()]);
    for (platform, vertices) in concerned.iter().enumerate() {
        let bit = 1u64 << platform;
        let inputs = |vertex: usize| shape.inputs(vertex).filter(|input| between[*input] & bit != 0);
        let step = |vertex: usize| shape.roles[vertex] == Role::Step(platform as u32);
        for vertex in vertices.iter().map(|vertex| *vertex as usize) {
            let label = inputs(vertex).map(|input| next[input]).max().unwrap_or(0);
            let carried = shape.roles[vertex] == Role::Carried;
            next[vertex] = if carried || step(vertex) { label } else { label + 1 };
            let upper = inputs(vertex).map(|input| above[input]).max().unwrap_or(0);
            above[vertex] = if step(vertex) { label } else { upper };
            below[vertex] = if step(vertex) { label } else { NONE };
        }
        for vertex in vertices.iter().rev().map(|vertex| *vertex as usize) {
            for input in inputs(vertex) {
                below[input] = below[input].min(below[vertex]);
            }
        }
        let inside = |vertex: usize| {
            step(vertex) || (shape.roles[vertex] == Role::Carried && above[vertex] == below[vertex])
        };
        for vertex in vertices.iter().map(|vertex| *vertex as usize).filter(|vertex| inside(*vertex)) {
            if std::mem::replace(&mut sets.members[vertex], true) {
                return None;
            }
            for input in inputs(vertex).filter(|input| inside(*input)) {
                if above[input] == above[vertex] {
                    sets.join(input, vertex);
                }
            }
        }
    }
    Some(sets)
}

/// A stage, and the platform of its steps.
type Stage = (u32, u32);

/// The latest stages on the ways to a vertex: the highest, and the highest of another platform.
#[derive(Clone, Copy, Default)]
struct Upstream {
    first: Option<Stage>,
    second: Option<Stage>,
}

impl Upstream {
    fn add(&mut self, stage: Stage) {
        match self.first {
            Some(first) if first.1 == stage.1 => self.first = Some(first.max(stage)),
            Some(first) if stage.0 <= first.0 => {
                if self.second.is_none_or(|second| stage.0 > second.0) {
                    self.second = Some(stage);
                }
            }
            first => {
                self.second = first;
                self.first = Some(stage);
            }
        }
    }

    /// The stage of a step of this platform: that of its own platform, or one more than that of
    /// another.
    fn stage(&self, platform: u32) -> u32 {
        let of = |stage: Option<Stage>| stage.map_or(0, |(number, of)| number + u32::from(of != platform));
        of(self.first).max(of(self.second))
    }
}

fn by_stages(shape: &Shape) -> Sets {
    let mut upstream = vec![Upstream::default(); shape.len()];
    // The lowest stage of the steps that need a vertex, itself among them. A vertex that is
    // fixed is a stage of its own.
    let mut below = vec![NONE; shape.len()];
    for vertex in 0..shape.len() {
        let mut here = Upstream::default();
        for input in shape.inputs(vertex) {
            let above = upstream[input];
            above.first.into_iter().chain(above.second).for_each(|stage| here.add(stage));
        }
        let fixed = shape.roles[vertex] == Role::Fixed && here.first.is_some();
        match shape.roles[vertex] {
            Role::Step(platform) => {
                let number = here.stage(platform);
                below[vertex] = number;
                here.add((number, platform));
            }
            _ if fixed => here.add((here.stage(NONE), NONE)),
            _ => {}
        }
        upstream[vertex] = here;
    }
    for vertex in (0..shape.len()).rev() {
        for input in shape.inputs(vertex) {
            below[input] = below[input].min(below[vertex]);
        }
    }
    let stage = |vertex: usize| upstream[vertex].first;
    let inside = |vertex: usize| match shape.roles[vertex] {
        Role::Step(_) => true,
        Role::Carried => stage(vertex).is_some_and(|(number, _)| number == below[vertex]),
        Role::Fixed => false,
    };
    let mut sets = Sets::new(shape.len());
    for vertex in (0..shape.len()).filter(|vertex| inside(*vertex)) {
        sets.members[vertex] = true;
        for input in shape.inputs(vertex).filter(|input| inside(*input)) {
            if stage(input) == stage(vertex) {
                sets.join(input, vertex);
            }
        }
    }
    sets
}

/// Numbers the sets, first vertex first, and finds their stages; none if they need one another
/// in a circle.
fn numbered(shape: &Shape, mut sets: Sets) -> Option<Groups> {
    let mut of = vec![NONE; shape.len()];
    let mut count = 0;
    for vertex in 0..shape.len() {
        if !sets.members[vertex] {
            continue;
        }
        let first = sets.find(vertex as u32) as usize;
        if of[first] == NONE {
            of[first] = count;
            count += 1;
        }
        of[vertex] = of[first];
    }
    // Groups come first among the nodes, then the vertices that are in none.
    let node = |vertex: usize| match of[vertex] {
        NONE => count as usize + vertex,
        group => group as usize,
    };
    let nodes = count as usize + shape.len();
    let edges = || {
        let pairs =
            (0..shape.len()).flat_map(|vertex| shape.inputs(vertex).map(move |input| (input, vertex)));
        pairs.map(|(input, vertex)| (node(input), node(vertex))).filter(|(from, to)| from != to)
    };
    let mut starts = vec![0u32; nodes + 1];
    let mut waits = vec![0u32; nodes];
    for (from, to) in edges() {
        starts[from + 1] += 1;
        waits[to] += 1;
    }
    for node in 0..nodes {
        starts[node + 1] += starts[node];
    }
    let mut uses = vec![0u32; starts[nodes] as usize];
    let mut next = starts.clone();
    for (from, to) in edges() {
        uses[next[from] as usize] = to as u32;
        next[from] += 1;
    }
    let mut ready: Vec<usize> = (0..nodes).filter(|node| waits[*node] == 0).collect();
    let mut stages = vec![0u32; nodes];
    let mut done = 0;
    while let Some(from) = ready.pop() {
        done += 1;
        let stage = stages[from] + u32::from(from < count as usize);
        for to in uses[starts[from] as usize..starts[from + 1] as usize].iter().map(|to| *to as usize) {
            stages[to] = stages[to].max(stage);
            waits[to] -= 1;
            if waits[to] == 0 {
                ready.push(to);
            }
        }
    }
    stages.truncate(count as usize);
    (done == nodes).then_some(Groups { of, stages })
}

/// Each step for itself, which is right for any graph.
fn alone(shape: &Shape) -> Groups {
    let mut sets = Sets::new(shape.len());
    for (vertex, role) in shape.roles.iter().enumerate() {
        sets.members[vertex] = matches!(role, Role::Step(_));
    }
    numbered(shape, sets).unwrap_or_else(|| Groups { of: vec![NONE; shape.len()], stages: Vec::new() })
}
