//! Packing and unpacking of layers.
