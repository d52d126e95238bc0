//! Who runs it: the kinds of worker.

pub mod keys;
