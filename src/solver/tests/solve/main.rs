//! What the solver promises, shown on operations that only count.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

mod caching;
mod failing;
mod large;
mod progress;
mod promises;
mod sharing;
mod world;
