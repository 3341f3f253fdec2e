//! `send`: events from a file or from standard input, to any server that takes telemetry.

use core::time::Duration;
use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Read as _},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::runtime::Runtime;

use crate::features::http::{HttpClient, transport::retry_after};
use crate::features::ureq::Ureq;

use super::args::SendArgs;
use super::output;
use super::prelude::*;
use super::send_body::{Head, Read, Reader, uuid};
use super::{Failure, Outcome, send_spool, signals, text};

/// A request has at most this many events, and bytes of events.
pub(super) const MAX_EVENTS: usize = 100;
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Events from a slow source are not held back longer.
const INTERVAL: Duration = Duration::from_secs(1);
/// A longer line is not an event.
const MAX_LINE: u64 = 64 << 20;
/// Lines are read until there are about so many bytes of them.
const PORTION: usize = 64 << 10;
/// For one request, and between two attempts.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(500);
pub(super) const MAX_DELAY: Duration = Duration::from_secs(30);
/// The longest that a server can ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Lines that are named, of those that cannot be sent.
const MAX_NAMED: u64 = 20;

pub(super) fn send(options: &SendArgs) -> Outcome {
    let is_stdin = options.source.as_os_str() == "-";
    let (input, length): (Box<dyn std::io::Read + Send>, _) = if is_stdin {
        (Box::new(std::io::stdin()), None)
    } else {
        let cannot = |error| format!("cannot read {}: {error}", options.source.display());
        let file = File::open(&options.source).map_err(cannot)?;
        let data = file.metadata().map_err(cannot)?;
        if data.is_dir() {
            return send_spool::send(options);
        }
        (Box::new(file), data.is_file().then_some(data.len()))
    };
    if options.follow || options.trust {
        let problem = "--follow and --trust are for the directory of a spool";
        return Err(Failure::Usage(problem.to_owned()));
    }
    let Some(to) = &options.to else {
        let problem = "--to URL, or TINKER_BASE_URL, must say where to send it";
        return Err(Failure::Usage(problem.to_owned()));
    };
    let mut sender = Sender::to(options, to, length)?;
    let mut reader = Reader::new(options.session.as_deref())?;
    // One, besides the one that is read and the one that is sent: each may be as long as a line.
    let (portions, waiting) = sync_channel(1);
    thread::spawn(move || read_lines(input, &portions));
    let mut problem = None;
    for portion in Portions(&waiting, None) {
        let (mut number, lines) = match portion {
            Portion::Lines(first, lines) => (first, lines),
            Portion::Broken(error) => {
                problem = Some(format!("the input ends early: {error}"));
                continue;
            }
            Portion::Late => {
                sender.flush()?;
                continue;
            }
        };
        for text in lines.split_inclusive(|&byte| byte == b'\n') {
            sender.bar.inc(text.len() as u64);
            match reader.read(text) {
                Ok(read) => sender.take(read)?,
                Err(problem) => sender.refuse(number, &problem),
            }
            number += 1;
        }
    }
    if let Some(end) = reader.end() {
        sender.take(end)?;
    }
    sender.flush()?;
    sender.finish(problem)
}

enum Portion {
    /// Lines, and the number of the first, from 1.
    Lines(u64, Vec<u8>),
    Broken(std::io::Error),
    /// There has been none for a while.
    Late,
}

/// The portions of the input, and in between that there are none.
struct Portions<'a>(&'a Receiver<Portion>, Option<Instant>);

