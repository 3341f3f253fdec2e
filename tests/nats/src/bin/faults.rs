//! The JetStream transport against servers that are killed, streams that are missing or full, and clusters that lose
//! their leader. Runs each part, or those named as arguments, and fails with the first promise that is broken.

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use async_nats::Client;
use core::time::Duration;
use nats::{
    BOUND, Result, Server, Settings, api, client, create_stream, free_port, payloads, stored,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tinkex_telemetry::nats::JetStream;
use tinkex_telemetry::session::SessionId;
use tinkex_telemetry::{GiveUp, Options, Reporter, Stats, Tokio, fields};
use tokio::time::{Instant, sleep};

const STREAM: &str = "TINKEX";

#[tokio::main]
async fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|it| it == part);
    if is_wanted("killed") {
        killed().await?;
    }
    if is_wanted("missing") {
        missing().await?;
    }
    if is_wanted("full") {
        full().await?;
    }
    if is_wanted("max_payload") {
        max_payload().await?;
    }
    if is_wanted("ghost") {
        ghost().await?;
    }
    if is_wanted("cluster") {
        cluster().await?;
    }
    println!("Nothing was lost, and nothing was stored twice.");
    Ok(())
}

type Session = Reporter<JetStream, Tokio, Tokio>;

struct Running {
    session: Session,
    diagnostics: Arc<Mutex<Vec<String>>>,
}

/// Retries until it succeeds, in batches of a hundred.
fn options() -> Options {
    Options {
        give_up: GiveUp::WhenFull,
        retry_base_delay: Duration::from_millis(20),
        retry_max_delay: Duration::from_millis(200),
        max_queue_size: 200_000,
        max_queue_bytes: 64 << 20,
        ..Default::default()
    }
}

fn start(url: &str, options: Options) -> Result<Running> {
    let diagnostics = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&diagnostics);
    let session = Reporter::builder(SessionId::random())
        .transport(JetStream::connect(url).stream(STREAM))
        .options(options)
        .enabled(true)
        .on_diagnostic(move |diagnostic| {
            if let Ok(mut all) = sink.lock() {
                all.push(diagnostic.to_string());
            }
        })
        .runtime(Tokio)
        .start()?;
    Ok(Running {
        session,
        diagnostics,
    })
}

impl Running {
    fn log(&self, events: usize) -> Result<()> {
        for step in 0..events {
            if !self.session.log("step", fields! { step: step }) {
                return Err("an event was refused".into());
            }
        }
        Ok(())
    }

