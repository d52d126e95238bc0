use std::sync::Arc;
use std::time::Duration;

use crosskit_platforms::Platform;

use super::waiting::{Rank, Takes};
use super::{BuildId, Decision, Farm, Record, Ticket, TicketId, Verdict};
use crate::preflight::unplaced;
use crate::{Choice, Reason, SchedulerError, WhenFull};

/// How many may wait for one worker rather than for any. Beyond it, waiting for it is in vain.
const MOST_OWN: usize = 32;

/// How many times longer a step waits for the worker of its group where others want any other
/// place: it gains nothing for anybody by moving.
const CONTESTED: u32 = 2;

/// How many times shorter a step waits for a warm worker if none of its group has ended yet.
const UNKNOWN: u32 = 3;

/// How many of those whose turn it is are looked at for one that does not let others go first.
const MOST_PASSED: usize = 16;

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
    /// A worker has rested. Before the others of the same moment, which may be about it.
    Rest(u32),
    /// A ticket lets nobody go first any longer.
    Patience(TicketId),
    /// A ticket waits no longer for somebody who can run it.
    Grace(TicketId),
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
            self.wish(id, now);
        }
        turn
    }

    /// Lets a new ticket wait, also for the worker that has the rest of its group.
    fn enter(&mut self, id: TicketId, now: Duration) {
        self.enter_pool(id);
        if let Some(holder) = self.tickets.get(&id).and_then(|ticket| self.holder(ticket))
            && self.want(id, holder)
        {
            self.settle(id, now);
            self.touched.insert(holder);
        }
        self.watch(id, now);
    }

    /// Puts a ticket into the own queue of a worker, and of no other, if that is not too long
    /// already.
    fn want(&mut self, id: TicketId, worker: u32) -> bool {
        let Some(ticket) = self.tickets.get_mut(&id) else { return false };
        if self.workers[worker as usize].own.len() >= MOST_OWN {
            return false;
        }
        if let Some(other) = ticket.wants.replace(worker) {
            self.workers[other as usize].own.retain(|own| *own != id);
        }
        self.workers[worker as usize].own.push(id);
        true
    }

    /// The worker that a ticket wants is warm: it takes no other for a while.
    fn settle(&mut self, id: TicketId, now: Duration) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        ticket.settled = true;
        self.pools[ticket.pool as usize].waiting.put(ticket.build, id, Takes::Own);
        let since = *ticket.passed.get_or_insert(now);
        let until = since + self.tickets.get(&id).map_or(Duration::ZERO, |ticket| self.patience(ticket));
        self.set_timer(id, Some((until, Timer::Patience(id))));
    }

    /// How long a ticket waits for a worker that is warm: no longer than such a step takes, and
    /// not so long if nobody knows that.
    fn patience(&self, ticket: &Ticket) -> Duration {
        let most = self.policy.patience;
        self.homes.takes(ticket.key).map_or(most / UNKNOWN, |takes| takes.min(most))
    }

    /// A ticket has let others go first for long enough.
    fn unsettle(&mut self, id: TicketId) {
        self.set_timer(id, None);
        let Some(ticket) = self.tickets.get(&id) else { return };
        if ticket.settled && ticket.pooled {
            self.pools[ticket.pool as usize].waiting.put(ticket.build, id, Takes::AnyNow);
        }
        self.dirty.insert(ticket.pool);
    }

    /// A ticket that found no place waits for the first choice as well as for any other.
    fn wish(&mut self, id: TicketId, now: Duration) {
        let unplaced = |ticket: &&Ticket| ticket.running.is_none() && ticket.wants.is_none();
        if self.tickets.get(&id).filter(unplaced).is_none() || self.rather(id, |_| MOST_OWN, now) {
            return;
        }
        let Some(ticket) = self.tickets.get(&id) else { return };
        let pool = &self.pools[ticket.pool as usize];
        let Some(tier) = pool.tier(&ticket.excluded) else { return };
        if let Some(first) = pool.tiers[tier].first_choice(ticket.key, &ticket.excluded) {
            self.want(id, first);
        }
    }

    /// Has a ticket wait for one of those that have run such a group, if all of them are full and
    /// not so many wait there already. That is told by how many places they have.
    fn rather(&mut self, id: TicketId, most: impl Fn(usize) -> usize, now: Duration) -> bool {
        let patient = |ticket: &&Ticket| {
            let since = ticket.passed.map_or(Duration::ZERO, |passed| now.saturating_sub(passed));
            !ticket.settled && since < self.patience(ticket)
        };
        let Some(ticket) = self.tickets.get(&id).filter(patient) else { return false };
        if self.known(ticket).any(|it| self.loads[it as usize].free() > 0) {
            return false;
        }
        let waits = |worker: &u32| self.workers[*worker as usize].own.len();
        let slots = |worker: &u32| self.loads[*worker as usize].slots as usize;
        let known = self.known(ticket).filter(|it| waits(it) < most(slots(it)));
        let shortest = known.min_by_key(|it| (waits(it) + 1) * 1024 / slots(it).max(1));
        let found = shortest.is_some_and(|home| self.want(id, home));
        if found {
            self.settle(id, now);
        }
        found
    }

    fn ring(&mut self, now: Duration, turn: &mut Turn) {
        while let Some((when, timer)) = self.timers.first().copied().filter(|(when, _)| *when <= now) {
            self.timers.remove(&(when, timer));
            match timer {
                Timer::Rest(worker) => self.rested(worker, now),
                Timer::Patience(id) => self.unsettle(id),
                // Whoever rests comes back, and at a known time.
                Timer::Grace(id) => match self.rested_at(id) {
                    Some(until) => self.set_timer(id, Some((until, Timer::Grace(id)))),
                    None => self.refuse(id, turn),
                },
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
            let spills = self.policy.when_full == WhenFull::Spill;
            let fits = |(pool, tier): &&(u32, u32)| {
                spills || self.pools[*pool as usize].tier(&[]) == Some(*tier as usize)
            };
            let pools: Vec<u32> = known.places.iter().filter(fits).map(|(pool, _)| *pool).collect();
            let other = pools.into_iter().filter_map(|pool| self.claims(pool, own, now)).min();
            if other.is_some_and(|(_, _, id)| self.place(id, now, turn)) {
                continue;
            }
            self.start(own.2, worker, Choice::First, now, turn);
        }
    }

    /// Who of a pool goes before one whose own worker has a place: builds that hold fewer places,
    /// and who has let others go first for long enough, or for much longer than that one. The
    /// others of an earlier turn let it go.
    fn claims(&mut self, pool: u32, own: Rank, now: Duration) -> Option<Rank> {
        let waiting = &self.pools[pool as usize].waiting;
        let mut passed = Vec::new();
        let mut claim = None;
        for other in waiting.any().take_while(|other| *other < own).take(MOST_PASSED) {
            if other.0 < own.0 || self.passed_for(other, now, self.policy.patience) {
                claim = Some(other);
                break;
            }
            passed.push(other.2);
        }
        // Where all wait for long, each waits for its own.
        let came = self.tickets[&own.2].passed.unwrap_or(now);
        let long = self.policy.patience * CONTESTED;
        let earlier = waiting.any_now().take_while(|other| *other < own).take(MOST_PASSED);
        let late = earlier.into_iter().find(|other| self.passed_for(*other, came, long));
        for id in passed {
            self.pass(id, now);
        }
        claim.into_iter().chain(late).min()
    }

    /// Whether one has let others go first for so long.
    fn passed_for(&self, turn: Rank, now: Duration, long: Duration) -> bool {
        let since = self.tickets[&turn.2].passed;
        since.is_some_and(|since| now.saturating_sub(since) >= long)
    }

    /// Others go before a ticket whose turn it is.
    fn pass(&mut self, id: TicketId, now: Duration) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        if ticket.passed.is_none() {
            ticket.passed = Some(now);
            self.set_timer(id, Some((now + self.policy.patience, Timer::Patience(id))));
        }
    }

    /// Hands out what places there are.
    fn drain(&mut self, now: Duration, turn: &mut Turn) {
        let mut pools: Vec<u32> = std::mem::take(&mut self.dirty).into_iter().collect();
        while !pools.is_empty() {
            let mut next: Option<Rank> = None;
            pools.retain(|pool| match self.next(*pool, now) {
                Some(turn) => {
                    next = next.map_or(Some(turn), |next| Some(next.min(turn)));
                    true
                }
                None => false,
            });
            let Some((_, _, id)) = next else { return };
            // With more waiting there than it has places it would wait for too long.
            if !self.rather(id, |slots| slots, now) && !self.place(id, now, turn) {
                return;
            }
        }
    }

    /// Whose turn is next among those of a pool that there is a place for. Those that have waited
    /// for a worker of their own let others go first for longer, as they gain nothing for anybody
    /// by moving.
    fn next(&self, number: u32, now: Duration) -> Option<Rank> {
        let pool = &self.pools[number as usize];
        let room = |excluded: &[u32]| pool.room(excluded, self.policy.when_full).is_some();
        if !room(&[]) {
            // Those that exclude the workers of a kind may have a place with another.
            let choosy = pool.choosy.iter().map(|id| (&self.tickets[id], *id));
            let placed = choosy.filter(|(ticket, _)| room(&ticket.excluded));
            return placed.map(|(ticket, id)| pool.waiting.rank(ticket.build, id)).min();
        }
        let fits = |turn: &Rank| {
            let excluded = &self.tickets[&turn.2].excluded;
            excluded.is_empty() || room(excluded)
        };
        let any = pool.waiting.any().find(fits);
        let mut any_now = pool.waiting.any_now().filter(fits);
        let Some(any) = any else { return any_now.next() };
        let long = self.policy.patience * CONTESTED;
        let mut earlier = any_now.take_while(|turn| *turn < any).take(MOST_PASSED);
        earlier.find(|turn| self.passed_for(*turn, now, long)).or(Some(any))
    }

    /// Chooses a worker for a ticket and starts it there. False if there is no place.
    fn place(&mut self, id: TicketId, now: Duration, turn: &mut Turn) -> bool {
        let Some(ticket) = self.tickets.get(&id) else { return false };
        let pool = &self.pools[ticket.pool as usize];
        let home = self.home(ticket).map(|home| (home, Choice::Knows));
        let found = home.or_else(|| {
            let tier = pool.room(&ticket.excluded, self.policy.when_full)?;
            let factor = self.policy.load_factor;
            pool.tiers[tier].choose(&self.loads, ticket.key, &ticket.excluded, factor)
        });
        let Some((worker, choice)) = found else { return false };
        self.start(id, worker, choice, now, turn);
        true
    }

    fn start(&mut self, id: TicketId, worker: u32, choice: Choice, now: Duration, turn: &mut Turn) {
        self.leave_queues(id);
        let Some(ticket) = self.tickets.get(&id) else { return };
        let choice = if self.pools[ticket.pool as usize].candidates(&ticket.excluded) == 1 {
            Choice::Only
        } else if self.holder(ticket) == Some(worker) {
            Choice::Holds
        } else if self.known(ticket).any(|known| known == worker) {
            Choice::Knows
        } else {
            choice
        };
        let decision = Arc::new(self.decision(ticket, worker, choice));
        let (build, group, pool, key) = (ticket.build, ticket.group, ticket.pool, ticket.key);
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
        let life = known.life;
        self.holders.entry(build).or_default().insert(group, (worker, life));
        self.homes.add(key, (worker, life));
        turn.assigned.push(Assignment { ticket: id, build, group, decision, waited });
    }

    fn decision(&self, ticket: &Ticket, chosen: u32, choice: Choice) -> Decision {
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
    fn verdict(&self, ticket: &Ticket, chosen: u32, other: u32) -> Reason {
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
