//! Who runs the next step: asks the scheduler for a place, and waits until there is one.

use crosskit_api::pb::op::Op;
use crosskit_llb::names::CUSTOM_NAME;
use crosskit_llb::{DigestMap, Vertex};
use crosskit_platforms::Platform;
use crosskit_scheduler::{
    Ask, Assignment, BuildId, Entitlements, Farm, Health, Kind, Outcome, PlacementKey, Policy, Record,
    SchedulerError, Split, TicketId, Turn, WorkerState, WorkerView,
};
use crosskit_solver::{ErrorKind, OpError};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// Builds whose names are remembered after they have ended.
const ENDED: usize = 1024;

/// Gives places at workers to steps. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    began: Instant,
    /// Told when the next alarm may have changed.
    alarm: Notify,
}

struct State {
    farm: Farm,
    waiting: HashMap<TicketId, oneshot::Sender<Result<Assignment, SchedulerError>>>,
    /// Names of builds by their number, the last ones.
    names: VecDeque<(BuildId, String)>,
    /// Names of steps, the last ones.
    steps: VecDeque<(TicketId, String)>,
    last_build: u64,
}

/// What one build has told the scheduler: which of its steps belong together.
pub struct BuildGroups {
    id: BuildId,
    dispatcher: Dispatcher,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    steps: DigestMap<Step>,
    groups: usize,
}

#[derive(Clone, Copy)]
struct Step {
    group: usize,
    placement: PlacementKey,
    entitlements: Entitlements,
}

impl Dispatcher {
    /// Without workers; they come by [`Dispatcher::upsert`].
    pub fn new(policy: Policy) -> Self {
        let state = State {
            farm: Farm::new(policy),
            waiting: HashMap::new(),
            names: VecDeque::new(),
            steps: VecDeque::new(),
            last_build: 0,
        };
        Dispatcher(Arc::new(Shared { state: Mutex::new(state), began: Instant::now(), alarm: Notify::new() }))
    }

    /// Begins to call the scheduler when it wants to be called, until the last dispatcher is gone.
    pub fn keep_time(&self) {
        tokio::spawn(keep_time(Arc::downgrade(&self.0)));
    }

    /// The policy.
    pub fn policy(&self) -> Policy {
        self.lock().farm.policy().clone()
    }

    /// A worker has come, or is not what it was.
    pub fn upsert(&self, worker: WorkerState) {
        self.0.change(|state, now| state.farm.upsert(worker, now));
    }

    /// A worker answers, does not, or takes nothing new. False if there is none of that name.
    pub fn set_health(&self, name: &str, health: Health) -> bool {
        self.0.change(|state, now| {
            let known = state.farm.workers().iter().any(|worker| worker.state.name == name);
            state.farm.set_health(name, health, now);
            known
        })
    }

    /// Takes a worker out that runs nothing. False, and it stays, if it runs something.
    pub fn remove_idle(&self, name: &str) -> bool {
        self.0.change(|state, now| {
            let busy = |worker: &WorkerView| worker.state.name == name && worker.running > 0;
            let idle = !state.farm.workers().iter().any(busy);
            if idle {
                state.farm.remove(name, now);
            }
            idle
        })
    }

