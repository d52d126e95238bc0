//! What goes over the wire: messages, services, and the one place where an error becomes a
//! gRPC status with BuildKit's typed details.
//!
//! `proto/` holds the definitions, `generated/` what `xtask` makes of them. The modules below
//! give the packages short names; the nesting of the generated code follows the packages.

/// How large one gRPC message may be, in bytes. Clients and servers of the field expect 16 MiB.
pub const MAX_MESSAGE: usize = 16 << 20;

pub mod errors;
pub mod graph_json;
pub mod json;
pub mod version;
#[allow(missing_docs, clippy::all)]
mod generated {
    pub mod pb {
        include!("generated/pb.rs");
    }
    pub mod errdefs {
        include!("generated/errdefs.rs");
    }
    pub mod stack {
        include!("generated/stack.rs");
    }
    pub mod google {
        pub mod rpc {
            include!("generated/google.rpc.rs");
        }
    }
    pub mod fsutil {
        pub mod types {
            include!("generated/fsutil.types.rs");
        }
    }
    pub mod crosskit {
        pub mod farm {
            pub mod v1 {
                include!("generated/crosskit.farm.v1.rs");
            }
        }
    }
    pub mod grpc {
        pub mod health {
            pub mod v1 {
                include!("generated/grpc.health.v1.rs");
            }
        }
    }
    pub mod containerd {
        pub mod services {
            pub mod content {
                pub mod v1 {
                    include!("generated/containerd.services.content.v1.rs");
                }
            }
        }
    }
    pub mod moby {
        pub mod filesync {
            pub mod v1 {
                include!("generated/moby.filesync.v1.rs");
            }
        }
        pub mod sshforward {
            pub mod v1 {
                include!("generated/moby.sshforward.v1.rs");
            }
        }
        pub mod upload {
            pub mod v1 {
                include!("generated/moby.upload.v1.rs");
            }
        }
        pub mod exporter {
            pub mod v1 {
                include!("generated/moby.exporter.v1.rs");
            }
        }
        pub mod buildkit {
            pub mod secrets {
                pub mod v1 {
                    include!("generated/moby.buildkit.secrets.v1.rs");
                }
            }
            pub mod v1 {
                include!("generated/moby.buildkit.v1.rs");
                pub mod types {
                    include!("generated/moby.buildkit.v1.types.rs");
                }
                pub mod apicaps {
                    include!("generated/moby.buildkit.v1.apicaps.rs");
                }
                pub mod frontend {
                    include!("generated/moby.buildkit.v1.frontend.rs");
                }
                pub mod sourcepolicy {
                    include!("generated/moby.buildkit.v1.sourcepolicy.rs");
                    pub mod policysession {
                        include!("generated/moby.buildkit.v1.sourcepolicy.policysession.rs");
                    }
                }
            }
        }
    }
}

pub use generated::containerd::services::content::v1 as content;
pub use generated::crosskit::farm::v1 as farm;
pub use generated::errdefs as details;
pub use generated::fsutil::types as fsutil;
pub use generated::google::rpc;
pub use generated::grpc::health::v1 as health;
pub use generated::moby::buildkit::secrets::v1 as secrets;
pub use generated::moby::buildkit::v1 as control;
pub use generated::moby::buildkit::v1::{apicaps, frontend, sourcepolicy, types};
pub use generated::moby::exporter::v1 as exporter;
/// Files and credentials; both live in one package on the wire.
pub use generated::moby::filesync::v1 as filesync;
pub use generated::moby::sshforward::v1 as sshforward;
pub use generated::moby::upload::v1 as upload;
pub use generated::{pb, stack};
