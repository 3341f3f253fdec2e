//! What README, CONTRIBUTING and the pages in docs/ say is so. Their snippets are compiled as tests of the documentation.
#![cfg(feature = "std")]
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

mod manifest;

use manifest::{Table, features, path, read, rust_files, strings, tables};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use tinkex_telemetry::{Options, Stats};

/// Scripts, CONTRIBUTING.md and some tests are in the repository, and not in the package.
fn is_repository() -> bool {
    path("ci").is_dir() && path("CONTRIBUTING.md").exists()
}

/// README.md and the pages in docs/.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(path("docs")).expect("there are pages");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let pages = names.map(|name| format!("docs/{}", name.to_string_lossy()));
    let mut pages: Vec<_> = pages.filter(|page| page.ends_with(".md")).collect();
    pages.sort();
    pages.insert(0, "README.md".to_owned());
    pages
}

/// All of them, and what only the repository has.
fn documents() -> Vec<String> {
    let mut documents = pages();
    documents.push("CHANGELOG.md".to_owned());
    if is_repository() {
        documents.push("CONTRIBUTING.md".to_owned());
    }
    documents
}

/// The rows of a document's table whose header begins with this word, each as its cells.
fn rows(document: &str, first_header: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {first_header} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = lines
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "{document} has no table `{first_header}`");
    rows
}

/// The rest of such a table's rows, by the first cell, without the marks of code.
fn table(document: &str, first_header: &str) -> BTreeMap<String, Vec<String>> {
    let plain = |cell: String| cell.replace('`', "");
    rows(document, first_header)
        .into_iter()
        .map(|row| {
            let mut cells = row.into_iter().map(plain);
            (cells.next().unwrap_or_default(), cells.collect())
        })
        .collect()
}

/// What stands between backticks in a text.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The documents' commands that begin like this, with the words behind it.
fn commands(begin: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for page in pages() {
        let text = read(page);
        let rest = text.split(begin).skip(1);
        found.extend(rest.map(|rest| {
            let command = rest.split(['\n', '`']).next().unwrap_or_default();
            command.split_whitespace().map(str::to_owned).collect()
        }));
    }
    found
}

/// What follows a flag of a command.
fn argument<'a>(command: &'a [String], flag: &str) -> Option<&'a str> {
    let mut words = command.iter().skip_while(|word| *word != flag);
    words.nth(1).map(String::as_str)
}

