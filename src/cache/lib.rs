//! Have we done this before: cache keys and records.
