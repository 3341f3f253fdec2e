//! What Cargo.toml and Cargo.lock say, as a person writes them and as `cargo package` rewrites them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A path of the package.
pub(crate) fn path(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the package.
pub(crate) fn read(file: impl AsRef<Path>) -> String {
    let file = path(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The Rust files below a folder of the package, as paths in it.
pub(crate) fn rust_files(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files.extend(rust_files(&name));
        } else if name.ends_with(".rs") {
            files.push(name);
        }
    }
    files
}

/// A table of a TOML file: `[header]` or one of several `[[header]]`.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) header: String,
    /// Each key with its value, which may have been several lines.
    pub(crate) entries: Vec<(String, String)>,
}

impl Table {
    pub(crate) fn value(&self, key: &str) -> &str {
        let entry = self.entries.iter().find(|(name, _)| name == key);
        entry.map_or("", |(_, value)| value)
    }
}

/// The tables of a TOML file. Enough for manifests and lock files: no multi-line strings, no comments behind values.
pub(crate) fn tables(file: &str) -> Vec<Table> {
    let text = read(file);
    let mut tables = vec![Table::default()];
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let last = tables.last_mut().expect("there is the first");
        if let Some((key, value)) = line.split_once(" = ") {
            let mut value = value.to_owned();
            while is_open(&value) {
                value += lines.next().expect("the value has an end");
            }
            last.entries.push((key.to_owned(), value));
        } else if line.starts_with('[') {
            let header = line.trim_matches(['[', ']']).to_owned();
            tables.push(Table {
                header,
                entries: Vec::new(),
            });
        }
    }
    tables
}

/// Whether a value goes on in the next line: there are more brackets opened than closed, outside of strings.
fn is_open(value: &str) -> bool {
    let plain: String = value.split('"').step_by(2).collect();
    plain.matches('[').count() > plain.matches(']').count()
}

/// The strings in a value.
pub(crate) fn strings(value: &str) -> BTreeSet<String> {
    value
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The features of Cargo.toml, each with what it switches on; `default` is none.
pub(crate) fn features() -> Vec<(String, BTreeSet<String>)> {
    let tables = tables("Cargo.toml");
    let features = tables.iter().find(|table| table.header == "features");
    features
        .expect("there are features")
        .entries
        .iter()
        .filter(|(name, _)| name != "default")
        .map(|(name, value)| (name.clone(), strings(value)))
        .collect()
}
