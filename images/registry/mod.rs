//! Registries: names of images, who may have them, getting and giving them (OCI distribution-spec 1.1).
//!
//! [`RegistryHosts`] says how each registry is reached and owns the connections; it lives as long as the process.
//! A [`Client`] is made for each build from it and that build's [`Credentials`], and keeps the tokens it was given.

mod auth;
mod challenge;
mod client;
mod credentials;
mod errors;
mod hosts;
mod progress;
mod pull;
mod push;
mod push_blob;
mod reference;
mod referrers;
mod size;
mod tls;
mod transfer;

pub use client::Client;
pub use credentials::{Anonymous, Credentials, Login, Token, TokenRequest};
pub use errors::RegistryError;
pub use hosts::{HostConfig, KeyPair, RegistryHosts};
pub use progress::{BlobState, Progress, Silent};
pub use pull::Resolved;
pub use push::{PushOptions, Pushed};
pub use reference::{Reference, ReferenceError};
pub use tls::{install_crypto_provider, web_client};
pub use transfer::reason;

#[cfg(test)]
mod challenge_tests;
#[cfg(test)]
mod reference_tests;
