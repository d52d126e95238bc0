//! Putting it together: config, listeners, services, history, collection, shutdown.
