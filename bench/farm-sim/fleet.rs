use std::collections::{BTreeMap, HashMap};

use crosskit_platforms::Platform;
use crosskit_scheduler::{Kind, WorkerState};

use crate::Plan;
use crate::plan::PLATFORMS;
use crate::random::Random;

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
    cache: Cache,
}

impl Machine {
    /// Whether work of this key was done here and is still known; it is from now on.
    pub(crate) fn use_cache(&mut self, key: u64, megabytes: u64) -> bool {
        self.cache.touch(key, megabytes)
    }

    pub(crate) fn lose_cache(&mut self) {
        self.cache.entries.clear();
        self.cache.order.clear();
        self.cache.used = 0;
    }

    pub(crate) fn state(&self) -> WorkerState {
        let platforms = Platform::parse(PLATFORMS[self.platform].0).into_iter().collect();
        WorkerState {
            slots: Some(self.slots),
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

/// All machines; of each platform at least one.
pub(crate) fn fleet(plan: &Plan) -> Vec<Machine> {
    let mut random = Random::new(plan.seed, 1 << 60);
    let shares: Vec<(usize, f64)> =
        PLATFORMS.iter().enumerate().map(|(number, (_, _, share))| (number, *share)).collect();
    let machine = |number: usize| {
        let platform = match number {
            first if first < PLATFORMS.len() => first,
            _ => random.weighted(&shares).unwrap_or(0),
        };
        let slots = random.weighted(&[(2, 0.1), (4, 0.4), (8, 0.35), (16, 0.15)]).unwrap_or(4);
        Machine {
            name: format!("{}-{number}", PLATFORMS[platform].0.replace('/', "-")),
            platform,
            slots,
            speed: random.lognormal(1.0, 0.05).clamp(1.0 / FASTEST, FASTEST),
            life: 0,
            dead: false,
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
