//! Sets `cfg(has_arc)` where shared handles can exist: an allocator and pointer-sized atomics. Makes the page on the
//! program fit rustdoc.

use std::path::Path;
use std::{env, fs};

/// Its pictures are files, which rustdoc does not copy.
const PAGE: &str = "docs/tool.md";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(has_arc)");
    let atomics = env::var("CARGO_CFG_TARGET_HAS_ATOMIC").unwrap_or_default();
    if env::var_os("CARGO_FEATURE_ALLOC").is_some()
        && atomics.split(',').any(|width| width == "ptr")
    {
        println!("cargo::rustc-cfg=has_arc");
    }
    println!("cargo::rerun-if-changed={PAGE}");
    let page = fs::read_to_string(PAGE).unwrap_or_default();
    let lines = page.split_inclusive('\n');
    let text: String = lines.filter(|line| !line.starts_with("![")).collect();
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("tool.md"), text).expect("the folder is writable");
}
