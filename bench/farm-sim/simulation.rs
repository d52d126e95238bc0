use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crosskit_platforms::Platform;
use crosskit_scheduler::{Farm, Health, TicketId};

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
/// How often the mean load goes up and down while builds come.
const WAVES: f64 = 3.0;
/// Work is added up in spans of this length for the lower bound.
const SPAN: f64 = 10.0;

/// A ticket of one of the endpoints.
pub(crate) type Ticket = (u32, TicketId);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Arrives,
    /// A step ends on a machine that is still in this life.
    Ends(Ticket, u32, Ending),
    /// The next step of a chain is ready to run.
    Next(u64, u32),
    Dies(u32),
    Silent(u32),
    Drains(u32),
    Back(u32),
    Wake(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Well,
    StepFails,
    WorkerFails,
}

/// A build that has not ended.
pub(crate) struct Active {
    pub(crate) build: Build,
    pub(crate) endpoint: u32,
    pub(crate) came: Duration,
    /// Whether it came when the farm had settled.
    pub(crate) late: bool,
    /// For each chain, the first one first: how many steps have ended.
    pub(crate) done: Vec<usize>,
    /// Chains that have not ended.
    pub(crate) left: usize,
    pub(crate) tickets: HashSet<Ticket>,
}

/// A step that waits or runs.
pub(crate) struct Step {
    pub(crate) build: u64,
    pub(crate) chain: usize,
    /// Where it is, and in which life of that.
    pub(crate) machine: Option<(u32, u32)>,
    pub(crate) excluded: Vec<String>,
}

struct Endpoint {
    farm: Farm,
    wake: Option<Duration>,
}

pub(crate) struct Simulation {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    workload: Workload,
    /// The mean distance of builds, in seconds.
    distance: f64,
    pub(crate) coming: usize,
    horizon: f64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) by_name: HashMap<String, u32>,
    pub(crate) platforms: Vec<Platform>,
    endpoints: Vec<Endpoint>,
    /// Endpoints that something has happened at.
    stirred: BTreeSet<u32>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    pub(crate) now: Duration,
    pub(crate) builds: HashMap<u64, Active>,
    last_build: u64,
    pub(crate) steps: HashMap<Ticket, Step>,
    pub(crate) running: usize,
    /// Who has run work of a key.
    pub(crate) known: HashMap<u64, Vec<u32>>,
    /// Where a group is: of a build, a chain.
    pub(crate) places: HashMap<(u64, usize), u32>,
    /// Work by platform and time of its coming, in seconds of a place.
    work: Vec<Vec<f64>>,
    /// The end of the build that could have ended last.
    latest: Duration,
    pub(crate) used: f64,
    pub(crate) stretches: (f64, f64),
    /// What the farm took for the event at hand, and how many decisions it made.
    spent: Duration,
    pub(crate) decided: u64,
    pub(crate) report: Report,
}

/// Plays a plan to its end.
pub fn simulate(plan: &Plan) -> Report {
    let mut simulation = Simulation::new(plan);
    simulation.play();
    simulation.finish()
}

