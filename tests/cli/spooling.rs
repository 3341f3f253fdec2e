//! `ls`, `cat` and `send` of a spool's directory, which other processes have written, are writing, or have damaged.
//!
//! The other process is this test binary, running `child_logs`, which does nothing unless started this way.

use alloc::collections::BTreeMap;
use core::time::Duration;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::fields;

use crate::process::*;

const KEY: &str = "sk-sentinel-0123456789";
const SESSION: &str = "TINKEX_TEST_SESSION";
const EVENTS: &str = "TINKEX_TEST_EVENTS";
/// Text that would control a terminal, or reorder what it shows.
const NASTY: &str = "\u{1b}[31mred\u{7}\u{202e}back\u{9b}2J";

/// Logs through `init` with a spool: so many events, or until it is killed.
#[test]
fn child_logs() {
    let Ok(session) = std::env::var(SESSION) else {
        return;
    };
    let events = std::env::var(EVENTS).ok().and_then(|it| it.parse().ok());
    let telemetry = tinkex_telemetry::init(session).expect("a session");
    for n in 0..events.unwrap_or(u64::MAX) {
        telemetry.log("step", fields! { n, text: NASTY });
        if events.is_none() {
            println!("confirmed {}", telemetry.stats().handed_over);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn child(directory: &Path, url: &str, session: &str, key: &str, events: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command
        .args(["--exact", "spooling::child_logs", "--nocapture"])
        .env(SESSION, session)
        .env("TINKER_TELEMETRY_SPOOL", directory)
        .env("TINKER_TELEMETRY", "1")
        .env("TINKER_TELEMETRY_FLUSH_INTERVAL", "20ms")
        .env("TINKER_BASE_URL", url)
        .env("TINKER_API_KEY", key)
        .env_remove("TINKER_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(events) = events {
        command.env(EVENTS, events.to_string());
    }
    command.spawn().expect("it runs")
}

/// A directory that a process has left which a `kill -9` has ended, and how many events were confirmed.
fn left(folder: &Folder, url: &str, session: &str) -> (PathBuf, u64) {
    let directory = folder.join("spool");
    let mut child = child(&directory, url, session, KEY, None);
    std::thread::sleep(Duration::from_millis(400));
    child.kill().expect("it runs");
    let output = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&output.stdout);
    let confirmed = text
        .lines()
        .filter_map(|line| line.strip_prefix("confirmed ")?.parse().ok())
        .max();
    let confirmed = confirmed.unwrap_or(0);
    assert!(confirmed > 10, "{text}");
    (directory, confirmed)
}

fn away() -> Collector {
    let collector = Collector::builder().api_key(KEY).start().expect("starts");
    collector.always(Reply::status(503));
    collector
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn send(folder: &Folder, directory: &Path, url: &str, more: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["send", text(directory), "--to", url], more].concat();
    let (code, _, stderr) = run(folder.program(&arguments).env("TINKER_API_KEY", KEY));
    (code, stderr)
}

/// The rows of `ls --json`, and its exit code.
fn listed(folder: &Folder, directory: &Path) -> (Option<i32>, Vec<Value>) {
    let (code, out, _) = run(&mut folder.program(&["ls", text(directory), "--json"]));
    let rows = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    (code, rows.collect())
}

/// The events that `cat --json` prints, by index, with their ids.
fn printed(folder: &Folder, directory: &Path) -> (Option<i32>, BTreeMap<u64, String>) {
    let (code, out, _) = run(&mut folder.program(&["cat", text(directory), "--json"]));
    assert!(out.is_ascii(), "nothing raw");
    let events = out.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let event = &line["event"];
        let index = event["event_session_index"].as_u64().expect("an index");
        (index, event["event_id"].as_str().expect("an id").to_owned())
    });
    (code, events.collect())
}

/// The events that have arrived, by index, with their ids.
fn arrived(collector: &Collector, session: &str) -> BTreeMap<u64, String> {
    let Some(session) = collector.session(session) else {
        return BTreeMap::new();
    };
    assert_eq!(session.duplicates(), 0);
    let events = session.events().iter();
    events
        .map(|event| (event.index(), event.id().to_owned()))
        .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

pub(crate) fn segment(directory: &Path) -> PathBuf {
    let files = files(directory);
    let mut segments = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "ndjson"));
    segments.next().expect("a segment")
}

