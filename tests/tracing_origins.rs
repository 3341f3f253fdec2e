//! Traces of an HTTP client never become telemetry, whichever client a transport uses: no request may create events for
//! the next. A new client's crates cannot be forgotten here, because they are read from Cargo.toml and Cargo.lock.
#![cfg(feature = "tracing")]
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]
#![allow(dead_code, reason = "other tests use the rest of the manifest")]

mod manifest;

use manifest::{features, path, read, rust_files, strings, tables};
use std::collections::{BTreeMap, BTreeSet};
use tinkex_telemetry::tracing::TelemetryLayer;

/// Crates that log and are not excluded, each with the reason.
const ALLOWED: [(&str, &str); 3] = [
    (
        "jni",
        "Android only; it logs mostly the application's own calls",
    ),
    ("kv-log-macro", "macros: the target is the caller's"),
    ("tracing", "macros: the target is the caller's"),
];

/// The features whose adapter is an HTTP client, with the crates that each adds.
fn clients() -> BTreeMap<String, BTreeSet<String>> {
    let implements = |file: &String| {
        let code = read(file);
        let mut lines = code.lines().map(str::trim);
        lines.any(|line| line.starts_with("impl") && line.contains("HttpClient for "))
    };
    features()
        .into_iter()
        // `http` only defines the trait.
        .filter(|(name, _)| name != "http")
        .filter(|(name, _)| {
            let module = format!("features/{}", name.replace('-', "_"));
            let file = format!("{module}.rs");
            let mut files = Vec::new();
            if path(&file).exists() {
                files.push(file);
            }
            if path(&module).is_dir() {
                files.extend(rust_files(&module));
            }
            files.iter().any(implements)
        })
        .map(|(name, brings)| {
            let crates = brings.iter().filter_map(|item| item.strip_prefix("dep:"));
            (name, crates.map(str::to_owned).collect())
        })
        .collect()
}

/// What each crate of Cargo.lock depends on.
fn locked() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<_, BTreeSet<_>>::new();
    for package in tables("Cargo.lock") {
        if package.header == "package" {
            let name = strings(package.value("name")).into_iter().next();
            let needs = strings(package.value("dependencies"));
            // `name version` if there are several versions.
            let needs = needs
                .iter()
                .filter_map(|need| need.split(' ').next().map(str::to_owned));
            all.entry(name.expect("a name")).or_default().extend(needs);
        }
    }
    all
}

/// These crates and all their dependencies.
fn with_dependencies(
    crates: &BTreeSet<String>,
    locked: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut to_do: Vec<_> = crates.iter().collect();
    while let Some(name) = to_do.pop() {
        if found.insert(name.clone()) {
            to_do.extend(locked.get(name).into_iter().flatten());
        }
    }
    found
}

#[test]
fn the_filter_excludes_every_crate_of_every_http_client_that_can_log() {
    let (clients, locked) = (clients(), locked());
    let names: Vec<_> = clients.keys().map(String::as_str).collect();
    assert!(
        ["reqwest", "surf", "ureq"]
            .iter()
            .all(|name| names.contains(name)),
        "{names:?}"
    );
    let can_log = |name: &String| {
        let needs = &locked[name];
        ["log", "tracing", "tracing-core"]
            .iter()
            .any(|facade| needs.contains(*facade))
    };
    let is_excluded =
        |name: &str| TelemetryLayer::EXCLUDED.contains(&name.replace('-', "_").as_str());
    for (client, crates) in &clients {
        if crates.contains(client) {
            assert!(is_excluded(client), "add {client} to ORIGINS");
        }
        for name in with_dependencies(crates, &locked) {
            let is_allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == name);
            assert!(
                !can_log(&name) || is_allowed || is_excluded(&name),
                "the HTTP client {client} depends on {name}, which can log: add it to ORIGINS in \
                 features/origins.rs, or to the list above with a reason"
            );
        }
    }
}
