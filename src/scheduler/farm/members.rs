use std::sync::Arc;
use std::time::Duration;

use crosskit_platforms::Platform;

use super::pool::{Load, Pool};
use super::turn::Timer;
use super::{Farm, Outcome, Ticket, TicketId};
use crate::placement::text_hash;
use crate::workers::Runs;
use crate::{Entitlements, Health, Kind, Policy, Reason, WorkerState};

/// How often the time that a worker rests is doubled at most.
const MOST_DOUBLINGS: u32 = 4;

pub(super) struct Worker {
    pub(super) state: WorkerState,
    runs: Runs,
    /// Changes when another worker takes this place, or this one comes back.
    pub(super) life: u64,
    /// What it runs.
    pub(super) running: Vec<TicketId>,
    /// What waits for it rather than for another.
    pub(super) own: Vec<TicketId>,
    /// The pools and tiers that it is in.
    pub(super) places: Vec<(u32, u32)>,
    /// Whether it can be given work.
    pub(super) listed: bool,
    /// Until when it rests.
    resting: Option<Duration>,
    /// How often it has failed since something ended well.
    failures: u32,
    /// Whether it was removed; it stays until nothing runs on it.
    gone: bool,
    finished: u64,
    failed: u64,
}

/// A worker as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// What was said about it.
    pub state: WorkerState,
    /// Whether it has failed a moment ago, and gets nothing new for a while.
    pub resting: bool,
    /// How many steps it runs for this farm.
    pub running: usize,
    /// How many wait for it rather than for another.
    pub waiting: usize,
    /// How many steps have ended there, well or not.
    pub finished: u64,
    /// How often it has failed itself.
    pub failed: u64,
}

/// Why a worker does not take the steps of a pool.
fn obstacle(
    worker: &Worker,
    platform: &Platform,
    entitlements: Entitlements,
    policy: &Policy,
) -> Option<Reason> {
    if !worker.runs.contains(platform) {
        Some(Reason::OtherPlatforms)
    } else if !policy.prefer.contains(&worker.state.kind) {
        Some(Reason::KindNotAllowed)
    } else {
        let lacks = entitlements.without(worker.state.entitlements);
        (!lacks.is_empty()).then_some(Reason::NotEntitled { lacks })
    }
}

impl Farm {
    /// A worker has come, or is not what it was. What it runs stays.
    pub fn upsert(&mut self, state: WorkerState, now: Duration) {
        let load = |running: usize| {
            let busy = u32::try_from(state.busy + running).unwrap_or(u32::MAX);
            Load::new(text_hash(&state.name), state.slots, busy)
        };
        self.lives += 1;
        let worker = match self.names.get(state.name.as_str()).copied() {
            Some(worker) => {
                self.unlist(worker, now);
                self.leave_pools(worker);
                let known = &mut self.workers[worker as usize];
                self.loads[worker as usize] = load(known.running.len());
                if known.gone || (known.state.health == Health::Down && state.health == Health::Up) {
                    (known.life, known.resting, known.gone) = (self.lives, None, false);
                }
                known.runs = Runs::of(&state);
                known.state = state;
                worker
            }
            None => {
                let known = Worker {
                    life: self.lives,
                    running: Vec::new(),
                    own: Vec::new(),
                    places: Vec::new(),
                    listed: false,
                    resting: None,
                    failures: 0,
                    gone: false,
                    finished: 0,
                    failed: 0,
                    runs: Runs::of(&state),
                    state: state.clone(),
                };
                let name: Arc<str> = state.name.as_str().into();
                // Tickets that exclude workers know them by their places.
                let vacant = self.pools.iter().all(|pool| pool.choosy.is_empty()).then(|| self.vacant.pop());
                let worker = vacant.flatten().unwrap_or(self.workers.len() as u32);
                if worker as usize == self.workers.len() {
                    self.workers.push(known);
                    self.loads.push(load(0));
                } else {
                    self.workers[worker as usize] = known;
                    self.loads[worker as usize] = load(0);
                }
                self.names.insert(name, worker);
                worker
            }
        };
        for pool in 0..self.pools.len() {
            self.join(worker, pool as u32);
        }
        self.relist(worker, now);
    }

