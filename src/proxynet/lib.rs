//! The proxy that is a step's only way to the network.
//!
//! A [`Proxy`] answers at a socket that only the step reaches. It reads HTTP requests, also those within TLS, for which it
//! has a certificate authority of its own that the step is told to trust; asks a [`Judge`] about each; fetches what may be
//! fetched through a [`Dial`]; and keeps a [`Record`] of what was asked and what came. It knows nothing of namespaces and
//! builds: who starts it makes the socket, dials, and decides.

mod authority;
mod bodies;
mod error;
mod judging;
mod record;
mod requests;
mod serve;
mod tunnel;
mod upstream;

#[cfg(test)]
mod proxy_tests;

pub use error::{ErrorKind, ProxyError};
pub use judging::{Judge, Rules};
pub use record::{Incomplete, Material, Record, Request};
pub use serve::Proxy;
pub use upstream::{Dial, Outside, Trust};
