//! `tinkex-collector`: prints the telemetry sent to a local port.

extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Instant,
};

use tinkex_telemetry::collector::{Collector, EventKind, EventRecord, SessionRecord};
use tokio::sync::mpsc;

/// More only hold descriptors that the rest of the machine may need.
const MAX_CONNECTIONS: usize = 256;

const HELP: &str = "\
Prints the telemetry sent to a local port.

Usage: tinkex-collector [--port PORT] [--strict] [--api-key KEY] [--memory MIB]

  --port PORT    listen on this port of 127.0.0.1; 0 picks a free one [default: 8787]
  --strict       accept only the exact wire format; respond 422 to anything else
  --api-key KEY  respond 401 to requests with another key. Other users of this machine can see it in
                 the list of processes: the variable TINKEX_COLLECTOR_KEY does the same unseen
  --memory MIB   forget the oldest sessions beyond this much memory [default: 256]
  --help         print this help

Each event is printed as one line: session, index, severity, name, data. So is each refused request,
with the reason. Ctrl-C or SIGTERM prints a table of the sessions and exits; so does the end of the
program that reads the output, without the table.";

/// Read if there is no `--api-key`.
const KEY_VARIABLE: &str = "TINKEX_COLLECTOR_KEY";
/// Lines that wait for a slow reader; more are counted instead.
const MAX_LINES: usize = 4_096;
/// How long the end waits for a slow reader.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match Command::parse(env::args().skip(1)) {
        Ok(Command::Help) => {
            let _ = writeln!(io::stdout().lock(), "{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::Serve(options)) => finish(serve(options)),
        Err(problem) => {
            eprintln!("tinkex-collector: {problem}; see --help");
            ExitCode::from(2)
        }
    }
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("tinkex-collector: {problem}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq)]
enum Command {
    Help,
    Serve(Options),
}

#[derive(Debug, PartialEq)]
struct Options {
    port: u16,
    strict: bool,
    api_key: Option<String>,
    memory: usize,
}

impl Command {
    fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Options {
            port: 8787,
            strict: false,
            api_key: None,
            memory: 256 << 20,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--strict" => options.strict = true,
                "--port" => options.port = parse_port(&value()?)?,
                "--api-key" => options.api_key = Some(value()?),
                "--memory" => options.memory = parse_memory(&value()?)?,
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        Ok(Self::Serve(options))
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("--port must be a number from 0 to 65535, not {text:?}"))
}

fn parse_memory(text: &str) -> Result<usize, String> {
    let mib = text.parse::<usize>().ok().filter(|mib| *mib > 0);
    mib.and_then(|mib| mib.checked_mul(1 << 20))
        .ok_or_else(|| format!("--memory must be a number of MiB from 1, not {text:?}"))
}

fn serve(mut options: Options) -> Result<(), String> {
    let port = options.port;
    if options.api_key.is_none() {
        options.api_key = env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
    }
    let (end, ended) = mpsc::channel(1);
    let printer = Printer::start(end.clone())
        .map_err(|error| format!("cannot start a thread for the output: {error}"))?;
    let printer = Arc::new(printer);
    let collector = start(options, &printer).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {port} is in use"),
        _ => format!("cannot listen on port {port}: {error}"),
    })?;
    let listening = || printer.print(format!("listening on {}", collector.url()));
    let end = wait_for_end(end, ended, listening)
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    collector.stop();
    if end == End::Asked {
        printer.finish(table(&collector.sessions()));
    }
    Ok(())
}

/// Why the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By a signal.
    Asked,
    /// The output has no reader any more.
    Unread,
}

/// Waits for a signal or the end of the output's reader, and misses none after it calls `ready`.
fn wait_for_end(
    end: mpsc::Sender<End>,
    mut ended: mpsc::Receiver<End>,
    ready: impl FnOnce(),
) -> io::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        watch_signals(&end)?;
        ready();
        Ok(ended.recv().await.unwrap_or(End::Unread))
    })
}

#[cfg(unix)]
fn watch_signals(end: &mpsc::Sender<End>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let (mut signal, end) = (signal(kind)?, end.clone());
        tokio::spawn(async move {
            signal.recv().await;
            let _ = end.send(End::Asked).await;
        });
    }
    let end = end.clone();
    tokio::spawn(async move {
        reader_gone().await;
        let _ = end.send(End::Unread).await;
    });
    Ok(())
}

