//! How a Dockerfile becomes a build graph: lines, instructions, stages, graph; advice on the way.
//!
//! No I/O happens here: what a build needs from outside goes through one trait, [`Bridge`]. A build is
//! [`Frontend::read`], a look at [`Frontend::forward`] and [`Frontend::subrequest`], and [`Frontend::build`], which plans all platforms at the same
//! time and asks for each image once. The graphs have the digests that BuildKit's own frontend would give them.

mod bridge;
mod contexts;
mod epoch;
mod error;
mod frontend;
mod git_url;
mod image;
mod instruction;
mod lint;
mod loader;
mod options;
mod plan;
mod reference;
mod subrequests;
mod suggest;
mod text;

pub use bridge::{Bridge, ImageQuery, LayoutStore, ResolvedImage, SourceWarning};
pub use error::{BridgeError, DockerfileError, ErrorKind, Lines};
pub use frontend::{Frontend, FrontendResult, PlatformResult};
pub use git_url::remote as git_remote;
pub use image::{Config, HealthcheckConfig, History, Image, RootFs};
pub use lint::{LintConfig, Rule, Warning};
pub use loader::named_context;
pub use options::{Environment, MissingCap, Options, missing_frontend_cap};
pub use reference::Reference;
pub use subrequests::{Subrequest, UNSUPPORTED};
pub use text::csv::fields as csv_fields;
pub use text::directives::{Syntax, detect_syntax};
pub use text::units::go_bool;
