use crosskit_platforms::{Matcher, Platform};
use serde::{Deserialize, Serialize};

use crate::Entitlements;

/// How a worker runs programs of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// This machine's processor does.
    Native,
    /// Another machine does.
    Remote,
    /// An emulator on this machine does.
    Emulated,
}

impl Kind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Native => "native",
            Kind::Remote => "remote",
            Kind::Emulated => "emulated",
        }
    }
}

/// Whether a worker can be given work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It answers.
    Up,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It does not answer.
    Down,
}

/// A worker as the scheduler sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerState {
    /// Its name; no other worker has it.
    pub name: String,
    /// How it runs programs.
    pub kind: Kind,
    /// What it runs.
    pub platforms: Vec<Platform>,
    /// How many steps it runs at once; none for no limit.
    pub slots: Option<usize>,
    /// How many of its slots are taken by somebody else.
    pub busy: usize,
    /// Whether it can be given work.
    pub health: Health,
    /// Steps a minute that it was seen to do, where that was measured.
    pub speed: Option<f64>,
    /// What it lets steps do.
    pub entitlements: Entitlements,
    /// Why it does not run some platforms, as far as somebody asked.
    pub lacks: Vec<(Platform, String)>,
}

impl WorkerState {
    /// A worker that answers, has nothing to do, and lets steps do everything.
    pub fn idle(name: impl Into<String>, kind: Kind, platforms: Vec<Platform>) -> Self {
        WorkerState {
            name: name.into(),
            kind,
            platforms,
            slots: None,
            busy: 0,
            health: Health::Up,
            speed: None,
            entitlements: Entitlements::ALL,
            lacks: Vec::new(),
        }
    }

    /// Whether it runs programs of a platform. A processor runs what was made for older ones of
    /// its architecture; another architecture has to be listed.
    pub fn runs(&self, wanted: &Platform) -> bool {
        Runs::of(self).contains(&wanted.normalize())
    }
}

/// What a worker runs, made ready to be asked often.
pub(crate) struct Runs(Vec<(String, Matcher)>);

impl Runs {
    pub(crate) fn of(worker: &WorkerState) -> Self {
        let own = worker.platforms.iter().map(Platform::normalize);
        Runs(own.map(|own| (own.architecture.clone(), Matcher::only(&own))).collect())
    }

    /// Whether a platform in normal form is among it.
    pub(crate) fn contains(&self, wanted: &Platform) -> bool {
        self.0.iter().any(|(architecture, own)| *architecture == wanted.architecture && own.matches(wanted))
    }
}
