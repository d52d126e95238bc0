//! End to end: the built programs with real runtimes, registries, emulators and clients.
//!
//! A [`Scene`] is a folder of its own with a registry that holds a base image for eight platforms.
//! [`Daemon`]s are started in it from the built binary, called by their own names, and [`Build`]s
//! run through their command line client or through docker buildx ([`Buildx`]). What comes out is
//! read by code that shares nothing with the product: [`Images`] and [`Tree`].
//!
//! Everything here panics with a sentence when something is not as it should be: it serves tests.

mod base;
mod builds;
mod buildx;
mod daemon;
mod engine;
mod http;
mod leftovers;
mod network;
mod oci;
mod ordinary_user;
mod parts;
mod programs;
mod proxy;
mod registry;
mod running;
mod scene;
mod stores;
mod tree;
mod wait;

pub use base::{BaseImage, PLATFORMS, folder_name};
pub use builds::Build;
pub use buildx::Buildx;
pub use daemon::{Daemon, DaemonOptions};
pub use engine::Engine;
pub use http::{Response, request};
pub use leftovers::{mounts_below, processes_of};
pub use network::Line;
pub use oci::{Images, digest_of};
pub use ordinary_user::OrdinaryUser;
pub use parts::{Parts, workspace};
pub use programs::Programs;
pub use proxy::{CutAfter, CuttingProxy};
pub use registry::Registry;
pub use running::{Ran, Running};
pub use scene::Scene;
pub use stores::{Asked, AzureStore, Endless, GithubStore, S3Store, Served};
pub use tree::{Entry, Tree};
pub use wait::until;
