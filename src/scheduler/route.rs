use std::cmp::Reverse;
use std::fmt;

use crosskit_llb::{Graph, names};
use serde::{Deserialize, Serialize};

use crate::{Group, Health, Kind, SchedulerError, Split, WorkerState};

/// What to do when the workers of the kind that is liked best have all they can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Wait for one of them.
    Wait,
    /// Take one of the next kind that has a place.
    Spill,
}

/// How workers are chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The kinds of workers that may be used, the one that is liked best first.
    pub prefer: Vec<Kind>,
    /// What to do when those have no place.
    pub when_full: WhenFull,
}

impl Default for Policy {
    /// A processor of the platform, here or elsewhere, rather than an emulator, which is slower
    /// than waiting tends to be.
    fn default() -> Self {
        Policy { prefer: vec![Kind::Native, Kind::Remote, Kind::Emulated], when_full: WhenFull::Wait }
    }
}

/// Why a worker was chosen or was not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// It was chosen: the best of so many that could be.
    Chosen {
        /// How many could be.
        of: usize,
    },
    /// It does not run programs of the platform.
    OtherPlatforms,
    /// The policy does not name its kind.
    KindNotAllowed,
    /// It does not answer.
    Down,
    /// It takes nothing new.
    Draining,
    /// Another kind is liked better.
    KindLikedLess {
        /// The kind that was chosen.
        than: Kind,
    },
    /// It runs all it can, and another has a place.
    Full,
    /// It has less room than the chosen one.
    LessFree,
    /// It was seen to be slower than the chosen one.
    Slower,
    /// As good as the chosen one, whose name comes first.
    Equal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Chosen { of: 1 } => f.write_str("the only one that can run it"),
            Reason::Chosen { of } => write!(f, "the best of {of} that can run it"),
            Reason::OtherPlatforms => f.write_str("does not run programs of this platform"),
            Reason::KindNotAllowed => f.write_str("the policy does not allow its kind"),
            Reason::Down => f.write_str("does not answer"),
            Reason::Draining => f.write_str("takes no new work"),
            Reason::KindLikedLess { than } => write!(f, "{} is preferred", than.name()),
            Reason::Full => f.write_str("has no place free"),
            Reason::LessFree => f.write_str("has less room"),
            Reason::Slower => f.write_str("is slower"),
            Reason::Equal => f.write_str("is as good"),
        }
    }
}

/// What was thought of one worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The worker.
    pub worker: String,
    /// How it runs programs.
    pub kind: Kind,
    /// Why it was chosen or was not.
    pub reason: Reason,
}

/// Where a group goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The name of the worker.
    pub worker: String,
    /// How it runs programs.
    pub kind: Kind,
    /// What was thought of every worker, in their order.
    pub verdicts: Vec<Verdict>,
}

/// How good a worker is for a group; less is better.
type Rank<'a> = (bool, usize, bool, Reverse<usize>, Reverse<u64>, &'a str);

impl Policy {
    fn rank<'a>(&self, worker: &'a WorkerState) -> Rank<'a> {
        let liked = self.prefer.iter().position(|kind| *kind == worker.kind);
        let full = worker.free() == 0;
        let spilled = full && self.when_full == WhenFull::Spill;
        // Speeds are positive, and those of the same bits are the same speed.
        let speed = worker.speed.filter(|speed| *speed > 0.0).unwrap_or(0.0).to_bits();
        let (liked, free) = (liked.unwrap_or(usize::MAX), Reverse(worker.free()));
        (spilled, liked, full, free, Reverse(speed), &worker.name)
    }

    /// Why a worker cannot be chosen.
    fn obstacle(&self, worker: &WorkerState, group: &Group) -> Option<Reason> {
        if !worker.runs(&group.platform) {
            Some(Reason::OtherPlatforms)
        } else if !self.prefer.contains(&worker.kind) {
            Some(Reason::KindNotAllowed)
        } else {
            match worker.health {
                Health::Up => None,
                Health::Draining => Some(Reason::Draining),
                Health::Down => Some(Reason::Down),
            }
        }
    }
}

