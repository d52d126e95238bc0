use std::collections::HashMap;

use crosskit_api::pb::op;
use crosskit_llb::{Digest, DigestMap, Graph, Vertex};
use crosskit_platforms::Platform;

/// A graph, divided by where its steps have to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The groups, those of a lower stage first.
    pub groups: Vec<Group>,
    /// Vertices that need no machine of a platform: sources, files, merges, diffs.
    pub anywhere: usize,
}

/// Steps that need a machine of one platform and hang together.
///
/// A group is convex: no path leads out of it and back into it. So it can be given away as a
/// whole, with its inputs brought first and its results fetched after.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What the steps are run by.
    pub platform: Platform,
    /// How often the platform changes on the way here. Groups of one stage do not depend on
    /// one another.
    pub stage: usize,
    /// The steps, inputs first.
    pub steps: Vec<Digest>,
}

/// The platform whose programs a vertex runs; none if it runs none and can be done anywhere.
/// A step that names no platform is for `default`.
pub fn executing_platform(vertex: &Vertex, default: &Platform) -> Option<Platform> {
    if !matches!(vertex.op.op, Some(op::Op::Exec(_))) {
        return None;
    }
    let Some(platform) = vertex.platform() else { return Some(default.normalize()) };
    let platform = Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    };
    Some(platform.normalize())
}

/// The latest steps on the way to a vertex: of the highest stage, and of the highest stage of
/// another platform.
#[derive(Clone, Copy, Default)]
struct Upstream {
    first: Option<Stage>,
    second: Option<Stage>,
}

#[derive(Clone, Copy, PartialEq)]
struct Stage {
    number: usize,
    platform: usize,
    /// One of its steps.
    step: usize,
}

impl Upstream {
    fn add(&mut self, stage: Stage) {
        match self.first {
            Some(first) if first.platform == stage.platform => {
                if stage.number > first.number {
                    self.first = Some(stage);
                }
            }
            Some(first) if stage.number <= first.number => {
                if self.second.is_none_or(|second| stage.number > second.number) {
                    self.second = Some(stage);
                }
            }
            first => {
                self.second = first;
                self.first = Some(stage);
            }
        }
    }

    /// The stage that a step of this platform has here: that of its own platform, or one more
    /// than that of another.
    fn stage(&self, platform: usize) -> usize {
        let of = |stage: Option<Stage>| {
            stage.map_or(0, |stage| stage.number + usize::from(stage.platform != platform))
        };
        of(self.first).max(of(self.second))
    }
}

/// Sets of steps that hang together.
struct Sets(Vec<usize>);

impl Sets {
    fn find(&mut self, mut step: usize) -> usize {
        while self.0[step] != step {
            self.0[step] = self.0[self.0[step]];
            step = self.0[step];
        }
        step
    }

    /// Joins two sets under their first step.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// Divides a graph by where its steps have to run. Takes time in proportion to its size.
pub fn split(graph: &Graph, default: &Platform) -> Split {
    let vertices = graph.vertices();
    let mut platforms: Vec<Platform> = Vec::new();
    let mut upstream: DigestMap<Upstream> = DigestMap::default();
    let mut steps: Vec<(Digest, usize, usize)> = Vec::new();
    let mut sets = Sets(Vec::new());
    for vertex in vertices {
        let mut here = Upstream::default();
        let mut inputs: Vec<Stage> = Vec::new();
        for input in &vertex.inputs {
            let above = upstream.get(&input.vertex).copied().unwrap_or_default();
            for stage in [above.first, above.second].into_iter().flatten() {
                here.add(stage);
                inputs.push(stage);
            }
        }
        if let Some(platform) = executing_platform(vertex, default) {
            let known = platforms.iter().position(|known| *known == platform);
            let platform = known.unwrap_or_else(|| {
                platforms.push(platform);
                platforms.len() - 1
            });
            let number = here.stage(platform);
            let step = steps.len();
            steps.push((vertex.digest, number, platform));
            sets.0.push(step);
            for input in inputs {
                if (input.number, input.platform) == (number, platform) {
                    sets.join(input.step, step);
                }
            }
            here.add(Stage { number, platform, step });
        } else {
            // Steps whose results come together here hang together.
            for input in &inputs {
                let same = [here.first, here.second]
                    .into_iter()
                    .flatten()
                    .find(|stage| (stage.number, stage.platform) == (input.number, input.platform));
                if let Some(same) = same {
                    sets.join(same.step, input.step);
                }
            }
        }
        upstream.insert(vertex.digest, here);
    }
    let anywhere = vertices.len() - steps.len();
    Split { groups: groups(&platforms, &steps, &mut sets), anywhere }
}

fn groups(platforms: &[Platform], steps: &[(Digest, usize, usize)], sets: &mut Sets) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_set: HashMap<usize, usize> = HashMap::new();
    for (step, (digest, stage, platform)) in steps.iter().enumerate() {
        let group = *by_set.entry(sets.find(step)).or_insert_with(|| {
            groups.push(Group { platform: platforms[*platform].clone(), stage: *stage, steps: Vec::new() });
            groups.len() - 1
        });
        groups[group].steps.push(*digest);
    }
    groups.sort_by_key(|group| group.stage);
    groups
}
