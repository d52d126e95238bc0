//! Workers that searches find: they become members, and leave when they are not found again.

use super::{Member, Shared};
use crate::discover::{Found, News};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How often it is looked whether a worker that is to leave has finished what it had.
const LEAVING: Duration = Duration::from_millis(250);

impl Shared {
    /// A search has something to tell.
    pub(super) fn hear(self: &Arc<Self>, number: usize, news: News) {
        let search = &self.searches[number];
        let (found, problem) = match news {
            News::Found(found, remark) => (Some(found), remark),
            News::Failed(why) => (None, Some(why)),
        };
        let mut problem = problem;
        if let Some(found) = &found {
            problem = self.meet(number, found).or(problem);
        }
        {
            let mut state = search.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = &found {
                state.workers = found.len();
            }
            // Said once, not each time that it is so again.
            if state.problem != problem {
                match &problem {
                    Some(why) => tracing::warn!(
                        search = state.place,
                        workers = state.workers,
                        why,
                        "search for workers"
                    ),
                    None => tracing::info!(
                        search = state.place,
                        workers = state.workers,
                        "search for workers works"
                    ),
                }
                state.problem = problem;
            }
        }
        search.answered.send_replace(true);
    }

    /// Makes members of those that were found, and lets go of those that were not found again.
    /// Gives what is wrong with one of them.
    fn meet(self: &Arc<Self>, number: usize, found: &[Found]) -> Option<String> {
        let mut wrong = None;
        let mut members = self.members();
        for found in found {
            let options = found.options(&self.searches[number].options.like);
            if members
                .values()
                .any(|other| other.search != Some(number) && other.worker.options().addr == options.addr)
            {
                // Named in the config, or found by another search.
                continue;
            }
            match members.get_mut(&found.name) {
                Some(known) if known.search != Some(number) => continue,
                Some(known) if known.worker.options().addr == options.addr => {
                    if known.leaving.take().is_some() {
                        tracing::info!(worker = found.name, "worker is found again");
                        known.about.leaving.store(false, Ordering::Relaxed);
                        self.tell_health(known);
                    }
                    continue;
                }
                // What runs at the old address holds what it needs.
                Some(moved) => moved.about.with(|last| last.gone = true),
                None => {}
            }
            let draining =
                members.get(&found.name).is_some_and(|old| old.about.draining.load(Ordering::Relaxed));
            match self.member(options, Some(number)) {
                Ok(member) => {
                    tracing::info!(
                        worker = found.name,
                        address = member.worker.options().addr,
                        "worker is found"
                    );
                    member.about.draining.store(draining, Ordering::Relaxed);
                    members.insert(found.name.clone(), member);
                }
                Err(e) => {
                    wrong.get_or_insert_with(|| e.to_string());
                }
            }
        }
        let lost = |member: &&mut Member| {
            let name = member.worker.name();
            member.search == Some(number)
                && member.leaving.is_none()
                && found.iter().all(|found| found.name != name)
        };
        for member in members.values_mut().filter(lost) {
            tracing::info!(
                worker = member.worker.name(),
                "worker is not found any more; it finishes what it has"
            );
            member.about.leaving.store(true, Ordering::Relaxed);
            self.tell_health(member);
            let leave = leave(Arc::downgrade(self), member.worker.name().to_string());
            member.leaving = Some(AbortOnDropHandle::new(tokio::spawn(leave)));
        }
        wrong
    }

    /// Takes a worker that is to leave out, if nothing runs there any more. False if something does.
    fn let_go(&self, name: &str) -> bool {
        let mut members = self.members();
        let Some(member) = members.get(name).filter(|member| member.about.leaving.load(Ordering::Relaxed))
        else {
            return true;
        };
        let gone = member.about.with(|last| {
            last.gone = self.dispatcher.remove_idle(name);
            last.gone
        });
        if gone {
            members.remove(name);
        }
        gone
    }
}

/// Waits until a worker has finished what it had.
async fn leave(farm: Weak<Shared>, name: String) {
    loop {
        tokio::time::sleep(LEAVING).await;
        let Some(farm) = farm.upgrade() else { return };
        if farm.let_go(&name) {
            return;
        }
    }
}
