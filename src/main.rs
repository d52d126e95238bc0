//! Which program am I called as: `crosskit`, `buildkitd`, `buildctl` or `binfmt`.

fn main() {}
