//! The bridge between frontends and the solver: in process for the builtin one, as the LLBBridge
//! service for those in containers and clients.

#![recursion_limit = "256"]

pub mod admission;
mod attestations;
pub mod bridge;
pub mod builds;
mod builtin;
mod builtin_scan;
pub mod caps;
mod containers;
mod error;
mod external;
pub mod forwarder;
pub mod health;
mod lookups;
pub mod platforms;
mod policies;
mod processes;
pub mod provenance;
mod proxied;
pub mod result;
mod scan;
mod scope;
pub mod server;

pub use error::GatewayError;
pub use policies::BuildPolicies;
pub use result::{Attested, FrontendResult, Handle, Refs, ScanExtras};
pub use scan::scan;
pub use scope::Producers;
