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

#[cfg(test)]
mod expand_tests;
#[cfg(test)]
mod lines_tests;
