//! The bridge between frontends and solver.
