use crosskit_llb::{Graph, names};
use crosskit_platforms::Platform;

use crate::{Entitlements, Health, Policy, SchedulerError, Split, WorkerState};

/// Who could run the steps of a graph for one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Runners {
    /// The platform.
    pub platform: Platform,
    /// What its steps may do beyond their sandbox.
    pub entitlements: Entitlements,
    /// How many steps there are.
    pub steps: usize,
    /// The names of the workers, those of a kind that is liked better first.
    pub workers: Vec<String>,
}

/// Finds who could run each platform of a graph, before any step runs, so that a platform that
/// nothing can run is told of at once.
pub fn preflight(
    graph: &Graph,
    split: &Split,
    workers: &[WorkerState],
    policy: &Policy,
) -> Result<Vec<Runners>, SchedulerError> {
    let mut all: Vec<Runners> = Vec::new();
    for group in &split.groups {
        let same = |known: &&mut Runners| {
            known.platform == group.platform && known.entitlements == group.entitlements
        };
        match all.iter_mut().find(same) {
            Some(known) => known.steps += group.steps.len(),
            None => all.push(Runners {
                platform: group.platform.clone(),
                entitlements: group.entitlements,
                steps: group.steps.len(),
                workers: Vec::new(),
            }),
        }
    }
    for runners in &mut all {
        let fitting = |worker: &&WorkerState| {
            worker.health == Health::Up
                && worker.runs(&runners.platform)
                && worker.entitlements.contains(runners.entitlements)
        };
        for kind in &policy.prefer {
            let able = workers.iter().filter(|worker| worker.kind == *kind).filter(fitting);
            runners.workers.extend(able.map(|worker| worker.name.clone()));
        }
    }
    let Some(nobody) = all.iter().find(|runners| runners.workers.is_empty()) else { return Ok(all) };
    let error = unplaced(&nobody.platform, nobody.entitlements, workers.iter(), policy);
    Err(match error {
        SchedulerError::NothingRuns { platform, tried, .. } => {
            // All its steps, whatever they are entitled to.
            let same = || split.groups.iter().filter(|group| group.platform == *platform);
            let steps = same().map(|group| group.steps.len()).sum();
            let first = same().find_map(|group| group.steps.first());
            let example = first.and_then(|step| names::vertex_names(graph).remove(step)).unwrap_or_default();
            SchedulerError::NothingRuns { platform, steps, example, tried }
        }
        other => other,
    })
}

/// Why no worker takes steps of a platform.
pub(crate) fn unplaced<'a>(
    platform: &Platform,
    entitlements: Entitlements,
    workers: impl Iterator<Item = &'a WorkerState> + Clone,
    policy: &Policy,
) -> SchedulerError {
    let boxed = Box::new(platform.clone());
    let able = workers.clone().filter(|worker| policy.prefer.contains(&worker.kind) && worker.runs(platform));
    let entitled = able.clone().filter(|worker| worker.entitlements.contains(entitlements));
    let silent: Vec<String> =
        entitled.filter(|worker| worker.health != Health::Up).map(|worker| worker.name.clone()).collect();
    if !silent.is_empty() {
        return SchedulerError::NothingAnswers { platform: boxed, workers: silent };
    }
    let unwilling: Vec<String> = able
        .filter(|worker| !worker.entitlements.contains(entitlements))
        .map(|worker| format!("{} ({})", worker.name, entitlements.without(worker.entitlements)))
        .collect();
    if !unwilling.is_empty() {
        return SchedulerError::NothingMay { platform: boxed, workers: unwilling };
    }
    let mut tried: Vec<String> = Vec::new();
    let lacks = workers.flat_map(|worker| &worker.lacks);
    for (_, why) in lacks.filter(|(lacked, _)| lacked == platform) {
        if !tried.contains(why) {
            tried.push(why.clone());
        }
    }
    SchedulerError::NothingRuns { platform: boxed, steps: 1, example: String::new(), tried }
}
