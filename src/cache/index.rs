use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use crate::store::RowChange;
use crate::{KeyDigest, Link, Record, row};

/// How many keys that can never be met again are remembered. A build has a few of them, one for
/// each context that a client sends.
const RANDOM_ROOTS: usize = 2_000;

/// One key: an output of an operation on inputs that are known by other keys, or of one without
/// inputs.
#[derive(Debug)]
pub(crate) struct Key {
    pub name: KeyDigest,
    pub root: bool,
    pub parents: Vec<Parent>,
    pub records: Vec<Record>,
    /// How many links lead on from here.
    children: usize,
    /// Can be met again after a restart.
    lasting: bool,
    stored: bool,
}

/// Where a key is linked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub key: u64,
    pub input: u32,
    pub selector: Option<KeyDigest>,
}

impl Key {
    pub fn new(name: KeyDigest, root: bool) -> Self {
        let (parents, records) = Default::default();
        let lasting = root && !name.is_random();
        Key { name, root, parents, records, children: 0, lasting, stored: false }
    }
}

/// A link as it is looked up.
#[derive(PartialEq, Eq, Clone, Copy)]
struct LinkKey {
    parent: u64,
    input: u32,
    name: KeyDigest,
    selector: Option<KeyDigest>,
}

impl Hash for LinkKey {
    // Digests are uniformly distributed: one word of each tells them apart well enough.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let word = |digest: &KeyDigest| {
            let mut word = [0; 8];
            word.copy_from_slice(&digest.as_bytes()[..8]);
            u64::from_le_bytes(word)
        };
        state.write_u64(self.parent);
        state.write_u64(word(&self.name) ^ self.selector.as_ref().map_or(0, word));
        state.write_u32(self.input);
    }
}

/// Hashes the numbers that keys are counted by, which nobody outside chooses.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: the golden ratio's bits spread neighbours over the whole range.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// Where a link leads; nearly always to one key.
enum Targets {
    One(u64),
    More(Vec<u64>),
}

impl Targets {
    fn as_slice(&self) -> &[u64] {
        match self {
            Targets::One(target) => std::slice::from_ref(target),
            Targets::More(targets) => targets,
        }
    }
}

/// All keys, in memory.
#[derive(Default)]
pub(crate) struct Index {
    keys: HashMap<u64, Key, BuildHasherDefault<NumberHasher>>,
    roots: HashMap<KeyDigest, u64>,
    links: HashMap<LinkKey, Targets>,
    by_record: HashMap<Arc<str>, Vec<u64>>,
    random_roots: VecDeque<u64>,
    next: u64,
    /// Keys whose rows have to be written again.
    dirty: HashSet<u64>,
}

