//! Which entries of a folder are sent.

use super::follow;
use crate::SessionError;
use crosskit_patterns::{Inherited, Patterns};
use rustix::fd::BorrowedFd;

/// Which entries of a folder are wanted, as a request says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Select {
    /// If not empty, only what matches one of these.
    pub include: Vec<String>,
    /// Nothing that matches these.
    pub exclude: Vec<String>,
    /// Like `include`, but where a path goes through symbolic links, the links and what they point
    /// to are included.
    pub follow: Vec<String>,
}

/// A compiled [`Select`].
#[derive(Debug, Clone, Default)]
pub struct Selected {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

/// What is known about a folder when its entries are looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Above {
    include: Inherited,
    exclude: Inherited,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent.
    Take,
    /// It is a folder that is only sent if something in it is.
    Enter,
    /// Neither it nor anything in it is sent.
    Leave,
}

impl Selected {
    /// Compiles `select` for the folder `root`, in which links are followed.
    pub fn new(select: &Select, root: BorrowedFd<'_>) -> Result<Self, SessionError> {
        let mut include = select.include.clone();
        if !select.follow.is_empty() {
            include.extend(follow::targets(root, &select.follow)?);
            include.sort();
            // If one of the paths is the root, there is nothing to leave out.
            if include.iter().any(|p| p == ".") {
                include.clear();
            }
        }
        let compile = |what: &str, list: &[String]| match list.is_empty() {
            true => Ok(None),
            false => Patterns::new(list)
                .map(Some)
                .map_err(|err| SessionError::Invalid(format!("invalid {what}: [{}]: {err}", list.join(" ")))),
        };
        Ok(Self {
            include: compile("includepatterns", &include)?,
            exclude: compile("excludepatterns", &select.exclude)?,
        })
    }

    /// Whether everything is sent.
    pub(crate) fn is_everything(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Decides about `path`, whose folder was decided about as `above`.
    pub(crate) fn judge(&self, path: &str, is_dir: bool, above: &Above) -> (Verdict, Above) {
        let mut verdict = Verdict::Take;
        let mut here = Above::default();
        let not_taken = if is_dir { Verdict::Enter } else { Verdict::Leave };
        if let Some(include) = &self.include {
            let (matches, inherited) = include.matches_within(path, &above.include);
            here.include = inherited;
            if !matches {
                if is_dir && !include.may_match_inside(path) {
                    return (Verdict::Leave, here);
                }
                verdict = not_taken;
            }
        }
        if let Some(exclude) = &self.exclude {
            let (matches, inherited) = exclude.matches_within(path, &above.exclude);
            here.exclude = inherited;
            if matches {
                if is_dir && !exclude.may_except_inside(path) {
                    return (Verdict::Leave, here);
                }
                verdict = not_taken;
            }
        }
        (verdict, here)
    }
}