    /// All workers.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.lock().farm.workers()
    }

    /// A new build, named as its client names it.
    pub fn begin(&self, name: &str) -> BuildGroups {
        let mut state = self.lock();
        state.last_build += 1;
        let id = BuildId(state.last_build);
        state.names.push_back((id, name.to_string()));
        if state.names.len() > ENDED {
            state.names.pop_front();
        }
        BuildGroups { id, dispatcher: self.clone(), known: Mutex::default() }
    }

    /// What was decided for a build and the names of the steps, the first of it first. None for a
    /// build that nobody remembers.
    pub fn history(&self, build: &str) -> Option<Vec<(Record, String)>> {
        let state = self.lock();
        let (id, _) = state.names.iter().rev().find(|(_, name)| name == build)?;
        let named = |record: &Record| {
            let found = state.steps.iter().rev().find(|(ticket, _)| *ticket == record.ticket);
            (record.clone(), found.map(|(_, name)| name.clone()).unwrap_or_default())
        };
        Some(state.farm.history().filter(|record| record.build == *id).map(named).collect())
    }

    /// Waits for a place. Dropping the future gives up waiting.
    ///
    /// # Errors
    /// Nobody can run it, or nobody who can answers.
    async fn place(&self, ask: Ask, name: String) -> Result<Place, OpError> {
        let (tell, told) = oneshot::channel();
        let ticket = self.0.change(|state, now| {
            let ticket = state.farm.ask(ask, now);
            state.waiting.insert(ticket, tell);
            state.steps.push_back((ticket, name));
            if state.steps.len() > state.farm.policy().history {
                state.steps.pop_front();
            }
            ticket
        });
        let mut place =
            Place { dispatcher: self.clone(), ticket, assignment: None, outcome: Outcome::Canceled };
        match told.await {
            Ok(Ok(assignment)) => {
                place.assignment = Some(assignment);
                Ok(place)
            }
            Ok(Err(refused)) => {
                let kind = match refused.kind() {
                    crosskit_scheduler::ErrorKind::Unavailable => ErrorKind::Unavailable,
                    _ => ErrorKind::Environment,
                };
                Err(OpError::new(kind, refused.to_string()))
            }
            Err(_) => Err(OpError::new(ErrorKind::Internal, "the scheduler has forgotten a step")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something happen, and tells those who have a place now.
    fn change<T>(&self, happen: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.began.elapsed();
        let mut state = self.lock();
        let before = state.farm.wake();
        let result = happen(&mut state, now);
        loop {
            let Turn { assigned, refused } = state.farm.assign(now);
            let mut lost = Vec::new();
            for assignment in assigned {
                let ticket = assignment.ticket;
                let told = state.waiting.remove(&ticket).map(|waiting| waiting.send(Ok(assignment)));
                // Whoever wanted it left at this very moment.
                if !matches!(told, Some(Ok(()))) {
                    lost.push(ticket);
                }
            }
            for refusal in refused {
                if let Some(waiting) = state.waiting.remove(&refusal.ticket) {
                    let _ = waiting.send(Err(refusal.error));
                }
            }
            if lost.is_empty() {
                break;
            }
            for ticket in lost {
                state.farm.cancel(ticket, now);
            }
        }
        if state.farm.wake() != before {
            self.alarm.notify_one();
        }
        result
    }
}

async fn keep_time(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let wake = strong.lock().farm.wake();
        let at = wake.map(|wake| tokio::time::Instant::from_std(strong.began + wake));
        // The alarm lives as long as the dispatcher, which must be able to end meanwhile.
        let far = tokio::time::Instant::now() + Duration::from_secs(60);
        tokio::select! {
            () = strong.alarm.notified() => continue,
            () = tokio::time::sleep_until(at.unwrap_or(far).min(far)) => {}
        }
        if at.is_some_and(|at| at <= tokio::time::Instant::now()) {
            strong.change(|_, _| ());
        }
    }
}

impl BuildGroups {
    /// Remembers which steps of a graph belong together.
    pub fn learn(&self, split: &Split) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for group in &split.groups {
            let number = known.groups;
            known.groups += 1;
            for step in &group.steps {
                known.steps.entry(*step).or_insert(Step {
                    group: number,
                    placement: group.placement,
                    entitlements: group.entitlements,
                });
            }
        }
    }

    /// Waits for a place for one of the steps, not at those that have failed at it.
    ///
    /// # Errors
    /// Nobody can run it, or nobody who can answers.
    pub async fn place(
        &self,
        vertex: &Vertex,
        platform: &Platform,
        excluded: Vec<String>,
    ) -> Result<Place, OpError> {
        let step = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let found = known.steps.get(&vertex.digest).copied();
            // A step of a graph that was never looked at as a whole stands alone.
            found.unwrap_or_else(|| {
                known.groups += 1;
                Step {
                    group: known.groups - 1,
                    placement: PlacementKey::default(),
                    entitlements: Entitlements::NONE,
                }
            })
        };
        let ask = Ask {
            build: self.id,
            group: step.group,
            platform: platform.clone(),
            placement: step.placement,
            entitlements: step.entitlements,
            excluded,
        };
        self.dispatcher.place(ask, name_of(vertex)).await
    }
}

/// What a step is called, for people.
fn name_of(vertex: &Vertex) -> String {
    match (vertex.metadata.description.get(CUSTOM_NAME), &vertex.op.op) {
        (Some(name), _) => name.clone(),
        (None, Some(Op::Exec(exec))) => {
            exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default()
        }
        (None, _) => vertex.digest.to_string(),
    }
}

impl Drop for BuildGroups {
    fn drop(&mut self) {
        self.dispatcher.lock().farm.end(self.id);
    }
}

/// A place at a worker, given back when dropped.
pub struct Place {
    dispatcher: Dispatcher,
    ticket: TicketId,
    assignment: Option<Assignment>,
    outcome: Outcome,
}

impl Place {
    /// The name of the worker.
    pub fn worker(&self) -> &str {
        self.assignment.as_ref().map_or("", |assignment| &assignment.decision.worker)
    }

    /// How the worker runs programs.
    pub fn kind(&self) -> Kind {
        self.assignment.as_ref().map_or(Kind::Native, |assignment| assignment.decision.kind)
    }

    /// Gives it back and says how it was used.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.dispatcher.0.change(|state, now| {
            state.waiting.remove(&self.ticket);
            state.farm.done(self.ticket, self.outcome, now);
        });
    }
}
