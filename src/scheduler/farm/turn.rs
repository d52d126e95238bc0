use std::sync::Arc;
use std::time::Duration;

use crosskit_platforms::Platform;

use super::waiting::Rank;
use super::{BuildId, Decision, Farm, Record, TicketId, Verdict};
use crate::preflight::unplaced;
use crate::{Choice, Reason, SchedulerError, WhenFull};

/// How many may wait for one worker rather than for any. Beyond it, waiting for it is in vain.
const MOST_OWN: usize = 64;

/// A place for a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// What has it.
    pub ticket: TicketId,
    /// Whose it is.
    pub build: BuildId,
    /// The number of its group within the build.
    pub group: usize,
    /// Where it is and why.
    pub decision: Arc<Decision>,
    /// How long it waited.
    pub waited: Duration,
}

/// A step that gets no place. Its ticket is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What does not get one.
    pub ticket: TicketId,
    /// Why.
    pub error: SchedulerError,
}

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// Steps that may run now.
    pub assigned: Vec<Assignment>,
    /// Steps that nobody will run.
    pub refused: Vec<Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A ticket waits no longer for its own worker only.
    Patience(TicketId),
    /// A ticket waits no longer for somebody who can run it.
    Grace(TicketId),
    /// A worker has rested.
    Rest(u32),
}

impl Farm {
    /// Hands out places to those that wait, in a fair order between builds. To be called after
    /// anything has happened, and when [`Farm::wake`] says so.
    pub fn assign(&mut self, now: Duration) -> Turn {
        let mut turn = Turn::default();
        let fresh = std::mem::take(&mut self.fresh);
        for id in &fresh {
            self.enter(*id, now);
        }
        self.ring(now, &mut turn);
        while let Some(worker) = self.touched.pop_first() {
            self.serve(worker, now, &mut turn);
        }
        self.drain(now, &mut turn);
        for id in fresh {
            self.wish(id);
        }
        turn
    }

    /// Puts a new ticket into the queue of the worker that has the rest of its group, or where
    /// any worker will do.
    fn enter(&mut self, id: TicketId, now: Duration) {
        let Some(ticket) = self.tickets.get(&id) else { return };
        match self.holder(ticket) {
            Some(worker) if self.workers[worker as usize].own.len() < MOST_OWN => {
                self.want(id, worker);
                self.touched.insert(worker);
                self.set_timer(id, Some((now + self.policy.patience, Timer::Patience(id))));
            }
            _ => {
                self.enter_pool(id);
                self.watch(id, now);
            }
        }
    }

    fn want(&mut self, id: TicketId, worker: u32) {
        if let Some(ticket) = self.tickets.get_mut(&id) {
            ticket.wants = Some(worker);
            self.workers[worker as usize].own.push(id);
        }
    }

    /// A ticket that found no place waits for the first choice as well as for any other.
    fn wish(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.get(&id) else { return };
        if ticket.running.is_some() || ticket.wants.is_some() {
            return;
        }
        let pool = &self.pools[ticket.pool as usize];
        let Some(tier) = pool.tier(&ticket.excluded) else { return };
        let found =
            pool.tiers[tier].choose(&self.loads, ticket.key, &ticket.excluded, self.policy.load_factor);
        if let Some(worker) = found.first.filter(|first| self.workers[*first as usize].own.len() < MOST_OWN) {
            self.want(id, worker);
        }
    }

    fn ring(&mut self, now: Duration, turn: &mut Turn) {
        while let Some((when, timer)) = self.timers.first().copied().filter(|(when, _)| *when <= now) {
            self.timers.remove(&(when, timer));
            match timer {
                Timer::Rest(worker) => self.rested(worker, now),
                Timer::Patience(id) => {
                    self.set_timer(id, None);
                    self.enter_pool(id);
                    self.watch(id, now);
                }
                Timer::Grace(id) => self.refuse(id, turn),
            }
        }
    }

    fn refuse(&mut self, id: TicketId, turn: &mut Turn) {
        self.leave_queues(id);
        let Some(ticket) = self.tickets.remove(&id) else { return };
        let pool = &self.pools[ticket.pool as usize];
        let error = if pool.able > 0 && self.nobody_left(&ticket) {
            let workers = ticket.excluded.iter().map(|worker| self.who(*worker).0).collect();
            SchedulerError::AllFailed { platform: Box::new(pool.platform.clone()), workers }
        } else {
            let here = |worker: &&u32| !ticket.excluded.contains(worker);
            let workers: Vec<u32> = self.names.values().filter(here).copied().collect();
            let states = workers.iter().map(|worker| &self.workers[*worker as usize].state);
            unplaced(&pool.platform, pool.entitlements, states, &self.policy)
        };
        turn.refused.push(Refusal { ticket: id, error });
    }

    /// Gives the places of a worker to those that wait for it, unless it is the turn of others.
    fn serve(&mut self, worker: u32, now: Duration, turn: &mut Turn) {
        loop {
            let known = &self.workers[worker as usize];
            if !known.listed || self.loads[worker as usize].free() == 0 {
                return;
            }
            let rank = |id: &TicketId| {
                let ticket = &self.tickets[id];
                self.pools[ticket.pool as usize].waiting.rank(ticket.build, *id)
            };
            let Some(own) = known.own.iter().map(rank).min() else { return };
            let others = known.places.iter().filter_map(|(pool, tier)| {
                let pool = &self.pools[*pool as usize];
                let spills = self.policy.when_full == WhenFull::Spill;
                (spills || pool.tier(&[]) == Some(*tier as usize)).then(|| pool.waiting.first()).flatten()
            });
            let other = others.min().filter(|other| {
                let overdue = now.saturating_sub(self.tickets[&other.2].asked) >= self.policy.overdue;
                other.0 < own.0 || (other < &own && overdue)
            });
            if other.is_some_and(|(_, _, id)| self.place(id, now, turn)) {
                continue;
            }
            let holds = self.tickets.get(&own.2).and_then(|ticket| self.holder(ticket)) == Some(worker);
            self.start(own.2, worker, if holds { Choice::Holds } else { Choice::Warm }, now, turn);
        }
    }

