//! How a layer looks on disk.
