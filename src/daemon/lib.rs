//! Putting it together: config, listeners, services, history, collection, shutdown.

pub mod config;
pub mod history;
pub mod listeners;
pub mod root;
pub mod version;
