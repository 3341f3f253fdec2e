//! Makes the modelled sources use the shim in place of the standard library.

use std::path::Path;
use std::{env, fs};

/// Each source, and its name in the model.
const SOURCES: [(&str, &str); 6] = [
    ("src/time.rs", "time.rs"),
    ("src/clock.rs", "clock.rs"),
    ("features/common/timer.rs", "timer.rs"),
    ("features/thread/executor.rs", "executor.rs"),
    ("features/sim/clock.rs", "sim_clock.rs"),
    ("features/sim/timers.rs", "sim_timers.rs"),
];

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (source, name) in SOURCES {
        let path = Path::new("../..").join(source);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).expect("the crate's sources are two folders up");
        // The tests use the real standard library, and an included file cannot document its module.
        let (code, _) = text
            .split_once("#[cfg(test)]\nmod tests")
            .unwrap_or((&text, ""));
        let lines = code.lines().filter(|line| !line.starts_with("//!"));
        let lines: Vec<_> = lines.collect();
        let code = lines.join("\n");
        let code = code
            .replace("std::", "shim::")
            .replace("core::sync::atomic", "shim::atomic")
            .replace("= const { RefCell::new(None) }", "= RefCell::new(None)");
        fs::write(Path::new(&out).join(name), code).expect("the folder is writable");
    }
}
