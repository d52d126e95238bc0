use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crosskit_platforms::Platform;
use crosskit_scheduler::{
    Ask, BuildId, Entitlements, Farm, Health, Outcome, PlacementKey, Policy, TicketId, Turn,
};

use crate::fleet::{FASTEST, Machine, fleet};
use crate::plan::PLATFORMS;
use crate::random::Random;
use crate::workload::{Build, Workload};
use crate::{Plan, Report};

/// How long a dead worker is silent before that is noticed.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// How long a worker is away, dead or drained, on average.
const AWAY: f64 = 300.0;
/// How often a worker that comes back is a new machine, with nothing in its cache.
const REPLACED: f64 = 0.5;
/// How much longer a step takes where nothing of its group is cached.
const COLD: f64 = 1.5;
/// What a worker that lacks the inputs of a group fetches in a second, in megabytes.
const FETCHED: f64 = 250.0;
/// What passes between two steps: results are looked up and shipped.
const BETWEEN: f64 = 0.02;
/// How often a worker fails at a step without dying, such as for want of disk.
const WORKER_FAILS: f64 = 0.0001;
/// How often the mean load goes up and down while builds come, and how far.
const WAVES: f64 = 3.0;
const HEIGHT: f64 = 0.25;
/// Work is added up in spans of this length for the lower bound.
const SPAN: f64 = 10.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    /// A step ends on a machine that is still in this life.
    Ends(TicketId, u32, Outcomes),
    /// The next step of a chain is ready to run.
    Next(u64, u32),
    Dies(u32),
    Silent(u32),
    Drains(u32),
    Back(u32),
    Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcomes {
    Well,
    StepFails,
    WorkerFails,
}

/// A build that has not ended.
struct Active {
    build: Build,
    came: Duration,
    /// For each chain, the first one first: how many steps have ended.
    done: Vec<usize>,
    /// Chains that have not ended.
    left: usize,
    tickets: HashSet<TicketId>,
}

/// A step that waits or runs.
struct Step {
    build: u64,
    chain: usize,
    machine: Option<u32>,
    excluded: Vec<String>,
}

struct Simulation {
    random: Random,
    workload: Workload,
    /// The mean distance of builds, in seconds.
    distance: f64,
    coming: usize,
    horizon: f64,
    machines: Vec<Machine>,
    by_name: HashMap<String, u32>,
    platforms: Vec<Platform>,
    lifetime: Option<Duration>,
    farm: Farm,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    now: Duration,
    wake: Option<Duration>,
    builds: HashMap<u64, Active>,
    last_build: u64,
    steps: HashMap<TicketId, Step>,
    running: usize,
    known: HashSet<u64>,
    /// Where a group is: of a build, a chain.
    places: HashMap<(u64, usize), u32>,
    /// Work by platform and time of its coming, in seconds of a place.
    work: Vec<Vec<f64>>,
    /// The end of the build that could have ended last.
    latest: Duration,
    used: f64,
    stretches: (f64, f64),
    /// What the farm took for the event at hand, and how many decisions it made.
    spent: Duration,
    decided: u64,
    report: Report,
}

/// Plays a plan to its end.
pub fn simulate(plan: &Plan) -> Report {
    let mut simulation = Simulation::new(plan);
    simulation.play();
    simulation.finish()
}

