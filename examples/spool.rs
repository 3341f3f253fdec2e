//! How do I keep events through a `kill -9`? With a spool: a child process logs and is killed, and this one sends what it
//! has left.
//!
//! `cargo run --example spool --features thread,ureq,collector,spool`

extern crate alloc;

use alloc::collections::BTreeMap;
use core::error::Error;
use core::time::Duration;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::spool::Spool;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq, fields};

/// How long the child lives.
const LIFE: Duration = Duration::from_millis(600);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, directory] = &arguments[..]
        && word == "child"
    {
        return log_until_killed(Path::new(directory));
    }
    let directory = std::env::temp_dir().join(format!("tinkex-spool-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe()?)
        .arg("child")
        .arg(&directory)
        .stdout(Stdio::piped())
        .spawn()?;
    std::thread::sleep(LIFE);
    child.kill()?; // SIGKILL
    let mut logged = 0;
    let mut confirmed = 0;
    for line in BufReader::new(child.stdout.take().ok_or("a pipe")?).lines() {
        let line = line?;
        let numbers = line.split_once(' ').map(|(a, b)| (a.parse(), b.parse()));
        if let Some((Ok(one), Ok(two))) = numbers {
            (logged, confirmed) = (one, two);
        }
    }
    child.wait()?;

    // Later, the same program again. The backend of this example is new, so the destination has a name instead.
    let backend = Collector::start()?;
    let spool = start_spool(&directory, &backend.url())?;
    let left = spool.wait_until_delivered_blocking(Duration::from_secs(30))?;
    let stats = spool.stats();
    drop(spool);
    let mut arrived = BTreeMap::<u64, u64>::new();
    if let Some(session) = backend.session("session-123") {
        for event in session.events() {
            let index = event.value()["event_session_index"].as_u64();
            *arrived.entry(index.ok_or("an index")?).or_default() += 1;
        }
    }
    // The first of what was logged are confirmed.
    let lost = (0..confirmed)
        .filter(|index| !arrived.contains_key(index))
        .count();
    let duplicated: u64 = arrived.values().map(|times| times - 1).sum();
    for (what, count) in [
        ("logged", logged),
        ("confirmed", confirmed),
        ("recovered", stats.recovered),
        ("delivered", stats.delivered),
        ("duplicated", duplicated),
        ("lost", lost as u64),
    ] {
        println!("{what:<12}{count:>8}");
    }
    std::fs::remove_dir_all(&directory)?;
    let is_good = lost == 0 && left.is_empty() && stats.is_balanced() && confirmed > 0;
    if is_good {
        Ok(())
    } else {
        Err("events were lost".into())
    }
}

fn start_spool(directory: &Path, url: &str) -> Result<Spool, Box<dyn Error>> {
    let spool = Spool::builder(directory)
        .transport(HttpTransport::new(
            Config::new(url, "any key")?,
            Ureq::new(),
        ))
        .destination("the backend of this example")
        .runtime(Thread)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;
    Ok(spool)
}

/// The child: there is no backend at this address.
fn log_until_killed(directory: &Path) -> Result<(), Box<dyn Error>> {
    let spool = start_spool(directory, "http://127.0.0.1:9")?;
    let telemetry = Reporter::builder("session-123")
        .transport(spool.transport())
        .runtime(Thread)
        .flush_interval(Duration::from_millis(20))
        .enabled(true)
        .start()?;
    let mut out = std::io::stdout();
    loop {
        telemetry.log("train.step", fields! { loss: 0.5 });
        let stats = telemetry.stats();
        writeln!(out, "{} {}", stats.accepted, stats.handed_over)?;
        std::thread::sleep(Duration::from_micros(300));
    }
}
