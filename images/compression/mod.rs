//! Packing and unpacking of layers: gzip, eStargz, zstd or plain, always on several threads, hashed on the way.

mod blobs;
mod chunks;
pub mod estargz;
mod gzip;
mod in_order;
mod pack;
mod unpack;

pub use blobs::{LayerBlob, pack_layer, repack_layer, unpack_layer};
pub use pack::{PackOptions, Packed, pack};
pub use unpack::{LayerReader, detect};

#[cfg(test)]
mod compression_tests;
