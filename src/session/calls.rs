//! What the daemon calls at a client.

mod auth;
mod content;
mod export;
mod exporter;
mod files;
mod policy;
mod secrets;
mod ssh;
mod upload;

pub use auth::{Credentials, Token, TokenRequest};
pub use content::{BlobInfo, BlobWriter, SessionContent};
pub use export::FileWriter;
pub use exporter::RequestedExporter;
pub use files::SyncDir;
pub use ssh::SshSocket;
