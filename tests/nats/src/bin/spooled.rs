//! A spool in front of a stream: what the server cannot take, because it is killed again and again, waits on disk, and the
//! stream has each event once.
//!
//! The sessions are in processes of their own, and one of them is killed as well: what it has left in its spool, the next
//! one delivers.

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::time::Duration;
use nats::{BOUND, Result, Server, Settings, client, create_stream, folder, payloads, stored};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tinkex_telemetry::nats::JetStream;
use tinkex_telemetry::spool::Spool;
use tinkex_telemetry::{Reporter, Tokio, fields};
use tokio::time::{Instant, sleep};

const STREAM: &str = "TINKEX";
const EVENTS: u64 = 8_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [url, spool, session] => log(url, Path::new(spool), session).await,
        _ => everything().await,
    }
}

/// Logs, says how many events are in the spool, and stays until all are in the stream.
async fn log(url: &str, directory: &Path, session: &str) -> Result<()> {
    let spool = Spool::builder(directory)
        .transport(JetStream::connect(url).stream(STREAM))
        .runtime(Tokio)
        .retry_base_delay(Duration::from_millis(20))
        .retry_max_delay(Duration::from_millis(200))
        .enabled(true)
        .start()?;
    let reporter = Reporter::builder(session.to_owned())
        .transport(spool.transport())
        .runtime(Tokio)
        .enabled(true)
        .start()?;
    for step in 0..EVENTS {
        while !reporter.log("step", fields! { step: step }) {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let handle = reporter.handle();
    let drain = reporter.stop(BOUND).await;
    if !drain.all_safe() {
        return Err(format!("not in the spool: {drain:?}").into());
    }
    println!("{}", handle.stats().handed_over);
    let left = spool.wait_until_delivered(BOUND).await;
    if !left.is_empty() {
        return Err(format!("not in the stream: {left:?}").into());
    }
    Ok(())
}

/// A process that logs.
struct Logger(Child);

impl Logger {
    fn start(url: &str, spool: &Path, session: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(url).arg(spool).arg(session);
        Ok(Self(command.stdout(Stdio::piped()).spawn()?))
    }

    /// Waits until all its events are in the spool. Returns how many.
    async fn spooled(&mut self) -> Result<u64> {
        let output = self.0.stdout.take().ok_or("it has been asked before")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).map(|_| line)
        });
        Ok(line.await??.trim().parse()?)
    }

    async fn ended(mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("a process has ended with {status}").into()),
                None if begun.elapsed() > 2 * BOUND => return Err("a process does not end".into()),
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn everything() -> Result<()> {
    let mut server = Server::start("spooled", &Settings::default())?;
    let url = server.url();
    let client = client(&url).await?;
    create_stream(&client, STREAM, json!({})).await?;
    let spool = folder("spool")?;

    // A server that is killed while the spool delivers.
    let mut first = Logger::start(&url, &spool, "first")?;
    let (mut kills, mut in_the_middle) = (0, 0);
    let mut accepted = 0;
    for round in 0..8_u64 {
        let before = stored(&client, STREAM).await?;
        let begun = Instant::now();
        while stored(&client, STREAM).await? < before + 40 * round + 1
            && begun.elapsed() < Duration::from_secs(2)
        {
            sleep(Duration::from_millis(1)).await;
        }
        let stored = stored(&client, STREAM).await?;
        server.kill();
        kills += 1;
        in_the_middle += u32::from(stored < EVENTS + 2);
        if accepted == 0 && round == 2 {
            // Without a server.
            accepted = first.spooled().await?;
        }
        sleep(Duration::from_millis(50 * (round % 3))).await;
        server.restart()?;
    }
    first.ended().await?;

    // A process that is killed while there is no server: what it has left goes to the stream with the next one's.
    server.kill();
    let mut second = Logger::start(&url, &spool, "second")?;
    accepted += second.spooled().await?;
    drop(second);
    let mut third = Logger::start(&url, &spool, "third")?;
    accepted += third.spooled().await?;
    server.restart()?;
    third.ended().await?;

    let events = payloads(&client, STREAM).await?;
    let _ = std::fs::remove_dir_all(&spool);
    println!(
        "the server was killed {kills} times, {in_the_middle} of them before it had all of a session"
    );
    if in_the_middle < 3 {
        return Err("the server was hardly ever killed in the middle".into());
    }
    check(accepted, &events)
}

/// Each event that a spool has taken, once, and each index of the three sessions.
fn check(accepted: u64, events: &[Value]) -> Result<()> {
    let mut indices: BTreeMap<u64, u64> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for event in events {
        let index = event["event_session_index"].as_u64();
        *indices.entry(index.ok_or("no index")?).or_default() += 1;
        ids.insert(event["event_id"].as_str());
    }
    println!(
        "spooled: {accepted} events in spools, {} messages with {} ids",
        events.len(),
        ids.len(),
    );
    let are_complete = (0..EVENTS + 2).all(|index| indices.get(&index) == Some(&3));
    let is_exact = accepted == 3 * (EVENTS + 2)
        && events.len() as u64 == accepted
        && ids.len() == events.len();
    if is_exact && are_complete {
        println!("Nothing was lost, and nothing was stored twice.");
        Ok(())
    } else {
        Err("broken promise".into())
    }
}
