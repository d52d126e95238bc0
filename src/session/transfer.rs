//! How trees of files travel (fsutil's protocol).
//!
//! The sender walks its tree in order and sends the STAT of every entry, then an empty one. The
//! receiver asks for the files it lacks, by their number in that walk; DATA packets with that
//! number follow, the last one empty. FIN from the receiver and FIN from the sender end it; ERR
//! from either carries its reason. STATs, requests and data overlap.

mod changes;
mod existing;
mod filter;
mod folder;
mod follow;
mod make;
mod modes;
mod order;
mod plan;
mod receive;
mod send;
mod tree;
mod write;

pub use changes::{Change, ChangeKind, ChangeSink, Checksum};
pub use filter::{Select, Selected};
pub use folder::{Folder, xattrs};
pub use modes::{FileKind, kind_of, mode_from_unix, mode_to_unix};
pub use order::{Order, compare_paths};
pub use plan::{Adapt, Differ, Pick};
pub use receive::{Progress, Receive, Received, receive};
pub use send::{Batch, send};
pub use tree::{Content, MapEntry, Memory, Merged, Subfolders, Tree, Visit};

#[cfg(test)]
mod tests;