    /// Waits until a diagnostic says this.
    async fn says(&self, part: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let all = self
                .diagnostics
                .lock()
                .map_err(|error| error.to_string())?
                .clone();
            if all.iter().any(|it| it.contains(part)) {
                return Ok(());
            }
            if begun.elapsed() > BOUND {
                return Err(format!("no diagnostic says {part:?}: {all:?}").into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops, and returns the ledger.
    async fn stop(self, within: Duration) -> Stats {
        let handle = self.session.handle();
        let _ = self.session.stop(within).await;
        handle.stats()
    }
}

/// Checks a stream against a ledger: each event that was handed over, once, and no index missing but those of drops.
fn check(part: &str, stats: &Stats, events: &[Value]) -> Result<()> {
    let ids: BTreeSet<_> = events
        .iter()
        .map(|event| event["event_id"].as_str())
        .collect();
    let indices: BTreeSet<_> = events
        .iter()
        .map(|event| event["event_session_index"].as_u64())
        .collect();
    let report = format!(
        "{part}: {} accepted, {} handed over, {} dropped, {} messages with {} ids and {} indices",
        stats.accepted,
        stats.handed_over,
        stats.dropped.total(),
        events.len(),
        ids.len(),
        indices.len(),
    );
    println!("{report}");
    let stored = events.len() as u64;
    let is_exact =
        stored == stats.handed_over && ids.len() == events.len() && indices.len() == events.len();
    if is_exact && stats.is_balanced() {
        Ok(())
    } else {
        Err(format!("broken promise: {report}").into())
    }
}

/// A server that is killed and restarted twenty times in the middle of batches.
async fn killed() -> Result<()> {
    let mut server = Server::start("killed", &Settings::default())?;
    let client = client(&server.url()).await?;
    create_stream(&client, STREAM, json!({})).await?;
    let running = start(&server.url(), options())?;
    let handle = running.session.handle();
    let (mut in_mid_batch, mut round) = (0, 0);
    while in_mid_batch < 20 {
        round += 1;
        if round > 60 {
            return Err("the server was hardly ever killed in the middle of a batch".into());
        }
        let before = handle.stats().handed_over;
        running.log(3000)?;
        // Some of it has arrived, and some has not.
        let begun = Instant::now();
        while handle.stats().handed_over < before + 200 * (round % 7) + 1 && begun.elapsed() < BOUND
        {
            tokio::task::yield_now().await;
        }
        let left = handle.stats().queued;
        server.kill();
        in_mid_batch += u64::from(left > 0 && handle.stats().queued > 0);
        sleep(Duration::from_millis(30 * (round % 4))).await;
        server.restart()?;
        let begun = Instant::now();
        while handle.stats().queued > 0 && begun.elapsed() < BOUND {
            sleep(Duration::from_millis(20)).await;
        }
    }
    let stats = running.stop(BOUND).await;
    if stats.dropped.total() > 0 || stats.queued > 0 {
        return Err(format!("lost: {stats:?}").into());
    }
    println!("killed {round} times, {in_mid_batch} of them in the middle of a batch");
    check("killed", &stats, &payloads(&client, STREAM).await?)
}

/// A session that starts before there is a stream.
async fn missing() -> Result<()> {
    let server = Server::start("missing", &Settings::default())?;
    let client = client(&server.url()).await?;
    let running = start(&server.url(), options())?;
    running.log(250)?;
    running.session.flush();
    running.says("there is no stream TINKEX").await?;
    create_stream(&client, STREAM, json!({})).await?;
    let stats = running.stop(BOUND).await;
    if stats.handed_over != 252 {
        return Err(format!("lost: {stats:?}").into());
    }
    check("missing", &stats, &payloads(&client, STREAM).await?)
}

/// A stream that is full for longer than it recognizes duplicates.
async fn full() -> Result<()> {
    let server = Server::start("full", &Settings::default())?;
    let client = client(&server.url()).await?;
    let window = json!({ "max_msgs": 130, "duplicate_window": 1_000_000_000_u64 });
    create_stream(&client, STREAM, window).await?;
    let running = start(&server.url(), options())?;
    running.log(400)?;
    running.session.flush();
    running.says("maximum messages exceeded").await?;
    sleep(Duration::from_secs(3)).await;
    let mut info = api(&client, &format!("STREAM.INFO.{STREAM}"), &json!({})).await?;
    let mut config = info["config"].take();
    config["max_msgs"] = json!(-1);
    api(&client, &format!("STREAM.UPDATE.{STREAM}"), &config).await?;
    let stats = running.stop(BOUND).await;
    if stats.handed_over != 402 {
        return Err(format!("lost: {stats:?}").into());
    }
    check("full", &stats, &payloads(&client, STREAM).await?)
}

/// An event that the server does not take, among others.
async fn max_payload() -> Result<()> {
    let settings = Settings {
        max_payload: 4096,
        ..Default::default()
    };
    let server = Server::start("small", &settings)?;
    let client = client(&server.url()).await?;
    create_stream(&client, STREAM, json!({})).await?;
    let running = start(&server.url(), options())?;
    running.log(30)?;
    let large = "x".repeat(8000);
    running.session.log("large", fields! { text: large });
    running.log(30)?;
    // SESSION_END is in the same batch: the session takes it back to put the report of the loss before it.
    let stats = running.stop(BOUND).await;
    only_the_large_one_is_lost("max_payload", &client, &stats).await?;

    // The same where the stream finds it too large, which only its answer says.
    let config = json!({ "max_msg_size": 2048 });
    api(&client, &format!("STREAM.DELETE.{STREAM}"), &json!({})).await?;
    create_stream(&client, STREAM, config).await?;
    let running = start(&server.url(), options())?;
    running.log(30)?;
    let large = "x".repeat(3000);
    running.session.log("large", fields! { text: large });
    running.log(30)?;
    let stats = running.stop(BOUND).await;
    only_the_large_one_is_lost("max_msg_size", &client, &stats).await
}

async fn only_the_large_one_is_lost(part: &str, client: &Client, stats: &Stats) -> Result<()> {
    // The report of the loss is one event more.
    if (stats.handed_over, stats.reports, stats.dropped.too_large) != (63, 1, 1) {
        return Err(format!("{part}: not the large one alone: {stats:?}").into());
    }
    let events = payloads(client, STREAM).await?;
    check(part, stats, &events)?;
    let kinds: Vec<_> = events.iter().map(|event| &event["event"]).collect();
    let ends = kinds.iter().filter(|kind| **kind == "SESSION_END").count();
    let is_last = kinds.last().is_some_and(|kind| *kind == "SESSION_END");
    if ends != 1 || !is_last {
        return Err(format!("{part}: {ends} ends of the session in the stream").into());
    }
    Ok(())
}

/// Events that a session drops while there is no server do not turn up when it is back.
async fn ghost() -> Result<()> {
    let mut server = Server::start("ghost", &Settings::default())?;
    let client = client(&server.url()).await?;
    create_stream(&client, STREAM, json!({})).await?;
    let mut dropped = 0;
    for round in 0..5_u64 {
        let running = start(&server.url(), options())?;
        running.log(50)?;
        running.session.flush();
        let handle = running.session.handle();
        let begun = Instant::now();
        while handle.stats().queued > 0 && begun.elapsed() < BOUND {
            sleep(Duration::from_millis(5)).await;
        }
        let before = stored(&client, STREAM).await?;
        server.kill();
        // At once, and when the client has noticed.
        sleep(Duration::from_millis(20 * round)).await;
        running.log(500)?;
        let stats = running.stop(Duration::from_millis(700)).await;
        if stats.dropped.total() != 501 {
            return Err(format!("the ledger should have dropped 501: {stats:?}").into());
        }
        dropped += stats.dropped.total();
        server.restart()?;
        sleep(Duration::from_millis(1500)).await;
        let after = stored(&client, STREAM).await?;
        if after != before {
            return Err(format!("{} ghosts in round {round}", after - before).into());
        }
    }
    println!("ghost: {dropped} events dropped without a server, none of them stored later");
    Ok(())
}

/// Three servers: the stream's leader steps down, and a server is killed.
async fn cluster() -> Result<()> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let mut servers = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let settings = Settings {
            cluster: Some(("C".to_owned(), *port, ports.to_vec())),
            ..Default::default()
        };
        servers.push(Server::start(&format!("node{at}"), &settings)?);
    }
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    let urls = urls.join(",");
    let client = client(&urls).await?;
    create_stream(&client, STREAM, json!({ "num_replicas": 3 })).await?;
    let running = start(&urls, options())?;
    let handle = running.session.handle();
    for round in 0..6 {
        running.log(2000)?;
        let before = handle.stats().handed_over;
        let begun = Instant::now();
        while handle.stats().handed_over == before && begun.elapsed() < BOUND {
            tokio::task::yield_now().await;
        }
        if round == 3 {
            servers[1].kill();
        } else {
            api(
                &client,
                &format!("STREAM.LEADER.STEPDOWN.{STREAM}"),
                &json!({}),
            )
            .await?;
        }
        let begun = Instant::now();
        while handle.stats().queued > 0 && begun.elapsed() < BOUND {
            sleep(Duration::from_millis(20)).await;
        }
        if round == 3 {
            servers[1].restart()?;
        }
    }
    let stats = running.stop(BOUND).await;
    if stats.dropped.total() > 0 || stats.queued > 0 {
        return Err(format!("lost: {stats:?}").into());
    }
    check("cluster", &stats, &payloads(&client, STREAM).await?)
}
