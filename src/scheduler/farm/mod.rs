//! Which worker runs which step, and when: a state machine that its owner drives.
//!
//! Workers come, go and change their health; builds [`ask`](Farm::ask) for places and say when
//! they are [`done`](Farm::done); [`assign`](Farm::assign) hands places out. Time is what the
//! owner says it is. A decision looks at the workers of one platform, never at all of them.

mod history;
mod homes;
mod members;
mod pool;
mod turn;
mod waiting;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crosskit_platforms::Platform;
use serde::Serialize;

pub use history::{Decision, Record, Verdict};
pub use members::WorkerView;
pub use turn::{Assignment, Refusal, Turn};

use crate::{Entitlements, PlacementKey, Policy};
use history::History;
use homes::Homes;
use members::Worker;
use pool::{Load, Pool};
use turn::Timer;
use waiting::Takes;

/// A build, by a number that its owner gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct BuildId(pub u64);

/// What was asked for, until it is done. Later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct TicketId(pub u64);

/// A step that wants a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Whose it is.
    pub build: BuildId,
    /// The number of its group within the build. Steps of a group go to one worker while that
    /// is there.
    pub group: usize,
    /// What it is run by.
    pub platform: Platform,
    /// The key of its group.
    pub placement: PlacementKey,
    /// What the steps of its group may do beyond their sandbox.
    pub entitlements: Entitlements,
    /// Names of workers that it must not go to, because they have failed at it. One that the farm
    /// does not know, or that is removed and comes back, is a new worker.
    pub excluded: Vec<String>,
}

/// How a place was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The step has ended well.
    Finished,
    /// The step itself has failed, as it would anywhere.
    StepFailed,
    /// The worker has failed; the step may go elsewhere.
    WorkerFailed,
    /// Nobody wants it any more.
    Canceled,
}

struct Ticket {
    build: BuildId,
    group: usize,
    pool: u32,
    key: PlacementKey,
    excluded: Vec<u32>,
    asked: Duration,
    /// Whether it is among those that wait in its pool.
    pooled: bool,
    /// The worker whose own queue it is in as well.
    wants: Option<u32>,
    /// Whether that is warm: it has the earlier steps of its group, or has run such a group.
    settled: bool,
    /// Since when others go first: although it is its turn, or as it waits for a worker of its own.
    passed: Option<Duration>,
    /// What it has a timer for.
    timer: Option<(Duration, Timer)>,
    /// Where it runs, since when, and the number of its record.
    running: Option<(u32, Duration, u64)>,
}

/// All workers and all steps that wait or run. Times are spans since a moment that its owner
/// chooses, and never go back.
pub struct Farm {
    policy: Policy,
    workers: Vec<Worker>,
    /// In step with `workers`.
    loads: Vec<Load>,
    names: HashMap<Arc<str>, u32>,
    /// Places in `workers` that are free.
    vacant: Vec<u32>,
    pools: Vec<Pool>,
    /// Pools of a platform in normal form.
    platforms: HashMap<Platform, Vec<u32>>,
    tickets: HashMap<TicketId, Ticket>,
    /// Counts tickets and places given, to know what came first.
    last: u64,
    /// The workers that have the steps of groups, and which of their lives that was.
    holders: HashMap<BuildId, HashMap<usize, (u32, u64)>>,
    lives: u64,
    homes: Homes,
    timers: BTreeSet<(Duration, Timer)>,
    /// Tickets that were not looked at yet.
    fresh: Vec<TicketId>,
    /// Workers that have or got a place for what is in their own queue.
    touched: BTreeSet<u32>,
    /// Pools that may have somebody waiting and a place.
    dirty: BTreeSet<u32>,
    history: History,
}