/// Chooses the worker for a group. The same workers in the same state give the same answer.
pub fn route(group: &Group, workers: &[WorkerState], policy: &Policy) -> Result<Decision, SchedulerError> {
    let obstacles: Vec<_> = workers.iter().map(|worker| policy.obstacle(worker, group)).collect();
    let able = || workers.iter().zip(&obstacles).filter(|(_, obstacle)| obstacle.is_none());
    let count = able().count();
    let Some((best, _)) = able().min_by(|(a, _), (b, _)| policy.rank(a).cmp(&policy.rank(b))) else {
        return Err(nobody(group, workers, &obstacles));
    };
    let chosen = policy.rank(best);
    let verdict = |(worker, obstacle): (&WorkerState, Option<Reason>)| {
        let rank = policy.rank(worker);
        let reason = obstacle.unwrap_or_else(|| {
            if worker.name == best.name {
                Reason::Chosen { of: count }
            } else if rank.0 != chosen.0 || (rank.1 == chosen.1 && rank.2 != chosen.2) {
                Reason::Full
            } else if rank.1 != chosen.1 {
                Reason::KindLikedLess { than: best.kind }
            } else if rank.3 != chosen.3 {
                Reason::LessFree
            } else if rank.4 != chosen.4 {
                Reason::Slower
            } else {
                Reason::Equal
            }
        });
        Verdict { worker: worker.name.clone(), kind: worker.kind, reason }
    };
    let verdicts = workers.iter().zip(obstacles.iter().cloned()).map(verdict).collect();
    Ok(Decision { worker: best.name.clone(), kind: best.kind, verdicts })
}

fn nobody(group: &Group, workers: &[WorkerState], obstacles: &[Option<Reason>]) -> SchedulerError {
    let away = |obstacle: &Option<Reason>| matches!(obstacle, Some(Reason::Down | Reason::Draining));
    let silent: Vec<String> = workers
        .iter()
        .zip(obstacles)
        .filter(|(_, obstacle)| away(obstacle))
        .map(|(worker, _)| worker.name.clone())
        .collect();
    let platform = Box::new(group.platform.clone());
    if silent.is_empty() {
        let lacks = workers.iter().flat_map(|worker| &worker.lacks);
        let mut tried: Vec<String> = Vec::new();
        for (_, why) in lacks.filter(|(lacked, _)| *lacked == group.platform) {
            if !tried.contains(why) {
                tried.push(why.clone());
            }
        }
        let (steps, example) = (group.steps.len(), String::new());
        SchedulerError::NothingRuns { platform, steps, example, tried }
    } else {
        SchedulerError::NothingAnswers { platform, workers: silent }
    }
}

/// A group and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which of the groups.
    pub group: usize,
    /// Where it goes.
    pub decision: Decision,
}

/// Chooses workers for all groups of a graph before any step runs, so that a platform that
/// nothing can run is told of at once. Each group is counted as work of its worker for those
/// after it.
pub fn preflight(
    graph: &Graph,
    split: &Split,
    workers: &[WorkerState],
    policy: &Policy,
) -> Result<Vec<Route>, SchedulerError> {
    let mut workers = workers.to_vec();
    let mut routes = Vec::with_capacity(split.groups.len());
    for (number, group) in split.groups.iter().enumerate() {
        let decision = route(group, &workers, policy).map_err(|error| match error {
            // All its steps, not only those of this group.
            SchedulerError::NothingRuns { platform, tried, .. } => {
                let same = split.groups.iter().filter(|group| group.platform == *platform);
                let steps = same.map(|group| group.steps.len()).sum();
                let example = group.steps.first().and_then(|step| names::vertex_names(graph).remove(step));
                let example = example.unwrap_or_default();
                SchedulerError::NothingRuns { platform, steps, example, tried }
            }
            other => other,
        })?;
        if let Some(worker) = workers.iter_mut().find(|worker| worker.name == decision.worker) {
            worker.busy += 1;
        }
        routes.push(Route { group: number, decision });
    }
    Ok(routes)
}
