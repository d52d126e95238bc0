//! How a layer looks on disk.
//!
//! [`Snapshots`] keeps folders of files: [`MutableRef`] is one that is being written to, [`Ref`]
//! one that no longer changes. A snapshot is made of layers, each of which holds what it changes
//! over those below; a [driver](DriverChoice) makes one tree of them. Layers of images may be
//! known only by their blobs and fetched when somebody needs their files.
//!
//! Nothing here is synced to the disk on a build's path. After the end of the process at any
//! moment the next start finds every record's files whole, or does not serve the record.

mod beside;
mod blobs;
mod cache_mounts;
pub mod checksum;
mod clean;
mod clone;
mod collect;
mod courtesy;
mod drivers;
mod error;
pub mod filters;
mod ids;
mod joins;
mod kept;
mod lazy;
mod mounts;
mod mutable;
mod node;
mod orphans;
mod prune;
mod record;
mod refs;
mod removal;
mod sizes;
mod store;
mod unpack;
mod usage;

pub use blobs::{Layer, LayerForm};
pub use cache_mounts::{CacheMount, Sharing};
pub use courtesy::Building;
pub use drivers::{DriverChoice, try_overlay};
pub use error::{Error, Kind, Result};
pub use lazy::{BlobProvider, ProvideError, RemoteLayer, Sessions};
pub use mounts::{Mounted, take_down_leftovers};
pub use mutable::MutableRef;
pub use prune::PruneOptions;
pub use record::{About, LayerBlob, MadeBy, RecordType};
pub use refs::Ref;
pub use store::Snapshots;
pub use usage::Usage;
