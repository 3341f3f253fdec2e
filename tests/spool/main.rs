//! The spool with real processes: what `kill -9`, a full disk, a fork of the clock and other processes must not cost.
//!
//! The other process is this test binary, running one of the `child_…` tests, which do nothing unless started this way.
#![cfg(all(
    feature = "collector",
    feature = "spool",
    feature = "thread",
    feature = "ureq",
    unix
))]

extern crate alloc;

mod damage;
mod large;
mod planted;

use alloc::collections::BTreeMap;
use core::hash::BuildHasher as _;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::hash::RandomState;
use std::io::{BufRead as _, BufReader, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::spool::{Left, Spool, SpoolStats};
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq, fields};

const KEY: &str = "sk-sentinel-0123456789";
const DIRECTORY: &str = "TINKEX_TEST_DIRECTORY";
const SESSION: &str = "TINKEX_TEST_SESSION";
const PATIENCE: &str = "TINKEX_TEST_PATIENCE";
const LONG: Duration = Duration::from_secs(60);

/// A folder for one test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("tinkex-spools-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn directory(&self) -> PathBuf {
        self.0.join("spool")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn spool(directory: &Path, url: &str) -> Spool {
    let config = Config::new(url, KEY).expect("a config");
    Spool::builder(directory)
        .transport(HttpTransport::new(config, Ureq::new()))
        .destination("the test's")
        .runtime(Thread)
        .retry_base_delay(Duration::from_millis(10))
        .retry_max_delay(Duration::from_millis(50))
        .enabled(true)
        .start()
        .expect("a spool")
}

/// Sends what is in the directory.
fn recover(directory: &Path, backend: &Collector) -> (Left, SpoolStats) {
    let spool = spool(directory, &backend.url());
    let left = spool.wait_until_delivered_blocking(LONG);
    (left.expect("it may wait here"), spool.stats())
}

fn child(test: &str, directory: &Path, session: &str) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .env(SESSION, session)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs")
}

/// The number in a variable.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A number below `bound`, another one each time.
fn random(bound: u64) -> u64 {
    RandomState::new().hash_one(bound) % bound
}

/// What a child said until it was killed: the payloads that it was about to log, by number, and how many events were
/// confirmed.
fn heard(child: &mut Child) -> (Vec<String>, u64) {
    let (mut payloads, mut confirmed) = (Vec::new(), 0);
    let out = child.stdout.take().expect("a pipe");
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        if let Some(payload) = line.strip_prefix("log ") {
            payloads.push(payload.to_owned());
        } else if let Some(Ok(count)) = line.strip_prefix("confirmed ").map(str::parse) {
            confirmed = count;
        }
    }
    (payloads, confirmed)
}

/// Everything that arrived of a session: payloads by index.
fn arrived(backend: &Collector, session: &str) -> BTreeMap<u64, Option<String>> {
    let mut found = BTreeMap::new();
    let Some(session) = backend.session(session) else {
        return found;
    };
    for event in session.events() {
        let value = event.value();
        let index = value["event_session_index"].as_u64().expect("an index");
        let payload = value["event_data"]["payload"].as_str().map(str::to_owned);
        found.insert(index, payload);
    }
    found
}

/// Checks that the first `confirmed` events of a session have arrived as they were logged.
fn check(backend: &Collector, session: &str, payloads: &[String], confirmed: u64) {
    let arrived = arrived(backend, session);
    for index in 0..confirmed {
        assert!(
            arrived.contains_key(&index),
            "{session} lost {index} of {confirmed}"
        );
    }
    let received: Vec<_> = arrived.values().flatten().collect();
    assert!(
        received
            .iter()
            .zip(payloads)
            .all(|(one, other)| *one == other),
        "{session} received what was not logged"
    );
}

/// Logs events until it is killed, and says so before each.
#[test]
fn child_logs_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let session = std::env::var(SESSION).expect("a session");
    let spool = spool(Path::new(&directory), "http://127.0.0.1:9");
    let telemetry = Reporter::builder(&session)
        .transport(spool.transport())
        .runtime(Thread)
        .flush_interval(Duration::from_millis(5))
        .max_batch_size(20)
        .enabled(true)
        .start()
        .expect("a session");
    let mut out = std::io::stdout();
    for n in 0_u64.. {
        let payload = format!("{n} \u{1f980} \\\"{}", "x".repeat(random(300) as usize));
        if announce(&mut out, &payload, telemetry.stats().handed_over).is_err() {
            return;
        }
        telemetry.log("step", fields! { payload });
        std::thread::sleep(Duration::from_micros(random(400)));
    }
}

