//! Where things lie in the checkout.

use std::path::{Path, PathBuf};

/// The top of the checkout.
pub fn top() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.ancestors().nth(2).map_or_else(|| own.clone(), Path::to_path_buf)
}

/// The folder in which builds lie: `CARGO_TARGET_DIR`, or `target` at the top.
pub fn target() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    top().join(folder)
}

/// Where what these tests make and keep from one run to the next lies.
pub fn kept() -> PathBuf {
    target().join("deploy")
}
