//! Work shared out among threads, its results in the order in which it was given out.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use super::chunks::give;

/// A piece of work, and where its result is waited for.
type Job<J, D> = (J, SyncSender<io::Result<D>>);

/// Where work is given out. The threads end when it is dropped.
pub(super) struct Workers<J, D> {
    jobs: SyncSender<Job<J, D>>,
    order: SyncSender<Receiver<io::Result<D>>>,
}

impl<J: Send, D: Send> Workers<J, D> {
    /// Starts `threads` threads of a scope that `work`; the results come out of the second part.
    pub(super) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        threads: usize,
        work: impl Fn(J) -> io::Result<D> + Clone + Send + 'scope,
    ) -> (Self, Results<D>)
    where
        J: 'scope,
        D: 'scope,
    {
        let (jobs, next) = sync_channel::<Job<J, D>>(threads);
        let (order, in_order) = sync_channel(2 * threads);
        let next = Arc::new(Mutex::new(next));
        for _ in 0..threads {
            let (next, work) = (next.clone(), work.clone());
            scope.spawn(move || {
                loop {
                    let job = next.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((job, done)) = job else { return };
                    // Nobody waits any more where whoever takes the results has failed.
                    drop(done.send(work(job)));
                }
            });
        }
        (Self { jobs, order }, Results(in_order))
    }

    /// Gives work out. It waits while twice as many results as there are threads have not been taken.
    pub(super) fn give(&self, job: J) -> io::Result<()> {
        let (done, result) = sync_channel(1);
        give(&self.order, result)?;
        give(&self.jobs, (job, done))
    }
}

/// What came of the work, in the order in which it was given out.
pub(super) struct Results<D>(Receiver<Receiver<io::Result<D>>>);

impl<D> Iterator for Results<D> {
    type Item = io::Result<D>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.0.recv().ok()?;
        Some(result.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())))
    }
}
