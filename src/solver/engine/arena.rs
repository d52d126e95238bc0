use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Names something in an [`Arena`]. One that has been removed is never found again.
pub(crate) struct Id<T> {
    slot: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot && self.generation == other.generation
    }
}

impl<T> Eq for Id<T> {}

impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.slot);
    }
}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Things that refer to one another by [`Id`].
pub(crate) struct Arena<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    pub fn insert(&mut self, value: T) -> Id<T> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let (generation, held) = &mut self.slots[slot as usize];
        *held = Some(value);
        Id { slot, generation: *generation, of: PhantomData }
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        self.slots.reserve(more.saturating_sub(self.free.len()));
    }

    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let (generation, held) = self.slots.get_mut(id.slot as usize)?;
        if *generation != id.generation {
            return None;
        }
        let value = held.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(value)
    }

    pub fn get(&self, id: Id<T>) -> Option<&T> {
        let (generation, held) = self.slots.get(id.slot as usize)?;
        held.as_ref().filter(|_| *generation == id.generation)
    }

    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let (generation, held) = self.slots.get_mut(id.slot as usize)?;
        held.as_mut().filter(|_| *generation == id.generation)
    }

    pub fn contains(&self, id: Id<T>) -> bool {
        self.get(id).is_some()
    }
}

impl<T> Index<Id<T>> for Arena<T> {
    type Output = T;

    fn index(&self, id: Id<T>) -> &T {
        self.get(id).expect("who removes something removes what refers to it first")
    }
}

impl<T> IndexMut<Id<T>> for Arena<T> {
    fn index_mut(&mut self, id: Id<T>) -> &mut T {
        self.get_mut(id).expect("who removes something removes what refers to it first")
    }
}
