//! What is a build graph: decode, validate, digest, construct.
