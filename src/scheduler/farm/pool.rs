use std::collections::BTreeSet;

use crosskit_platforms::Platform;

use super::TicketId;
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

    /// How far down it stands among the choices for a key.
    pub(super) fn distance(&self, key: PlacementKey) -> f32 {
        negative_log2(mix(key.0, self.seed)) * self.lightness
    }

    /// How many places it may have taken before work that has been here goes elsewhere.
    fn allowed(&self, share: Share) -> u32 {
        let part = share.of_a_place * self.slots as f32;
        let part = if share.up { part.ceil() } else { part };
        (part as u32).max(self.slots / 4).max(1)
    }
}

/// What every place of a tier has of the work there is, times the policy's load factor.
#[derive(Clone, Copy)]
struct Share {
    of_a_place: f32,
    /// Whether parts of a place count for whole ones. Not before every worker could have
    /// something to do: until then the idle ones come first.
    up: bool,
}

/// A worker that can be given work, with what its place among the choices for a key follows from:
/// weighted rendezvous hashing.
#[derive(Clone, Copy)]
struct Member {
    seed: u64,
    lightness: f32,
    worker: u32,
}

impl Member {
    /// How far down it stands among the choices for a key; none if that is not nearer than
    /// `limit`, which most are not and which is quickly seen.
    fn nearer(&self, key: PlacementKey, limit: f32) -> Option<f32> {
        let hash = mix(key.0, self.seed);
        // Less than the logarithm for every hash.
        let least = 1.3 * (1.0 - (hash >> 40) as f32 / (1u32 << 24) as f32);
        if least * self.lightness >= limit {
            return None;
        }
        let distance = negative_log2(hash) * self.lightness;
        (distance < limit).then_some(distance)
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
    up: Vec<Member>,
    /// Those of them that have a place.
    open: Vec<Member>,
    busy: u64,
    slots: u64,
}

impl Tier {
    fn new(kind: Kind) -> Self {
        Tier { kind, up: Vec::new(), open: Vec::new(), busy: 0, slots: 0 }
    }

    fn count(&mut self, load: &Load, sign: i64) {
        self.busy = self.busy.wrapping_add_signed(sign * i64::from(load.busy));
        self.slots = self.slots.wrapping_add_signed(sign * i64::from(load.slots));
    }

    /// A worker can be given work.
    pub(super) fn enter(&mut self, worker: u32, load: &Load) {
        let member = Member { seed: load.seed, lightness: load.lightness, worker };
        self.up.push(member);
        self.count(load, 1);
        if load.free() > 0 {
            self.open.push(member);
        }
    }

    /// A worker can't be given work any more.
    pub(super) fn leave(&mut self, worker: u32, load: &Load) {
        self.count(load, -1);
        for members in [&mut self.up, &mut self.open] {
            if let Some(at) = members.iter().position(|member| member.worker == worker) {
                members.swap_remove(at);
            }
        }
    }

    /// What a worker of it has to do has changed.
    pub(super) fn changed(&mut self, worker: u32, before: &Load, after: &Load) {
        self.count(before, -1);
        self.count(after, 1);
        match (before.free(), after.free()) {
            (0, 1..) => {
                self.open.push(Member { seed: after.seed, lightness: after.lightness, worker });
            }
            (1.., 0) => {
                if let Some(at) = self.open.iter().position(|member| member.worker == worker) {
                    self.open.swap_remove(at);
                }
            }
            _ => {}
        }
    }

    fn candidates(&self, excluded: &[u32]) -> usize {
        if excluded.is_empty() {
            return self.up.len();
        }
        self.up.iter().filter(|member| !excluded.contains(&member.worker)).count()
    }

    fn has_room(&self, excluded: &[u32]) -> bool {
        self.open.iter().any(|member| !excluded.contains(&member.worker))
    }

    /// The first choice for a key, whether or not it has a place.
    pub(super) fn first_choice(&self, key: PlacementKey, excluded: &[u32]) -> Option<u32> {
        let mut first = (f32::INFINITY, None);
        for member in &self.up {
            if let Some(distance) = member.nearer(key, first.0).filter(|_| !excluded.contains(&member.worker))
            {
                first = (distance, Some(member.worker));
            }
        }
        first.1
    }

    /// Chooses among the workers that have a place: the nearest to the key that has no more than
    /// its share, else the one that has least.
    pub(super) fn choose(
        &self,
        loads: &[Load],
        key: PlacementKey,
        excluded: &[u32],
        load_factor: f32,
    ) -> Option<(u32, Choice)> {
        let share = self.share(load_factor);
        let mut best = (f32::INFINITY, None);
        for member in &self.open {
            let Some(distance) = member.nearer(key, best.0) else { continue };
            let load = &loads[member.worker as usize];
            if load.busy < load.allowed(share) && !excluded.contains(&member.worker) {
                best = (distance, Some(member.worker));
            }
        }
        let Some(worker) = best.1 else {
            return Some((self.least_loaded(loads, key, excluded)?, Choice::LeastLoaded));
        };
        let better =
            |member: &Member| member.nearer(key, best.0).is_some() && !excluded.contains(&member.worker);
        let first = !self.up.iter().any(better);
        Some((worker, if first { Choice::First } else { Choice::Next }))
    }

    /// Of the workers that have a place the one that has least to do, and of equals the nearest.
    fn least_loaded(&self, loads: &[Load], key: PlacementKey, excluded: &[u32]) -> Option<u32> {
        let mut least = (f32::INFINITY, f32::INFINITY, None);
        for member in &self.open {
            let load = &loads[member.worker as usize];
            let part = load.busy as f32 / load.slots as f32;
            if part > least.0 || excluded.contains(&member.worker) {
                continue;
            }
            let limit = if part < least.0 { f32::INFINITY } else { least.1 };
            if let Some(distance) = member.nearer(key, limit) {
                least = (part, distance, Some(member.worker));
            }
        }
        least.2
    }

    fn share(&self, load_factor: f32) -> Share {
        let of_a_place = load_factor * (self.busy + 1) as f32 / self.slots.max(1) as f32;
        Share { of_a_place, up: self.busy >= self.up.len() as u64 }
    }

    /// Whether work may return to a worker that knows it.
    pub(super) fn may_return(&self, load: &Load, load_factor: f32) -> bool {
        let share = self.share(load_factor);
        load.free() > 0 && (share.up || load.busy < load.allowed(share))
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
    /// Those of the waiting that exclude workers.
    pub(super) choosy: BTreeSet<TicketId>,
    /// Whether nobody could be given work when that was last looked at.
    pub(super) dark: bool,
}

impl Pool {
    pub(super) fn new(platform: Platform, entitlements: Entitlements, policy: &Policy) -> Self {
        Pool {
            platform,
            entitlements,
            tiers: policy.prefer.iter().copied().map(Tier::new).collect(),
            able: 0,
            unable: Vec::new(),
            waiting: Waiting::default(),
            choosy: BTreeSet::new(),
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
    pub(super) fn room(&self, excluded: &[u32], when_full: WhenFull) -> Option<usize> {
        let first = self.tier(excluded)?;
        let last = match when_full {
            WhenFull::Wait => first,
            WhenFull::Spill => self.tiers.len() - 1,
        };
        (first..=last).find(|tier| self.tiers[*tier].has_room(excluded))
    }
}
