use std::collections::{HashMap, VecDeque};

use crate::PlacementKey;

/// Where groups of some key have run last: the worker, and which of its lives that was. What the
/// hash says is where they go first; where they went instead, when that was full, they are warm.
pub(super) struct Homes {
    known: HashMap<PlacementKey, (u32, u64)>,
    /// The keys, the one that came first first.
    order: VecDeque<PlacementKey>,
    most: usize,
}

impl Homes {
    pub(super) fn new(most: usize) -> Self {
        Homes { known: HashMap::new(), order: VecDeque::new(), most }
    }

    pub(super) fn get(&self, key: PlacementKey) -> Option<(u32, u64)> {
        self.known.get(&key).copied()
    }

    pub(super) fn set(&mut self, key: PlacementKey, home: (u32, u64)) {
        if self.most > 0 && self.known.insert(key, home).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.most
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}
