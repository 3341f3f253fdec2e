//! A thousand sessions in ten processes store their events in one stream, and a group of consumers reads it, counting
//! gaps and duplicates.
//!
//! Run it with `cargo run -p example-jetstream`; it needs the program `nats-server` (Debian's package of this name), which
//! it starts for itself, in a folder of its own. In the middle, the server is killed and started again. It takes half a
//! minute, and prints a table.

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::future::poll_fn;
use core::pin::Pin;
use core::time::Duration;
use futures_core::Stream as _;
use nats::{BOUND, Result, Server, Settings, api, client, create_stream, stored};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use tinkex_telemetry::nats::JetStream;
use tinkex_telemetry::{GiveUp, Reporter, Tokio, fields};
use tokio::time::{Instant, sleep, timeout};

const STREAM: &str = "TINKEX";
const PROCESSES: usize = 10;
const SESSIONS: usize = 100;
const STEPS: usize = 20;
const CONSUMERS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [role, url, process] if role == "sessions" => sessions(url, process).await,
        _ => everything().await,
    }
}

/// One of the ten processes: prints how many events its sessions accepted, and how many were handed over.
async fn sessions(url: &str, process: &str) -> Result<()> {
    let mut running = Vec::with_capacity(SESSIONS);
    for session in 0..SESSIONS {
        let telemetry = Reporter::builder(format!("process-{process}.session-{session}"))
            .transport(JetStream::connect(url).stream(STREAM))
            .give_up(GiveUp::WhenFull)
            .retry_max_delay(Duration::from_secs(1))
            .flush_threshold(10)
            .enabled(true)
            .runtime(Tokio)
            .start()?;
        running.push(telemetry);
    }
    for step in 0..STEPS {
        for telemetry in &running {
            telemetry.log(
                "step.done",
                fields! { step: step, loss: 1.0 / (step + 1) as f64 },
            );
        }
        sleep(Duration::from_millis(300)).await;
    }
    let mut ends = Vec::new();
    for telemetry in running {
        let handle = telemetry.handle();
        ends.push(tokio::spawn(async move {
            let _ = telemetry.stop(BOUND).await;
            handle.stats()
        }));
    }
    let (mut accepted, mut handed_over) = (0, 0);
    for end in ends {
        let stats = end.await?;
        accepted += stats.accepted;
        handed_over += stats.handed_over;
    }
    println!("{accepted} {handed_over}");
    Ok(())
}

/// What the group has read.
#[derive(Default)]
struct Read {
    messages: u64,
    redelivered: u64,
    /// By session: the indices of its events.
    sessions: BTreeMap<String, BTreeSet<u64>>,
    ids: BTreeSet<String>,
    places: BTreeSet<u64>,
    /// Events that the stream has twice.
    duplicates: u64,
    by_consumer: [u64; CONSUMERS],
}

