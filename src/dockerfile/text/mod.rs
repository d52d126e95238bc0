//! Dockerfiles as text: lines, words, quotes and variables.

pub(crate) mod csv;
pub(crate) mod directives;
pub(crate) mod excerpt;
pub(crate) mod expand;
pub(crate) mod heredoc;
pub(crate) mod lines;
pub(crate) mod quote;
pub(crate) mod shell_pattern;
pub(crate) mod table;
pub(crate) mod units;
pub(crate) mod words;

/// Whether making it lower case changes nothing.
pub(crate) fn is_lower(word: &str) -> bool {
    word.chars().all(|c| c.to_lowercase().eq([c]))
}

/// Whether making it upper case changes nothing.
pub(crate) fn is_upper(word: &str) -> bool {
    word.chars().all(|c| c.to_uppercase().eq([c]))
}

#[cfg(test)]
mod expand_tests;
#[cfg(test)]
mod lines_tests;
