//! What becomes of steps, from the question for a place to their end.

use std::time::Duration;

use crosskit_scheduler::{Ask, Assignment, BuildId, Entitlements, Outcome, PlacementKey, Turn};

use crate::fleet::Start;
use crate::simulation::{Ending, Event, Simulation, Step, Ticket};

/// How much longer a step takes where nothing of its group is cached.
const COLD: f64 = 1.5;
/// What a worker that lacks the inputs of a group fetches in a second, in megabytes.
const FETCHED: f64 = 250.0;
/// What passes between two steps: results are looked up and shipped.
const BETWEEN: f64 = 0.02;
/// How often a worker fails at a step without dying, such as for want of disk.
const WORKER_FAILS: f64 = 0.0001;

impl Simulation {
    pub(crate) fn ask(&mut self, build: u64, chain: usize, excluded: Vec<String>) {
        let Some(active) = self.builds.get(&build) else { return };
        let Some(wanted) = active.build.all().nth(chain) else { return };
        let ask = Ask {
            build: BuildId(build),
            group: chain,
            platform: self.platforms[wanted.platform].clone(),
            placement: PlacementKey(wanted.key),
            entitlements: Entitlements::NONE,
            excluded: excluded.clone(),
        };
        let (now, endpoint) = (self.now, active.endpoint);
        let ticket = (endpoint, self.timed(endpoint, |farm| farm.ask(ask, now)));
        self.steps.insert(ticket, Step { build, chain, machine: None, excluded });
        if let Some(active) = self.builds.get_mut(&build) {
            active.tickets.insert(ticket);
        }
    }

    /// A worker was at fault: the step goes elsewhere.
    pub(crate) fn again(&mut self, ticket: Ticket, name: &str) {
        let Some(mut step) = self.give_back(ticket, Outcome::WorkerFailed) else { return };
        if let Some(active) = self.builds.get_mut(&step.build) {
            active.tickets.remove(&ticket);
        }
        self.places.remove(&(step.build, step.chain));
        step.excluded.push(name.to_owned());
        self.ask(step.build, step.chain, step.excluded);
    }

    pub(crate) fn take(&mut self, endpoint: u32, turn: Turn) {
        self.decided += turn.assigned.len() as u64;
        for refused in turn.refused {
            self.report.refused += 1;
            let Some(step) = self.steps.remove(&(endpoint, refused.ticket)) else { continue };
            self.close(step.build, false);
        }
        for placed in turn.assigned {
            self.begin(endpoint, &placed);
        }
    }

    fn begin(&mut self, endpoint: u32, placed: &Assignment) {
        let ticket = (endpoint, placed.ticket);
        let Some(machine) = self.by_name.get(&placed.decision.worker).copied() else { return };
        let Some(step) = self.steps.get_mut(&ticket) else { return };
        let worker = &mut self.machines[machine as usize];
        // What is started on a machine that is dead, unnoticed, never ends.
        let life = if worker.dead { u32::MAX } else { worker.life };
        step.machine = Some((machine, life));
        worker.given[endpoint as usize] += 1;
        self.running += 1;
        let (build, chain) = (step.build, step.chain);
        let Some(active) = self.builds.get(&build) else { return };
        let Some(wanted) = active.build.all().nth(chain) else { return };
        let (steps, late) = (active.build.steps(), active.late);
        let (key, megabytes) = (wanted.key, wanted.megabytes);
        let number = active.done[chain];
        let mut seconds = wanted.steps.get(number).map_or(0.0, Duration::as_secs_f64);
        let last = active.left == 1 && number + 1 == wanted.steps.len();
        let fails = active.build.fails && last;
        let came_from = self.places.insert((build, chain), machine);
        let warm = self.machines[machine as usize].use_cache(key, megabytes);
        if came_from != Some(machine) {
            self.report.moved += u64::from(came_from.is_some());
            self.count_warmth(endpoint, key, machine, warm, late);
            if !warm {
                seconds = seconds * COLD + megabytes as f64 / FETCHED;
            }
        }
        let waited = placed.waited.as_micros() as u64;
        self.report.of_size(steps).waits.add(waited);
        let broken = self.random.chance(WORKER_FAILS);
        let (seconds, how) = match (broken, fails) {
            (true, _) => (1.0, Ending::WorkerFails),
            (false, true) => (seconds, Ending::StepFails),
            (false, false) => (seconds, Ending::Well),
        };
        if life != u32::MAX {
            self.run(machine, Start { ticket, seconds, how, came: self.now });
        }
    }

