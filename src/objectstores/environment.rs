//! Where credentials are told of.

use std::path::PathBuf;
use std::sync::Arc;

type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Variables by name. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    variables: Arc<Variables>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        Environment::of(|name| std::env::var(name).ok())
    }

    /// One made up.
    pub fn of(variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Environment { variables: Arc::new(variables) }
    }

    /// A variable's value, unless it is empty.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    /// The first of some variables that has a value.
    pub(crate) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name))
    }

    /// A file: as a variable says, or below the home folder.
    pub(crate) fn file(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        match self.get(variable) {
            Some(path) => Some(path.into()),
            None => self.get("HOME").map(|home| PathBuf::from(home).join(below_home)),
        }
    }
}
