//! What do a thousand concurrent samples cost? Prints threads, connections and memory, for each runtime with an HTTP client.
//!
//! `cargo run --release -p zoo --bin samples`. Each pair runs in a process of its own, against a backend in this one that
//! answers no poll until everything is measured. It does so twice, and fails if the second time takes noticeably more
//! threads or connections than the first: what is kept must be used again. Linux only: the figures are from `/proc`.

use core::error::Error;
use core::time::Duration;
use smol::LocalExecutor;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _, stdin, stdout};
use std::process::{Command, Stdio};
use tinkex_telemetry::client::{SamplingClient, SamplingParams, ServiceBuilder, ServiceClient};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::runtime::{AsyncStd, Runtime, Smol};
use tinkex_telemetry::{Config, Reqwest, Thread, Tokio};
use zoo::clients::{surf, ureq};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SAMPLES: usize = 1_000;
const ROUNDS: usize = 2;
/// More threads or connections the second time: those of a heartbeat and of the telemetry, and of as many others.
const SLACK: usize = 4;
/// Until every request that may be under way is. The backend holds its answers for longer.
const SETTLED: Duration = Duration::from_secs(4);
const HELD: Duration = Duration::from_secs(8);

const PAIRS: [(&str, &str); 6] = [
    ("thread-ureq", "`Thread`, `Ureq`"),
    ("tokio-reqwest", "`Tokio` with two workers, `Reqwest`"),
    ("tokio-ureq", "`Tokio` with two workers, `Ureq`"),
    ("smol-surf", "`Smol`, `Surf`"),
    ("smol-ureq", "`Smol`, `Ureq`"),
    ("async-std-surf", "`AsyncStd`, `Surf`"),
];

fn main() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(pair), Some(url)) => measure_here(&pair, &url),
        (only, _) => {
            println!(
                "| runtime and client | threads before | threads | connections | MiB before | MiB at the peak |"
            );
            println!("|---|---|---|---|---|---|");
            let is_wanted = |pair: &str| only.as_deref().is_none_or(|only| only == pair);
            let mut pairs = PAIRS.iter().filter(|(pair, _)| is_wanted(pair));
            pairs.try_for_each(|(pair, name)| measure(pair, name))
        }
    }
}

/// Runs a pair in a process of its own, and prints its row.
fn measure(pair: &str, name: &str) -> Outcome<()> {
    let collector = Collector::start()?;
    let mut child = Command::new(env::current_exe()?)
        .args([pair, &collector.url()])
        // Figures of one arena: the free memory of others is no need.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipe".into());
    };
    let mut output = BufReader::new(output);
    let mut rows = Vec::new();
    for _ in 0..ROUNDS {
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err(format!("{pair} is not ready: {line}").into());
        }
        let held = Reply::status(200).body(r#"{"status":"pending"}"#);
        let backend = collector.backend();
        backend.always("retrieve_future", held.delay(HELD));
        writeln!(input, "go")?;
        line.clear();
        output.read_line(&mut line)?;
        backend.always("retrieve_future", None);
        writeln!(input, "end")?;
        rows.push(line.trim().to_owned());
    }
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    if !child.wait()?.success() || rest.trim() != (ROUNDS * SAMPLES).to_string() {
        return Err(format!("{pair} did not end well: {rows:?} {rest}").into());
    }
    let row = rows.first().ok_or("there was no round")?;
    println!("| {name} | {row} |");
    Ok(())
}

fn measure_here(pair: &str, url: &str) -> Outcome<()> {
    let builder = ServiceClient::builder(Config::new(url, "tml-any-key")?);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all();
    match pair {
        "thread-ureq" => samples(builder.http(ureq()).runtime(Thread)),
        "tokio-reqwest" => {
            let runtime = runtime.build()?;
            let http = Reqwest::on(runtime.handle().clone())?;
            samples(
                builder
                    .http(http)
                    .runtime(Tokio::on(runtime.handle().clone())),
            )
        }
        "tokio-ureq" => {
            let runtime = runtime.build()?;
            samples(
                builder
                    .http(ureq())
                    .runtime(Tokio::on(runtime.handle().clone())),
            )
        }
        "smol-surf" => samples(builder.http(surf()).runtime(Smol)),
        "smol-ureq" => samples(builder.http(ureq()).runtime(Smol)),
        "async-std-surf" => samples(builder.http(surf()).runtime(AsyncStd)),
        _ => Err(format!("no pair {pair}").into()),
    }
}

/// Waits on this thread for all samples, whatever runs the session.
fn samples(builder: ServiceBuilder<impl HttpClient + Clone, impl Runtime>) -> Outcome<()> {
    let builder = builder.telemetry(|telemetry| telemetry.enabled(true));
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let service = builder.connect().await?;
        let sampler = service.create_sampling_client("small").await?;
        let params = SamplingParams::new().max_tokens(16);
        sampler.sample(vec![1; 100], 1, params).await?;
        let mut first: Option<Figures> = None;
        let mut ended = 0;
        for _ in 0..ROUNDS {
            let (now, of_this) = round(&executor, &service, &sampler).await?;
            ended += of_this;
            if let Some(first) = &first
                && (now.threads > first.threads + SLACK || now.sockets > first.sockets + SLACK)
            {
                let (threads, sockets) = (now.threads, now.sockets);
                return Err(format!("now {threads} threads and {sockets} sockets").into());
            }
            first.get_or_insert(now);
        }
        if !service.close().await.all_delivered() {
            return Err("telemetry is missing".into());
        }
        println!("{ended}");
        Ok(())
    }))
}

/// Returns the figures at the height of a thousand samples, and how many of them succeeded in the end.
async fn round(
    executor: &LocalExecutor<'_>,
    service: &ServiceClient,
    sampler: &SamplingClient,
) -> Outcome<(Figures, usize)> {
    let before = Figures::now()?;
    converse("ready")?;
    let params = SamplingParams::new().max_tokens(16);
    let samples: Vec<_> = (0..SAMPLES)
        .map(|_| executor.spawn(sampler.sample(vec![1; 100], 1, params.clone())))
        .collect();
    smol::Timer::after(SETTLED).await;
    let open = service.open_requests().len();
    if open != SAMPLES {
        return Err(format!("only {open} are under way").into());
    }
    let now = Figures::now()?;
    converse(&format!(
        "{} | {} | {} | {:.1} | {:.1}",
        before.threads, now.threads, now.sockets, before.mib, now.peak_mib
    ))?;
    let mut ended = 0;
    for sample in samples {
        ended += usize::from(sample.await.is_ok());
    }
    Ok((now, ended))
}

/// Writes a line, and waits for one.
fn converse(line: &str) -> Outcome<()> {
    println!("{line}");
    stdout().flush()?;
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// What the kernel says of this process.
struct Figures {
    threads: usize,
    /// Listening sockets aside: there are none here.
    sockets: usize,
    /// Of resident memory: now, and at most so far.
    mib: f64,
    peak_mib: f64,
}

impl Figures {
    fn now() -> Outcome<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let number = |name: &str| -> Outcome<usize> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            Ok(word.ok_or("a figure is missing")?.parse()?)
        };
        let mut sockets = 0;
        for descriptor in fs::read_dir("/proc/self/fd")? {
            // One may be gone already: that of the folder.
            let target = fs::read_link(descriptor?.path()).unwrap_or_default();
            sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
        }
        Ok(Self {
            threads: number("Threads:")?,
            sockets,
            mib: number("VmRSS:")? as f64 / 1_024.0,
            peak_mib: number("VmHWM:")? as f64 / 1_024.0,
        })
    }
}