impl Farm {
    /// A farm without workers.
    pub fn new(policy: Policy) -> Self {
        Farm {
            history: History::new(policy.history),
            workers: Vec::new(),
            loads: Vec::new(),
            names: HashMap::new(),
            vacant: Vec::new(),
            pools: Vec::new(),
            platforms: HashMap::new(),
            tickets: HashMap::new(),
            last: 0,
            holders: HashMap::new(),
            lives: 0,
            homes: Homes::new(policy.homes),
            timers: BTreeSet::new(),
            fresh: Vec::new(),
            touched: BTreeSet::new(),
            dirty: BTreeSet::new(),
            policy,
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Asks for a place. The answer is in what [`Farm::assign`] says next, or later.
    pub fn ask(&mut self, ask: Ask, now: Duration) -> TicketId {
        self.last += 1;
        let id = TicketId(self.last);
        let pool = self.pool(ask.platform, ask.entitlements);
        let excluded = ask.excluded.iter().filter_map(|name| self.names.get(name.as_str()).copied());
        let ticket = Ticket {
            build: ask.build,
            group: ask.group,
            pool,
            key: ask.placement,
            excluded: excluded.collect(),
            asked: now,
            pooled: false,
            wants: None,
            settled: false,
            passed: None,
            timer: None,
            running: None,
        };
        self.tickets.insert(id, ticket);
        self.fresh.push(id);
        id
    }

    /// Gives a place back, or stops waiting for one.
    pub fn done(&mut self, ticket: TicketId, outcome: Outcome, now: Duration) {
        self.leave_queues(ticket);
        let Some(done) = self.tickets.remove(&ticket) else { return };
        let Some((worker, since, record)) = done.running else { return };
        if let Some(record) = self.history.get_mut(record, ticket) {
            record.ran = Some(now.saturating_sub(since));
            record.outcome = Some(outcome);
        }
        if outcome == Outcome::Finished {
            self.homes.took(done.key, now.saturating_sub(since));
        }
        self.pools[done.pool as usize].waiting.release(done.build);
        self.load(worker, |load| load.busy = load.busy.saturating_sub(1));
        self.released(worker, ticket, outcome, now);
        if outcome == Outcome::WorkerFailed
            && let Some(groups) = self.holders.get_mut(&done.build)
        {
            groups.remove(&done.group);
        }
    }

    /// Nobody wants a step any more, whether it waits or runs.
    pub fn cancel(&mut self, ticket: TicketId, now: Duration) {
        self.done(ticket, Outcome::Canceled, now);
    }

    /// Forgets where the groups of a build are. Its tickets stay what they are.
    pub fn end(&mut self, build: BuildId) {
        self.holders.remove(&build);
    }

    /// When to call [`Farm::assign`] at the latest, if nothing happens before.
    pub fn wake(&self) -> Option<Duration> {
        self.timers.first().map(|(when, _)| *when)
    }

    /// How many steps wait for a place.
    pub fn waiting(&self) -> usize {
        self.tickets.values().filter(|ticket| ticket.running.is_none()).count()
    }

    /// The latest decisions, the first of them first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.history.iter()
    }

    /// Changes what a worker has to do, wherever that is counted.
    fn load(&mut self, worker: u32, change: impl FnOnce(&mut Load)) {
        let load = &mut self.loads[worker as usize];
        let before = *load;
        change(load);
        let (after, known) = (*load, &self.workers[worker as usize]);
        if known.listed {
            for (pool, tier) in &known.places {
                self.pools[*pool as usize].tiers[*tier as usize].changed(worker, &before, &after);
            }
        }
    }

    /// Takes a waiting ticket out of all queues.
    fn leave_queues(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        if std::mem::take(&mut ticket.pooled) {
            let pool = &mut self.pools[ticket.pool as usize];
            pool.waiting.remove(ticket.build, id);
            pool.choosy.remove(&id);
        }
        ticket.settled = false;
        if let Some(worker) = ticket.wants.take() {
            self.workers[worker as usize].own.retain(|other| *other != id);
        }
        if let Some(timer) = ticket.timer.take() {
            self.timers.remove(&timer);
        }
    }

    /// A ticket waits in its pool.
    fn enter_pool(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        if !std::mem::replace(&mut ticket.pooled, true) {
            let pool = &mut self.pools[ticket.pool as usize];
            pool.waiting.put(ticket.build, id, Takes::Any);
            if !ticket.excluded.is_empty() {
                pool.choosy.insert(id);
            }
            self.dirty.insert(ticket.pool);
        }
    }

    /// Sets the one timer of a ticket.
    fn set_timer(&mut self, id: TicketId, timer: Option<(Duration, Timer)>) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut ticket.timer, timer) {
            self.timers.remove(&old);
        }
        self.timers.extend(timer);
    }
}
