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
    #[error("{}", cannot_run(platform, *steps, example))]
    NothingRuns {
        /// The platform.
        platform: Box<Platform>,
        /// How many steps need it.
        steps: usize,
        /// What one of them is called.
        example: String,
    },
    /// The workers that run programs of a platform do not answer.
    #[error("no worker that runs {} can be reached: {}", .platform.format(), .workers.join(", "))]
    NothingAnswers {
        /// The platform.
        platform: Box<Platform>,
        /// Who does not answer.
        workers: Vec<String>,
    },
    /// A platform was asked for and not built.
    #[error("there is no result for {}, which was asked for", .0.format())]
    Missing(Box<Platform>),
    /// A platform was built twice.
    #[error("there are two results for {}", .0.format())]
    Twice(Box<Platform>),
}

fn cannot_run(platform: &Platform, steps: usize, example: &str) -> String {
    let name = platform.format();
    let what = match steps {
        1 => format!("the step {example:?} needs it"),
        _ => format!("{steps} steps need it, such as {example:?}"),
    };
    // Only Linux programs can be emulated.
    match platform.facts().filter(|_| platform.normalize().os == "linux") {
        Some(known) => format!(
            "cannot run programs for {name} on this machine, and {what}: install an emulator \
             with `binfmt --install {}`, or add a worker of that platform",
            known.name
        ),
        None => format!(
            "cannot run programs for {name}, and {what}: there is no emulator for it; add a \
             worker of that platform"
        ),
    }
}

impl SchedulerError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SchedulerError::NothingRuns { .. } => ErrorKind::Environment,
            SchedulerError::NothingAnswers { .. } => ErrorKind::Unavailable,
            SchedulerError::Missing(_) | SchedulerError::Twice(_) => ErrorKind::Internal,
        }
    }
}
