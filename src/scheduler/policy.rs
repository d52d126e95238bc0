use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Entitlements, Kind};

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Policy {
    /// The kinds of workers that may be used, the one that is liked best first.
    pub prefer: Vec<Kind>,
    /// What to do when those have no place.
    pub when_full: WhenFull,
    /// How many times its share of all work a worker may have before work that has been there
    /// goes elsewhere. Up to a quarter of its places it may have in any case.
    pub load_factor: f32,
    /// How long a step lets others go first, if those workers that are warm are full: that has the
    /// earlier steps of its group, or those that have run such a group. It waits no longer than
    /// such a step takes; longer than this is not worth it, as moving and doing again what is
    /// cached takes about as long.
    pub patience: Duration,
    /// How long a step waits for somebody who can run it and does not answer now. One that only
    /// rests is waited for until it has rested.
    pub grace: Duration,
    /// How long a worker gets nothing new after it has failed; doubled each time it fails again.
    pub rest: Duration,
    /// How many workers there may be for a decision to say something of each.
    pub verdicts: usize,
    /// How many decisions are remembered.
    pub history: usize,
    /// How many places of placement keys are remembered: who has run them.
    pub homes: usize,
}

impl Default for Policy {
    /// A processor of the platform, here or elsewhere, rather than an emulator, which is slower
    /// than waiting tends to be.
    fn default() -> Self {
        Policy {
            prefer: vec![Kind::Native, Kind::Remote, Kind::Emulated],
            when_full: WhenFull::Wait,
            load_factor: 1.75,
            patience: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            rest: Duration::from_secs(5),
            verdicts: 64,
            history: 4096,
            homes: 1 << 18,
        }
    }
}

/// Why a worker was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "choice", rename_all = "kebab-case")]
pub enum Choice {
    /// There is no other.
    Only,
    /// It has the earlier steps of the group.
    Holds,
    /// It is the first choice for such work, which nobody has done before who has a place.
    First,
    /// It has run such a group before.
    Knows,
    /// The choices before it for such work have no place, or more than their share.
    Next,
    /// All that have a place have more than their share; this one has least.
    LeastLoaded,
}

/// What was thought of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// It was chosen.
    Chosen(Choice),
    /// It does not run programs of the platform.
    OtherPlatforms,
    /// The policy does not name its kind.
    KindNotAllowed,
    /// It does not let steps do what this one asks for.
    NotEntitled {
        /// What it does not let them do.
        #[serde(serialize_with = "as_text")]
        lacks: Entitlements,
    },
    /// It has failed at this very step.
    FailedBefore,
    /// It does not answer.
    Down,
    /// It takes nothing new.
    Draining,
    /// It has failed a moment ago, and gets nothing for a while.
    Resting,
    /// Another kind is liked better.
    KindLikedLess {
        /// The kind that was chosen.
        than: Kind,
    },
    /// It runs all it can.
    Full,
    /// It has more than its share.
    Busier,
    /// It could run it as well, but such work is rather done by the chosen one.
    LaterChoice,
}

fn as_text<S: serde::Serializer>(lacks: &Entitlements, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(lacks)
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Only => f.write_str("the only one that can run it"),
            Choice::Holds => f.write_str("has the steps before it"),
            Choice::First => f.write_str("the first choice for such steps"),
            Choice::Knows => f.write_str("has run such steps before"),
            Choice::Next => f.write_str("the next choice for such steps, as the first is busy"),
            Choice::LeastLoaded => f.write_str("the least loaded"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Chosen(choice) => choice.fmt(f),
            Reason::OtherPlatforms => f.write_str("does not run programs of this platform"),
            Reason::KindNotAllowed => f.write_str("the policy does not allow its kind"),
            Reason::NotEntitled { lacks } => write!(f, "does not allow {lacks}"),
            Reason::FailedBefore => f.write_str("has failed at this step"),
            Reason::Down => f.write_str("does not answer"),
            Reason::Draining => f.write_str("takes no new work"),
            Reason::Resting => f.write_str("has failed a moment ago"),
            Reason::KindLikedLess { than } => write!(f, "{} is preferred", than.name()),
            Reason::Full => f.write_str("has no place free"),
            Reason::Busier => f.write_str("has more than its share of work"),
            Reason::LaterChoice => f.write_str("is a later choice for such steps"),
        }
    }
}
