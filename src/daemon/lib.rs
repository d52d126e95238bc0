//! Putting it together: config, listeners, services, history, collection, shutdown.

pub mod config;
pub mod version;
