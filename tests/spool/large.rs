//! What the size of a spool does not cost: memory at recovery, and a disk that is full.

use crate::{KEY, LONG, Place, arrived, check, number};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::spool::Spool;
use tinkex_telemetry::transport::{Batch, Receipt, SendError, Transport};
use tinkex_telemetry::{Reporter, Thread, fields};

const LARGE: &str = "TINKEX_TEST_LARGE";
const FULL: &str = "TINKEX_TEST_FULL";

/// Takes everything and keeps nothing, or nothing at all.
struct Nowhere {
    is_away: bool,
}

impl Transport for Nowhere {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        match self.is_away {
            true => Err(SendError::retryable("away")),
            false => Ok(Receipt::delivered()),
        }
    }
}

fn spool(directory: &Path, is_away: bool) -> Spool {
    Spool::builder(directory)
        .transport(Nowhere { is_away })
        .destination("nowhere")
        .runtime(Thread)
        .max_bytes(1 << 30)
        .retry_base_delay(Duration::from_secs(60))
        .enabled(true)
        .start()
        .expect("a spool")
}

/// A line of this process's status, in KiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let value = status
        .lines()
        .find_map(|it| it.strip_prefix(line))
        .expect("a line");
    let value = value
        .trim()
        .split(' ')
        .next()
        .and_then(|it| it.parse().ok());
    value.expect("a number")
}

/// Writes a spool of so many MiB, or recovers one and prints what that took.
#[test]
fn child_of_a_large_spool() {
    let (Some(directory), Some(mib)) = (std::env::var_os(crate::DIRECTORY), number(LARGE)) else {
        return;
    };
    let directory = PathBuf::from(directory);
    if directory.exists() {
        let before = memory("VmRSS:");
        let spool = spool(&directory, false);
        let left = spool
            .wait_until_delivered_blocking(Duration::MAX)
            .expect("it may wait here");
        let stats = spool.stats();
        assert!(
            left.is_empty() && stats.is_balanced() && stats.unreadable == 0,
            "{stats:?}"
        );
        println!(
            "\nrecovered {} {}",
            stats.delivered,
            memory("VmHWM:") - before
        );
        return;
    }
    let spool = spool(&directory, true);
    let telemetry = Reporter::builder("large")
        .transport(spool.transport())
        .runtime(Thread)
        .max_queue_size(100_000)
        .max_queue_bytes(64 << 20)
        .enabled(true)
        .start()
        .expect("a session");
    let text = "x".repeat(15 << 10);
    for n in 0..mib * 64 {
        telemetry.log("step", fields! { n, text: text.as_str() });
        if n % 1_000 == 999 {
            assert!(
                telemetry
                    .wait_until_drained_blocking(LONG)
                    .is_ok_and(|drain| drain.all_safe())
            );
        }
    }
    let drain = telemetry.stop_blocking(LONG).expect("it may wait here");
    assert!(drain.all_safe(), "{drain:?}");
    println!("\nwritten {}", spool.stats().stored);
}

#[cfg(target_os = "linux")]
#[test]
fn recovery_takes_no_memory_for_what_it_recovers() {
    let place = Place::new();
    let mib = number("TINKEX_SPOOL_MIB").unwrap_or(24);
    let run = |word: &str| -> Vec<u64> {
        let output = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "large::child_of_a_large_spool", "--nocapture"])
            .env(crate::DIRECTORY, place.directory())
            .env(LARGE, mib.to_string())
            .stderr(Stdio::inherit())
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        let numbers = line.unwrap_or_else(|| panic!("{text}")).split(' ');
        numbers.filter_map(|number| number.parse().ok()).collect()
    };
    let written = run("written ")[0];
    let recovered = run("recovered ");
    assert_eq!(recovered[0], written);
    println!(
        "recovery of {mib} MiB, {written} events: {} KiB of memory",
        recovered[1]
    );
    assert!(recovered[1] < 20 << 10, "{} KiB", recovered[1]);
}

/// Logs through `init` into a spool on a full disk, and ends when everything is said.
#[test]
fn child_on_a_full_disk() {
    if std::env::var_os(FULL).is_none() {
        return;
    }
    let telemetry = tinkex_telemetry::init("full").expect("a session");
    let payload = "x".repeat(400);
    for n in 0..3_000_u64 {
        assert!(telemetry.log("step", fields! { n, payload: payload.as_str() }));
        std::thread::sleep(Duration::from_micros(300));
    }
    // As long as the disk is full, the memory's queue goes on.
    let until = std::time::Instant::now() + LONG;
    while telemetry.stats().queued > 0 {
        assert!(std::time::Instant::now() < until, "{:?}", telemetry.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (session, spool) = (
        telemetry.stats(),
        telemetry.spool().expect("it has one").stats(),
    );
    assert!(
        session.is_balanced() && spool.is_balanced(),
        "{session:?} {spool:?}"
    );
    println!(
        "\nfull {} {} {}",
        session.accepted, spool.stored, spool.straight
    );
}

/// Needs a file system of its own, which `ci/spool` makes where it may: its path is in TINKEX_FULL_DISK.
#[test]
fn a_disk_without_space_costs_no_event() {
    let Some(disk) = std::env::var_os("TINKEX_FULL_DISK") else {
        return;
    };
    let backend = Collector::builder()
        .api_key(KEY)
        .start()
        .expect("a collector");
    backend.always(Reply::status(503));
    let child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "large::child_on_a_full_disk", "--nocapture"])
        .env(FULL, "1")
        .env("TINKER_TELEMETRY_SPOOL", Path::new(&disk).join("spool"))
        .env("TINKER_TELEMETRY", "1")
        .env("TINKER_TELEMETRY_GIVE_UP", "when_full")
        .env("TINKER_BASE_URL", backend.url())
        .env("TINKER_API_KEY", KEY)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    // It is full by then.
    std::thread::sleep(Duration::from_millis(2500));
    backend.always(Reply::accept());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("full "))
        .expect("figures");
    let figures: Vec<u64> = line
        .split(' ')
        .filter_map(|number| number.parse().ok())
        .collect();
    println!(
        "\nfull disk: {} accepted, {} stored, {} sent straight",
        figures[0], figures[1], figures[2]
    );
    assert!(figures[2] > 0, "it was never full: {line}");
    let arrived = arrived(&backend, "full");
    // And the end of the session.
    assert_eq!(arrived.len() as u64, figures[0] + 1);
    check(&backend, "full", &vec!["x".repeat(400); 3_000], 3_000);
}
