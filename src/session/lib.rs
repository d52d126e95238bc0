//! What the client lends the daemon: files, credentials, secrets, ssh, content, upload, export.
//!
//! Both ends are here. A client opens one gRPC stream of bytes to the daemon and is itself a gRPC
//! *server* on it: [`SessionServer`] offers its services, [`SessionManager`] keeps the daemon's
//! list of such tunnels, and a [`Session`] is the daemon's hand on one of them. [`transfer`] is
//! the protocol by which trees of files travel in both directions.

mod calls;
mod connection;
mod error;
mod headers;
mod health;
mod registry_credentials;
mod serve;
mod session;
mod sessions;
pub mod transfer;
mod tunnel;

pub use calls::*;
pub use connection::Channel;
pub use error::{ErrorKind, SessionError};
pub use headers::{
    Introduction, SESSION_ID, SESSION_METHOD, SESSION_NAME, SESSION_SHARED_KEY, SSH_ID, STORE_ID,
};
pub use registry_credentials::SessionCredentials;
pub use serve::*;
pub use session::Session;
pub use sessions::{SessionManager, WAIT_FOR_SESSION};
pub use tunnel::{Tunnel, tunnel};

#[cfg(test)]
mod session_tests;
