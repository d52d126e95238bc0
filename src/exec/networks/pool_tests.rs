use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::pool::{GRACE, Pool, Source};
use crate::{Error, Result};

/// Makes numbers, and remembers which were undone.
#[derive(Clone, Debug, Default)]
struct Numbers {
    next: Arc<AtomicUsize>,
    undone: Arc<Mutex<Vec<usize>>>,
}

impl Source for Numbers {
    type Item = usize;

    async fn make(&self) -> Result<usize> {
        Ok(self.next.fetch_add(1, Ordering::SeqCst))
    }

    async fn release(&self, item: usize) {
        self.undone.lock().unwrap().push(item);
    }
}

struct Lab {
    numbers: Numbers,
    tasks: TaskTracker,
    closing: CancellationToken,
    pool: Pool<Numbers>,
}

impl Lab {
    fn new(wanted: usize) -> Self {
        let (numbers, tasks, closing) = (Numbers::default(), TaskTracker::new(), CancellationToken::new());
        let pool = Pool::new(numbers.clone(), wanted, tasks.clone(), closing.clone());
        Self { numbers, tasks, closing, pool }
    }

    async fn take(&self) -> super::pool::Lease<Numbers> {
        self.pool.get().await.expect("the pool is open")
    }

    /// Those that were undone, once nothing is under way any more.
    async fn undone(&self) -> Vec<usize> {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.numbers.undone.lock().unwrap().clone()
    }

    /// Lets this much time pass, and what waits for it happen.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_one_used_last_is_lent_first() {
    let lab = Lab::new(0);
    let (first, second) = (lab.take().await, lab.take().await);
    assert_eq!((*first.item(), *second.item()), (0, 1));
    drop(first);
    drop(second);
    assert_eq!(*lab.take().await.item(), 1);
    assert!(lab.undone().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_is_filled_up_to_what_is_wanted() {
    let lab = Lab::new(3);
    drop(lab.take().await);
    lab.pool.fill();
    lab.pass(Duration::from_secs(1)).await;
    assert_eq!(lab.numbers.next.load(Ordering::SeqCst), 3);
    // All of them are wanted, however long nobody uses them.
    lab.pass(GRACE * 3).await;
    assert!(lab.undone().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_wanted_goes_after_its_time() {
    let lab = Lab::new(1);
    let leases = [lab.take().await, lab.take().await, lab.take().await];
    drop(leases);
    lab.pass(GRACE - Duration::from_secs(1)).await;
    assert!(lab.numbers.undone.lock().unwrap().is_empty());
    // Used again: its time begins anew.
    drop(lab.take().await);
    lab.pass(Duration::from_secs(2)).await;
    assert_eq!(*lab.numbers.undone.lock().unwrap(), [0, 1]);
    lab.pass(GRACE * 2).await;
    assert_eq!(lab.undone().await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_spent_or_adopted_is_never_lent_again() {
    let lab = Lab::new(5);
    let mut spent = lab.take().await;
    spent.spend();
    drop(spent);
    drop(lab.pool.adopt(77));
    assert_eq!(*lab.take().await.item(), 1);
    let mut undone = lab.undone().await;
    undone.sort();
    assert_eq!(undone, [0, 77]);
}

#[tokio::test(start_paused = true)]
async fn closing_undoes_what_is_ready_and_later_what_comes_back() {
    let lab = Lab::new(20);
    let lent = lab.take().await;
    let others: Vec<_> = [lab.take().await, lab.take().await].into();
    drop(others);
    lab.pool.close().await;
    let mut undone = lab.numbers.undone.lock().unwrap().clone();
    undone.sort();
    assert_eq!(undone, [1, 2]);
    assert!(matches!(lab.pool.get().await, Err(Error::Canceled)));
    drop(lent);
    assert_eq!(lab.undone().await.last(), Some(&0));
}
