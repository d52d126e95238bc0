//! The workers on other machines: watched, told of to the scheduler, and listed for people.

mod following;
mod found;

use crate::discover::DiscoverOptions;
use crate::dispatch::Dispatcher;
use crate::remote::{Facts, RemoteError, RemoteOptions, RemoteWorker};
use crosskit_platforms::Platform;
use crosskit_scheduler::{Health, Kind, WorkerState, WorkerView};
use following::{About, follow};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How long a build waits for the first answers of workers, when the endpoint has just started.
const FIRST_ANSWERS: Duration = Duration::from_millis(1500);

/// All workers on other machines.
pub(crate) struct Farm {
    shared: Arc<Shared>,
    _searching: Vec<AbortOnDropHandle<()>>,
}

struct Shared {
    dispatcher: Dispatcher,
    /// The id of the daemon itself, which cannot be a worker of its own.
    own: String,
    members: Mutex<BTreeMap<String, Member>>,
    searches: Vec<Search>,
}

struct Member {
    worker: RemoteWorker,
    about: Arc<About>,
    /// Whether it has been asked and has answered, or not answered.
    asked: watch::Receiver<bool>,
    /// By which search it was found; None if it is named in the config.
    search: Option<usize>,
    _following: AbortOnDropHandle<()>,
    /// Waits until it has finished what it had.
    leaving: Option<AbortOnDropHandle<()>>,
}

struct Search {
    options: DiscoverOptions,
    state: Mutex<Searched>,
    /// Whether there was an answer, or none.
    answered: watch::Sender<bool>,
}

/// A search for workers as people see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Searched {
    /// Where it looks.
    pub place: String,
    /// How many workers it has found.
    pub workers: usize,
    /// Why that is not all there is, if it is not.
    pub problem: Option<String>,
}

/// A worker as people see it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What the scheduler knows.
    pub view: WorkerView,
    /// `up`, `down`, `draining` or `resting`.
    pub state: &'static str,
    /// Why it is down.
    pub why: Option<String>,
    /// Where it is; None on this machine.
    pub address: Option<String>,
    /// What the daemon there said; None on this machine, and as long as it has said nothing.
    pub facts: Option<Facts>,
    /// Bytes of blobs that went there.
    pub sent: u64,
    /// Bytes of blobs that came from there.
    pub received: u64,
}

impl Farm {
    /// Begins to follow workers, and to search for more. Has to be called within a runtime.
    ///
    /// # Errors
    /// An address or certificate that makes no sense.
    pub(crate) fn follow(
        named: Vec<RemoteOptions>,
        searches: Vec<DiscoverOptions>,
        nameservers: &[IpAddr],
        own: &str,
        dispatcher: &Dispatcher,
    ) -> Result<Self, RemoteError> {
        let search = |options: DiscoverOptions| {
            let place = options.place.to_string();
            let state = Mutex::new(Searched { place, ..Searched::default() });
            Search { options, state, answered: watch::Sender::new(false) }
        };
        let shared = Arc::new(Shared {
            dispatcher: dispatcher.clone(),
            own: own.to_string(),
            members: Mutex::default(),
            searches: searches.into_iter().map(search).collect(),
        });
        for options in named {
            let member = shared.member(options, None)?;
            shared.members().insert(member.worker.name().to_string(), member);
        }
        let begin = |number| {
            let (shared, nameservers) = (Arc::clone(&shared), nameservers.to_vec());
            AbortOnDropHandle::new(tokio::spawn(async move {
                let tell = |news| shared.hear(number, news);
                shared.searches[number].options.place.search(&nameservers, &tell).await;
            }))
        };
        let _searching = (0..shared.searches.len()).map(begin).collect();
        Ok(Farm { shared, _searching })
    }

    /// The worker of that name.
    pub(crate) fn get(&self, name: &str) -> Option<RemoteWorker> {
        self.shared.members().get(name).map(|member| member.worker.clone())
    }

    /// What the worker of that name has said of itself.
    pub(crate) fn facts(&self, name: &str) -> Option<Facts> {
        self.shared.members().get(name).and_then(|member| member.about.last().facts)
    }

    /// Whether one of them runs a platform, as far as is known.
    pub(crate) fn may_run(&self, platform: &Platform) -> bool {
        let runs = |member: &Member| {
            member.about.with(|last| {
                let said =
                    last.facts.as_ref().map(|facts| member.worker.platforms(facts)).unwrap_or_default();
                said.iter().any(|p| crosskit_platforms::Matcher::only(p).matches(platform))
            })
        };
        self.shared.members().values().any(runs)
    }

    /// Waits until every search and every worker has been asked once, though not for long.
    pub(crate) async fn asked(&self) {
        let all = async {
            for search in &self.shared.searches {
                let _ = search.answered.subscribe().wait_for(|answered| *answered).await;
            }
            let members: Vec<_> = self.shared.members().values().map(|member| member.asked.clone()).collect();
            for mut asked in members {
                let _ = asked.wait_for(|asked| *asked).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_ANSWERS, all).await;
    }

    /// Lets a worker take nothing new, or take work again. False if there is none of that name.
    pub(crate) fn drain(&self, name: &str, draining: bool) -> bool {
        let members = self.shared.members();
        let Some(member) = members.get(name) else { return false };
        member.about.draining.store(draining, Ordering::Relaxed);
        self.shared.tell_health(member);
        true
    }

    /// The searches as people see them.
    pub(crate) fn searched(&self) -> Vec<Searched> {
        let state = |search: &Search| search.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shared.searches.iter().map(state).collect()
    }

    /// The workers as people see them, with what the scheduler knows of them.
    pub(crate) fn listed(&self, views: Vec<WorkerView>) -> Vec<Listed> {
        let members = self.shared.members();
        let listed = |view: WorkerView| {
            let member = members.get(&view.state.name);
            let last = member.map(|member| member.about.last()).unwrap_or_default();
            let traffic = member.map(|member| member.worker.traffic()).unwrap_or_default();
            let state = match view.state.health {
                Health::Down => "down",
                Health::Draining => "draining",
                Health::Up if view.resting => "resting",
                Health::Up => "up",
            };
            let left = member.filter(|member| member.about.leaving.load(Ordering::Relaxed));
            let left = left.and_then(|member| self.shared.searches.get(member.search?));
            let left = left.map(|search| format!("{} does not name it any more", search.options.place));
            let why = last.why.filter(|_| state == "down").or(left);
            let address = member.map(|member| member.worker.options().addr.clone());
            let (sent, received) = (traffic.sent, traffic.received);
            Listed { view, state, why, address, facts: last.facts, sent, received }
        };
        views.into_iter().map(listed).collect()
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to follow a worker.
    fn member(&self, options: RemoteOptions, search: Option<usize>) -> Result<Member, RemoteError> {
        let worker = RemoteWorker::new(options)?;
        // Known from the start, so that an error names it.
        let state = WorkerState::idle(worker.name(), Kind::Remote, worker.options().platforms.clone());
        self.dispatcher.upsert(WorkerState { health: Health::Down, ..state });
        let about = Arc::new(About::default());
        let (tell, asked) = watch::channel(false);
        let task = follow(worker.clone(), self.own.clone(), self.dispatcher.clone(), about.clone(), tell);
        let _following = AbortOnDropHandle::new(tokio::spawn(task));
        Ok(Member { worker, about, asked, search, _following, leaving: None })
    }

    /// Tells the scheduler whether a worker that answers may be given work.
    fn tell_health(&self, member: &Member) {
        if member.about.last().why.is_none() && *member.asked.borrow() {
            self.dispatcher.set_health(member.worker.name(), member.about.health());
        }
    }
}