async fn everything() -> Result<()> {
    let mut server = Server::start("example", &Settings::default())?;
    let client = client(&server.url()).await?;
    create_stream(&client, STREAM, json!({})).await?;
    let group = json!({
        "stream_name": STREAM,
        "config": {
            "durable_name": "counting",
            "ack_policy": "explicit",
            "ack_wait": 10_000_000_000_u64,
            "max_ack_pending": 10_000,
            "deliver_policy": "all",
            "replay_policy": "instant",
        },
    });
    api(
        &client,
        &format!("CONSUMER.DURABLE.CREATE.{STREAM}.counting"),
        &group,
    )
    .await?;

    let begun = Instant::now();
    let mut processes = Vec::new();
    for process in 0..PROCESSES {
        let child = tokio::task::spawn_blocking({
            let url = server.url();
            move || {
                std::process::Command::new(env::current_exe()?)
                    .args(["sessions", &url, &process.to_string()])
                    .stderr(Stdio::inherit())
                    .output()
            }
        });
        processes.push(child);
    }
    let read = Arc::new(Mutex::new(Read::default()));
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|number| tokio::spawn(consume(server.url(), number, Arc::clone(&read))))
        .collect();

    // In the middle of it all.
    sleep(Duration::from_secs(3)).await;
    server.kill();
    sleep(Duration::from_millis(500)).await;
    server.restart()?;

    let (mut accepted, mut handed_over) = (0, 0);
    for process in processes {
        let output = process.await??;
        let text = String::from_utf8(output.stdout)?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        accepted += numbers.next().ok_or("a process has said nothing")??;
        handed_over += numbers.next().ok_or("a process has said too little")??;
    }
    let took = begun.elapsed();
    let in_stream = stored(&client, STREAM).await?;
    let begun = Instant::now();
    while read.lock().unwrap_or_else(PoisonError::into_inner).messages < in_stream {
        if begun.elapsed() > BOUND {
            let read = read.lock().unwrap_or_else(PoisonError::into_inner);
            let (has, by) = (read.messages, read.by_consumer);
            return Err(format!("the group has read {has} of {in_stream} messages: {by:?}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    for consumer in consumers {
        consumer.abort();
    }
    let read = read.lock().unwrap_or_else(PoisonError::into_inner);
    let complete = |indices: &BTreeSet<u64>| {
        let last = indices.last().map_or(0, |last| last + 1);
        last - indices.len() as u64
    };
    let gaps: u64 = read.sessions.values().map(complete).sum();
    println!("| what | number |\n|---|---|");
    for (what, number) in [
        ("processes", PROCESSES as u64),
        ("sessions", read.sessions.len() as u64),
        ("events accepted", accepted),
        ("events handed over", handed_over),
        ("messages in the stream", in_stream),
        ("read by the group", read.messages),
        ("of them delivered to it again", read.redelivered),
        ("duplicates", read.duplicates),
        ("events missing, by their index", gaps),
        (
            "events per second",
            accepted * 1000 / took.as_millis().max(1) as u64,
        ),
    ] {
        println!("| {what} | {number} |");
    }
    println!("| read by each consumer | {:?} |", read.by_consumer);
    let expected = (PROCESSES * SESSIONS * (STEPS + 2)) as u64;
    let is_right = accepted == expected && handed_over == accepted && in_stream == accepted;
    if is_right && gaps == 0 && read.duplicates == 0 {
        println!("Nothing was lost, and nothing was stored twice.");
        return Ok(());
    }
    Err("the numbers do not agree".into())
}

/// One consumer of the group: asks for messages a hundred at a time, counts them, acknowledges them.
async fn consume(url: String, number: usize, read: Arc<Mutex<Read>>) -> Result<()> {
    let client = client(&url).await?;
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.counting");
    let asked = json!({ "batch": 100, "expires": 1_000_000_000_u64 }).to_string();
    let inbox = client.new_inbox();
    let mut messages = client.subscribe(inbox.clone()).await?;
    loop {
        client
            .publish_with_reply(next.clone(), inbox.clone(), asked.clone().into())
            .await?;
        for _ in 0..100 {
            let message = poll_fn(|context| Pin::new(&mut messages).poll_next(context));
            // The server is away, or there was none within the second.
            let Ok(Some(message)) = timeout(Duration::from_secs(2), message).await else {
                break;
            };
            let Some(acknowledge) = message.reply.clone().filter(|_| message.status.is_none())
            else {
                break;
            };
            let session = message.subject.split('.').nth(2).unwrap_or_default();
            // `$JS.ACK.<stream>.<consumer>.<deliveries>.<place in the stream>.…`
            let place = acknowledge.split('.').nth(5).unwrap_or_default();
            let place = place.parse()?;
            let event = serde_json::from_slice(&message.payload)?;
            read.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .count(number, session, &event, place);
            client.publish(acknowledge, "+ACK".into()).await?;
        }
    }
}

impl Read {
    /// Counts the message that is at this place in the stream.
    fn count(&mut self, consumer: usize, session: &str, event: &Value, place: u64) {
        let id = event["event_id"].as_str().unwrap_or_default().to_owned();
        let index = event["event_session_index"].as_u64().unwrap_or_default();
        self.by_consumer[consumer] += 1;
        let is_new = self.ids.insert(id);
        // A server that was killed may have forgotten which messages it has delivered.
        if self.places.insert(place) {
            self.messages += 1;
            self.duplicates += u64::from(!is_new);
        } else {
            self.redelivered += 1;
        }
        self.sessions
            .entry(session.to_owned())
            .or_default()
            .insert(index);
    }
}