#[test]
fn what_was_confirmed_before_kill_9_arrives_as_it_was_logged() {
    let times = number("TINKEX_KILLS").unwrap_or(10);
    let (mut logged, mut confirmed, mut here, mut twice, mut lost) = (0, 0, 0, 0, 0);
    for round in 0..times {
        let place = Place::new();
        let session = format!("round-{round}");
        let backend = Collector::builder().api_key(KEY).start();
        let backend = backend.expect("a collector");
        backend.always(Reply::status(503));
        let mut child = child_by_init(&place.directory(), &backend.url(), &session);
        std::thread::sleep(Duration::from_millis(20 + random(400)));
        child.kill().expect("it runs");
        let (payloads, count) = heard(&mut child);
        child.wait().expect("it has ended");
        backend.always(Reply::accept());
        let ended = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "child_ends_through_init"])
            .envs(by_init(&place.directory(), &backend.url(), "the-next"))
            .output();
        assert!(ended.is_ok_and(|output| output.status.success()));
        let remaining = files(&place.directory());
        assert!(
            remaining.iter().all(|path| path.ends_with("README")),
            "{remaining:?}"
        );
        check(&backend, &session, &payloads, count);
        let arrived = arrived(&backend, &session);
        logged += payloads.len() as u64;
        confirmed += count;
        here += arrived.len() as u64;
        twice += backend
            .session(&session)
            .map_or(0, |session| session.duplicates());
        lost += (0..count)
            .filter(|index| !arrived.contains_key(index))
            .count();
    }
    println!(
        "kill -9, {times} times: {logged} logged, {confirmed} confirmed, {here} arrived, {twice} duplicated, {lost} lost"
    );
    assert!(confirmed > 0, "nothing was tested");
}

#[test]
fn ten_processes_share_a_directory_and_five_are_killed() {
    let place = Place::new();
    let directory = place.directory();
    let names: Vec<_> = (0..10).map(|n| format!("process-{n}")).collect();
    let mut children: Vec<_> = names
        .iter()
        .map(|name| child("child_logs_until_it_is_killed", &directory, name))
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let (killed, living) = children.split_at_mut(5);
    let mut heard_of = Vec::new();
    for child in killed.iter_mut() {
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
        heard_of.push(heard(child));
    }
    // One that is stopped is as alive as the others.
    signal(&living[0], "STOP");
    let backend = Collector::start().expect("a collector");
    let (left, _) = recover(&directory, &backend);
    signal(&living[0], "CONT");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(left.others, 5, "the living keep what is theirs");
    for (name, (payloads, confirmed)) in names.iter().zip(&heard_of) {
        check(&backend, name, payloads, *confirmed);
    }
    for name in &names[5..] {
        assert!(backend.session(name).is_none(), "{name} is alive");
    }
    for child in living.iter_mut() {
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
        heard_of.push(heard(child));
    }
    let (left, stats) = recover(&directory, &backend);
    assert!(left.is_empty() && left.others == 0, "{left:?} {stats:?}");
    for (name, (payloads, confirmed)) in names.iter().zip(&heard_of) {
        check(&backend, name, payloads, *confirmed);
    }
    let confirmed: u64 = heard_of.iter().map(|(_, confirmed)| confirmed).sum();
    println!(
        "ten processes in one directory, five killed, one stopped: {confirmed} confirmed, 0 lost"
    );
}

#[test]
fn a_wrong_key_keeps_the_files_and_no_file_has_a_key() {
    let place = Place::new();
    let directory = place.directory();
    let mut child = child("child_logs_until_it_is_killed", &directory, "keys");
    std::thread::sleep(Duration::from_millis(150));
    child.kill().expect("it runs");
    let (payloads, confirmed) = heard(&mut child);
    child.wait().expect("it has ended");
    let strict = Collector::builder().api_key("another key").start();
    let strict = strict.expect("a collector");
    let (left, stats) = recover(&directory, &strict);
    assert!(left.is_paused && left.pending > 0, "{left:?} {stats:?}");
    for path in files(&directory) {
        let text = std::fs::read(&path).expect("a file");
        let text = String::from_utf8_lossy(&text);
        let mode = |path: &Path| {
            std::fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o777
        };
        let folder = path.parent().expect("a folder");
        assert_eq!((mode(&path), mode(folder)), (0o600, 0o700), "{path:?}");
        assert!(!text.contains(KEY) && !text.contains("127.0.0.1"), "{text}");
    }
    // The spool that was refused ends on threads of its own.
    let backend = Collector::start().expect("a collector");
    let mut left = left;
    for _ in 0..200 {
        left = recover(&directory, &backend).0;
        if left.others == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(left.is_empty() && left.others == 0, "{left:?}");
    check(&backend, "keys", &payloads, confirmed);
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.is_ok_and(|status| status.success()));
}

#[test]
fn a_limit_on_the_size_of_files_costs_nothing() {
    let place = Place::new();
    // 96 blocks of 512 or of 1024 bytes. The signal is ignored, so that a write fails.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 96; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("a path"))
        .args(["--exact", "child_logs_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, place.directory())
        .env(SESSION, "limited")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    std::thread::sleep(Duration::from_millis(800));
    child.kill().expect("it runs");
    let (payloads, confirmed) = heard(&mut child);
    child.wait().expect("it has ended");
    let files = files(&place.directory());
    assert!(files.len() > 4, "no limit was reached: {files:?}");
    let backend = Collector::start().expect("a collector");
    let (left, stats) = recover(&place.directory(), &backend);
    assert!(left.is_empty() && stats.is_balanced(), "{left:?} {stats:?}");
    check(&backend, "limited", &payloads, confirmed);
    assert!(confirmed > 100, "{confirmed}");
}

/// What makes `init` use a spool.
fn by_init(directory: &Path, url: &str, session: &str) -> [(&'static str, String); 6] {
    let directory = directory.to_str().expect("text");
    [
        (SESSION, session),
        ("TINKER_TELEMETRY_SPOOL", directory),
        ("TINKER_TELEMETRY", "1"),
        ("TINKER_TELEMETRY_FLUSH_INTERVAL", "20ms"),
        ("TINKER_BASE_URL", url),
        ("TINKER_API_KEY", KEY),
    ]
    .map(|(name, value)| (name, value.to_owned()))
}

fn child_by_init(directory: &Path, url: &str, session: &str) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "child_logs_through_init", "--nocapture"])
        .envs(by_init(directory, url, session))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs")
}

