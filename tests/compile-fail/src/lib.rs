//! Programs that must not compile, each with the sentences of this crate's own that the compiler must then say: what is
//! missing, and what to write instead. The compiler's own words are not checked, since every version changes them.
//!
//! `programs/` has the programs. A line `//~ …` at the beginning is a sentence; a program without one must compile. All
//! are checked at once, in a package that is written into the target folder, with the toolchain of `rust-version` if it
//! is installed (`ci/compile-fail` sees to that), else with the one that runs the test.
#![cfg(test)]

extern crate alloc;

use alloc::collections::BTreeMap;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A program by its name, with its file and the sentences.
type Programs = BTreeMap<String, (PathBuf, Vec<String>)>;

fn programs() -> Programs {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let files = fs::read_dir(folder).expect("there are programs");
    files
        .map(|file| {
            let path = file.expect("a file").path();
            let text = fs::read_to_string(&path).expect("text");
            let lines = text.lines();
            let sentences = lines.map_while(|line| line.strip_prefix("//~ ").map(str::to_owned));
            let name = path.file_stem().expect("a name").to_string_lossy();
            (name.into_owned(), (path.clone(), sentences.collect()))
        })
        .collect()
}

/// Writes the package, with the dependencies that this workspace has locked.
fn package(programs: &Programs) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().expect("the repository");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = root.join(target).join("compile-fail");
    fs::create_dir_all(&folder).expect("a folder");
    let mut manifest = format!(
        "[package]\nname = \"programs\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
         tinkex-telemetry = {{ path = {root:?}, features = [\"thread\"] }}\n"
    );
    for (name, (path, _)) in programs {
        manifest += &format!("\n[[bin]]\nname = \"{name}\"\npath = {path:?}\n");
    }
    fs::write(folder.join("Cargo.toml"), manifest).expect("it can be written");
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).expect("it can be copied");
    folder
}

/// The cargo of the pinned toolchain, if rustup has it.
fn cargo() -> Command {
    let pinned = format!("+{}", env!("CARGO_PKG_RUST_VERSION"));
    let is_installed = Command::new("cargo").args([&pinned, "--version"]).output();
    let mut cargo = Command::new("cargo");
    if is_installed.is_ok_and(|output| output.status.success()) {
        cargo.arg(pinned);
    }
    cargo
}

/// What the compiler makes of a program.
#[derive(Default)]
struct Verdict {
    compiles: bool,
    is_refused: bool,
    text: String,
}

fn check(folder: &Path) -> BTreeMap<String, Verdict> {
    let output = cargo()
        .args(["check", "--bins", "--keep-going", "--offline"])
        .args(["--message-format=json", "--target-dir"])
        .arg(folder.join("target"))
        .current_dir(folder)
        .env_remove("RUSTFLAGS")
        // Those of the cargo that runs the test.
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .expect("cargo runs");
    let mut verdicts = BTreeMap::<String, Verdict>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).expect("JSON");
        let Some(name) = message["target"]["name"].as_str() else {
            continue;
        };
        let verdict = verdicts.entry(name.to_owned()).or_default();
        verdict.compiles |= message["reason"] == "compiler-artifact";
        verdict.is_refused |= message["message"]["level"] == "error";
        verdict.text += message["message"]["rendered"].as_str().unwrap_or_default();
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let library = verdicts.remove("tinkex_telemetry").unwrap_or_default();
    assert!(library.compiles, "{errors}{}", library.text);
    verdicts
}

#[test]
fn where_the_compiler_refuses_a_program_it_says_what_to_write_instead() {
    let programs = programs();
    assert!(programs.len() > 5);
    let verdicts = check(&package(&programs));
    for (name, (_, sentences)) in &programs {
        let Verdict {
            compiles,
            is_refused,
            text,
        } = verdicts.get(name).expect("cargo has checked it");
        assert_eq!(*is_refused, !sentences.is_empty(), "{name}: {text}");
        assert_eq!(*compiles, sentences.is_empty(), "{name}: {text}");
        for sentence in sentences {
            assert!(
                text.contains(sentence),
                "{name} lacks \"{sentence}\":\n{text}"
            );
        }
    }
}
