use crosskit_platforms::Platform;

use super::waiting::Waiting;
use crate::placement::mix;
use crate::{Choice, Entitlements, Kind, PlacementKey, Policy, Reason, WhenFull};

/// What the places of a worker without a limit count for where they are compared with others'.
const UNLIMITED_COUNTS: f32 = 8.0;

/// What of a worker counts when one is chosen, kept close together because all of them are
/// looked at.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Made of its name, so that every endpoint and every release makes the same choice.
    seed: u64,
    /// One by its places: the more places, the more work it is the first choice for.
    lightness: f32,
    pub(super) busy: u32,
    pub(super) slots: u32,
}

impl Load {
    pub(super) fn new(seed: u64, slots: Option<usize>, busy: u32) -> Self {
        let lightness = 1.0 / slots.map_or(UNLIMITED_COUNTS, |slots| slots.max(1) as f32);
        let slots = slots.map_or(u32::MAX, |slots| u32::try_from(slots).unwrap_or(u32::MAX));
        Load { seed, lightness, busy, slots }
    }

    pub(super) fn free(&self) -> u32 {
        self.slots.saturating_sub(self.busy)
    }

    /// How far down a worker stands among the choices for a key: weighted rendezvous hashing.
    fn distance(&self, key: PlacementKey) -> f32 {
        negative_log2(mix(key.0, self.seed)) * self.lightness
    }

    /// How many places it may have taken before work that has been here goes elsewhere, when the
    /// share of a place is so much.
    fn allowed(&self, share: f32) -> u32 {
        let part = (share * self.slots as f32) as u32;
        part.max(self.slots / 4).max(1)
    }
}

/// About -log2(hash / 2^64), always falling, and the same on every machine.
fn negative_log2(hash: u64) -> f32 {
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    // The 24 bits after the first one.
    let rest = ((hash << zeros) << 1 >> 40) as f32 / (1u32 << 24) as f32;
    // log2(1 + x), to within 0.01.
    let log = rest + 0.346 * rest * (1.0 - rest);
    zeros as f32 + 1.0 - log
}

/// The workers of one kind that take the steps of a pool.
pub(super) struct Tier {
    pub(super) kind: Kind,
    /// Those that can be given work.
    pub(super) up: Vec<u32>,
    busy: u64,
    slots: u64,
    free: u64,
}

/// What was found among the workers of a tier.
pub(super) struct Found {
    /// The first choice, whether or not it has a place.
    pub(super) first: Option<u32>,
    /// The best that has one.
    pub(super) best: Option<(u32, Choice)>,
}

impl Tier {
    fn count(&mut self, load: &Load, sign: i64) {
        self.busy = self.busy.wrapping_add_signed(sign * i64::from(load.busy));
        self.slots = self.slots.wrapping_add_signed(sign * i64::from(load.slots));
        self.free = self.free.wrapping_add_signed(sign * i64::from(load.free()));
    }

    /// A worker can be given work.
    pub(super) fn enter(&mut self, worker: u32, load: &Load) {
        self.up.push(worker);
        self.count(load, 1);
    }

    /// A worker can't be given work any more.
    pub(super) fn leave(&mut self, worker: u32, load: &Load) {
        self.up.retain(|other| *other != worker);
        self.count(load, -1);
    }

    /// What a worker of it has to do has changed.
    pub(super) fn changed(&mut self, before: &Load, after: &Load) {
        self.count(before, -1);
        self.count(after, 1);
    }

    fn candidates(&self, excluded: &[u32]) -> usize {
        if excluded.is_empty() {
            return self.up.len();
        }
        self.up.iter().filter(|worker| !excluded.contains(worker)).count()
    }

    fn has_room(&self, loads: &[Load], excluded: &[u32]) -> bool {
        let free = |worker: &u32| !excluded.contains(worker) && loads[*worker as usize].free() > 0;
        self.free > 0 && (excluded.is_empty() || self.up.iter().any(free))
    }

