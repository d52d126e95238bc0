use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crosskit_platforms::Platform;
use crosskit_scheduler::{Kind, WorkerState};

use crate::Plan;
use crate::plan::PLATFORMS;
use crate::random::Random;
use crate::simulation::{Ending, Ticket};

/// How much faster than the mean a machine is at most.
pub(crate) const FASTEST: f64 = 1.15;

/// A machine that does not exist.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) platform: usize,
    pub(crate) slots: usize,
    /// How much faster than others.
    pub(crate) speed: f64,
    /// Counts its deaths: what was started in an earlier life never ends.
    pub(crate) life: u32,
    /// Whether it is dead, noticed or not.
    pub(crate) dead: bool,
    /// Whether it takes nothing new.
    pub(crate) draining: bool,
    /// How many steps it runs.
    pub(crate) running: usize,
    /// What endpoints have sent beyond its places.
    pub(crate) queue: VecDeque<Start>,
    /// How many steps it has of each endpoint.
    pub(crate) given: Vec<usize>,
    cache: Cache,
}

/// A step that a machine is to run.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) ticket: Ticket,
    pub(crate) seconds: f64,
    pub(crate) how: Ending,
    pub(crate) came: Duration,
}

impl Machine {
    /// Whether work of this key was done here and is still known; it is from now on.
    pub(crate) fn use_cache(&mut self, key: u64, megabytes: u64) -> bool {
        self.cache.touch(key, megabytes)
    }

    /// Whether work of this key is still known here.
    pub(crate) fn knows(&self, key: u64) -> bool {
        self.cache.entries.contains_key(&key)
    }

    /// How many of its places each endpoint is told of.
    pub(crate) fn share(&self, plan: &Plan) -> usize {
        ((self.slots as f64 * plan.share).round() as usize).clamp(1, self.slots)
    }

    /// It is dead: nothing that it has to do ever ends.
    pub(crate) fn die(&mut self) {
        (self.life, self.dead, self.running) = (self.life + 1, true, 0);
        self.queue.clear();
    }

    pub(crate) fn lose_cache(&mut self) {
        self.cache.entries.clear();
        self.cache.order.clear();
        self.cache.used = 0;
    }

    pub(crate) fn state(&self, plan: &Plan) -> WorkerState {
        let platforms = Platform::parse(PLATFORMS[self.platform].0).into_iter().collect();
        WorkerState {
            slots: Some(self.share(plan)),
            ..WorkerState::idle(self.name.clone(), Kind::Remote, platforms)
        }
    }
}

/// What was used longest ago goes first.
struct Cache {
    megabytes: u64,
    used: u64,
    now: u64,
    entries: HashMap<u64, (u64, u64)>,
    order: BTreeMap<u64, u64>,
}

impl Cache {
    fn touch(&mut self, key: u64, megabytes: u64) -> bool {
        self.now += 1;
        let known = self.entries.insert(key, (self.now, megabytes));
        if let Some((before, size)) = known {
            self.order.remove(&before);
            self.used -= size;
        }
        self.order.insert(self.now, key);
        self.used += megabytes;
        while self.used > self.megabytes {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.used -= self.entries.remove(&oldest).map_or(0, |(_, size)| size);
        }
        known.is_some()
    }
}

/// All machines: of each platform as many as its part of the work, and at least one.
pub(crate) fn fleet(plan: &Plan, shares: [f64; PLATFORMS.len()]) -> Vec<Machine> {
    let mut random = Random::new(plan.seed, 1 << 60);
    let mut speed_of = [0.0; PLATFORMS.len()];
    let machine = |number: usize| {
        let slots = random.weighted(&[(2, 0.1), (4, 0.4), (8, 0.35), (16, 0.15)]).unwrap_or(4);
        let speed = random.lognormal(1.0, 0.05).clamp(1.0 / FASTEST, FASTEST);
        // The one whose machines do the least for their part.
        let done = |platform: &usize| speed_of[*platform] / shares[*platform];
        let platform = (0..PLATFORMS.len()).min_by(|a, b| done(a).total_cmp(&done(b))).unwrap_or(0);
        speed_of[platform] += slots as f64 * speed;
        Machine {
            name: format!("{}-{number}", PLATFORMS[platform].0.replace('/', "-")),
            platform,
            slots,
            speed,
            life: 0,
            dead: false,
            draining: false,
            running: 0,
            queue: VecDeque::new(),
            given: vec![0; plan.endpoints],
            cache: Cache {
                megabytes: 40_000 * slots as u64,
                used: 0,
                now: 0,
                entries: HashMap::new(),
                order: BTreeMap::new(),
            },
        }
    };
    (0..plan.workers).map(machine).collect()
}
