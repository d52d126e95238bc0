use crosskit_platforms::Platform;

/// Who has to act when an error happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request asks for something that cannot be.
    User,
    /// The machine lacks something.
    Environment,
    /// Something outside does not answer.
    Unavailable,
    /// The one who asked has left.
    Canceled,
    /// A bug.
    Internal,
}

/// Why no decision can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    /// No worker runs programs of a platform.
    #[error("{}", cannot_run(platform, *steps, example, tried))]
    NothingRuns {
        /// The platform.
        platform: Box<Platform>,
        /// How many steps need it.
        steps: usize,
        /// What one of them is called; empty where nobody knows.
        example: String,
        /// Why the workers do not run it, those that say so.
        tried: Vec<String>,
    },
    /// The workers that run programs of a platform do not answer.
    #[error("no worker that runs {} can be reached: {}", .platform.format(), .workers.join(", "))]
    NothingAnswers {
        /// The platform.
        platform: Box<Platform>,
        /// Who does not answer.
        workers: Vec<String>,
    },
    /// The workers that run programs of a platform do not let steps do what these ask for.
    #[error(
        "no worker that runs {} allows what its steps ask for: not {}; allow it on one of them, or add a \
         worker that does", .platform.format(), .workers.join(", ")
    )]
    NothingMay {
        /// The platform.
        platform: Box<Platform>,
        /// Who does not, and what.
        workers: Vec<String>,
    },
    /// All workers that run programs of a platform have failed at a step.
    #[error("every worker that runs {} has failed at this step: {}", .platform.format(), .workers.join(", "))]
    AllFailed {
        /// The platform.
        platform: Box<Platform>,
        /// Who has.
        workers: Vec<String>,
    },
}

fn cannot_run(platform: &Platform, steps: usize, example: &str, tried: &[String]) -> String {
    let name = platform.format();
    let what = match (steps, example) {
        (1, "") => "a step needs it".to_owned(),
        (1, _) => format!("the step {example:?} needs it"),
        (_, "") => format!("{steps} steps need it"),
        _ => format!("{steps} steps need it, such as {example:?}"),
    };
    let tried = match tried {
        [] => String::new(),
        reasons => format!("{}; ", reasons.join("; ")),
    };
    // Only Linux programs can be emulated.
    match platform.facts().filter(|_| platform.normalize().os == "linux") {
        Some(known) => format!(
            "nothing on this machine can run {name}, and {what}: {tried}get an emulator with \
             `binfmt --install {}`, or add a worker of that platform",
            known.name
        ),
        None => format!(
            "nothing can run {name}, and {what}: {tried}there is no emulator for it; add a worker \
             of that platform"
        ),
    }
}

impl SchedulerError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SchedulerError::NothingRuns { .. } | SchedulerError::NothingMay { .. } => ErrorKind::Environment,
            SchedulerError::NothingAnswers { .. } | SchedulerError::AllFailed { .. } => {
                ErrorKind::Unavailable
            }
        }
    }
}
