use std::ops::{Deref, DerefMut};

/// A list that nearly always has at most one element, for which it needs no memory of its own.
/// With tens of thousands of vertices in work, memory is what takes the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Few<T> {
    /// At most one.
    One(Option<T>),
    /// As many as there are.
    Many(Vec<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few::One(None)
    }
}

impl<T> Few<T> {
    pub fn push(&mut self, value: T) {
        match self {
            Few::One(slot @ None) => *slot = Some(value),
            Few::One(first) => {
                let mut many = Vec::with_capacity(4);
                many.extend(first.take());
                many.push(value);
                *self = Few::Many(many);
            }
            Few::Many(many) => many.push(value),
        }
    }

    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        match self {
            Few::One(slot) => {
                if slot.as_ref().is_some_and(|value| !keep(value)) {
                    *slot = None;
                }
            }
            Few::Many(many) => many.retain(keep),
        }
    }

    pub fn clear(&mut self) {
        match self {
            Few::One(slot) => *slot = None,
            Few::Many(many) => many.clear(),
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::One(slot) => slot.as_slice(),
            Few::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::One(slot) => slot.as_mut_slice(),
            Few::Many(many) => many,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut few = Few::default();
        values.into_iter().for_each(|value| few.push(value));
        few
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        match self {
            Few::One(slot) => slot.into_iter().chain(Vec::new()),
            Few::Many(many) => None.into_iter().chain(many),
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