    /// A worker is not part of the farm any more. What it runs is said, and stays until it is
    /// done.
    pub fn remove(&mut self, name: &str, now: Duration) -> Vec<TicketId> {
        let Some(worker) = self.names.get(name).copied() else { return Vec::new() };
        self.unlist(worker, now);
        self.leave_pools(worker);
        let known = &mut self.workers[worker as usize];
        known.gone = true;
        let running = known.running.clone();
        self.vacate(worker);
        running
    }

    /// Whether a worker can be given work has changed. One that is up again has passed a probe,
    /// and does not rest any longer. What it runs is said, for whoever has to end it.
    pub fn set_health(&mut self, name: &str, health: Health, now: Duration) -> Vec<TicketId> {
        let Some(worker) = self.names.get(name).copied() else { return Vec::new() };
        let known = &mut self.workers[worker as usize];
        if known.gone {
            return Vec::new();
        }
        if known.state.health != health {
            if known.state.health == Health::Down {
                // What it had may be lost.
                self.lives += 1;
                known.life = self.lives;
            }
            known.state.health = health;
            if health == Health::Up {
                known.resting = None;
            }
        }
        let running = known.running.clone();
        self.relist(worker, now);
        running
    }

    /// All workers, in the order in which they came.
    pub fn workers(&self) -> Vec<WorkerView> {
        let here = self.workers.iter().filter(|worker| !worker.gone);
        let view = |worker: &Worker| WorkerView {
            state: worker.state.clone(),
            resting: worker.resting.is_some(),
            running: worker.running.len(),
            waiting: worker.own.len(),
            finished: worker.finished,
            failed: worker.failed,
        };
        here.map(view).collect()
    }

    /// The pool for steps of a platform that may do the same.
    pub(super) fn pool(&mut self, platform: Platform, entitlements: Entitlements) -> u32 {
        let find = |farm: &Farm, platform: &Platform| {
            let known = farm.platforms.get(platform)?;
            known.iter().copied().find(|pool| farm.pools[*pool as usize].entitlements == entitlements)
        };
        if let Some(known) = find(self, &platform) {
            return known;
        }
        let platform = platform.normalize();
        if let Some(known) = find(self, &platform) {
            return known;
        }
        let number = self.pools.len() as u32;
        self.pools.push(Pool::new(platform.clone(), entitlements, &self.policy));
        self.platforms.entry(platform).or_default().push(number);
        for worker in 0..self.workers.len() as u32 {
            if !self.workers[worker as usize].gone {
                self.join(worker, number);
            }
        }
        let pool = &mut self.pools[number as usize];
        pool.dark = pool.tier(&[]).is_none();
        number
    }

    /// Puts a worker where a pool counts it.
    fn join(&mut self, worker: u32, number: u32) {
        let known = &mut self.workers[worker as usize];
        let pool = &mut self.pools[number as usize];
        if let Some(reason) = obstacle(known, &pool.platform, pool.entitlements, &self.policy) {
            pool.unable.push((worker, reason));
            return;
        }
        let kind = known.state.kind;
        let Some(tier) = pool.tiers.iter().position(|tier| tier.kind == kind) else { return };
        pool.able += 1;
        known.places.push((number, tier as u32));
        if known.listed {
            pool.tiers[tier].enter(worker, &self.loads[worker as usize]);
        }
    }

    /// The opposite of joining all pools, for one that can't be given work.
    fn leave_pools(&mut self, worker: u32) {
        for (pool, _) in std::mem::take(&mut self.workers[worker as usize].places) {
            self.pools[pool as usize].able -= 1;
        }
        for pool in &mut self.pools {
            pool.unable.retain(|(other, _)| *other != worker);
        }
    }

