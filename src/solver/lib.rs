//! In what order: vertices, edges, dedupe across builds, progress.