impl Simulation {
    fn new(plan: &Plan) -> Self {
        let machines = fleet(plan);
        let capacity: f64 = machines.iter().map(|machine| machine.slots as f64 * machine.speed).sum();
        // How much work a build is, taken from some.
        let mut sample = Workload::new(&Plan { seed: plan.seed, ..plan.clone() });
        let samples = 20_000;
        let seconds = |build: Build| -> f64 {
            build.all().flat_map(|chain| &chain.steps).map(Duration::as_secs_f64).sum()
        };
        let work: f64 = (0..samples).map(|_| seconds(sample.next())).sum::<f64>() / f64::from(samples);
        let distance = work / (capacity * plan.load);
        let mut simulation = Simulation {
            random: Random::new(plan.seed, 1 << 61),
            workload: Workload::new(plan),
            distance,
            coming: plan.builds,
            horizon: distance * plan.builds as f64,
            by_name: machines
                .iter()
                .zip(0..)
                .map(|(machine, number)| (machine.name.clone(), number))
                .collect(),
            platforms: PLATFORMS
                .iter()
                .filter_map(|(name, ..)| Some(Platform::parse(name).ok()?.normalize()))
                .collect(),
            lifetime: plan.lifetime,
            farm: Farm::new(Policy { ..plan.policy.clone() }),
            events: BinaryHeap::new(),
            sequence: 0,
            now: Duration::ZERO,
            wake: None,
            builds: HashMap::new(),
            last_build: 0,
            steps: HashMap::new(),
            running: 0,
            known: HashSet::new(),
            places: HashMap::new(),
            work: vec![Vec::new(); PLATFORMS.len()],
            latest: Duration::ZERO,
            used: 0.0,
            stretches: (0.0, 0.0),
            spent: Duration::ZERO,
            decided: 0,
            report: Report::default(),
            machines,
        };
        for number in 0..simulation.machines.len() {
            simulation.farm.upsert(simulation.machines[number].state(), Duration::ZERO);
            simulation.plan_end(number as u32);
        }
        simulation.at(0.0, Event::Arrives);
        simulation
    }

    fn at(&mut self, seconds: f64, event: Event) {
        let when = self.now + Duration::from_secs_f64(seconds);
        self.sequence += 1;
        self.events.push(Reverse((when, self.sequence, event)));
    }

    /// A machine dies or is drained some day.
    fn plan_end(&mut self, machine: u32) {
        let Some(lifetime) = self.lifetime else { return };
        let seconds = self.random.exponential(lifetime.as_secs_f64());
        let event = if self.random.chance(0.5) { Event::Dies(machine) } else { Event::Drains(machine) };
        self.at(seconds, event);
    }

    fn play(&mut self) {
        while let Some(Reverse((when, _, event))) = self.events.pop() {
            self.now = when;
            (self.spent, self.decided) = (Duration::ZERO, 0);
            self.happens(event);
            let now = self.now;
            let turn = self.timed(|farm| farm.assign(now));
            self.take(turn);
            let per_decision = self.spent.as_nanos() as u64 / self.decided.max(1);
            for _ in 0..self.decided.max(1) {
                self.report.decisions.add(per_decision);
            }
            self.report.most_running = self.report.most_running.max(self.running);
            self.report.most_waiting = self.report.most_waiting.max(self.steps.len() - self.running);
            if let Some(wake) = self.farm.wake().filter(|wake| self.wake.is_none_or(|known| *wake < known)) {
                self.wake = Some(wake);
                self.at((wake - self.now).as_secs_f64(), Event::Wake);
            }
            if self.coming == 0 && self.builds.is_empty() {
                break;
            }
        }
    }

    /// Has the farm do something, and looks at the clock meanwhile.
    fn timed<T>(&mut self, what: impl FnOnce(&mut Farm) -> T) -> T {
        let start = Instant::now();
        let result = what(&mut self.farm);
        self.spent += start.elapsed();
        result
    }