/// Completes when the other end of the pipe is closed, even while there is nothing to print.
#[cfg(unix)]
async fn reader_gone() {
    use tokio::io::{Interest, unix::AsyncFd};
    // A file cannot be watched, and has no reader that could go.
    #[allow(
        deprecated,
        reason = "its successor is newer than the oldest tokio; the standard output stays open"
    )]
    let Ok(stdout) = AsyncFd::with_interest(io::stdout(), Interest::WRITABLE) else {
        return core::future::pending().await;
    };
    loop {
        let Ok(mut guard) = stdout.ready(Interest::WRITABLE).await else {
            return core::future::pending().await;
        };
        if guard.ready().is_write_closed() {
            return;
        }
        guard.clear_ready();
    }
}

#[cfg(not(unix))]
fn watch_signals(end: &mpsc::Sender<End>) -> io::Result<()> {
    let end = end.clone();
    let interrupt = tokio::spawn(tokio::signal::ctrl_c());
    tokio::spawn(async move {
        let _ = interrupt.await;
        let _ = end.send(End::Asked).await;
    });
    Ok(())
}

fn start(options: Options, printer: &Arc<Printer>) -> io::Result<Collector> {
    let mut builder = Collector::builder()
        .port(options.port)
        .max_memory(options.memory)
        .max_connections(MAX_CONNECTIONS);
    if !options.strict {
        builder = builder.lenient();
    }
    if let Some(key) = options.api_key {
        builder = builder.api_key(key);
    }
    let (events, notices) = (Arc::clone(printer), Arc::clone(printer));
    builder
        .on_event(move |session, event| events.print(line(session, event)))
        .on_notice(move |notice| notices.print(escaped(&cut(&notice.to_string(), MAX_DATA))))
        .start()
}

/// Prints on a thread of its own: a reader that stops must not stop the server.
struct Printer {
    lines: SyncSender<Line>,
    unprinted: Arc<AtomicU64>,
}

enum Line {
    Text(String),
    /// Everything before it is printed.
    Last(SyncSender<()>),
}

