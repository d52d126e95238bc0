//! Where: split, route, merge as pure decisions.