impl Iterator for Portions<'_> {
    type Item = Portion;

    fn next(&mut self) -> Option<Portion> {
        let deadline = *self.1.get_or_insert_with(|| Instant::now() + INTERVAL);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.1 = None;
            return Some(Portion::Late);
        }
        match self.0.recv_timeout(left) {
            Ok(portion) => Some(portion),
            Err(RecvTimeoutError::Timeout) => {
                self.1 = None;
                Some(Portion::Late)
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}

/// Hands on the lines that are there, as soon as no further one is complete.
fn read_lines(input: impl std::io::Read, portions: &SyncSender<Portion>) {
    let mut input = BufReader::with_capacity(PORTION, input);
    let (mut first, mut number) = (1, 1);
    let mut lines = Vec::new();
    loop {
        let begin = lines.len();
        let problem = match read_line(&mut input, &mut lines) {
            Ok(true) => None,
            Ok(false) => break,
            Err(error) => {
                lines.truncate(begin);
                Some(error)
            }
        };
        number += 1;
        let has_more = problem.is_none() && input.buffer().contains(&b'\n');
        if has_more && lines.len() < PORTION {
            continue;
        }
        let portion = Portion::Lines(first, core::mem::take(&mut lines));
        first = number;
        if portions.send(portion).is_err() {
            return;
        }
        if let Some(problem) = problem {
            drop(portions.send(Portion::Broken(problem)));
            return;
        }
    }
    if !lines.is_empty() {
        drop(portions.send(Portion::Lines(first, lines)));
    }
}

/// Appends the next line. Of one that is too long only the beginning, which is no event; its rest is no line. Returns
/// false at the end.
fn read_line(input: &mut impl BufRead, lines: &mut Vec<u8>) -> std::io::Result<bool> {
    let length = input.take(MAX_LINE).read_until(b'\n', lines)?;
    if length as u64 == MAX_LINE && !lines.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        lines.push(b'\n');
    }
    Ok(length > 0)
}

/// Collects events into requests.
pub(super) struct Sender<'a> {
    options: &'a SendArgs,
    client: Ureq,
    runtime: Runtime,
    url: Uri,
    key: Option<HeaderValue>,
    batch: Option<(Head, Vec<String>)>,
    bytes: usize,
    pub(super) counts: Counts,
    pub(super) bar: ProgressBar,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) requests: u64,
    /// Lines that are no events.
    pub(super) unread: u64,
    /// Events that the server did not take.
    pub(super) rejected: u64,
}

/// What to do after a response.
enum Verdict {
    Taken,
    TooLarge,
    Rejected(String),
    Later(String, Option<Duration>),
    Hopeless(String),
}