impl Index {
    pub fn get(&self, id: u64) -> Option<&Key> {
        self.keys.get(&id)
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn root(&self, name: KeyDigest) -> Option<u64> {
        self.roots.get(&name).copied()
    }

    pub fn ensure_root(&mut self, name: KeyDigest) -> u64 {
        if let Some(id) = self.root(name) {
            return id;
        }
        let id = self.insert(Key::new(name, true));
        self.roots.insert(name, id);
        if name.is_random() {
            self.random_roots.push_back(id);
            if self.random_roots.len() > RANDOM_ROOTS {
                let oldest = self.random_roots.drain(..RANDOM_ROOTS / 2).collect();
                self.remove(oldest);
            }
        }
        id
    }

    fn insert(&mut self, key: Key) -> u64 {
        let id = self.next;
        self.next += 1;
        self.keys.insert(id, key);
        id
    }

    pub fn children(&self, parent: u64, link: &Link) -> &[u64] {
        let Link { input, name, selector } = *link;
        let link = LinkKey { parent, input, name, selector };
        self.links.get(&link).map_or(&[], Targets::as_slice)
    }

    /// The keys that every input leads to.
    pub fn common(&self, inputs: &[Vec<(u64, Option<KeyDigest>)>], name: KeyDigest) -> Vec<u64> {
        let mut common: Vec<u64> = Vec::new();
        for (input, alternatives) in inputs.iter().enumerate() {
            let mut found: Vec<u64> = Vec::new();
            for &(parent, selector) in alternatives {
                let link = Link { input: input as u32, name, selector };
                found.extend_from_slice(self.children(parent, &link));
            }
            if input == 0 {
                found.sort_unstable();
                found.dedup();
                common = found;
            } else {
                common.retain(|id| found.contains(id));
            }
            if common.is_empty() {
                break;
            }
        }
        common
    }

    /// The key that all these inputs lead to, made where there is none, with links from each
    /// alternative.
    pub fn ensure(&mut self, inputs: &[Vec<(u64, Option<KeyDigest>)>], name: KeyDigest) -> u64 {
        let id = match self.common(inputs, name).first() {
            Some(id) => *id,
            None => self.insert(Key::new(name, false)),
        };
        let mut changed = false;
        for (input, alternatives) in inputs.iter().enumerate() {
            for &(parent, selector) in alternatives {
                // Other links are not stored.
                let lasting = self.keys.get(&parent).is_some_and(|key| key.lasting);
                changed |= self.link(parent, input as u32, selector, id) && lasting;
            }
        }
        if changed {
            self.refresh(id, inputs.len());
        }
        id
    }

    /// Adds a link to `child`; false when it was there or the parent is gone.
    fn link(&mut self, parent: u64, input: u32, selector: Option<KeyDigest>, child: u64) -> bool {
        let Some(key) = self.keys.get(&child) else { return false };
        let link = LinkKey { parent, input, name: key.name, selector };
        if parent == child || !self.keys.contains_key(&parent) {
            return false;
        }
        match self.links.entry(link) {
            Entry::Vacant(vacant) => {
                vacant.insert(Targets::One(child));
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Targets::One(only) if *only == child => return false,
                Targets::One(only) => {
                    let targets = Targets::More(vec![*only, child]);
                    occupied.insert(targets);
                }
                Targets::More(targets) if targets.contains(&child) => return false,
                Targets::More(targets) => targets.push(child),
            },
        }
        if let Some(key) = self.keys.get_mut(&parent) {
            key.children += 1;
        }
        if let Some(key) = self.keys.get_mut(&child) {
            key.parents.push(Parent { key: parent, input, selector });
        }
        true
    }

    /// Works out again whether a key can be met after a restart: when each input can.
    fn refresh(&mut self, id: u64, inputs: usize) {
        let Some(key) = self.keys.get(&id) else { return };
        let mut lasting = vec![false; inputs];
        for parent in &key.parents {
            if self.keys.get(&parent.key).is_some_and(|key| key.lasting)
                && let Some(input) = lasting.get_mut(parent.input as usize)
            {
                *input = true;
            }
        }
        let lasting = lasting.into_iter().all(|input| input);
        if let Some(key) = self.keys.get_mut(&id) {
            key.lasting |= lasting;
            if key.stored || !key.records.is_empty() {
                self.mark(id);
            }
        }
    }

    /// Has the row of a key written, and those of the keys it is linked from.
    fn mark(&mut self, id: u64) {
        let mut look_at = vec![id];
        while let Some(id) = look_at.pop() {
            let Some(key) = self.keys.get_mut(&id) else { continue };
            if !key.lasting || !self.dirty.insert(id) {
                continue;
            }
            key.stored = true;
            let parents: Vec<u64> = key.parents.iter().map(|parent| parent.key).collect();
            let fresh = |id: &u64| self.keys.get(id).is_some_and(|key| !key.stored);
            look_at.extend(parents.into_iter().filter(fresh));
        }
    }

    pub fn add_record(&mut self, id: u64, record: Record) {
        let Some(key) = self.keys.get_mut(&id) else { return };
        key.records.retain(|known| known.id != record.id);
        let keys = self.by_record.entry(record.id.clone()).or_default();
        if !keys.contains(&id) {
            keys.push(id);
        }
        key.records.push(record);
        self.mark(id);
    }

    pub fn keys_of(&self, record: &str) -> &[u64] {
        self.by_record.get(record).map_or(&[], Vec::as_slice)
    }

    /// Forgets a result, and the keys that lead nowhere without it.
    pub fn release(&mut self, record: &str) {
        for id in self.by_record.remove(record).unwrap_or_default() {
            if let Some(key) = self.keys.get_mut(&id) {
                key.records.retain(|known| &*known.id != record);
                if key.stored {
                    self.dirty.insert(id);
                }
            }
            self.remove_if_dead(id);
        }
    }

    /// Removes a key that leads nowhere, and then those that led only to it.
    pub fn remove_if_dead(&mut self, id: u64) {
        let mut look_at = vec![id];
        while let Some(id) = look_at.pop() {
            let dead = self.keys.get(&id).is_some_and(|key| key.records.is_empty() && key.children == 0);
            if dead {
                look_at.extend(self.take_out(id));
            }
        }
    }

    /// Removes keys, what only they led to, and what led only to them. Looks at every key once.
    fn remove(&mut self, ids: Vec<u64>) {
        if ids.is_empty() {
            return;
        }
        let mut children: HashMap<u64, Vec<u64>> = HashMap::new();
        for (id, key) in &self.keys {
            for parent in &key.parents {
                children.entry(parent.key).or_default().push(*id);
            }
        }
        let mut look_at = ids;
        let mut led_here = Vec::new();
        while let Some(id) = look_at.pop() {
            let children = children.remove(&id).unwrap_or_default();
            self.cut(id, &children);
            led_here.extend(self.take_out(id));
            let cut_off =
                |child: &u64| self.keys.get(child).is_some_and(|key| !key.root && key.parents.is_empty());
            look_at.extend(children.into_iter().filter(cut_off));
        }
        led_here.into_iter().for_each(|id| self.remove_if_dead(id));
    }

    /// Takes the links from a key to its children away.
    fn cut(&mut self, id: u64, children: &[u64]) {
        for child in children {
            let Some(key) = self.keys.get_mut(child) else { continue };
            let name = key.name;
            let (gone, left) = key.parents.iter().partition::<Vec<_>, _>(|link| link.key == id);
            key.parents = left;
            for Parent { input, selector, .. } in gone {
                self.links.remove(&LinkKey { parent: id, input, name, selector });
            }
        }
        if let Some(key) = self.keys.get_mut(&id) {
            key.children = 0;
        }
    }

    /// Removes a key without children; returns what it was linked from.
    fn take_out(&mut self, id: u64) -> Vec<u64> {
        let Some(key) = self.keys.remove(&id) else { return Vec::new() };
        if key.root {
            self.roots.remove(&key.name);
        }
        if key.stored {
            self.dirty.insert(id);
        }
        for record in &key.records {
            if let Some(keys) = self.by_record.get_mut(&record.id) {
                keys.retain(|known| *known != id);
                if keys.is_empty() {
                    self.by_record.remove(&record.id);
                }
            }
        }
        for parent in &key.parents {
            let Parent { key: parent, input, selector } = *parent;
            let link = LinkKey { parent, input, name: key.name, selector };
            if let Entry::Occupied(mut occupied) = self.links.entry(link) {
                let gone = match occupied.get_mut() {
                    Targets::One(_) => true,
                    Targets::More(targets) => {
                        targets.retain(|target| *target != id);
                        targets.is_empty()
                    }
                };
                if gone {
                    occupied.remove();
                }
            }
            if let Some(parent) = self.keys.get_mut(&parent) {
                parent.children -= 1;
            }
        }
        key.parents.into_iter().map(|parent| parent.key).collect()
    }

    /// The rows to write since the last time.
    pub fn changes(&mut self) -> Vec<RowChange> {
        if self.dirty.is_empty() {
            return Vec::new();
        }
        let dirty = std::mem::take(&mut self.dirty);
        let lasting = |id: u64| self.keys.get(&id).is_some_and(|key| key.lasting);
        dirty.into_iter().map(|id| (id, self.keys.get(&id).map(|key| row::encode(key, lasting)))).collect()
    }

    /// Takes in a stored key. The links are made by [`Index::connect`].
    pub fn restore(&mut self, id: u64, mut key: Key) {
        key.stored = true;
        key.lasting = true;
        self.next = self.next.max(id + 1);
        if key.root {
            self.roots.insert(key.name, id);
        }
        self.keys.insert(id, key);
    }

    /// Links the restored keys and drops the results that are gone with what led only to them.
    pub fn connect(&mut self, exists: impl Fn(&str) -> bool) {
        let mut ids: Vec<u64> = self.keys.keys().copied().collect();
        ids.sort_unstable();
        let mut gone = HashSet::new();
        for id in &ids {
            let Some(key) = self.keys.get_mut(id) else { continue };
            let parents = std::mem::take(&mut key.parents);
            for record in &key.records {
                let keys = self.by_record.entry(record.id.clone()).or_insert_with(|| {
                    if !exists(&record.id) {
                        gone.insert(record.id.clone());
                    }
                    Vec::new()
                });
                keys.push(*id);
            }
            for parent in parents {
                self.link(parent.key, parent.input, parent.selector, *id);
            }
        }
        gone.iter().for_each(|record| self.release(record));
        // What a broken row has cut off.
        let cut_off = |id: &u64| self.keys.get(id).is_some_and(|key| !key.root && key.parents.is_empty());
        let cut_off = ids.iter().copied().filter(cut_off).collect();
        self.remove(cut_off);
        ids.into_iter().for_each(|id| self.remove_if_dead(id));
    }
}