/// Logs through `init` until it is killed, and says so before each event.
#[test]
fn child_logs_through_init() {
    let Some(session) = std::env::var_os(SESSION) else {
        return;
    };
    if std::env::var_os("TINKER_TELEMETRY_SPOOL").is_none() {
        return;
    }
    let session = session.into_string().expect("text");
    let telemetry = tinkex_telemetry::init(session).expect("a session");
    assert!(telemetry.spool().is_some());
    let mut out = std::io::stdout();
    for n in 0_u64.. {
        let payload = format!("{n} \u{1f980} \\\"{}", "x".repeat(random(300) as usize));
        if announce(&mut out, &payload, telemetry.stats().handed_over).is_err() {
            return;
        }
        telemetry.log("step", fields! { payload });
        std::thread::sleep(Duration::from_micros(random(2_000)));
    }
}

/// Opens a session through `init`, and ends at once.
#[test]
fn child_ends_through_init() {
    if std::env::var_os("TINKER_TELEMETRY_SPOOL").is_some() {
        drop(tinkex_telemetry::init("the-next").expect("a session"));
    }
}

#[test]
fn the_variable_alone_keeps_what_was_confirmed_through_kill_9_and_an_outage() {
    let place = Place::new();
    let backend = Collector::builder().api_key(KEY).start();
    let backend = backend.expect("a collector");
    backend.always(Reply::status(503));
    let run = |test: &str| {
        Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", test, "--nocapture"])
            .envs(by_init(&place.directory(), &backend.url(), "by-init"))
            .env_remove("TINKER_TELEMETRY_FLUSH_INTERVAL")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs")
    };
    let mut child = run("child_logs_through_init");
    std::thread::sleep(Duration::from_millis(2500));
    child.kill().expect("it runs");
    let (payloads, confirmed) = heard(&mut child);
    child.wait().expect("it has ended");
    assert!(confirmed > 100, "{confirmed}");
    assert!(backend.session("by-init").is_none(), "it was away");
    backend.always(Reply::accept());
    let ended = run("child_ends_through_init").wait_with_output();
    assert!(ended.is_ok_and(|output| output.status.success()));
    check(&backend, "by-init", &payloads, confirmed);
    assert!(backend.session("the-next").is_some_and(|it| it.has_ended()));
    assert_eq!(files(&place.directory()).len(), 1, "only README is left");
}

/// Opens a session through `init`, logs one event, and prints whether it is on disk before so many seconds have passed.
#[test]
fn child_logs_one_through_init() {
    let Some(patience) = std::env::var_os(PATIENCE) else {
        return;
    };
    let patience = patience.to_str().and_then(|it| it.parse().ok());
    let until = Instant::now() + Duration::from_secs(patience.expect("seconds"));
    let telemetry = tinkex_telemetry::init("one").expect("a session");
    telemetry.log("step", ());
    while telemetry.stats().handed_over == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("\nstored: {}", telemetry.stats().handed_over > 0);
}

#[test]
fn with_a_spool_init_flushes_sooner_unless_the_variable_says_when() {
    let backend = Collector::builder().api_key(KEY).start();
    let backend = backend.expect("a collector");
    let stored = |interval: &str, patience: u32| {
        let place = Place::new();
        let output = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "child_logs_one_through_init", "--nocapture"])
            .env(PATIENCE, patience.to_string())
            .env("TINKER_TELEMETRY_SPOOL", place.directory())
            .env("TINKER_TELEMETRY_FLUSH_INTERVAL", interval)
            .env("TINKER_TELEMETRY", "1")
            .env("TINKER_BASE_URL", backend.url())
            .env("TINKER_API_KEY", KEY)
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("\nstored: "), "{text}");
        text.contains("\nstored: true")
    };
    // The default without a spool is ten seconds.
    assert!(stored("", 9));
    // Neither a timer that is off nor the default itself, if it was asked for, is replaced.
    assert!(!stored("0", 2));
    assert!(!stored("10s", 2));
}

/// Says what is logged next and how much has been confirmed: in one piece, and before the event.
fn announce(out: &mut impl Write, payload: &str, confirmed: u64) -> std::io::Result<()> {
    let line = format!("\nlog {payload}\nconfirmed {confirmed}\n");
    out.write_all(line.as_bytes())?;
    out.flush()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