impl<'a> Sender<'a> {
    pub(super) fn to(
        options: &'a SendArgs,
        to: &str,
        length: Option<u64>,
    ) -> Result<Self, Failure> {
        let base = to.trim().trim_end_matches('/');
        let url: Uri = format!("{base}/api/v1/telemetry")
            .parse()
            .map_err(|error| Failure::Usage(format!("--to {base:?} is not a URL: {error}")))?;
        let client = Ureq::with_timeout(TIMEOUT);
        client
            .check(&url)
            .map_err(|error| Failure::Usage(format!("--to {base:?}: {error}")))?;
        let key = env::var("TINKER_API_KEY")
            .ok()
            .filter(|key| !key.trim().is_empty());
        let key = key.map(|key| HeaderValue::from_str(key.trim())).transpose();
        let mut key = key.map_err(|_| {
            Failure::Usage("TINKER_API_KEY has characters that no header may have".to_owned())
        })?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(10));
        let template = match length {
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {msg}",
            None => "{spinner} {bytes} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Ok(Self {
            options,
            client,
            runtime: signals::runtime()?,
            url,
            key,
            batch: None,
            bytes: 0,
            counts: Counts::default(),
            bar,
        })
    }

    fn take(&mut self, read: Read) -> Result<(), Failure> {
        let Read::Events(head, events) = read else {
            return Ok(());
        };
        for event in events {
            let is_other = self.batch.as_ref().is_some_and(|(own, _)| *own != head);
            if is_other || self.bytes + event.len() > MAX_BYTES {
                self.flush()?;
            }
            self.bytes += event.len();
            let (_, batch) = self.batch.get_or_insert_with(|| (head.clone(), Vec::new()));
            batch.push(event);
            if batch.len() >= MAX_EVENTS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, number: u64, problem: &str) {
        self.refuse_text(&format!("line {number} {problem}"));
    }

    /// Counts what is no event, and says so unless it was said often.
    pub(super) fn refuse_text(&mut self, problem: &str) {
        self.counts.unread += 1;
        if self.counts.unread <= MAX_NAMED {
            self.say(&text::visible(&text::cut(problem, 500)));
        }
    }

    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| output::say(line));
    }

    /// Sends what is there.
    fn flush(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        match self.batch.take() {
            Some((head, events)) => self.settle(&head, events).map(drop),
            None => Ok(()),
        }
    }

    /// Sends events in order. Returns how many were taken before the first that was not.
    pub(super) fn settle(&mut self, head: &Head, events: Vec<String>) -> Result<usize, Failure> {
        let (mut taken, mut is_first_part) = (0, true);
        if events.is_empty() {
            return Ok(0);
        }
        // Pieces that a server finds too large are halved.
        let mut pieces = Vec::from([events]);
        while let Some(mut events) = pieces.pop() {
            let count = events.len();
            let reason = match self.deliver(head, &events)? {
                Verdict::TooLarge | Verdict::Rejected(_) if count > 1 => {
                    let rest = events.split_off(count / 2);
                    pieces.extend([rest, events]);
                    continue;
                }
                Verdict::Taken => {
                    self.counts.sent += count as u64;
                    taken += if is_first_part { count } else { 0 };
                    continue;
                }
                Verdict::Rejected(reason)
                | Verdict::Hopeless(reason)
                | Verdict::Later(reason, _) => reason,
                Verdict::TooLarge => "an event is too large for the server".to_owned(),
            };
            is_first_part = false;
            self.counts.rejected += count as u64;
            self.say(&text::visible(&reason));
        }
        let Counts { sent, requests, .. } = self.counts;
        self.bar.set_message(format!(
            "{} in {}",
            text::count(sent, "event"),
            text::count(requests, "request")
        ));
        Ok(taken)
    }

    /// Sends a request until it is settled. All attempts have the same key.
    fn deliver(&mut self, head: &Head, events: &[String]) -> Result<Verdict, Failure> {
        if self.options.dry_run {
            return Ok(Verdict::Taken);
        }
        let body = Bytes::from(head.body(events));
        let idempotency_key = uuid()?;
        let mut delay = FIRST_DELAY;
        for attempt in 1.. {
            let mut request = Request::post(self.url.clone())
                .header(header::CONTENT_TYPE, "application/json")
                .header(
                    header::USER_AGENT,
                    concat!("tinkex-telemetry/", env!("CARGO_PKG_VERSION")),
                )
                .header("x-idempotency-key", &idempotency_key)
                .body(body.clone())
                .map_err(|error| error.to_string())?;
            if let Some(key) = &self.key {
                request.headers_mut().insert("x-api-key", key.clone());
            }
            let result = self.runtime.block_on(self.client.send(request));
            self.counts.requests += 1;
            let verdict = match result {
                Ok(response) => verdict(response.status(), response.headers(), response.body()),
                Err(error) => match error.response() {
                    Some(response) => {
                        verdict(response.status(), response.headers(), response.body())
                    }
                    None => Verdict::Later(format!("no response: {error}"), None),
                },
            };
            match verdict {
                Verdict::Hopeless(reason) => return Err(self.lost(events.len(), &reason)),
                Verdict::Later(reason, _)
                    if attempt >= self.options.attempts && !self.options.follow =>
                {
                    return Err(self.lost(events.len(), &reason));
                }
                Verdict::Later(reason, after) => {
                    let wait = after.map_or(delay, |after| after.clamp(delay, MAX_WAIT));
                    self.say(&text::visible(&format!(
                        "{reason}; again in {:.1} s",
                        wait.as_secs_f64()
                    )));
                    thread::sleep(wait);
                    delay = (delay * 2).min(MAX_DELAY);
                }
                settled => return Ok(settled),
            }
        }
        Ok(Verdict::Taken)
    }

    /// Nothing more can be sent.
    fn lost(&self, events: usize, reason: &str) -> Failure {
        self.bar.finish_and_clear();
        Failure::Failed(format!(
            "{reason}: {} {} sent, {events} and all that come after were not",
            text::count(self.counts.sent, "event"),
            text::was_or_were(self.counts.sent)
        ))
    }

    pub(super) fn finish(self, problem: Option<String>) -> Outcome {
        self.bar.finish_and_clear();
        let Counts {
            sent,
            requests,
            unread,
            rejected,
        } = self.counts;
        let done = match self.options.dry_run {
            true => format!("{} would be sent", text::count(sent, "event")),
            false => format!(
                "{} sent in {}",
                text::count(sent, "event"),
                text::count(requests, "request")
            ),
        };
        output::say(&format!(
            "{done}; {} could not be read, {} {} rejected",
            text::count(unread, "line"),
            text::count(rejected, "event"),
            text::was_or_were(rejected)
        ));
        match (problem, unread + rejected) {
            (Some(problem), _) => Err(problem.into()),
            (None, 0) => Ok(()),
            (None, _) => Err(Failure::Code(1)),
        }
    }
}

