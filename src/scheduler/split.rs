use crosskit_api::pb::op;
use crosskit_llb::{Digest, DigestMap, Edge, Graph};
use crosskit_platforms::Platform;

use crate::convex::{self, NONE};
use crate::placement::Names;
use crate::shape::{Role, Shape};
use crate::{Entitlements, PlacementKey};

/// A graph, divided by where its steps have to run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Split {
    /// The groups, those of a lower stage first.
    pub groups: Vec<Group>,
    /// Vertices that need no machine of a platform: sources, files, merges, diffs.
    pub anywhere: usize,
    pub(crate) steps: DigestMap<u32>,
}

impl Split {
    /// The number of the group that a step is in.
    pub fn group_of(&self, step: &Digest) -> Option<usize> {
        self.steps.get(step).map(|group| *group as usize)
    }
}

/// Steps that need a machine of one platform and hang together, with the file, merge and diff
/// operations between them.
///
/// A group is convex: no path leads out of it and back into it, and groups do not need one
/// another in a circle. So it can be given away as a whole, with its inputs brought first and
/// its results fetched after. Steps of one platform whose results only meet where nothing runs
/// any more are groups of their own, so that they can run at the same time in several places.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What the steps are run by, in normal form.
    pub platform: Platform,
    /// How many other groups lie on the longest way here. Groups of one stage do not depend on
    /// one another.
    pub stage: usize,
    /// The steps, inputs first.
    pub steps: Vec<Digest>,
    /// The steps and the operations between them, inputs first.
    pub members: Vec<Digest>,
    /// What the members need from outside, each once.
    pub inputs: Vec<Edge>,
    /// What is needed outside, each once.
    pub outputs: Vec<Edge>,
    /// What its steps may do beyond their sandbox, taken together.
    pub entitlements: Entitlements,
    /// The same for groups that do the same things, whatever with.
    pub placement: PlacementKey,
}

/// Divides a graph by where its steps have to run. Takes time in proportion to its size. A step
/// that names no platform is for `default`.
pub fn split(graph: &Graph, default: &Platform) -> Split {
    let vertices = graph.vertices();
    let shape = Shape::of(graph, default);
    let found = convex::groups(&shape);
    // Groups of a lower stage first, and among these the one whose first vertex comes first.
    let mut order: Vec<usize> = (0..found.stages.len()).collect();
    order.sort_by_key(|group| found.stages[*group]);
    let mut ranks = vec![0; order.len()];
    for (rank, group) in order.iter().enumerate() {
        ranks[*group] = rank;
    }
    let of = |vertex: usize| match found.of[vertex] {
        NONE => None,
        group => Some(ranks[group as usize]),
    };
    let mut groups: Vec<Option<Group>> = vec![None; order.len()];
    let mut names = Names::new(graph, &shape, &found.of);
    let mut steps = DigestMap::default();
    steps.reserve(shape.roles.iter().filter(|role| matches!(role, Role::Step(_))).count());
    for (position, vertex) in vertices.iter().enumerate() {
        let exec = match &vertex.op.op {
            Some(op::Op::Exec(exec)) => Some(exec),
            _ => None,
        };
        let name = names.next(position);
        let Some(rank) = of(position) else { continue };
        let group = groups[rank].get_or_insert_with(|| Group {
            platform: Platform::default(),
            stage: found.stages[order[rank]] as usize,
            steps: Vec::new(),
            members: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            entitlements: Entitlements::NONE,
            placement: PlacementKey::default(),
        });
        if let Some(exec) = exec {
            if group.steps.is_empty() {
                group.platform = shape.platform(position).cloned().unwrap_or_default();
                group.placement = PlacementKey::of(&group.platform);
            }
            group.steps.push(vertex.digest);
            group.entitlements |= Entitlements::of(exec);
            group.placement.add(name);
            steps.insert(vertex.digest, rank as u32);
        }
        group.members.push(vertex.digest);
    }
    let mut groups: Vec<Group> = groups.into_iter().flatten().collect();
    boundaries(graph, &shape, of, &mut groups);
    Split { anywhere: vertices.len() - steps.len(), groups, steps }
}

/// Finds what goes into groups and comes out of them.
fn boundaries(graph: &Graph, shape: &Shape, of: impl Fn(usize) -> Option<usize>, groups: &mut [Group]) {
    for position in 0..shape.len() {
        let own = of(position);
        for (number, input) in shape.inputs(position).enumerate() {
            let from = of(input);
            if from == own {
                continue;
            }
            let edge = graph.vertices()[position].inputs[number];
            if let Some(own) = own {
                groups[own].inputs.push(edge);
            }
            if let Some(from) = from {
                groups[from].outputs.push(edge);
            }
        }
    }
    if let Some((head, group)) =
        graph.head().and_then(|head| Some((head, of(graph.position(&head.vertex)?)?)))
    {
        groups[group].outputs.push(head);
    }
    for group in groups {
        for edges in [&mut group.inputs, &mut group.outputs] {
            edges.sort_unstable();
            edges.dedup();
        }
    }
}