impl Printer {
    /// Sends to `end` when the output cannot be written any more.
    fn start(end: mpsc::Sender<End>) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(MAX_LINES);
        let unprinted = Arc::new(AtomicU64::new(0));
        let missed = Arc::clone(&unprinted);
        thread::Builder::new()
            .name("output".into())
            .spawn(move || write_all(&waiting, &missed, &end))?;
        Ok(Self { lines, unprinted })
    }

    /// Prints a line, or counts it if the reader is too slow. Never blocks.
    fn print(&self, line: String) {
        if self.lines.try_send(Line::Text(line)).is_err() {
            self.unprinted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prints the last text, and waits for the reader as long as there is hope.
    fn finish(&self, text: String) {
        let (printed, is_printed) = sync_channel(1);
        let deadline = Instant::now() + PATIENCE;
        for mut line in [Line::Text(text), Line::Last(printed)] {
            while let Err(error) = self.lines.try_send(line) {
                line = match error {
                    TrySendError::Full(line) if Instant::now() < deadline => line,
                    _ => return,
                };
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = is_printed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(lines: &Receiver<Line>, missed: &AtomicU64, end: &mpsc::Sender<End>) {
    while let Ok(line) = lines.recv() {
        let mut stdout = io::stdout().lock();
        let missed = missed.swap(0, Ordering::Relaxed);
        let mut result = Ok(());
        if missed > 0 {
            result = writeln!(
                stdout,
                "({missed} lines left out: the output is read too slowly)"
            );
        }
        match line {
            // `println!` would panic if the other end of a pipe is closed.
            Line::Text(text) => result = result.and_then(|()| writeln!(stdout, "{text}")),
            Line::Last(printed) => drop(printed.send(())),
        }
        if result.is_err() {
            let _ = end.try_send(End::Unread);
            return;
        }
    }
}

/// `session index severity name data`.
fn line(session: &str, event: &EventRecord) -> String {
    let data = match event.kind() {
        EventKind::GenericEvent => event.data().unwrap_or_default().to_owned(),
        EventKind::SessionEnd => event.duration().unwrap_or_default().into_owned(),
        EventKind::UnhandledException => {
            let message = cut(&event.message().unwrap_or_default(), MAX_DATA);
            serde_json::Value::from(message).to_string()
        }
        _ => String::new(),
    };
    let (session, name, data) = (
        cut(session, MAX_NAME),
        cut(&event.name(), MAX_NAME),
        cut(&data, MAX_DATA),
    );
    let (index, severity) = (event.index(), event.severity());
    escaped(&format!("{session} {index} {severity:8} {name} {data}"))
        .trim_end()
        .to_owned()
}

/// Bytes of a session's id or an event's name that are printed.
const MAX_NAME: usize = 200;
/// Bytes of an event's data or message that are printed.
const MAX_DATA: usize = 2_000;

/// The beginning of a long text, and its length.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end));
    let beginning = &text[..end.unwrap_or_default()];
    format!("{beginning}… ({} bytes)", text.len())
}

/// A table of the sessions, one per line.
fn table(sessions: &[impl AsRef<SessionRecord>]) -> String {
    let header = ["session", "events", "gaps", "duplicates", "ended"].map(str::to_owned);
    let rows: Vec<_> = [header]
        .into_iter()
        .chain(sessions.iter().map(|session| row(session.as_ref())))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..5)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let lines: Vec<_> = rows.iter().map(|row| aligned(row, &widths)).collect();
    lines.join("\n")
}

fn row(session: &SessionRecord) -> [String; 5] {
    let ended = if session.has_ended() { "yes" } else { "no" };
    [
        escaped(session.id()),
        session.len().to_string(),
        gaps(session),
        session.duplicates().to_string(),
        ended.to_owned(),
    ]
}

/// The missing indices, `3-5,9`, or `-`.
fn gaps(session: &SessionRecord) -> String {
    let gaps = session.gaps();
    let ranges: Vec<_> = gaps
        .iter()
        .map(|gap| match (gap.start(), gap.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();
    if ranges.is_empty() {
        "-".to_owned()
    } else {
        ranges.join(",")
    }
}

fn aligned(row: &[String; 5], widths: &[usize]) -> String {
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .map(|(cell, &width)| format!("{cell:width$}"))
        .collect();
    cells.join("  ").trim_end().to_owned()
}

/// Escapes characters that are not shown as themselves, so that a client can neither control the terminal nor reorder
/// its text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            char if char.is_control() || is_invisible(char) => {
                escaped.extend(char.escape_default())
            }
            char => escaped.push(char),
        }
    }
    escaped
}

/// Marks of direction, and characters without a width.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        Command::parse(arguments.iter().map(ToString::to_string))
    }

    #[test]
    fn arguments_are_parsed_in_any_order() {
        let options = Options {
            port: 80,
            strict: true,
            api_key: Some("k".to_owned()),
            memory: 1 << 20,
        };
        let command = parse(&[
            "--api-key",
            "k",
            "--strict",
            "--port",
            "80",
            "--memory",
            "1",
        ]);
        assert_eq!(command, Ok(Command::Serve(options)));
        assert_eq!(parse(&["--strict", "--help"]), Ok(Command::Help));
    }

    #[test]
    fn a_bad_argument_is_named() {
        let problem = |arguments: &[&str]| parse(arguments).unwrap_err();
        assert!(problem(&["--loud"]).contains("--loud"));
        assert!(problem(&["--port"]).contains("--port needs a value"));
        assert!(problem(&["--port", "65536"]).contains("65536"));
    }

    #[test]
    fn only_characters_that_are_not_shown_are_escaped() {
        assert_eq!(escaped("é\u{1b}[2J\u{9b}\n"), "é\\u{1b}[2J\\u{9b}\\n");
        assert_eq!(escaped("a\u{202e}b\u{feff}"), "a\\u{202e}b\\u{feff}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_its_length() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("éé", 3), "é… (4 bytes)");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let none: Vec<Box<SessionRecord>> = Vec::new();
        assert_eq!(table(&none), "session  events  gaps  duplicates  ended");
    }
}
