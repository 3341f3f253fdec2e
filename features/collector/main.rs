//! `tinkex-collector`: prints the telemetry sent to a local port.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use tinkex_telemetry::collector::{Collector, EventKind, EventRecord, SessionRecord};

const HELP: &str = "\
Prints the telemetry sent to a local port.

Usage: tinkex-collector [--port PORT] [--strict] [--api-key KEY]

  --port PORT    listen on this port of 127.0.0.1; 0 picks a free one [default: 8787]
  --strict       accept only the exact wire format; respond 422 to anything else
  --api-key KEY  respond 401 to requests with another key
  --help         print this help

Each event is printed as one line: session, index, severity, name, data. Ctrl-C prints a table of
the sessions and exits.";

fn main() -> ExitCode {
    match Command::parse(env::args().skip(1)) {
        Ok(Command::Help) => {
            print(HELP);
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
}

impl Command {
    fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Options {
            port: 8787,
            strict: false,
            api_key: None,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--strict" => options.strict = true,
                "--port" => options.port = parse_port(&value()?)?,
                "--api-key" => options.api_key = Some(value()?),
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

fn serve(options: Options) -> Result<(), String> {
    let port = options.port;
    let collector = start(options).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {port} is in use"),
        _ => format!("cannot listen on port {port}: {error}"),
    })?;
    wait_for_interrupt(|| print(&format!("listening on {}", collector.url())))
        .map_err(|error| format!("cannot wait for Ctrl-C: {error}"))?;
    collector.stop();
    print(&table(&collector.sessions()));
    Ok(())
}

/// Waits for Ctrl-C, and misses none after it calls `ready`.
fn wait_for_interrupt(ready: impl FnOnce()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let interrupt = tokio::spawn(tokio::signal::ctrl_c());
        // The task's first poll installs the handler.
        tokio::task::yield_now().await;
        ready();
        interrupt.await.map_err(io::Error::other)?
    })
}

fn start(options: Options) -> io::Result<Collector> {
    let mut builder = Collector::builder().port(options.port);
    if !options.strict {
        builder = builder.lenient();
    }
    if let Some(key) = options.api_key {
        builder = builder.api_key(key);
    }
    builder
        .on_event(|session, event| print(&line(session, event)))
        .start()
}

/// Prints to stdout. `println!` would panic if the other end of a pipe is closed.
fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// `session index severity name data`.
fn line(session: &str, event: &EventRecord) -> String {
    let (name, data) = name_and_data(event);
    let index = event.index();
    let severity = event.severity();
    escaped(&format!("{session} {index} {severity:8} {name} {data}"))
        .trim_end()
        .to_owned()
}

/// The part of an event that depends on its kind, without the keys that all events have.
fn name_and_data(event: &EventRecord) -> (String, String) {
    let mut value = event.value();
    let mut take = |key: &str| {
        value
            .get_mut(key)
            .map(serde_json::Value::take)
            .unwrap_or_default()
    };
    let text = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    match event.kind() {
        EventKind::GenericEvent => (text(take("event_name")), take("event_data").to_string()),
        EventKind::SessionEnd => (event.kind().to_string(), text(take("duration"))),
        EventKind::UnhandledException => {
            (text(take("error_type")), take("error_message").to_string())
        }
        kind => (kind.to_string(), String::new()),
    }
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

/// Escapes control characters, so that a client cannot control the terminal.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            char if char.is_control() => escaped.extend(char.escape_default()),
            char => escaped.push(char),
        }
    }
    escaped
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
        };
        let command = parse(&["--api-key", "k", "--strict", "--port", "80"]);
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
    fn only_control_characters_are_escaped() {
        assert_eq!(escaped("é\u{1b}[2J\u{9b}\n"), "é\\u{1b}[2J\\u{9b}\\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let none: Vec<Box<SessionRecord>> = Vec::new();
        assert_eq!(table(&none), "session  events  gaps  duplicates  ended");
    }
}
