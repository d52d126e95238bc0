//! Who runs it: the kinds of worker.
