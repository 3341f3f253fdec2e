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

use super::item::Item;
use super::line::Format;
use super::prelude::*;
use super::signals::End;
use super::text;

/// Lines that wait for a slow reader; more are counted instead.
const MAX_LINES: usize = 4_096;
/// Their bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Lines that wait are written together, up to about so many bytes.
const MAX_WRITE: usize = 64 << 10;
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
    /// Whose text is made where it is printed.
    Item(Arc<Item>, Format),
    /// Everything before it is printed.
    Last(SyncSender<()>),
}

impl Line {
    /// Its memory, about.
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Text(text) => text.len(),
            Self::Item(item, _) => item.cost(),
            Self::Last(_) => 0,
        };
        bytes as u64
    }
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
        self.send(Line::Text(line));
    }

    /// Prints an item, if it is worth a line, or counts it if the reader is too slow. Never blocks.
    pub(super) fn print_item(&self, item: Arc<Item>, format: Format) {
        self.send(Line::Item(item, format));
    }

    fn send(&self, line: Line) {
        let (bytes, counts) = (line.bytes(), &self.counts);
        let waiting = counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting == 0 || waiting + bytes <= MAX_BYTES;
        if !has_room || self.lines.try_send(line).is_err() {
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
    let mut text = String::new();
    while let Ok(first) = lines.recv() {
        text.clear();
        let missed = counts.unprinted.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let count = text::count(missed, "line");
            text.push_str(&format!(
                "({count} left out: the output is read too slowly)\n"
            ));
        }
        let (mut bytes, mut last, mut next) = (0, None, Some(first));
        while let Some(line) = next.take() {
            bytes += line.bytes();
            let line = match line {
                Line::Text(text) => Some(text),
                Line::Item(item, format) => format.text(&item),
                Line::Last(printed) => {
                    last = Some(printed);
                    break;
                }
            };
            if let Some(line) = line {
                text.push_str(&line);
                text.push('\n');
            }
            if text.len() < MAX_WRITE {
                next = lines.try_recv().ok();
            }
        }
        // `println!` would panic if the other end of a pipe is closed.
        let result = stream.write_all(text.as_bytes());
        counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if result.and_then(|()| stream.flush()).is_err() {
            let _ = end.try_send(End::Unread);
            return;
        }
        if let Some(printed) = last {
            let _ = printed.send(());
        }
    }
}
