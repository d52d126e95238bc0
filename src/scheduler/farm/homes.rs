use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::PlacementKey;

/// How many workers are remembered for one key. Work that comes more often than one worker can
/// run it is at several at a time.
const MOST_EACH: usize = 32;

/// Where groups of some key have run: the workers, and which of their lives that was. What the
/// hash says is where they go first; wherever they went instead, when that was full, they are
/// warm as well.
pub(super) struct Homes {
    known: HashMap<PlacementKey, Home>,
    /// The keys, the one that is looked at first when one has to go first.
    order: VecDeque<PlacementKey>,
    /// How many workers there are in all of them.
    count: usize,
    most: usize,
}

struct Home {
    /// The one that was used last last.
    workers: Vec<(u32, u64)>,
    /// Whether it was used since it was last looked at.
    used: bool,
    /// How long a step takes, of late.
    takes: Option<Duration>,
}

impl Homes {
    pub(super) fn new(most: usize) -> Self {
        Homes { known: HashMap::new(), order: VecDeque::new(), count: 0, most }
    }

    pub(super) fn get(&self, key: PlacementKey) -> &[(u32, u64)] {
        self.known.get(&key).map_or(&[], |home| &home.workers)
    }

    /// How long a step of such a group takes; none if none has ended yet.
    pub(super) fn takes(&self, key: PlacementKey) -> Option<Duration> {
        self.known.get(&key)?.takes
    }

    /// A step of such a group took so long.
    pub(super) fn took(&mut self, key: PlacementKey, took: Duration) {
        if let Some(home) = self.known.get_mut(&key) {
            home.takes = Some(home.takes.map_or(took, |before| (before * 3 + took) / 4));
        }
    }

    pub(super) fn add(&mut self, key: PlacementKey, worker: (u32, u64)) {
        if self.most == 0 {
            return;
        }
        let order = &mut self.order;
        let home = self.known.entry(key).or_insert_with(|| {
            order.push_back(key);
            Home { workers: Vec::with_capacity(1), used: false, takes: None }
        });
        home.used = true;
        // Of one worker only the latest life counts.
        let before = home.workers.len();
        home.workers.retain(|known| known.0 != worker.0);
        if home.workers.len() == MOST_EACH {
            home.workers.remove(0);
        }
        home.workers.push(worker);
        self.count = self.count + home.workers.len() - before;
        while self.count > self.most {
            self.forget();
        }
    }

    /// Forgets the first key that was not used since it was looked at.
    fn forget(&mut self) {
        while let Some(key) = self.order.pop_front() {
            let Some(home) = self.known.get_mut(&key) else { continue };
            if std::mem::take(&mut home.used) {
                self.order.push_back(key);
                continue;
            }
            self.count -= home.workers.len();
            self.known.remove(&key);
            return;
        }
    }
}