fn verdict(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let body = String::from_utf8_lossy(body);
    let reason = format!(
        "the server answers {}: {}",
        status.as_u16(),
        text::cut(&body, 300)
    );
    let after = retry_after(headers).map(|after| after.delay(SystemTime::now().into()));
    match status.as_u16() {
        200..=299 => Verdict::Taken,
        413 => Verdict::TooLarge,
        400 | 422 => Verdict::Rejected(reason),
        408 | 425 | 429 | 500.. => Verdict::Later(reason, after),
        _ => Verdict::Hopeless(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_say_when_to_come_again_as_a_time() {
        for (after, expected) in [
            ("45", Some(45)),
            ("Wed, 26 Nov 2025 10:30:45 GMT", Some(30)),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            let value = |text| HeaderValue::from_str(text).unwrap();
            headers.insert(header::RETRY_AFTER, value(after));
            headers.insert(header::DATE, value("Wed, 26 Nov 2025 10:30:15 GMT"));
            let Verdict::Later(_, after) = verdict(StatusCode::TOO_MANY_REQUESTS, &headers, b"")
            else {
                panic!("later");
            };
            assert_eq!(after, expected.map(Duration::from_secs));
        }
    }

    fn portions(input: impl std::io::Read + Send + 'static) -> Vec<Portion> {
        let (portions, waiting) = sync_channel(1);
        thread::spawn(move || read_lines(input, &portions));
        waiting.iter().collect()
    }

    #[test]
    fn of_a_line_that_is_too_long_the_rest_is_no_line() {
        let long = std::io::repeat(b'x').take(MAX_LINE + 100);
        let [Portion::Lines(1, long), Portion::Lines(2, rest)] =
            &portions(long.chain(&b"\n{}\n"[..]))[..]
        else {
            panic!("two portions");
        };
        assert_eq!((long.len() as u64, &rest[..]), (MAX_LINE + 1, &b"{}\n"[..]));
    }

    #[test]
    fn many_lines_come_in_portions_with_the_number_of_the_first() {
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let mut next = 1;
        for portion in portions(std::io::Cursor::new(line.repeat(10_000))) {
            let Portion::Lines(first, lines) = portion else {
                panic!("lines");
            };
            assert_eq!(first, next);
            assert!(lines.len() < PORTION + 100 && lines.ends_with(b"\n"));
            next += lines.len() as u64 / 100;
        }
        assert_eq!(next, 10_001);
    }

    #[test]
    fn lines_before_an_incomplete_one_are_not_held_back() {
        let (input, mut output) = std::io::pipe().unwrap();
        let (portions, waiting) = sync_channel(1);
        thread::spawn(move || read_lines(input, &portions));
        std::io::Write::write_all(&mut output, b"1\n2\n3").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"2\n") {
            let Portion::Lines(_, lines) = waiting.recv().unwrap() else {
                panic!("lines");
            };
            seen.extend(lines);
        }
        drop(output);
        assert!(matches!(waiting.recv(), Ok(Portion::Lines(3, line)) if line == b"3"));
        assert!(waiting.recv().is_err());
    }

    #[test]
    fn an_input_that_breaks_keeps_the_lines_before() {
        struct Breaks(&'static [u8]);
        impl std::io::Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                match self.0.is_empty() {
                    true => Err(std::io::Error::other("gone")),
                    false => self.0.read(buffer),
                }
            }
        }
        let portions = portions(Breaks(b"1\n2"));
        assert!(
            matches!(&portions[..], [Portion::Lines(1, line), .., Portion::Broken(_)] if line == b"1\n")
        );
    }
}
