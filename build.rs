//! One name for what shared handles need: an allocator, and atomics as wide as a pointer.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(has_arc)");
    let atomics = env::var("CARGO_CFG_TARGET_HAS_ATOMIC").unwrap_or_default();
    if env::var_os("CARGO_FEATURE_ALLOC").is_some()
        && atomics.split(',').any(|width| width == "ptr")
    {
        println!("cargo::rustc-cfg=has_arc");
    }
}