#[test]
fn the_command_that_a_guard_prints_sends_what_it_has_left() {
    let folder = Folder::new();
    let collector = away();
    // A name that a shell would take apart.
    let directory = folder.join("it's a $spool");
    let child = child(&directory, &collector.url(), "s", KEY, Some(250));
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let command = stderr
        .lines()
        .find_map(|line| line.split_once("TINKER_API_KEY: "));
    let (before, command) = command.expect("it says how they are sent");
    assert!(
        before.contains("252 events not sent yet, kept in"),
        "{stderr}"
    );
    assert!(command.starts_with("tinkex-telemetry send "), "{stderr}");
    let (code, rows) = listed(&folder, &directory);
    assert_eq!((code, rows.len()), (Some(0), 1));
    let row = &rows[0];
    assert_eq!(
        (&row["state"], &row["session"]),
        (&"ended".into(), &"s".into())
    );
    assert_eq!(
        (&row["events"], &row["to_send"]),
        (&252.into(), &252.into())
    );
    let (code, ids) = printed(&folder, &directory);
    assert_eq!((code, ids.len()), (Some(0), 252));

    collector.always(Reply::accept());
    let program = Path::new(env!("CARGO_BIN_EXE_tinkex-telemetry"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", program.parent().expect("a folder").display());
    let sent = Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env("TINKER_BASE_URL", collector.url())
        .env("TINKER_API_KEY", KEY)
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success(), "{stderr}");
    assert!(stderr.contains("252 events sent in 3 requests"), "{stderr}");
    assert_eq!(arrived(&collector, "s"), ids);
    assert_eq!(files(&directory), [directory.join("README")]);
}

#[test]
fn what_a_living_process_writes_is_sent_as_it_is_written_until_that_ends() {
    let folder = Folder::new();
    let collector = Collector::builder().api_key(KEY).start().expect("starts");
    let directory = folder.join("spool");
    // It cannot send by itself.
    let mut child = child(&directory, &collector.url(), "s", "another key", None);
    let until = Instant::now() + BOUND;
    while listed(&folder, &directory).1.is_empty() {
        assert!(Instant::now() < until, "nothing is written");
    }
    let (code, rows) = listed(&folder, &directory);
    assert_eq!((code, &rows[0]["state"]), (Some(0), &"alive".into()));
    let (code, _) = printed(&folder, &directory);
    assert_eq!(code, Some(0), "a line on its way is no damage");
    let (code, stderr) = send(&folder, &directory, &collector.url(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("0 events sent") && stderr.contains("--follow"),
        "{stderr}"
    );

    let url = collector.url();
    let arguments = ["send", text(&directory), "--to", &url, "--follow"];
    let following = Running::start(folder.program(&arguments).env("TINKER_API_KEY", KEY));
    while arrived(&collector, "s").len() < 50 {
        assert!(Instant::now() < until, "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(child.try_wait().expect("a child").is_none(), "it is alive");
    child.kill().expect("it runs");
    let output = child.wait_with_output().expect("it has ended");
    let output = String::from_utf8_lossy(&output.stdout);
    let confirmed = output
        .lines()
        .filter_map(|line| line.strip_prefix("confirmed ")?.parse().ok());
    let confirmed: u64 = confirmed.max().expect("some");
    let (code, _, stderr) = following.finish();
    assert_eq!(code, Some(0), "{stderr:?}");
    let arrived = arrived(&collector, "s");
    assert!(
        (0..confirmed).all(|index| arrived.contains_key(&index)),
        "{confirmed} {stderr:?}"
    );
    assert_eq!(files(&directory), [directory.join("README")]);
}

#[test]
fn links_pipes_and_names_in_a_directory_are_left_alone_and_nothing_is_printed_raw() {
    let folder = Folder::new();
    let collector = away();
    let (directory, confirmed) = left(&folder, &collector.url(), "s");
    let own = segment(&directory).parent().expect("a folder").to_owned();
    let outside = folder.join("outside");
    fs::write(&outside, "{\"tinkex\":1}\n").expect("written");
    symlink(&outside, own.join("0000000007-00000000000000aa.ndjson")).expect("a link");
    symlink(&folder.0, directory.join("1764153045123456-5f3c9a1e")).expect("a link");
    let pipe = own.join("0000000008-00000000000000ab.ndjson");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("it runs").success());
    fs::write(directory.join("\u{1b}]0;owned\u{7}"), "").expect("written");
    for command in [
        &["ls"][..],
        &["cat"],
        &["cat", "--json"],
        &["cat", "--full"],
    ] {
        let arguments = [command, &[text(&directory)]].concat();
        let (code, out, err) = run(&mut folder.program(&arguments));
        assert_eq!(code, Some(1), "{err}");
        let is_raw = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
        assert!(
            !out.contains(is_raw) && !err.contains(is_raw),
            "{command:?}: {out:?} {err:?}"
        );
        assert_eq!(err.matches("left alone").count(), 2, "{err}");
        assert_eq!(err.matches("is not opened").count(), 2, "{err}");
        assert!(!out.is_empty());
    }
    collector.always(Reply::accept());
    let (code, stderr) = send(&folder, &directory, &collector.url(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let arrived = arrived(&collector, "s");
    assert!((0..confirmed).all(|index| arrived.contains_key(&index)));
    assert_eq!(
        fs::read_to_string(&outside).expect("it is there"),
        "{\"tinkex\":1}\n"
    );
}

#[test]
fn damage_is_counted_left_out_and_costs_no_other_event() {
    let folder = Folder::new();
    let collector = away();
    let (directory, _) = left(&folder, &collector.url(), "s");
    let (_, before) = printed(&folder, &directory);
    let path = segment(&directory);
    let mut bytes = fs::read(&path).expect("a file");
    let at = bytes.windows(7).position(|part| part == b"\"n\":5,\"");
    bytes[at.expect("it is there") + 4] = b'6';
    // A line that was being written when the process ended.
    bytes.extend(b"{\"n\":99999,\"i\":");
    fs::write(&path, bytes).expect("written");
    let (code, rows) = listed(&folder, &directory);
    assert_eq!((code, &rows[0]["damaged"]), (Some(1), &1.into()));
    assert_eq!(rows[0]["is_torn"], true);
    let (code, after) = printed(&folder, &directory);
    assert_eq!((code, after.len() + 1), (Some(1), before.len()));
    let (_, out, err) = run(&mut folder.program(&["cat", text(&directory)]));
    assert_eq!(out.lines().count(), after.len());
    assert!(err.contains("1 event is damaged and was left out"), "{err}");

    collector.always(Reply::accept());
    let (code, stderr) = send(&folder, &directory, &collector.url(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("1 line could not be read"), "{stderr}");
    assert_eq!(arrived(&collector, "s"), after);
}

#[test]
fn files_that_others_can_have_written_are_sent_only_if_they_are_trusted() {
    let folder = Folder::new();
    let collector = away();
    let (directory, confirmed) = left(&folder, &collector.url(), "s");
    // As an archive or another user leaves them.
    fs::set_permissions(segment(&directory), fs::Permissions::from_mode(0o644)).expect("changed");
    collector.always(Reply::accept());
    let before = collector.requests().len();
    let (code, stderr) = send(&folder, &directory, &collector.url(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--trust"), "{stderr}");
    assert_eq!(collector.requests().len(), before);
    let (code, stderr) = send(&folder, &directory, &collector.url(), &["--trust"]);
    assert_eq!(code, Some(0), "{stderr}");
    let arrived = arrived(&collector, "s");
    assert!((0..confirmed).all(|index| arrived.contains_key(&index)));
    assert!(
        segment(&directory).exists(),
        "what is not this user's own stays"
    );
}

#[test]
fn of_a_folder_that_is_claimed_the_files_of_others_are_sent_only_if_they_are_trusted() {
    let (folder, others) = (Folder::new(), Folder::new());
    let collector = away();
    let (directory, confirmed) = left(&folder, &collector.url(), "s");
    let (other, theirs) = left(&others, &collector.url(), "t");
    // Next to this user's own.
    let from = segment(&other);
    let name = from.file_name().and_then(|name| name.to_str());
    let (_, id) = name.and_then(|name| name.split_once('-')).expect("a name");
    let to = segment(&directory).with_file_name(format!("9999999999-{id}"));
    fs::copy(from, &to).expect("copied");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).expect("changed");
    collector.always(Reply::accept());
    let (code, stderr) = send(&folder, &directory, &collector.url(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("1 file was left alone"), "{stderr}");
    let events = arrived(&collector, "s");
    assert!((0..confirmed).all(|index| events.contains_key(&index)));
    assert!(collector.session("t").is_none());
    let (code, stderr) = send(&folder, &directory, &collector.url(), &["--trust"]);
    assert_eq!(code, Some(0), "{stderr}");
    let events = arrived(&collector, "t");
    assert!((0..theirs).all(|index| events.contains_key(&index)));
    // In its folder, or in that of the process that has claimed the rest.
    let rest = files(&directory);
    assert!(
        rest.iter().any(|path| path.file_name() == to.file_name()),
        "what is not this user's own stays: {rest:?}"
    );
}

#[test]
fn what_a_living_process_writes_to_a_file_of_others_is_followed_if_that_is_trusted() {
    let folder = Folder::new();
    let collector = Collector::builder().api_key(KEY).start().expect("starts");
    let directory = folder.join("spool");
    let mut child = child(&directory, &collector.url(), "s", "another key", None);
    let until = Instant::now() + BOUND;
    while listed(&folder, &directory).1.is_empty() {
        assert!(Instant::now() < until, "nothing is written");
    }
    let file = segment(&directory);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("changed");
    let url = collector.url();
    let arguments = [
        "send",
        text(&directory),
        "--to",
        &url,
        "--follow",
        "--trust",
    ];
    let following = Running::start(folder.program(&arguments).env("TINKER_API_KEY", KEY));
    while arrived(&collector, "s").len() < 50 {
        assert!(Instant::now() < until, "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(child.try_wait().expect("a child").is_none(), "it is alive");
    child.kill().expect("it runs");
    let output = child.wait_with_output().expect("it has ended");
    let output = String::from_utf8_lossy(&output.stdout);
    let confirmed = output
        .lines()
        .filter_map(|line| line.strip_prefix("confirmed ")?.parse().ok());
    let confirmed: u64 = confirmed.max().expect("some");
    let (code, _, stderr) = following.finish();
    assert_eq!(code, Some(0), "{stderr:?}");
    let arrived = arrived(&collector, "s");
    assert!(
        (0..confirmed).all(|index| arrived.contains_key(&index)),
        "{confirmed} {stderr:?}"
    );
    assert!(file.exists(), "what is not this user's own stays");
}

#[test]
fn what_a_server_has_refused_is_sent_by_naming_its_folder() {
    let folder = Folder::new();
    let collector = away();
    let directory = folder.join("spool");
    let child = child(&directory, &collector.url(), "s", KEY, Some(2));
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let (_, ids) = printed(&folder, &directory);
    collector.always(Reply::status(422));
    let (code, stderr) = send(&folder, &directory, &collector.url(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("4 events were rejected") && stderr.contains("rejected"),
        "{stderr}"
    );
    let (_, rows) = listed(&folder, &directory);
    assert_eq!(
        (&rows[0]["state"], &rows[0]["events"]),
        (&"rejected".into(), &4.into())
    );
    // A directory's own sending leaves them alone.
    collector.always(Reply::accept());
    let (code, stderr) = send(&folder, &directory, &collector.url(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(arrived(&collector, "s").is_empty());
    // Another server, too.
    let other = Collector::builder().api_key(KEY).start().expect("starts");
    let (code, stderr) = send(&folder, &directory.join("rejected"), &other.url(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(arrived(&other, "s"), ids);
    assert_eq!(files(&directory), [directory.join("README")]);
}

#[test]
fn a_wrong_key_and_another_server_keep_everything() {
    let folder = Folder::new();
    let collector = away();
    let (directory, confirmed) = left(&folder, &collector.url(), "s");
    let names = |directory: &Path| -> Vec<_> {
        let files = files(directory).into_iter();
        files
            .filter_map(|path| Some(path.file_name()?.to_owned()))
            .collect()
    };
    let before = names(&directory);
    let other = Collector::start().expect("starts");
    let (code, stderr) = send(&folder, &directory, &other.url(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("0 events sent"), "{stderr}");
    assert!(other.requests().is_empty() && names(&directory) == before);
    collector.always(Reply::accept());
    let url = collector.url();
    let arguments = ["send", text(&directory), "--to", &url];
    let (code, _, stderr) = run(folder
        .program(&arguments)
        .env("TINKER_API_KEY", "wrong-key"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("401") && stderr.contains("kept in"),
        "{stderr}"
    );
    assert!(!stderr.contains("wrong-key"), "{stderr}");
    let (code, stderr) = send(&folder, &directory, &url, &["--dry-run"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("events would be sent"), "{stderr}");
    let (code, stderr) = send(&folder, &directory, &url, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let arrived = arrived(&collector, "s");
    assert!((0..confirmed).all(|index| arrived.contains_key(&index)));
}

#[test]
fn what_serve_has_kept_is_listed_printed_and_sent_and_stays() {
    let folder = Folder::new();
    let kept = folder.join("kept");
    let (mut running, addr) = Running::serve(&folder, &["--keep", text(&kept)]);
    // Another client's spelling, on two lines.
    let body = batch("s", &[start(), generic(1)]);
    let body = body.replace(
        r#""event_data":{"n":1}"#,
        "\"event_data\": {\n \"n\" : 1.50 }",
    );
    assert_eq!(deliver(addr, &body), 200);
    let until = Instant::now() + BOUND;
    while listed(&folder, &kept).1.is_empty() {
        assert!(Instant::now() < until, "nothing is written");
    }
    let (code, rows) = listed(&folder, &kept);
    assert_eq!(
        (code, &rows[0]["state"], &rows[0]["to"]),
        (Some(0), &"alive".into(), &"any".into())
    );
    running.signal("-TERM");
    running.ended();
    let (code, out, err) = run(&mut folder.program(&["cat", text(&kept)]));
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("s 0 INFO     SESSION_START") && out.contains("s 1 INFO     x"),
        "{out}"
    );
    for _ in 0..2 {
        let collector = Collector::builder().lenient().start().expect("starts");
        let (code, stderr) = send(&folder, &kept, &collector.url(), &[]);
        assert_eq!(code, Some(0), "{stderr}");
        let session = collector.session("s").expect("it was sent");
        assert_eq!(
            (session.len(), session.events()[1].data()),
            (2, Some("{  \"n\" : 1.50 }"))
        );
    }
    // A spool in the same place does not take them.
    let collector = Collector::builder().api_key(KEY).start().expect("starts");
    let child = child(&kept, &collector.url(), "own", KEY, Some(1));
    assert!(child.wait_with_output().expect("it ends").status.success());
    assert_eq!(arrived(&collector, "own").len(), 3);
    assert!(collector.session("s").is_none());
    assert_eq!(printed(&folder, &kept).1.len(), 2);
}

#[test]
fn what_is_no_directory_of_a_spool_is_said() {
    let folder = Folder::new();
    let none = folder.join("none");
    for command in ["ls", "cat"] {
        let (code, out, err) = run(&mut folder.program(&[command, text(&none)]));
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains("cannot read the directory"), "{err}");
    }
    let (code, _, err) =
        run(&mut folder.program(&["send", text(&none), "--to", "http://127.0.0.1:9"]));
    assert!(code == Some(1) && err.contains("cannot read"), "{err}");
    let mut file = fs::File::create(folder.join("lines")).expect("created");
    file.write_all(b"{\"name\":\"a\"}\n").expect("written");
    let lines = folder.join("lines");
    let (code, _, err) = run(&mut folder.program(&["send", text(&lines)]));
    assert!(code == Some(2) && err.contains("--to URL"), "{err}");
    let arguments = [
        "send",
        text(&lines),
        "--to",
        "http://127.0.0.1:9",
        "--follow",
    ];
    let (code, _, err) = run(&mut folder.program(&arguments));
    assert!(code == Some(2) && err.contains("--follow"), "{err}");
}
