//! How one process runs.
