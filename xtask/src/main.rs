//! Chores that a normal build skips. `cargo run --manifest-path xtask/Cargo.toml` writes
//! `src/api/generated/` from `src/api/proto/`.

use std::error::Error;
use std::path::Path;


fn main() -> Result<(), Box<dyn Error>> {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/api");
    let proto = api.join("proto");
    let out = api.join("generated");
    std::fs::create_dir_all(&out)?;
    let mut files: Vec<_> = std::fs::read_dir(&proto)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let descriptors = protox::compile(&files, [&proto])?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.bytes([".fsutil.types.Packet.data", ".moby.filesync.v1.BytesMessage.data", ".moby.buildkit.v1.BytesMessage.data", ".containerd.services.content.v1.ReadContentResponse.data", ".containerd.services.content.v1.WriteContentRequest.data"]);
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(&out)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