impl Simulation {
    fn new(plan: &Plan) -> Self {
        // How much work a build is for each platform, taken from some.
        let mut sample = Workload::new(plan);
        let samples = 50_000;
        let mut shares = [0.0; PLATFORMS.len()];
        for _ in 0..samples {
            for chain in sample.next().all() {
                shares[chain.platform] += chain.steps.iter().map(Duration::as_secs_f64).sum::<f64>();
            }
        }
        let work = shares.iter().sum::<f64>() / f64::from(samples);
        let machines = fleet(plan, shares);
        let capacity: f64 = machines.iter().map(|machine| machine.slots as f64 * machine.speed).sum();
        let distance = work / (capacity * plan.load);
        let endpoint = |_| Endpoint { farm: Farm::new(plan.policy.clone()), wake: None };
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
            endpoints: (0..plan.endpoints).map(endpoint).collect(),
            stirred: BTreeSet::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            now: Duration::ZERO,
            builds: HashMap::new(),
            last_build: 0,
            steps: HashMap::new(),
            running: 0,
            known: HashMap::new(),
            places: HashMap::new(),
            work: vec![Vec::new(); PLATFORMS.len()],
            latest: Duration::ZERO,
            used: 0.0,
            stretches: (0.0, 0.0),
            spent: Duration::ZERO,
            decided: 0,
            report: Report::default(),
            machines,
            plan: plan.clone(),
        };
        for number in 0..simulation.machines.len() {
            let state = simulation.machines[number].state(plan);
            for endpoint in &mut simulation.endpoints {
                endpoint.farm.upsert(state.clone(), Duration::ZERO);
            }
            simulation.plan_end(number as u32);
        }
        simulation.at(0.0, Event::Arrives);
        simulation
    }

    pub(crate) fn at(&mut self, seconds: f64, event: Event) {
        let when = self.now + Duration::from_secs_f64(seconds);
        self.sequence += 1;
        self.events.push(Reverse((when, self.sequence, event)));
    }

    /// A machine dies or is drained some day.
    fn plan_end(&mut self, machine: u32) {
        let Some(lifetime) = self.plan.lifetime else { return };
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
            while let Some(endpoint) = self.stirred.pop_first() {
                let turn = self.timed(endpoint, |farm| farm.assign(now));
                self.stirred.remove(&endpoint);
                self.take(endpoint, turn);
                let Endpoint { farm, wake: known } = &mut self.endpoints[endpoint as usize];
                if let Some(wake) = farm.wake().filter(|wake| known.is_none_or(|known| *wake < known)) {
                    *known = Some(wake);
                    self.at((wake - self.now).as_secs_f64(), Event::Wake(endpoint));
                }
            }
            let per_decision = self.spent.as_nanos() as u64 / self.decided.max(1);
            for _ in 0..self.decided.max(1) {
                self.report.decisions.add(per_decision);
            }
            self.report.most_running = self.report.most_running.max(self.running);
            self.report.most_waiting = self.report.most_waiting.max(self.steps.len() - self.running);
            if self.coming == 0 && self.builds.is_empty() {
                break;
            }
        }
    }

    /// Has the farm of an endpoint do something, and looks at the clock meanwhile.
    pub(crate) fn timed<T>(&mut self, endpoint: u32, what: impl FnOnce(&mut Farm) -> T) -> T {
        self.stirred.insert(endpoint);
        let start = Instant::now();
        let result = what(&mut self.endpoints[endpoint as usize].farm);
        self.spent += start.elapsed();
        result
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives => self.arrive(),
            Event::Ends(ticket, life, how) => {
                let machine = self.steps.get(&ticket).and_then(|step| step.machine);
                if let Some((machine, _)) = machine.filter(|(_, started)| *started == life)
                    && self.machines[machine as usize].life == life
                {
                    self.end_step(ticket, how);
                }
            }
            Event::Next(build, chain) => self.ask(build, chain as usize, Vec::new()),
            Event::Dies(number) => {
                self.machines[number as usize].die();
                self.report.deaths += 1;
                self.at(DEAD_AFTER.as_secs_f64(), Event::Silent(number));
            }
            Event::Silent(number) => {
                let name = self.machines[number as usize].name.clone();
                for (endpoint, lost) in self.all_hear(&name, Health::Down) {
                    for ticket in lost {
                        self.report.lost += 1;
                        self.again((endpoint, ticket), &name);
                    }
                }
                let away = self.random.exponential(AWAY);
                self.at(away, Event::Back(number));
            }
            Event::Drains(number) => {
                let machine = &mut self.machines[number as usize];
                machine.draining = true;
                let name = machine.name.clone();
                self.all_hear(&name, Health::Draining);
                let away = self.random.exponential(AWAY);
                self.at(away, Event::Back(number));
            }
            Event::Back(number) => {
                let replaced = self.random.chance(REPLACED);
                let machine = &mut self.machines[number as usize];
                (machine.dead, machine.draining) = (false, false);
                if replaced {
                    machine.lose_cache();
                }
                let name = machine.name.clone();
                self.all_hear(&name, Health::Up);
                self.plan_end(number);
            }
            Event::Wake(endpoint) => {
                self.endpoints[endpoint as usize].wake = None;
                self.stirred.insert(endpoint);
            }
        }
    }

    /// Every endpoint learns of a worker's health, each by its own probe. What is lost is said.
    fn all_hear(&mut self, name: &str, health: Health) -> Vec<(u32, Vec<TicketId>)> {
        let now = self.now;
        let all = 0..self.endpoints.len() as u32;
        all.map(|endpoint| (endpoint, self.timed(endpoint, |farm| farm.set_health(name, health, now))))
            .collect()
    }

    fn arrive(&mut self) {
        if self.coming == 0 {
            return;
        }
        self.coming -= 1;
        let turn = std::f64::consts::TAU * WAVES * self.now.as_secs_f64() / self.horizon;
        let distance = self.random.exponential(self.distance / (1.0 + self.plan.waves * turn.sin()));
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
        let (id, chains) = (self.last_build, build.all().count());
        let number = if self.plan.sticky { build.project } else { id };
        let starts = if build.first.is_some() { 0..1 } else { 0..chains };
        let active = Active {
            endpoint: (Random::new(self.plan.seed, number).next() % self.plan.endpoints as u64) as u32,
            came: self.now,
            late: self.coming < self.plan.builds / 2,
            done: vec![0; chains],
            left: chains,
            tickets: HashSet::new(),
            build,
        };
        self.builds.insert(id, active);
        for chain in starts {
            self.ask(id, chain, Vec::new());
        }
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