/// The manifests of the repository by the name of their package, and where it is. The package has its own alone.
fn manifests() -> BTreeMap<String, (String, Vec<Table>)> {
    let mut folders = [".", "benches", "benches/otlp"].map(str::to_owned).to_vec();
    for parent in ["examples", "tests"] {
        let entries = fs::read_dir(path(parent)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        folders.extend(names.map(|name| format!("{parent}/{}", name.to_string_lossy())));
    }
    let manifests = folders
        .into_iter()
        .map(|folder| (format!("{folder}/Cargo.toml"), folder));
    manifests
        .filter(|(file, _)| path(file).exists())
        .map(|(file, folder)| {
            let tables = tables(&file);
            let package = tables.iter().find(|table| table.header == "package");
            let name = strings(package.expect("a package").value("name"));
            (name.into_iter().next().expect("a name"), (folder, tables))
        })
        .collect()
}

/// The targets of this kind in a manifest, with the features that each needs.
fn targets(manifest: &[Table], kind: &str) -> BTreeMap<String, BTreeSet<String>> {
    let targets = manifest.iter().filter(|table| table.header == kind);
    targets
        .map(|table| {
            let name = strings(table.value("name")).into_iter().next();
            let features = strings(table.value("required-features"));
            (name.expect("a name"), features)
        })
        .collect()
}

#[test]
fn the_readme_is_short() {
    let readme = read("README.md");
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(
        lines <= 220 && words <= 1400,
        "{lines} lines, {words} words"
    );
}

#[test]
fn the_table_of_features_is_that_of_cargo_toml() {
    let declared: BTreeSet<_> = features().into_iter().map(|(name, _)| name).collect();
    let documented: BTreeSet<_> = table("README.md", "feature").into_keys().collect();
    assert_eq!(documented, declared);
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
    let documented: BTreeMap<_, _> = table("docs/options.md", "option")
        .into_iter()
        .map(|(name, cells)| (name, in_debug_form(&cells[0])))
        .collect();
    assert_eq!(documented, fields_of(&Options::default()));
}

/// The fields of a struct with their values, as its `Debug` shows them.
fn fields_of(value: &impl core::fmt::Debug) -> BTreeMap<String, String> {
    format!("{value:#?}")
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
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
fn the_tables_of_losses_have_every_reason() {
    let stats = Stats::default();
    for (header, counted) in [
        ("reason", fields_of(&stats.dropped)),
        ("refusal", fields_of(&stats.refused)),
    ] {
        let documented: BTreeSet<_> = table("docs/delivery.md", header).into_keys().collect();
        assert_eq!(documented, counted.into_keys().collect());
    }
}

#[test]
fn the_messages_in_the_table_of_remedies_are_those_that_are_written() {
    let code = read("src/diagnostic.rs");
    let documents = ["docs/delivery.md", "README.md"];
    for row in documents.iter().flat_map(|page| rows(page, "message")) {
        for part in codes(&row[0]).take(1).flat_map(|text| text.split('…')) {
            assert!(code.contains(part), "{part}");
        }
    }
}

#[test]
fn the_tables_of_variables_have_every_variable_that_is_read() {
    let mut read_here = BTreeSet::new();
    for file in ["src", "features"].into_iter().flat_map(rust_files) {
        let is_name = |text: &&str| {
            (text.starts_with("TINKER_") || *text == "DO_NOT_TRACK")
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        let code = read(file);
        // The variables of options are read by one rule, and documented as one.
        let is_option = |name: &str| {
            let option = name.strip_prefix("TINKER_TELEMETRY_");
            option.is_some_and(|option| option != "SPOOL")
        };
        let documented = |name: &str| match is_option(name) {
            true => "TINKER_TELEMETRY_<OPTION>".to_owned(),
            false => name.to_owned(),
        };
        read_here.extend(code.split('"').filter(is_name).map(documented));
    }
    let documented = table("README.md", "variable");
    assert_eq!(
        documented.keys().cloned().collect::<BTreeSet<_>>(),
        read_here
    );
    assert_eq!(table("docs/options.md", "variable"), documented);
    let default_url = &documented["TINKER_BASE_URL"][0];
    assert!(read("features/http/config.rs").contains(&format!("\"{default_url}\"")));
}

#[test]
fn the_table_of_files_and_variables_has_every_option_and_its_values_are_accepted() {
    let mut written = BTreeSet::new();
    for row in rows("docs/options.md", "kind") {
        let [_, options, in_files, in_variables] = &row[..] else {
            panic!("{row:?}");
        };
        for option in codes(options) {
            written.insert(option.to_owned());
            for value in codes(in_files) {
                let file = format!("{{ \"{option}\": {value} }}");
                let read = serde_json::from_str::<Options>(&file);
                assert!(read.is_ok(), "{file}: {read:?}");
            }
            // The same texts are read from variables, where `enabled` is a switch.
            for value in codes(in_variables) {
                let file = serde_json::json!({ option: value });
                let read = serde_json::from_value::<Options>(file);
                assert!(read.is_ok(), "{option}={value}: {read:?}");
            }
        }
    }
    let all = fields_of(&Options::default());
    assert_eq!(written, all.into_keys().collect());
}

#[test]
fn the_oldest_rust_and_the_version_are_those_of_cargo_toml() {
    let readme = read("README.md");
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    assert!(readme.contains(&format!("Rust {oldest} or later")));
    let minor = concat!(
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR")
    );
    assert!(readme.contains(&format!("tinkex-telemetry = {{ version = \"{minor}\"")));
}

#[test]
fn each_command_names_a_target_and_the_features_it_needs() {
    let manifests = manifests();
    let commands = [commands("cargo run "), commands("cargo bench ")].concat();
    assert!(commands.len() > 10);
    for command in commands {
        let package = argument(&command, "-p");
        let Some((folder, manifest)) = manifests.get(package.unwrap_or(env!("CARGO_PKG_NAME")))
        else {
            assert!(!is_repository(), "there is no package {package:?}");
            continue;
        };
        let kinds = ["example", "bench", "bin"];
        let named = kinds.iter().find_map(|kind| {
            let name = argument(&command, &format!("--{kind}"))?;
            Some((name, targets(manifest, kind)))
        });
        let Some((name, targets)) = named else {
            let program = format!("{folder}/src/main.rs");
            assert!(path(&program).exists(), "{command:?}");
            continue;
        };
        let needed = targets.get(name);
        let needed = needed.unwrap_or_else(|| panic!("there is no {name}"));
        let given = argument(&command, "--features")
            .map(|list| list.split(',').map(str::to_owned).collect())
            .unwrap_or_default();
        assert_eq!(*needed, given, "{name}");
    }
}

#[test]
fn every_benchmark_is_documented() {
    if !is_repository() {
        return;
    }
    let documented: BTreeSet<_> = commands("cargo bench ")
        .iter()
        .filter_map(|command| argument(command, "--bench").map(str::to_owned))
        .collect();
    let benches = manifests()
        .into_values()
        .flat_map(|(_, manifest)| targets(&manifest, "bench").into_keys());
    assert_eq!(documented, benches.collect());
}

#[test]
fn every_example_is_documented_with_its_command() {
    let documented: BTreeSet<_> = commands("cargo run ")
        .into_iter()
        .map(|words| words.join(" "))
        .collect();
    let mut examples = Vec::new();
    for (name, (folder, manifest)) in manifests() {
        if name.starts_with("example-") {
            examples.push((format!("-p {name}"), format!("{folder}/src/main.rs")));
        }
        for example in targets(&manifest, "example").into_keys() {
            let command = format!("--example {example} --features ");
            examples.push((command, format!("{folder}/examples/{example}.rs")));
        }
    }
    assert!(examples.len() > 5);
    for (begin, file) in examples {
        let command = documented
            .iter()
            .find(|command| command.starts_with(&begin));
        let command = command.unwrap_or_else(|| panic!("{begin} is not documented"));
        let example = read(&file);
        // That the features are the right ones, the test above knows.
        let says = example.contains(&format!("`cargo run {command}`"));
        assert!(says, "{file} says how to run it: {command}");
    }
}

#[test]
fn every_page_is_linked_from_the_readme_shown_by_rustdoc_and_compiled() {
    let (readme, library) = (read("README.md"), read("src/lib.rs"));
    // The snippets need other people's crates.
    let zoo = "tests/zoo/src/lib.rs";
    let compiled = path(zoo).exists().then(|| read(zoo));
    assert!(compiled.is_some() || !is_repository());
    for page in pages().iter().skip(1) {
        assert!(readme.contains(page.as_str()), "README.md links to {page}");
        assert!(library.contains(page.as_str()), "src/lib.rs shows {page}");
        // tests/embedded compiles that page, for a firmware.
        let has_code = read(page).contains("```rust") && page != "docs/bare-metal.md";
        if let Some(compiled) = &compiled {
            assert!(
                !has_code || compiled.contains(page.as_str()),
                "{zoo} compiles {page}"
            );
        }
    }
}

#[test]
fn every_relative_link_leads_to_a_file() {
    if !is_repository() {
        return;
    }
    for document in documents() {
        let text = read(&document);
        let folder = Path::new(&document).parent().expect("it is a file");
        let direct = text.split("](").skip(1).filter_map(|rest| {
            let link = rest.split(')').next()?;
            (!link.contains(['\n', ' '])).then_some(link)
        });
        let defined = text.lines().filter_map(|line| {
            let (_, link) = line.strip_prefix('[')?.split_once("]: ")?;
            Some(link)
        });
        for link in direct.chain(defined) {
            let file = link.split('#').next().unwrap_or_default();
            let is_there = file.contains("://") || path(folder.join(file)).exists();
            assert!(is_there, "{document}: {link}");
        }
    }
}

/// Whether a name in a document is that of a file or folder in the repository, which begins with one of its folders.
fn is_path(name: &str) -> bool {
    let folders = [
        "src/",
        "features/",
        "tests/",
        "docs/",
        "examples/",
        "benches/",
        "ci/",
        ".ci/",
    ];
    let is_word = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let is_model = ["foo", "bar"]
        .iter()
        .any(|it| name.contains(&format!("/{it}.")));
    folders.iter().any(|folder| name.starts_with(folder)) && name.chars().all(is_word) && !is_model
}

/// The paths in a line: in backticks, or as a word of a drawing.
fn paths_in(line: &str) -> impl Iterator<Item = &str> {
    let separators = |c: char| c.is_whitespace() || "`(),;:…".contains(c);
    line.split(separators)
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| is_path(word))
}

#[test]
fn every_path_that_is_named_exists() {
    if !is_repository() {
        return;
    }
    for document in documents() {
        for name in read(&document).lines().flat_map(paths_in) {
            assert!(path(name).exists(), "{document}: {name}");
        }
    }
}

#[test]
fn every_function_that_is_named_next_to_a_file_is_in_it() {
    if !is_repository() {
        return;
    }
    for document in ["docs/architecture.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let mut checked = 0;
        for (line_number, line) in text.lines().enumerate() {
            let named = codes(line).filter_map(|code| code.strip_suffix("()"));
            for function in named.filter(|name| !name.contains(['.', ' '])) {
                let function = function.rsplit("::").next().unwrap_or(function);
                // A sentence may go on in the next line.
                let next = text.lines().nth(line_number + 1).unwrap_or_default();
                let files = paths_in(line).chain(paths_in(next));
                let mut files = files.filter(|file| file.ends_with(".rs")).peekable();
                if files.peek().is_none() {
                    continue;
                }
                let is_in = |file| read(file).contains(&format!("fn {function}"));
                assert!(files.any(is_in), "{document}: {line}");
                checked += 1;
            }
        }
        assert!(checked > 3, "{document} names functions");
    }
}

#[test]
fn each_room_imports_what_the_map_allows() {
    let words = ["time", "text", "stats", "diagnostic"];
    let mut rooms = BTreeSet::new();
    for row in rows("docs/architecture.md", "room") {
        let allowed: BTreeSet<_> = codes(&row[2]).collect();
        for room in codes(&row[0]) {
            let files = if room.ends_with(".rs") {
                vec![room.to_owned()]
            } else {
                rust_files(room.trim_end_matches('/'))
            };
            let own = room.trim_start_matches("src/");
            let own = own.trim_end_matches('/').trim_end_matches(".rs");
            rooms.insert(own.to_owned());
            for file in files.iter().filter(|file| !is_test(file)) {
                for import in imports(file) {
                    let is_allowed = import == own
                        || words.contains(&import.as_str())
                        || allowed.contains(import.as_str());
                    assert!(is_allowed, "{file} imports {import}");
                }
            }
        }
    }
    let of = |entry: fs::DirEntry| entry.file_name().to_string_lossy().replace(".rs", "");
    let entries = fs::read_dir(path("src")).expect("a folder");
    let actual = entries.map(|entry| of(entry.expect("an entry")));
    assert_eq!(
        rooms,
        actual.filter(|name| name != "lib").collect::<BTreeSet<_>>()
    );
}

/// Files that only tests have.
fn is_test(file: &str) -> bool {
    ["tests.rs", "testing.rs", "properties.rs"]
        .iter()
        .any(|end| file.ends_with(end))
}

/// The modules of the crate that a file names as `crate::module`, its own tests left out.
fn imports(file: &str) -> BTreeSet<String> {
    let code = read(file);
    let lines = code
        .lines()
        .take_while(|line| !(line.starts_with("mod ") && line.ends_with("tests {")));
    let code: Vec<_> = lines
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .collect();
    let code = code.join("\n");
    let named = code.split("crate::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest.get(..end.unwrap_or(rest.len()))
    });
    // What begins otherwise is an item or a macro of the crate's root, which a macro names for its callers.
    named
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_table_of_scripts_has_each_of_them() {
    if !is_repository() {
        return;
    }
    let entries = fs::read_dir(path("ci")).expect("there are scripts");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let scripts: BTreeSet<_> = names
        .map(|name| format!("ci/{}", name.to_string_lossy()))
        .collect();
    let documented: BTreeSet<_> = table("CONTRIBUTING.md", "script").into_keys().collect();
    assert_eq!(documented, scripts);
}
