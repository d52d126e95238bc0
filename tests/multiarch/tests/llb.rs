//! Graphs as client libraries send them: each field, option and call that is announced does what it says, in a real step.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "llb/caps.rs"]
mod caps;
#[path = "llb/devices.rs"]
mod devices;
#[path = "llb/exec.rs"]
mod exec;
#[path = "llb/files.rs"]
mod files;
#[path = "gateway/frontend.rs"]
mod frontend;
#[path = "llb/frontends.rs"]
mod frontends;
#[path = "llb/graphs.rs"]
mod graphs;
#[path = "llb/mounts.rs"]
mod mounts;
#[path = "llb/progress.rs"]
mod progress;
#[path = "llb/sharing.rs"]
mod sharing;
#[path = "llb/sources.rs"]
mod sources;
#[path = "llb/stage.rs"]
mod stage;
