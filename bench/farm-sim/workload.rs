use std::time::Duration;

use crate::Plan;
use crate::plan::PLATFORMS;
use crate::random::{Popularity, Random};

/// How many parts at a time the largest builds have.
const LARGE: f64 = 150.0;

/// Steps of one platform, one after the other, all of one group.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) platform: usize,
    /// The placement key.
    pub(crate) key: u64,
    /// How long each step takes where the cache is warm.
    pub(crate) steps: Vec<Duration>,
    /// What a worker keeps of it.
    pub(crate) megabytes: u64,
}

/// A build as it comes.
pub(crate) struct Build {
    /// What is built.
    pub(crate) project: u64,
    /// Runs before the others: what is compiled once for all platforms.
    pub(crate) first: Option<Chain>,
    /// At the same time.
    pub(crate) chains: Vec<Chain>,
    /// Whether its last step fails.
    pub(crate) fails: bool,
}

impl Build {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Chain> {
        self.first.iter().chain(&self.chains)
    }

    pub(crate) fn steps(&self) -> usize {
        self.all().map(|chain| chain.steps.len()).sum()
    }

    /// How long it takes where nothing is ever waited for.
    pub(crate) fn ideal(&self) -> Duration {
        let length = |chain: &Chain| chain.steps.iter().sum::<Duration>();
        let longest = self.chains.iter().map(length).max().unwrap_or_default();
        self.first.as_ref().map(length).unwrap_or_default() + longest
    }
}

/// Makes builds.
pub(crate) struct Workload {
    seed: u64,
    popularity: Popularity,
    random: Random,
}

impl Workload {
    pub(crate) fn new(plan: &Plan) -> Self {
        Workload {
            seed: plan.seed,
            // As images at registries and repositories at CI services are: a long tail.
            popularity: Popularity::new(plan.projects, 0.7),
            random: Random::new(plan.seed, u64::MAX),
        }
    }

    /// The next build. What a project is follows from its number; what was edited does not.
    pub(crate) fn next(&mut self) -> Build {
        let number = self.popularity.pick(&mut self.random) as u64;
        let mut project = Random::new(self.seed, number);
        let seconds = project.lognormal(8.0, 1.0).min(60.0);
        let steps = 1 + project.lognormal(4.0, 0.6).min(19.0) as usize;
        // One in a thousand builds everything that there is.
        let large = project.chance(0.001);
        let branches =
            if large { 24 } else { project.weighted(&[(1, 0.75), (2, 0.2), (3, 0.05)]).unwrap_or(1) };
        let compiled_once = project.chance(0.3);
        let megabytes = project.lognormal(1500.0, 1.0).min(40_000.0) as u64;
        let wanted: Vec<usize> =
            (0..PLATFORMS.len()).filter(|it| large || project.chance(PLATFORMS[*it].1)).collect();
        let wanted = if wanted.is_empty() { vec![0] } else { wanted };
        // What was edited: the steps from there on run, those before it are known to the endpoint.
        let edited = self.random.part();
        let fails = self.random.chance(0.03);
        let random = &mut self.random;
        let mut chain = |platform: usize, branch: u64, steps: usize, seconds: f64| Chain {
            platform,
            key: Random::new(self.seed, (number << 16) ^ ((platform as u64) << 8) ^ branch).next(),
            steps: (0..steps)
                .skip(((steps as f64 * edited) as usize).min(steps - 1))
                .map(|_| Duration::from_secs_f64(random.lognormal(seconds, 0.5).clamp(0.05, 300.0)))
                .collect(),
            megabytes,
        };
        let first = compiled_once.then(|| chain(0, 255, steps, seconds * 1.5));
        let mut chains = Vec::new();
        for platform in wanted {
            // Of as many for each platform as there is room, so that none has more work than others.
            let branches = if large { (LARGE * PLATFORMS[platform].2) as u64 } else { branches };
            for branch in 0..branches {
                chains.push(chain(platform, branch, steps, seconds));
            }
        }
        Build { project: number, first, chains, fails }
    }
}