    /// Lists a worker if it can be given work, and no longer if not.
    pub(super) fn relist(&mut self, worker: u32, now: Duration) {
        let known = &mut self.workers[worker as usize];
        let able = !known.gone && known.state.health == Health::Up && known.resting.is_none();
        if !able {
            return self.unlist(worker, now);
        }
        if std::mem::replace(&mut known.listed, true) {
            return;
        }
        let places = known.places.clone();
        for (pool, tier) in &places {
            let load = &self.loads[worker as usize];
            self.pools[*pool as usize].tiers[*tier as usize].enter(worker, load);
        }
        self.look_around(&places, now);
    }

    fn unlist(&mut self, worker: u32, now: Duration) {
        let known = &mut self.workers[worker as usize];
        if !std::mem::replace(&mut known.listed, false) {
            return;
        }
        let places = known.places.clone();
        let own = std::mem::take(&mut known.own);
        for (pool, tier) in &places {
            let load = &self.loads[worker as usize];
            self.pools[*pool as usize].tiers[*tier as usize].leave(worker, load);
        }
        for id in own {
            self.leave_queues(id);
            self.enter_pool(id);
        }
        self.look_around(&places, now);
    }

    /// Sees who waits in vain, or does not any more, since workers of these pools have come or
    /// gone.
    fn look_around(&mut self, places: &[(u32, u32)], now: Duration) {
        for (number, _) in places {
            self.dirty.insert(*number);
            let pool = &mut self.pools[*number as usize];
            let dark = pool.tier(&[]).is_none();
            let concerned: Vec<TicketId> = if std::mem::replace(&mut pool.dark, dark) != dark {
                {
                    let mut all: Vec<TicketId> = pool.waiting.all().collect();
                    all.sort_unstable();
                    all
                }
            } else {
                pool.choosy.iter().copied().collect()
            };
            concerned.into_iter().for_each(|ticket| self.watch(ticket, now));
        }
    }

    /// Gives a ticket in a pool a timer if nobody can be given it, and takes it back if somebody
    /// can.
    pub(super) fn watch(&mut self, id: TicketId, now: Duration) {
        let Some(ticket) = self.tickets.get(&id) else { return };
        let pool = &self.pools[ticket.pool as usize];
        let lost = pool.tier(&ticket.excluded).is_none();
        let watched = matches!(ticket.timer, Some((_, Timer::Grace(_))));
        if lost != watched {
            let grace = if lost && self.nobody_left(ticket) { Duration::ZERO } else { self.policy.grace };
            self.set_timer(id, lost.then_some((now + grace, Timer::Grace(id))));
        }
    }

    /// Whether all that could take a ticket have failed at it, or there is none.
    pub(super) fn nobody_left(&self, ticket: &Ticket) -> bool {
        let able = |worker: &&u32| {
            self.workers[**worker as usize].places.iter().any(|(pool, _)| *pool == ticket.pool)
        };
        self.pools[ticket.pool as usize].able == ticket.excluded.iter().filter(able).count()
    }

    /// When the first of those that could take a ticket, and only rest, has rested.
    pub(super) fn rested_at(&self, id: TicketId) -> Option<Duration> {
        let ticket = self.tickets.get(&id)?;
        let able = self.names.values().filter(|worker| !ticket.excluded.contains(worker));
        let known = able.map(|worker| &self.workers[*worker as usize]);
        let here = known.filter(|known| known.places.iter().any(|(pool, _)| *pool == ticket.pool));
        here.filter(|known| known.state.health == Health::Up).filter_map(|known| known.resting).min()
    }