    /// Hands out what places there are.
    fn drain(&mut self, now: Duration, turn: &mut Turn) {
        let mut pools: Vec<u32> = std::mem::take(&mut self.dirty).into_iter().collect();
        while !pools.is_empty() {
            let mut next: Option<Rank> = None;
            pools.retain(|pool| match self.next(*pool) {
                Some(turn) => {
                    next = next.map_or(Some(turn), |next| Some(next.min(turn)));
                    true
                }
                None => false,
            });
            if !next.is_some_and(|(_, _, id)| self.place(id, now, turn)) {
                return;
            }
        }
    }

    /// Whose turn is next among those of a pool that there is a place for.
    fn next(&self, pool: u32) -> Option<Rank> {
        let pool = &self.pools[pool as usize];
        let room = |excluded: &[u32]| pool.room(&self.loads, excluded, self.policy.when_full).is_some();
        if pool.choosy == 0 {
            return pool.waiting.first().filter(|_| room(&[]));
        }
        let plain = room(&[]);
        pool.waiting.all().find(|(_, _, id)| match self.tickets[id].excluded.as_slice() {
            [] => plain,
            excluded => room(excluded),
        })
    }

    /// Chooses a worker for a ticket and starts it there. False if there is no place.
    fn place(&mut self, id: TicketId, now: Duration, turn: &mut Turn) -> bool {
        let Some(ticket) = self.tickets.get(&id) else { return false };
        let pool = &self.pools[ticket.pool as usize];
        let found = pool.room(&self.loads, &ticket.excluded, self.policy.when_full).and_then(|tier| {
            let factor = self.policy.load_factor;
            pool.tiers[tier].choose(&self.loads, ticket.key, &ticket.excluded, factor).best
        });
        let Some((worker, choice)) = found else { return false };
        let choice = if pool.candidates(&ticket.excluded) == 1 { Choice::Only } else { choice };
        let choice = if self.holder(ticket) == Some(worker) { Choice::Holds } else { choice };
        self.start(id, worker, choice, now, turn);
        true
    }

    fn start(&mut self, id: TicketId, worker: u32, choice: Choice, now: Duration, turn: &mut Turn) {
        self.leave_queues(id);
        let Some(ticket) = self.tickets.get(&id) else { return };
        let decision = Arc::new(self.decision(ticket, worker, choice));
        let (build, group, pool) = (ticket.build, ticket.group, ticket.pool);
        let waited = now.saturating_sub(ticket.asked);
        let platform: &Platform = &self.pools[pool as usize].platform;
        let record = self.history.add(|| Record {
            ticket: id,
            build,
            group,
            platform: platform.clone(),
            decision: Arc::clone(&decision),
            waited,
            ran: None,
            outcome: None,
        });
        if let Some(ticket) = self.tickets.get_mut(&id) {
            ticket.running = Some((worker, now, record));
        }
        self.last += 1;
        self.pools[pool as usize].waiting.hold(build, self.last);
        self.load(worker, |load| load.busy += 1);
        let known = &mut self.workers[worker as usize];
        known.running.push(id);
        self.holders.entry(build).or_default().insert(group, (worker, known.life));
        turn.assigned.push(Assignment { ticket: id, build, group, decision, waited });
    }

    fn decision(&self, ticket: &super::Ticket, chosen: u32, choice: Choice) -> Decision {
        let (worker, kind) = self.who(chosen);
        let mut verdicts = Vec::new();
        if self.names.len() <= self.policy.verdicts {
            let mut all: Vec<u32> = self.names.values().copied().collect();
            all.sort_unstable();
            verdicts.reserve(all.len());
            for other in all {
                let reason = if other == chosen {
                    Reason::Chosen(choice)
                } else {
                    self.verdict(ticket, chosen, other)
                };
                let (worker, kind) = self.who(other);
                verdicts.push(Verdict { worker, kind, reason });
            }
        }
        Decision { worker, kind, choice, verdicts }
    }

    /// Why a worker was not chosen.
    fn verdict(&self, ticket: &super::Ticket, chosen: u32, other: u32) -> Reason {
        let pool = &self.pools[ticket.pool as usize];
        let tier = |worker: u32| {
            let places = &self.workers[worker as usize].places;
            places.iter().find(|(number, _)| *number == ticket.pool).map(|(_, tier)| *tier as usize)
        };
        let Some(own) = tier(other) else {
            let unable = pool.unable.iter().find(|(worker, _)| *worker == other);
            return unable.map_or(Reason::Down, |(_, reason)| *reason);
        };
        if ticket.excluded.contains(&other) {
            return Reason::FailedBefore;
        }
        if let Some(reason) = self.why_unlisted(other) {
            return reason;
        }
        if tier(chosen).is_some_and(|chosen| own > chosen) {
            return Reason::KindLikedLess { than: self.who(chosen).1 };
        }
        pool.tiers[own].passed_over(&self.loads[other as usize], self.policy.load_factor)
    }
}