    /// A machine runs a step, or has it wait if other endpoints use all its places.
    fn run(&mut self, machine: u32, start: Start) {
        let worker = &mut self.machines[machine as usize];
        if worker.running == worker.slots {
            return worker.queue.push_back(start);
        }
        worker.running += 1;
        let (seconds, life) = (start.seconds / worker.speed, worker.life);
        if self.coming > 0 {
            self.used += seconds;
        }
        self.at(seconds, Event::Ends(start.ticket, life, start.how));
    }

    /// A machine has a place for the next that waits there.
    fn next_at(&mut self, machine: u32) {
        let worker = &mut self.machines[machine as usize];
        worker.running -= 1;
        if let Some(start) = worker.queue.pop_front() {
            self.report.queued.add((self.now - start.came).as_micros() as u64);
            self.run(machine, start);
        }
    }

    /// Counts whether a group came to a worker that knows it, and if not why.
    fn count_warmth(&mut self, endpoint: u32, key: u64, machine: u32, warm: bool, late: bool) {
        self.report.placed += 1;
        let runners = self.known.entry(key).or_default();
        let repeat = !runners.is_empty();
        if repeat {
            self.report.repeats += 1;
            self.report.warm += u64::from(warm);
            if late {
                self.report.settled.0 += 1;
                self.report.settled.1 += u64::from(warm);
            }
        }
        if repeat && !warm {
            let machines = &self.machines;
            let know = || runners.iter().map(|it| &machines[*it as usize]).filter(|it| it.knows(key));
            let there = || know().filter(|it| !it.dead && !it.draining);
            let free = |it: &crate::fleet::Machine| it.given[endpoint as usize] < it.share(&self.plan);
            let cold = &mut self.report.cold;
            let why = match (know().next(), there().next(), there().any(free)) {
                (None, ..) => &mut cold.forgotten,
                (_, None, _) => &mut cold.away,
                (_, _, false) => &mut cold.full,
                (_, _, true) => &mut cold.passed,
            };
            *why += 1;
        }
        if !runners.contains(&machine) {
            runners.push(machine);
        }
    }

    /// A step is over, or nobody wants it any more.
    fn give_back(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Step> {
        let now = self.now;
        self.timed(ticket.0, |farm| farm.done(ticket.1, outcome, now));
        let step = self.steps.remove(&ticket)?;
        if let Some((machine, life)) = step.machine {
            self.running -= 1;
            let worker = &mut self.machines[machine as usize];
            worker.given[ticket.0 as usize] -= 1;
            if worker.life == life {
                let queued = worker.queue.len();
                worker.queue.retain(|start| start.ticket != ticket);
                if worker.queue.len() == queued {
                    self.next_at(machine);
                }
            }
        }
        Some(step)
    }

    pub(crate) fn end_step(&mut self, ticket: Ticket, how: Ending) {
        if how == Ending::WorkerFails {
            let machine = self.steps.get(&ticket).and_then(|step| step.machine);
            let name = machine.map(|(machine, _)| self.machines[machine as usize].name.clone());
            self.report.lost += 1;
            return self.again(ticket, &name.unwrap_or_default());
        }
        let failed = how == Ending::StepFails;
        let outcome = if failed { Outcome::StepFailed } else { Outcome::Finished };
        let Some(Step { build, chain, .. }) = self.give_back(ticket, outcome) else { return };
        self.report.steps += 1;
        let Some(active) = self.builds.get_mut(&build) else { return };
        active.tickets.remove(&ticket);
        active.done[chain] += 1;
        let length = active.build.all().nth(chain).map_or(0, |chain| chain.steps.len());
        if failed {
            return self.close(build, true);
        }
        if active.done[chain] < length {
            return self.at(BETWEEN, Event::Next(build, chain as u32));
        }
        active.left -= 1;
        if active.left == 0 {
            return self.close(build, true);
        }
        if active.build.first.is_some() && chain == 0 {
            for next in 1..active.done.len() {
                self.ask(build, next, Vec::new());
            }
        }
    }

    /// A build is over.
    fn close(&mut self, build: u64, counts: bool) {
        let Some(active) = self.builds.remove(&build) else { return };
        for ticket in &active.tickets {
            self.give_back(*ticket, Outcome::Canceled);
        }
        self.timed(active.endpoint, |farm| farm.end(BuildId(build)));
        for chain in 0..active.done.len() {
            self.places.remove(&(build, chain));
        }
        self.report.makespan = self.now;
        if !counts {
            return;
        }
        self.report.builds += 1;
        let stretch = (self.now - active.came).as_secs_f64() / active.build.ideal().as_secs_f64().max(0.001);
        self.stretches.0 += stretch;
        self.stretches.1 += stretch * stretch;
        self.report.of_size(active.build.steps()).stretch.add((stretch * 1000.0) as u64);
    }
}