    /// A worker has a place back.
    pub(super) fn released(&mut self, worker: u32, ticket: TicketId, outcome: Outcome, now: Duration) {
        let known = &mut self.workers[worker as usize];
        known.running.retain(|other| *other != ticket);
        match outcome {
            Outcome::Finished | Outcome::StepFailed => {
                known.failures = 0;
                known.finished += 1;
            }
            Outcome::WorkerFailed => {
                known.failed += 1;
                // What failed at the same time is one failure.
                if known.resting.is_none() {
                    let until = now + self.policy.rest * (1 << known.failures.min(MOST_DOUBLINGS));
                    known.failures += 1;
                    known.resting = Some(until);
                    self.timers.insert((until, Timer::Rest(worker)));
                }
            }
            Outcome::Canceled => {}
        }
        self.touched.insert(worker);
        self.dirty.extend(known.places.iter().map(|(pool, _)| *pool));
        if known.gone {
            self.vacate(worker);
        } else {
            self.relist(worker, now);
        }
    }

    /// The time to rest is over.
    pub(super) fn rested(&mut self, worker: u32, now: Duration) {
        let known = &mut self.workers[worker as usize];
        if known.resting.is_some_and(|until| until <= now) {
            known.resting = None;
            self.relist(worker, now);
        }
    }

    /// Gives the place of a worker that is gone to the next one, once nothing runs there.
    fn vacate(&mut self, worker: u32) {
        let known = &self.workers[worker as usize];
        if known.running.is_empty() && self.names.remove(known.state.name.as_str()).is_some() {
            self.vacant.push(worker);
        }
    }

    /// Why a worker that is in a pool was not chosen by a ticket.
    pub(super) fn why_unlisted(&self, worker: u32) -> Option<Reason> {
        let known = &self.workers[worker as usize];
        match known.state.health {
            Health::Down => Some(Reason::Down),
            Health::Draining => Some(Reason::Draining),
            Health::Up => known.resting.is_some().then_some(Reason::Resting),
        }
    }

    /// The worker that has the earlier steps of a ticket's group, if it can be given work.
    pub(super) fn holder(&self, ticket: &Ticket) -> Option<u32> {
        self.still_there(ticket, *self.holders.get(&ticket.build)?.get(&ticket.group)?)
    }

    /// The workers that have run such a group and can be given work.
    pub(super) fn known(&self, ticket: &Ticket) -> impl Iterator<Item = u32> {
        let tier = self.pools[ticket.pool as usize].tier(&ticket.excluded).map(|tier| tier as u32);
        let homes = self.homes.get(ticket.key).iter().copied();
        homes.filter_map(move |home| self.still_there_in(ticket, tier?, home))
    }

    /// Of the workers that have run such a group the first choice among those that have a place,
    /// and not more than their share while others have nothing to do.
    pub(super) fn home(&self, ticket: &Ticket) -> Option<u32> {
        let pool = &self.pools[ticket.pool as usize];
        let tier = &pool.tiers[pool.tier(&ticket.excluded)?];
        let load = |worker: &u32| &self.loads[*worker as usize];
        let open = self.known(ticket).filter(|it| tier.may_return(load(it), self.policy.load_factor));
        open.min_by(|a, b| load(a).distance(ticket.key).total_cmp(&load(b).distance(ticket.key)))
    }

    fn still_there(&self, ticket: &Ticket, home: (u32, u64)) -> Option<u32> {
        let tier = self.pools[ticket.pool as usize].tier(&ticket.excluded)? as u32;
        self.still_there_in(ticket, tier, home)
    }

    fn still_there_in(&self, ticket: &Ticket, tier: u32, (worker, life): (u32, u64)) -> Option<u32> {
        let known = &self.workers[worker as usize];
        if known.life != life || !known.listed || ticket.excluded.contains(&worker) {
            return None;
        }
        known.places.contains(&(ticket.pool, tier)).then_some(worker)
    }

    /// The name and the kind of a worker.
    pub(super) fn who(&self, worker: u32) -> (String, Kind) {
        let state = &self.workers[worker as usize].state;
        (state.name.clone(), state.kind)
    }
}