    /// Chooses among the workers: the first choice for the key that has no more than its share,
    /// else the one that has least.
    pub(super) fn choose(
        &self,
        loads: &[Load],
        key: PlacementKey,
        excluded: &[u32],
        load_factor: f32,
    ) -> Found {
        let share = self.share(load_factor);
        let none = (f32::INFINITY, f32::INFINITY, None);
        let (mut first, mut best, mut least) = (none, none, none);
        for &worker in &self.up {
            if !excluded.is_empty() && excluded.contains(&worker) {
                continue;
            }
            let load = &loads[worker as usize];
            let distance = load.distance(key);
            if distance < first.0 {
                first = (distance, 0.0, Some(worker));
            }
            if load.free() == 0 {
                continue;
            }
            if load.busy < load.allowed(share) {
                if distance < best.0 {
                    best = (distance, 0.0, Some(worker));
                }
            } else {
                let part = load.busy as f32 / load.slots as f32;
                if (part, distance) < (least.0, least.1) {
                    least = (part, distance, Some(worker));
                }
            }
        }
        let choice = |worker: u32| if first.2 == Some(worker) { Choice::Warm } else { Choice::Next };
        let best = best.2.map(|worker| (worker, choice(worker)));
        let least = least.2.map(|worker| (worker, Choice::LeastLoaded));
        Found { first: first.2, best: best.or(least) }
    }

    fn share(&self, load_factor: f32) -> f32 {
        load_factor * (self.busy + 1) as f32 / self.slots.max(1) as f32
    }

    /// Why a worker that can be given work was not chosen, though another of its tier was.
    pub(super) fn passed_over(&self, load: &Load, load_factor: f32) -> Reason {
        if load.free() == 0 {
            Reason::Full
        } else if load.busy >= load.allowed(self.share(load_factor)) {
            Reason::Busier
        } else {
            Reason::LaterChoice
        }
    }
}

/// The workers for steps of one platform that may do the same, and the steps that wait for them.
pub(super) struct Pool {
    pub(super) platform: Platform,
    pub(super) entitlements: Entitlements,
    /// By kind, in the order in which the policy likes them.
    pub(super) tiers: Vec<Tier>,
    /// How many workers there are, whether or not they can be given work now.
    pub(super) able: usize,
    /// The other workers of the farm.
    pub(super) unable: Vec<(u32, Reason)>,
    pub(super) waiting: Waiting,
    /// How many of the waiting exclude workers.
    pub(super) choosy: usize,
    /// Whether nobody could be given work when that was last looked at.
    pub(super) dark: bool,
}

impl Pool {
    pub(super) fn new(platform: Platform, entitlements: Entitlements, policy: &Policy) -> Self {
        let tier = |kind: &Kind| Tier { kind: *kind, up: Vec::new(), busy: 0, slots: 0, free: 0 };
        Pool {
            platform,
            entitlements,
            tiers: policy.prefer.iter().map(tier).collect(),
            able: 0,
            unable: Vec::new(),
            waiting: Waiting::default(),
            choosy: 0,
            dark: true,
        }
    }

    /// The kind that a step goes to: the best of which somebody can be given work.
    pub(super) fn tier(&self, excluded: &[u32]) -> Option<usize> {
        self.tiers.iter().position(|tier| tier.candidates(excluded) > 0)
    }

    /// How many could be given work.
    pub(super) fn candidates(&self, excluded: &[u32]) -> usize {
        self.tiers.iter().map(|tier| tier.candidates(excluded)).sum()
    }

    /// The first kind that a step may go to and that has a place for it.
    pub(super) fn room(&self, loads: &[Load], excluded: &[u32], when_full: WhenFull) -> Option<usize> {
        let first = self.tier(excluded)?;
        let last = match when_full {
            WhenFull::Wait => first,
            WhenFull::Spill => self.tiers.len() - 1,
        };
        (first..=last).find(|tier| self.tiers[*tier].has_room(loads, excluded))
    }
}