    fn happens(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrives => self.arrive(),
            Event::Ends(ticket, life, how) => {
                let machine = self.steps.get(&ticket).and_then(|step| step.machine);
                if machine.is_some_and(|machine| self.machines[machine as usize].life == life) {
                    self.end_step(ticket, how);
                }
            }
            Event::Next(build, chain) => self.ask(build, chain as usize, Vec::new()),
            Event::Dies(number) => {
                let machine = &mut self.machines[number as usize];
                (machine.life, machine.dead) = (machine.life + 1, true);
                self.report.deaths += 1;
                self.at(DEAD_AFTER.as_secs_f64(), Event::Silent(number));
            }
            Event::Silent(number) => {
                let name = self.machines[number as usize].name.clone();
                let lost = self.timed(|farm| farm.set_health(&name, Health::Down, now));
                for ticket in lost {
                    self.report.lost += 1;
                    self.again(ticket, &name);
                }
                let away = self.random.exponential(AWAY);
                self.at(away, Event::Back(number));
            }
            Event::Drains(number) => {
                let name = self.machines[number as usize].name.clone();
                self.timed(|farm| farm.set_health(&name, Health::Draining, now));
                let away = self.random.exponential(AWAY);
                self.at(away, Event::Back(number));
            }
            Event::Back(number) => {
                let replaced = self.random.chance(REPLACED);
                let machine = &mut self.machines[number as usize];
                machine.dead = false;
                if replaced {
                    machine.lose_cache();
                }
                let name = machine.name.clone();
                self.timed(|farm| farm.set_health(&name, Health::Up, now));
                self.plan_end(number);
            }
            Event::Wake => self.wake = None,
        }
    }

    fn arrive(&mut self) {
        if self.coming == 0 {
            return;
        }
        self.coming -= 1;
        let wave =
            1.0 + HEIGHT * (std::f64::consts::TAU * WAVES * self.now.as_secs_f64() / self.horizon).sin();
        let distance = self.random.exponential(self.distance / wave);
        self.at(distance, Event::Arrives);
        let build = self.workload.next();
        let span = (self.now.as_secs_f64() / SPAN) as usize;
        for chain in build.all() {
            let spans = &mut self.work[chain.platform];
            spans.resize(spans.len().max(span + 1), 0.0);
            spans[span] += chain.steps.iter().map(Duration::as_secs_f64).sum::<f64>();
        }
        self.latest = self.latest.max(self.now + build.ideal().div_f64(FASTEST));
        self.last_build += 1;
        let chains = build.all().count();
        let active =
            Active { came: self.now, done: vec![0; chains], left: chains, tickets: HashSet::new(), build };
        let id = self.last_build;
        let starts = if active.build.first.is_some() { 0..1 } else { 0..chains };
        self.builds.insert(id, active);
        for chain in starts {
            self.ask(id, chain, Vec::new());
        }
    }

    fn ask(&mut self, build: u64, chain: usize, excluded: Vec<String>) {
        let Some(active) = self.builds.get_mut(&build) else { return };
        let Some(wanted) = active.build.all().nth(chain) else { return };
        let ask = Ask {
            build: BuildId(build),
            group: chain,
            platform: self.platforms[wanted.platform].clone(),
            placement: PlacementKey(wanted.key),
            entitlements: Entitlements::NONE,
            excluded: excluded.clone(),
        };
        let now = self.now;
        let ticket = self.timed(|farm| farm.ask(ask, now));
        self.steps.insert(ticket, Step { build, chain, machine: None, excluded });
        if let Some(active) = self.builds.get_mut(&build) {
            active.tickets.insert(ticket);
        }
    }

    /// A worker was at fault: the step goes elsewhere.
    fn again(&mut self, ticket: TicketId, name: &str) {
        let now = self.now;
        self.timed(|farm| farm.done(ticket, Outcome::WorkerFailed, now));
        let Some(mut step) = self.steps.remove(&ticket) else { return };
        self.running -= 1;
        if let Some(active) = self.builds.get_mut(&step.build) {
            active.tickets.remove(&ticket);
        }
        self.places.remove(&(step.build, step.chain));
        step.excluded.push(name.to_owned());
        self.ask(step.build, step.chain, step.excluded);
    }

    fn take(&mut self, turn: Turn) {
        self.decided += turn.assigned.len() as u64;
        for refused in turn.refused {
            self.report.refused += 1;
            let Some(step) = self.steps.remove(&refused.ticket) else { continue };
            self.close(step.build, false);
        }
        for placed in turn.assigned {
            let Some(machine) = self.by_name.get(&placed.decision.worker).copied() else { continue };
            let Some(step) = self.steps.get_mut(&placed.ticket) else { continue };
            step.machine = Some(machine);
            self.running += 1;
            let (build, chain) = (step.build, step.chain);
            let Some(active) = self.builds.get(&build) else { continue };
            let Some(wanted) = active.build.all().nth(chain) else { continue };
            let steps = active.build.steps();
            let (key, megabytes) = (wanted.key, wanted.megabytes);
            let number = active.done[chain];
            let mut seconds = wanted.steps.get(number).map_or(0.0, Duration::as_secs_f64);
            let last = active.left == 1 && number + 1 == wanted.steps.len();
            let fails = active.build.fails && last;
            let came_from = self.places.insert((build, chain), machine);
            let warm = self.machines[machine as usize].use_cache(key, megabytes);
            if came_from != Some(machine) {
                self.report.placed += 1;
                self.report.moved += u64::from(came_from.is_some());
                if !self.known.insert(key) {
                    self.report.repeats += 1;
                    self.report.warm += u64::from(warm);
                }
                if !warm {
                    seconds = seconds * COLD + megabytes as f64 / FETCHED;
                }
            }
            let waited = placed.waited.as_micros() as u64;
            self.report.of_size(steps).waits.add(waited);
            let worker = &self.machines[machine as usize];
            let (seconds, life) = (seconds / worker.speed, worker.life);
            // What is started on a machine that is dead, unnoticed, never ends.
            let life = if worker.dead { u32::MAX } else { life };
            let broken = self.random.chance(WORKER_FAILS);
            let (seconds, how) = match (broken, fails) {
                (true, _) => (1.0, Outcomes::WorkerFails),
                (false, true) => (seconds, Outcomes::StepFails),
                (false, false) => (seconds, Outcomes::Well),
            };
            if self.coming > 0 {
                self.used += seconds;
            }
            self.at(seconds, Event::Ends(placed.ticket, life, how));
        }
    }

    fn end_step(&mut self, ticket: TicketId, how: Outcomes) {
        let now = self.now;
        if how == Outcomes::WorkerFails {
            let machine = self.steps.get(&ticket).and_then(|step| step.machine);
            let name = machine.map(|machine| self.machines[machine as usize].name.clone());
            self.report.lost += 1;
            return self.again(ticket, &name.unwrap_or_default());
        }
        let failed = how == Outcomes::StepFails;
        let outcome = if failed { Outcome::StepFailed } else { Outcome::Finished };
        self.timed(|farm| farm.done(ticket, outcome, now));
        self.running -= 1;
        self.report.steps += 1;
        let Some(Step { build, chain, .. }) = self.steps.remove(&ticket) else { return };
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
        let now = self.now;
        for ticket in &active.tickets {
            self.timed(|farm| farm.cancel(*ticket, now));
            let step = self.steps.remove(ticket);
            self.running -= usize::from(step.is_some_and(|step| step.machine.is_some()));
        }
        self.timed(|farm| farm.end(BuildId(build)));
        for chain in 0..active.done.len() {
            self.places.remove(&(build, chain));
        }
        self.report.makespan = now;
        if !counts {
            return;
        }
        self.report.builds += 1;
        let stretch = (now - active.came).as_secs_f64() / active.build.ideal().as_secs_f64().max(0.001);
        self.stretches.0 += stretch;
        self.stretches.1 += stretch * stretch;
        self.report.of_size(active.build.steps()).stretch.add((stretch * 1000.0) as u64);
    }

    fn finish(mut self) -> Report {
        let mut bound = self.latest.as_secs_f64();
        for (platform, spans) in self.work.iter().enumerate() {
            let own = self.machines.iter().filter(|machine| machine.platform == platform);
            let capacity: f64 = own.map(|machine| machine.slots as f64 * machine.speed).sum();
            let mut work = 0.0;
            for (span, added) in spans.iter().enumerate().rev() {
                work += added;
                bound = bound.max(span as f64 * SPAN + work / capacity.max(f64::MIN_POSITIVE));
            }
        }
        let slots: usize = self.machines.iter().map(|machine| machine.slots).sum();
        let builds = self.report.builds.max(1) as f64;
        self.report.bound = Duration::from_secs_f64(bound);
        self.report.used = self.used / (self.horizon * slots as f64).max(f64::MIN_POSITIVE);
        self.report.fairness = self.stretches.0.powi(2) / (builds * self.stretches.1).max(f64::MIN_POSITIVE);
        self.report
    }
}
