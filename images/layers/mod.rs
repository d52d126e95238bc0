//! Layers: a tar of changes on one side, files on the other.
//!
//! [`apply_layer`] writes a tar's changes into a folder, either in overlayfs form (the folder is one layer of an
//! overlay mount: a removed file is a 0:0 character device, a replaced folder carries an attribute) or merged into
//! a complete tree. [`diff_layer`] makes the tar of an overlay layer, [`diff_trees`] that of the difference of two
//! complete trees, [`write_tree`] that of a whole tree. [`link_layer`] and [`link_difference`] make the same changes the
//! folder of an overlay layer, without copying files. No path out of a tar is ever resolved outside the folder.

mod apply;
mod apply_entry;
mod changes;
mod copy;
mod diff;
mod dirs;
mod errors;
mod hardlinks;
mod linked;
mod lower;
mod names;
mod rewrite;
mod same;
mod stat;
mod tree;
mod whiteouts;
mod xattrs;

pub use apply::{Applied, ApplyForm, ApplyOptions, LayerLimits, apply_layer};
pub use diff::{DiffOptions, Written, diff_layer, diff_trees};
pub use errors::LayerError;
pub use linked::{count_changes, link_difference, link_layer};
pub use lower::LowerView;
pub use rewrite::rewrite_timestamps;
pub use tree::{Over, Rounding, TreeOptions, write_tree};
pub use xattrs::XattrFilter;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod diff_tests;
#[cfg(test)]
mod roundtrip_tests;
