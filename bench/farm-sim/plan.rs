use std::time::Duration;

use crosskit_scheduler::Policy;

/// A platform: how many builds want it, and how many of the workers are of it. A third of all
/// builds compile for all platforms on the first one; so there are as many workers of each as
/// there is work.
pub(crate) const PLATFORMS: [(&str, f64, f64); 8] = [
    ("linux/amd64", 0.90, 0.515),
    ("linux/arm64", 0.55, 0.210),
    ("linux/arm/v7", 0.18, 0.069),
    ("linux/riscv64", 0.15, 0.057),
    ("linux/ppc64le", 0.12, 0.046),
    ("linux/s390x", 0.12, 0.046),
    ("linux/loong64", 0.10, 0.038),
    ("linux/mips64le", 0.05, 0.019),
];

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// How many workers there are, of all eight architectures.
    pub workers: usize,
    /// How many builds come.
    pub builds: usize,
    /// How many projects they are of. Few projects are built often, most rarely.
    pub projects: usize,
    /// The work that comes, as a part of what the workers can do when every cache is warm.
    pub load: f64,
    /// How far the load goes up and down around this, as a part of it.
    pub waves: f64,
    /// How long a worker stays before it dies, or is drained, on average; none for ever.
    pub lifetime: Option<Duration>,
    /// How many endpoints there are, which share the workers and know nothing of each other.
    pub endpoints: usize,
    /// The part of a worker's places that each endpoint is told of. At least one place; what is
    /// too much at a time waits at the worker.
    pub share: f64,
    /// Whether a project is always built at the same endpoint, rather than at any.
    pub sticky: bool,
    /// How workers are chosen.
    pub policy: Policy,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            seed: 1,
            workers: 10_000,
            builds: 1_000_000,
            projects: 50_000,
            load: 0.7,
            waves: 0.25,
            lifetime: Some(Duration::from_secs(12 * 3600)),
            endpoints: 1,
            share: 1.0,
            sticky: false,
            policy: Policy::default(),
        }
    }
}

impl Plan {
    /// A plan from arguments such as `--workers 100`.
    pub fn from_args(args: impl Iterator<Item = String>) -> Result<Plan, String> {
        let mut plan = Plan::default();
        let mut args = args;
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            let bad = || format!("{name} {value}: not a number");
            let count = || value.parse::<usize>().map_err(|_| bad());
            let number = || value.parse::<f64>().map_err(|_| bad());
            match name.as_str() {
                "--seed" => plan.seed = value.parse().map_err(|_| bad())?,
                "--workers" => plan.workers = count()?.max(PLATFORMS.len()),
                "--builds" => plan.builds = count()?,
                "--projects" => plan.projects = count()?.max(1),
                "--load" => plan.load = number()?,
                "--waves" => plan.waves = number()?,
                "--endpoints" => plan.endpoints = count()?.max(1),
                "--share" => plan.share = number()?,
                "--sticky" => plan.sticky = number()? > 0.0,
                "--load-factor" => plan.policy.load_factor = number()? as f32,
                "--patience" => plan.policy.patience = Duration::from_secs_f64(number()?.max(0.0)),
                "--lifetime-hours" => {
                    let hours = number()?;
                    plan.lifetime = (hours > 0.0).then(|| Duration::from_secs_f64(hours * 3600.0));
                }
                _ => {
                    return Err(format!(
                        "{name}: no such option; there are --seed, --workers, --builds, --projects, --load, \
                         --waves, --load-factor, --patience, --lifetime-hours, --endpoints, --share and \
                         --sticky"
                    ));
                }
            }
        }
        Ok(plan)
    }
}
