//! What the solver promises, shown on operations that only count.

mod caching;
mod failing;
mod large;
mod progress;
mod sharing;
mod world;
