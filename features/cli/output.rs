//! Standard output that a slow reader cannot block, and standard error that may stay unread.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Instant,
};

use tokio::sync::mpsc;

use super::prelude::*;
use super::signals::End;
use super::text;

/// Lines that wait for a slow reader; more are counted instead.
const MAX_LINES: usize = 4_096;
/// Their bytes.
const MAX_BYTES: u64 = 16 << 20;
/// How long the end waits for a slow reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// A line on standard error.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "tinkex-telemetry: {line}");
}

/// Text on standard error, as it is.
pub(super) fn say_all(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether lines may have colours: on a terminal, unless `NO_COLOR` is set.
pub(super) fn has_colours(stream: &impl IsTerminal) -> bool {
    let is_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !is_off && !is_dumb
}

/// Prints on a thread of its own: a reader that stops must not stop the server.
pub(super) struct Printer {
    lines: SyncSender<Line>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    unprinted: AtomicU64,
    waiting_bytes: AtomicU64,
}

enum Line {
    Text(String),
    /// Everything before it is printed.
    Last(SyncSender<()>),
}

/// Where to print.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Printer {
    /// Sends to `end` when standard output cannot be written any more.
    pub(super) fn start(stream: Stream, end: mpsc::Sender<End>) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(MAX_LINES);
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        thread::Builder::new()
            .name("output".into())
            .spawn(move || match stream {
                Stream::Out => write_all(&waiting, &shared, &mut io::stdout(), &end),
                // A program whose errors are not read still runs.
                Stream::Err => write_all(&waiting, &shared, &mut io::stderr(), &end),
            })?;
        Ok(Self { lines, counts })
    }

    /// Prints a line, or counts it if the reader is too slow. Never blocks.
    pub(super) fn print(&self, line: String) {
        let (bytes, counts) = (line.len() as u64, &self.counts);
        let waiting = counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting == 0 || waiting + bytes <= MAX_BYTES;
        if !has_room || self.lines.try_send(Line::Text(line)).is_err() {
            counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            counts.unprinted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prints the last text, and waits for the reader as long as there is hope.
    pub(super) fn finish(&self, text: Option<String>) {
        let (printed, is_printed) = sync_channel(1);
        let deadline = Instant::now() + PATIENCE;
        let bytes = text.as_ref().map_or(0, String::len) as u64;
        self.counts
            .waiting_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let text = text.map(Line::Text);
        for mut line in text.into_iter().chain([Line::Last(printed)]) {
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

fn write_all(
    lines: &Receiver<Line>,
    counts: &Counts,
    stream: &mut impl Write,
    end: &mpsc::Sender<End>,
) {
    while let Ok(line) = lines.recv() {
        let missed = counts.unprinted.swap(0, Ordering::Relaxed);
        let mut result = Ok(());
        if missed > 0 {
            result = writeln!(
                stream,
                "({} left out: the output is read too slowly)",
                text::count(missed, "line")
            );
        }
        match line {
            // `println!` would panic if the other end of a pipe is closed.
            Line::Text(text) => {
                let bytes = text.len() as u64;
                result = result.and_then(|()| writeln!(stream, "{text}"));
                counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            Line::Last(printed) => drop(printed.send(())),
        }
        if result.and_then(|()| stream.flush()).is_err() {
            let _ = end.try_send(End::Unread);
            return;
        }
    }
}
