//! Which paths a list of ignore patterns selects, as Docker's ignore files and the include and
//! exclude lists of build requests mean them.
//!
//! Later patterns win over earlier ones, `!` makes an exception, a pattern that matches a folder
//! holds for all that is in it, and `**` stands for any number of folders. Paths are relative,
//! with `/` between their parts. [`Glob`] is the plain wildcard of COPY sources.

mod glob;
mod ignorefile;
mod paths;
mod regular;

pub use glob::Glob;
pub use ignorefile::parse_ignore_file;
pub use paths::clean_path;

/// What can be wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternError {
    /// An unclosed class, a backslash at the end and the like.
    Syntax {
        /// The pattern as it was read.
        pattern: String,
    },
    /// An exception of nothing.
    BareException,
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Both texts are what clients of the field print and match on.
            PatternError::Syntax { .. } => f.write_str("syntax error in pattern"),
            PatternError::BareException => f.write_str("illegal exclusion pattern: \"!\""),
        }
    }
}

impl std::error::Error for PatternError {}

/// A pattern after cleaning, without its `!`.
pub(crate) struct Clean<'a>(pub(crate) &'a str);

/// One pattern of a list.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    exception: bool,
    test: glob::Test,
}

impl Pattern {
    /// The pattern in its shortest form, without a leading `!`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it began with `!`.
    pub fn is_exception(&self) -> bool {
        self.exception
    }

    /// The part in front of a final `/*` or `/**`, if nothing in it is special.
    fn plain_prefix(&self) -> Option<&str> {
        let text = self.text.strip_suffix("/**").unwrap_or(&self.text);
        let text = text.strip_suffix("/*").unwrap_or(text);
        (!text.contains(['*', '[', ']', '?', '^', '\\'])).then_some(text)
    }
}

/// What is known of a folder's own match, to decide about its entries without asking every parent
/// again. The default means that nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited(Vec<u64>);

impl Inherited {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
}

/// A list of patterns, ready to be matched. Cheap to share between threads.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exceptions: bool,
}

impl Patterns {
    /// Compiles a list. Blank patterns are left out.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Patterns, PatternError> {
        let mut list = Patterns::default();
        for raw in patterns {
            let raw = raw.as_ref().trim();
            if raw.is_empty() {
                continue;
            }
            let clean = clean_path(raw);
            let (text, exception) = match clean.strip_prefix('!') {
                Some("") => return Err(PatternError::BareException),
                Some(text) => (text.to_string(), true),
                None => (clean, false),
            };
            list.exceptions |= exception;
            list.patterns.push(Pattern { test: glob::Test::new(&Clean(&text))?, text, exception });
        }
        Ok(list)
    }

    /// The patterns in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any is an exception.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether `path` or a folder above it is selected.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.exception == matched && (pattern.test.matches(path) || matches_above(pattern, path)) {
                matched = !pattern.exception;
            }
        }
        matched
    }

    /// Whether `path` is selected, given what was returned for its folder; also returns what to
    /// hand to the calls for its own entries. An [`Inherited::default`] stands for a path whose
    /// folder was not asked about.
    pub fn matches_within(&self, path: impl AsRef<[u8]>, folder: &Inherited) -> (bool, Inherited) {
        let path = path.as_ref();
        let unknown = folder.0.is_empty();
        let mut inherited = Inherited(vec![0; self.patterns.len() / 64 + 1]);
        let mut matched = false;
        for (at, pattern) in self.patterns.iter().enumerate() {
            let mut hit = !unknown && folder.has(at);
            if !hit {
                // A pattern that could change nothing is not asked, and counts as not matching for
                // the entries as well: that is how the field's matcher behaves.
                if pattern.exception != matched {
                    continue;
                }
                hit = pattern.test.matches(path) || unknown && matches_above(pattern, path);
            }
            if hit {
                inherited.0[at / 64] |= 1 << (at % 64);
                matched = !pattern.exception;
            }
        }
        (matched, inherited)
    }

    /// Whether anything in folder `dir`, itself not selected, could be: if not, a walk may pass it by.
    pub fn may_match_inside(&self, dir: impl AsRef<[u8]>) -> bool {
        may_reach(self.patterns.iter().filter(|p| !p.exception), dir.as_ref())
    }

    /// Whether an exception could hold for anything in folder `dir`, itself selected.
    pub fn may_except_inside(&self, dir: impl AsRef<[u8]>) -> bool {
        self.exceptions && may_reach(self.patterns.iter().filter(|p| p.exception), dir.as_ref())
    }
}

fn may_reach<'a>(mut patterns: impl Iterator<Item = &'a Pattern>, dir: &[u8]) -> bool {
    patterns.any(|pattern| match pattern.plain_prefix() {
        None => true,
        Some(prefix) => {
            let prefix = prefix.as_bytes();
            prefix.starts_with(dir) && (prefix.len() == dir.len() || prefix[dir.len()] == b'/')
        }
    })
}

fn matches_above(pattern: &Pattern, path: &[u8]) -> bool {
    path.iter().enumerate().any(|(at, byte)| *byte == b'/' && pattern.test.matches(&path[..at]))
}

#[cfg(test)]
mod lib_tests;
