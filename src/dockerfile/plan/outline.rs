//! What a build can be given: collected on the way.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::error::Lines;
use crate::plan::Plan;

/// A declared argument.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArgInfo {
    pub(crate) value: String,
    pub(crate) doc: String,
    /// The arguments that its default is made of.
    pub(crate) deps: BTreeSet<String>,
    pub(crate) lines: Lines,
}

/// A secret or an agent that a step asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) required: bool,
    pub(crate) lines: Lines,
}

/// What one stage asks for, in the order of the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlined {
    pub(crate) args: IndexMap<String, ArgInfo>,
    pub(crate) used: BTreeSet<String>,
    pub(crate) secrets: IndexMap<String, Asked>,
    pub(crate) ssh: IndexMap<String, Asked>,
}

/// What the target and all that it needs ask for, in the order of the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asks {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) args: Vec<(String, ArgInfo)>,
    pub(crate) secrets: Vec<(String, Asked)>,
    pub(crate) ssh: Vec<(String, Asked)>,
}

impl Plan {
    /// What the target and all that it needs ask for.
    pub(crate) fn asks(&self) -> Asks {
        let target = &self.stages[self.target];
        let mut asks = Asks { name: target.name.clone(), doc: target.doc.clone(), ..Asks::default() };
        let mut seen: [BTreeSet<&str>; 3] = Default::default();
        for stage in self.reachable_order() {
            let outlined = &self.stages[stage].outlined;
            let mut used = outlined.used.clone();
            let mut open: Vec<String> = used.iter().cloned().collect();
            while let Some(name) = open.pop() {
                for dep in outlined.args.get(&name).into_iter().flat_map(|info| &info.deps) {
                    if used.insert(dep.clone()) {
                        open.push(dep.clone());
                    }
                }
            }
            for (name, info) in outlined.args.iter().filter(|(name, _)| used.contains(*name)) {
                if seen[0].insert(name) {
                    asks.args.push((name.clone(), info.clone()));
                }
            }
            for (name, asked) in &outlined.secrets {
                if seen[1].insert(name) {
                    asks.secrets.push((name.clone(), *asked));
                }
            }
            for (name, asked) in &outlined.ssh {
                if seen[2].insert(name) {
                    asks.ssh.push((name.clone(), *asked));
                }
            }
        }
        asks.args.sort_by_key(|(_, info)| info.lines.first);
        asks.secrets.sort_by_key(|(_, asked)| asked.lines.first);
        asks.ssh.sort_by_key(|(_, asked)| asked.lines.first);
        asks
    }
}
