//! What the README says is so. Its snippets are compiled as tests of the documentation.

#![cfg(feature = "std")]
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{env, fs};
use tinkex_telemetry::Options;

/// A file of the package.
fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Cargo.toml as it was written: in a packaged crate cargo has put another one in its place, with the keys in its own order.
fn manifest() -> String {
    let original = "Cargo.toml.orig";
    let is_packaged = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(original)
        .exists();
    read(if is_packaged { original } else { "Cargo.toml" })
}

/// The rows of the README's table whose header begins with this word: the cells of each, by the first one's code.
fn table(first_header: &str) -> BTreeMap<String, Vec<String>> {
    let readme = read("README.md");
    let rows = readme
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {first_header} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        let mut cells = cells.map(|cell| cell.trim().replace('`', ""));
        (cells.next().unwrap_or_default(), cells.collect())
    })
    .collect()
}

/// The lines of a table of Cargo.toml, comments left out.
fn section(header: &str) -> Vec<String> {
    let manifest = manifest();
    let lines = manifest.lines().skip_while(|line| *line != header).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The strings in a line of Cargo.toml.
fn strings(line: &str) -> BTreeSet<&str> {
    line.split('"').skip(1).step_by(2).collect()
}

/// The README's commands that begin like this: the words behind it.
fn commands(begin: &str) -> Vec<Vec<String>> {
    let readme = read("README.md");
    let commands = readme.lines().filter_map(|line| line.strip_prefix(begin));
    commands
        .map(|rest| rest.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// `"quickstart"` and so on: what stands in an array of tables of Cargo.toml, with the features it needs.
fn targets(header: &str) -> BTreeMap<String, BTreeSet<String>> {
    let manifest = manifest();
    let bodies = manifest.split(header).skip(1);
    bodies
        .map(|body| {
            let lines: Vec<_> = body
                .lines()
                .skip(1)
                .take_while(|line| !line.starts_with('['))
                .collect();
            let value = |key: &str| {
                let line = lines.iter().find(|line| line.starts_with(key));
                line.map(|line| strings(line)).unwrap_or_default()
            };
            let name = value("name").into_iter().collect();
            (
                name,
                value("required-features")
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn the_table_of_features_is_that_of_cargo_toml() {
    let declared: BTreeSet<_> = section("[features]")
        .iter()
        .filter_map(|line| line.split(" = ").next().map(str::to_owned))
        .filter(|name| name != "default")
        .collect();
    let told: BTreeSet<_> = table("feature").into_keys().collect();
    assert_eq!(told, declared);
}

#[test]
fn the_documentation_has_the_same_table_of_features() {
    let library = read("src/lib.rs");
    let rows_of = |text: &str, begin: &str| {
        let rows = text.lines().filter_map(|line| line.strip_prefix(begin));
        let rows = rows.skip_while(|line| *line != "| feature | what it adds |");
        rows.take_while(|line| line.starts_with('|'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let rows = rows_of(&read("README.md"), "");
    assert!(rows.len() > 2);
    assert_eq!(rows_of(&library, "//! "), rows);
}

#[test]
fn the_table_of_options_has_every_option_with_its_default() {
    let told: BTreeMap<_, _> = table("option")
        .into_iter()
        .map(|(name, cells)| (name, in_debug_form(&cells[0])))
        .collect();
    let defaults = format!("{:#?}", Options::default());
    let actual: BTreeMap<_, _> = defaults
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(told, actual);
}

/// `10 s` is `10s` there, `8 MiB` is `8388608`, no limit is the largest number, and what the environment decides is `None`.
fn in_debug_form(cell: &str) -> String {
    let scaled =
        |number: &str, scale: u64| (number.parse::<u64>().expect("a number") * scale).to_string();
    match cell.split_once(' ') {
        Some((number, "KiB")) => scaled(number, 1 << 10),
        Some((number, "MiB")) => scaled(number, 1 << 20),
        Some(("no", "limit")) => usize::MAX.to_string(),
        None if cell.starts_with("TINKER_") => "None".to_owned(),
        _ => cell.replace(' ', ""),
    }
}

#[test]
fn the_table_of_variables_has_every_variable_that_is_read() {
    let mut read_here = BTreeSet::new();
    for folder in ["src", "features"] {
        collect_variables(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut read_here,
        );
    }
    let told = table("variable");
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), read_here);
    let default_url = &told["TINKER_BASE_URL"][0];
    assert!(read("features/http/config.rs").contains(&format!("\"{default_url}\"")));
}

fn collect_variables(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() {
            collect_variables(&entry, names);
        } else {
            let quoted = read(entry);
            let is_name = |text: &&str| {
                text.starts_with("TINKER_")
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            };
            let quoted = quoted.split('"').filter(is_name);
            names.extend(quoted.map(str::to_owned));
        }
    }
}

#[test]
fn the_oldest_rust_and_the_version_are_those_of_cargo_toml() {
    let package = section("[package]");
    let value = |key: &str| {
        let line = package.iter().find(|line| line.starts_with(key));
        line.and_then(|line| line.split('"').nth(1))
            .expect("it is given")
            .to_owned()
    };
    let readme = read("README.md");
    assert!(readme.contains(&format!("Rust {} or later", value("rust-version"))));
    let (minor, _) = value("version")
        .rsplit_once('.')
        .map(|(minor, patch)| (minor.to_owned(), patch.to_owned()))
        .expect("three numbers");
    assert!(readme.contains(&format!("tinkex-telemetry = {{ version = \"{minor}\"")));
}

#[test]
fn each_command_names_a_target_and_the_features_it_needs() {
    for (kind, header) in [("run --example", "[[example]]"), ("run --bin", "[[bin]]")] {
        let targets = targets(header);
        let commands = commands(&format!("cargo {kind} "));
        assert!(!commands.is_empty(), "{kind}");
        for words in commands {
            // The README still runs these as examples of the crate itself.
            if ["async_std", "custom_http", "embassy_host", "tracing"].contains(&words[0].as_str())
            {
                continue;
            }
            let needed = targets
                .get(&words[0])
                .unwrap_or_else(|| panic!("there is no {}", words[0]));
            let given = words.iter().skip_while(|word| *word != "--features").nth(1);
            let given = given
                .map(|list| list.split(',').map(str::to_owned).collect())
                .unwrap_or_default();
            assert_eq!(*needed, given, "{}", words[0]);
        }
    }
}

#[test]
fn every_example_is_told_of_and_says_how_to_run_it() {
    let readme = read("README.md");
    for (name, features) in targets("[[example]]") {
        let command = format!("cargo run --example {name} --features ");
        assert!(readme.contains(&command), "{name}");
        let example = read(format!("examples/{name}.rs"));
        let line = example
            .lines()
            .find(|line| line.contains(&command))
            .expect("it says so");
        let told = line
            .trim_end_matches('`')
            .rsplit(' ')
            .next()
            .unwrap_or_default();
        assert_eq!(
            told.split(',').map(str::to_owned).collect::<BTreeSet<_>>(),
            features
        );
    }
}

#[test]
fn the_files_it_points_to_are_there() {
    let readme = read("README.md");
    for link in readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        assert!(link.contains("://") || !read(link).is_empty(), "{link}");
    }
}
