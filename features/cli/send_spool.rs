//! `send DIR`: what a spool's directory holds, to the server that it is for.
//!
//! What ended processes have left is claimed and sent by a spool of this program's own, as the next program with that
//! directory would. Everything else is only read: what living processes write (`--follow`), what a server has refused
//! before, what `serve --keep` has received, and the files of others (`--trust`).

use alloc::sync::Arc;
use core::{
    pin::pin,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};
use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
    thread,
};

use crate::features::http::{Config, DEFAULT_URL, HttpTransport};
use crate::features::spool::look::{Destination, Folder, Found, Look, Reader, Segment, State};
use crate::features::spool::{Spool, SpoolStats};
use crate::features::thread::Thread;
use crate::features::ureq::Ureq;
use crate::transport::{Batch, Receipt, SendError, SetupError, Transport};

use super::args::SendArgs;
use super::prelude::*;
use super::send::{FIRST_DELAY, MAX_BYTES, MAX_DELAY, MAX_EVENTS, Sender, TIMEOUT};
use super::send_body::Head;
use super::{Failure, Outcome, output, signals, text};

/// How often a directory is looked into that others write to.
const LOOK: Duration = Duration::from_millis(500);
/// How often the progress is shown.
const PROGRESS: Duration = Duration::from_millis(100);

pub(super) fn send(options: &SendArgs) -> Outcome {
    if options.session.is_some() {
        let problem = "--session is for lines without one; a directory's events have theirs";
        return Err(Failure::Usage(problem.to_owned()));
    }
    // An empty variable counts as not set.
    let url = options.to.as_deref().filter(|to| !to.trim().is_empty());
    let url = url.unwrap_or(DEFAULT_URL);
    let config = config(url)?;
    let transport = HttpTransport::new(config.clone(), Ureq::with_timeout(TIMEOUT));
    let to = transport.destination().unwrap_or_default().to_owned();
    log::set_max_level(log::LevelFilter::Warn);
    let _ = log::set_logger(&Notes);
    let mut work = Work {
        sender: Sender::to(options, url, None)?,
        options,
        config,
        to: Destination::of(&to).bits(),
        places: HashMap::new(),
        left: Left::default(),
    };
    loop {
        work.left = Left::default();
        let look = Look::new(&options.source).map_err(|error| {
            Failure::Failed(format!(
                "cannot read the directory {}: {error}",
                options.source.display()
            ))
        })?;
        let is_followed = work.pass(&look)?;
        if !is_followed {
            break;
        }
        thread::sleep(LOOK);
    }
    work.finish()
}

fn config(url: &str) -> Result<Config, Failure> {
    let key = std::env::var("TINKER_API_KEY").unwrap_or_default();
    // A server that wants one says so.
    let key = if key.trim().is_empty() {
        "none"
    } else {
        key.trim()
    };
    Config::new(url, key).map_err(|error| Failure::Usage(chain(&error)))
}

/// What goes on in one directory.
struct Work<'a> {
    options: &'a SendArgs,
    config: Config,
    sender: Sender<'a>,
    /// The hash of the destination.
    to: u64,
    places: HashMap<Segment, Place>,
    left: Left,
}

/// How far a segment is sent that is only read.
#[derive(Clone, Copy, Default)]
struct Place {
    at: u64,
    /// The server has refused an event: the rest is left to those whose it is.
    is_stuck: bool,
}

/// What is not sent, and why.
#[derive(Default)]
struct Left {
    /// Segments for another server.
    elsewhere: u64,
    /// Folders of living processes.
    alive: u64,
    /// Segments that another user can have made.
    unsafe_: u64,
}

impl Work<'_> {
    /// Sends what there is. Returns whether there may be more later.
    fn pass(&mut self, look: &Look) -> Result<bool, Failure> {
        let (mut is_followed, mut is_claimed) = (false, false);
        for folder in &look.folders {
            match folder.state {
                State::Rejected if !look.is_folder => {}
                State::Alive if !look.is_folder && !self.options.follow => self.pass_by(folder)?,
                State::Alive => {
                    is_followed |= self.options.follow;
                    self.read(folder, true)?;
                }
                State::Ended if !look.is_folder && !self.options.dry_run && is_own(folder) => {
                    // What was received, or is for another server, is not to be claimed.
                    is_claimed |= self.is_for_here(folder);
                    self.received(folder)?;
                    // A claim leaves the files of others.
                    let mut others = folder.segments.iter().filter(|segment| !segment.is_safe);
                    others.try_for_each(|segment| match is_received(segment) {
                        true => Ok(()),
                        false => self.segment(folder, segment).map(drop),
                    })?;
                }
                State::Ended | State::Rejected => self.read(folder, false)?,
            }
        }
        if is_claimed {
            self.claim()?;
        }
        Ok(is_followed)
    }

    /// Whether a folder has segments for this server, or without a head: also ones that are settled, to be removed.
    fn is_for_here(&self, folder: &Folder) -> bool {
        folder.segments.iter().any(|segment| {
            let reader = Reader::open(segment).ok();
            reader.is_some_and(|reader| {
                let whose = reader.whose.as_ref();
                whose.is_none_or(|whose| whose.to.bits() == self.to)
            })
        })
    }

    fn pass_by(&mut self, folder: &Folder) -> Result<(), Failure> {
        let is_received = self.received(folder)?;
        self.left.alive += u64::from(!is_received && !folder.segments.is_empty());
        Ok(())
    }

    /// Sends what `serve --keep` has written to a folder. Returns whether there is something of that kind.
    fn received(&mut self, folder: &Folder) -> Result<bool, Failure> {
        let mut is_any = false;
        for segment in &folder.segments {
            if is_received(segment) {
                is_any = true;
                self.segment(folder, segment)?;
            }
        }
        Ok(is_any)
    }

    /// Sends what is in a folder that is only read.
    fn read(&mut self, folder: &Folder, is_alive: bool) -> Result<(), Failure> {
        for segment in &folder.segments {
            let is_whole = self.segment(folder, segment)?;
            // The events of one session stay in order.
            if is_alive && !is_whole {
                break;
            }
        }
        Ok(())
    }

    /// Sends a segment's events. Returns whether all were taken.
    fn segment(&mut self, folder: &Folder, segment: &Segment) -> Result<bool, Failure> {
        if !segment.is_safe && !self.options.trust {
            self.left.unsafe_ += 1;
            return Ok(true);
        }
        let mut place = self.places.get(segment).copied().unwrap_or_default();
        if place.is_stuck {
            return Ok(false);
        }
        let mut reader = match Reader::open(segment) {
            Ok(reader) => reader,
            // Sent, and removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => {
                self.sender
                    .refuse_text(&format!("{}: {error}", segment.path.display()));
                return Ok(true);
            }
        };
        let Some(whose) = reader.whose.clone() else {
            // The first line may still be on its way.
            if folder.state != State::Alive {
                let problem = format!(
                    "{} says nowhere whose its events are",
                    segment.path.display()
                );
                self.sender.refuse_text(&problem);
            }
            return Ok(true);
        };
        let is_received = whose.to == Destination::ANYWHERE;
        let is_rejected = folder.state == State::Rejected;
        if !is_received && !is_rejected && whose.to.bits() != self.to {
            self.left.elsewhere += 1;
            return Ok(true);
        }
        let notes = !is_received && !self.options.dry_run;
        let head = Head::of(&whose);
        reader.at = place.at;
        let rejected = self.sender.counts.rejected;
        loop {
            let (events, indices) = self.batch(&mut reader, segment, &head, notes)?;
            place.at = reader.at;
            let taken = self.sender.settle(&head, events.clone())?;
            if notes && let Some(index) = taken.checked_sub(1).and_then(|at| indices.get(at)) {
                self.note(segment, *index);
            }
            place.is_stuck = taken < events.len() && folder.state == State::Alive;
            self.places.insert(segment.clone(), place);
            if events.is_empty() || place.is_stuck {
                break;
            }
        }
        let is_whole = self.sender.counts.rejected == rejected;
        if is_rejected && is_whole && notes && segment.is_safe {
            segment.remove().map_err(|error| {
                Failure::Failed(format!(
                    "sent, but cannot remove {}: {error}",
                    segment.path.display()
                ))
            })?;
        }
        Ok(is_whole)
    }

    /// The next events of a segment that are not settled.
    fn batch(
        &mut self,
        reader: &mut Reader,
        segment: &Segment,
        head: &Head,
        notes: bool,
    ) -> Result<(Vec<String>, Vec<u64>), Failure> {
        let settled = if notes { segment.settled() } else { None };
        let (mut events, mut indices, mut bytes, mut bad) = (Vec::new(), Vec::new(), 0, Vec::new());
        reader
            .read(|found| {
                match found {
                    Found::Event { index, .. } if Some(index) <= settled => {}
                    Found::Event { index, json } => match head.fits(json) {
                        Ok(()) => {
                            bytes += json.len();
                            events.push(json.to_owned());
                            indices.push(index);
                        }
                        Err(problem) => bad.push(format!("event {index}: {problem}")),
                    },
                    Found::Damaged => bad.push("a line is damaged".to_owned()),
                    Found::Head(_) => {}
                }
                events.len() < MAX_EVENTS && bytes < MAX_BYTES
            })
            .map_err(|error| format!("cannot read {}: {error}", segment.path.display()))?;
        for problem in bad {
            self.sender
                .refuse_text(&format!("{}: {problem}", segment.path.display()));
        }
        self.sender.bar.inc(bytes as u64);
        Ok((events, indices))
    }

    /// A note that cannot be made costs duplicates.
    fn note(&mut self, segment: &Segment, index: u64) {
        let noted = if segment.is_safe {
            segment.settle(index)
        } else {
            Ok(())
        };
        if let Err(error) = noted {
            let problem = format!(
                "{}: cannot note what is sent: {error}",
                segment.path.display()
            );
            self.sender.say(&text::visible(&problem));
        }
    }

    /// Claims and sends what ended processes have left.
    fn claim(&mut self) -> Result<(), Failure> {
        let watch = Arc::<Watch>::default();
        let transport = Watched {
            inner: HttpTransport::new(self.config.clone(), Ureq::with_timeout(TIMEOUT)),
            watch: Arc::clone(&watch),
        };
        let spool = Spool::builder(&self.options.source)
            .transport(transport)
            .runtime(Thread)
            .max_bytes(u64::MAX)
            .max_age(Duration::MAX)
            .http_timeout(TIMEOUT)
            .retry_base_delay(FIRST_DELAY)
            .retry_max_delay(MAX_DELAY)
            .enabled(true)
            .start()
            .map_err(|error| Failure::Failed(chain(&error)))?;
        let problem = signals::runtime()?.block_on(self.wait(&spool, &watch));
        let stats = spool.stats();
        spool.close();
        self.sender.counts.requests += watch.requests.load(Ordering::Relaxed);
        self.count(&stats);
        match problem {
            None => Ok(()),
            Some(reason) => {
                self.sender.bar.finish_and_clear();
                Err(Failure::Failed(format!(
                    "{reason}: {} {} sent, {} {} not and {} kept in {}",
                    text::count(self.sender.counts.sent, "event"),
                    text::was_or_were(self.sender.counts.sent),
                    stats.pending,
                    text::was_or_were(stats.pending),
                    text::is_or_are(stats.pending),
                    self.options.source.display()
                )))
            }
        }
    }

    /// Waits until everything is sent, or nothing more can be, with the reason.
    async fn wait(&self, spool: &Spool, watch: &Watch) -> Option<String> {
        let mut wait = pin!(spool.wait_until_delivered(Duration::MAX));
        loop {
            match tokio::time::timeout(PROGRESS, wait.as_mut()).await {
                Ok(left) => return left.is_paused.then(|| watch.last()),
                Err(_) => {
                    let stats = spool.stats();
                    self.sender.bar.set_message(format!(
                        "{} of {}",
                        stats.settled(),
                        text::count(stats.recovered, "event")
                    ));
                    let failures = watch.failures.load(Ordering::Relaxed);
                    if failures >= self.options.attempts && !self.options.follow {
                        return Some(watch.last());
                    }
                }
            }
        }
    }

    fn count(&mut self, stats: &SpoolStats) {
        let counts = &mut self.sender.counts;
        counts.sent += stats.delivered + stats.handed_over;
        counts.rejected += stats.rejected;
        counts.unread += stats.unreadable;
        self.left.elsewhere += stats.elsewhere;
    }

    fn finish(self) -> Outcome {
        let Left {
            elsewhere,
            alive,
            unsafe_,
        } = self.left;
        let name = self.options.source.display();
        let mut notes = Vec::new();
        if elsewhere > 0 {
            notes.push(format!(
                "{} {} for another server, and {1} left alone",
                text::count(elsewhere, "file"),
                text::is_or_are(elsewhere)
            ));
        }
        if alive > 0 {
            notes.push(format!(
                "{} {} to {name} and {}; --follow sends what is written, until they end",
                text::count(alive, "process"),
                if alive == 1 { "writes" } else { "write" },
                if alive == 1 {
                    "sends it itself"
                } else {
                    "send it themselves"
                },
            ));
        }
        if unsafe_ > 0 {
            notes.push(format!(
                "{} {} left alone, which another user owns or can have made: --trust sends {} as well",
                text::count(unsafe_, "file"),
                text::was_or_were(unsafe_),
                if unsafe_ == 1 { "it" } else { "them" },
            ));
        }
        if self.sender.counts.rejected > 0 {
            notes.push(format!(
                "what the server rejects is kept in {}",
                self.options.source.join("rejected").display()
            ));
        }
        let is_complete = unsafe_ == 0;
        let finished = self.sender.finish(None);
        for note in notes {
            output::say(&text::visible(&note));
        }
        match is_complete {
            true => finished,
            false => finished.and(Err(Failure::Code(1))),
        }
    }
}

fn is_received(segment: &Segment) -> bool {
    let whose = Reader::open(segment).ok().and_then(|reader| reader.whose);
    whose.is_some_and(|whose| whose.to == Destination::ANYWHERE)
}

fn is_own(folder: &Folder) -> bool {
    folder.segments.iter().any(|segment| segment.is_safe)
}

/// An error, and what is behind it.
fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// What a transport has seen.
#[derive(Default)]
struct Watch {
    requests: AtomicU64,
    /// In a row.
    failures: AtomicU32,
    last: Mutex<String>,
}

impl Watch {
    fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}

/// A transport that is watched.
struct Watched {
    inner: HttpTransport<Ureq>,
    watch: Arc<Watch>,
}

impl Transport for Watched {
    fn check(&self) -> Result<(), SetupError> {
        self.inner.check()
    }

    fn destination(&self) -> Option<&str> {
        self.inner.destination()
    }

    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let result = self.inner.send(batch).await;
        self.watch.requests.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &result {
            let mut last = self
                .watch
                .last
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *last = error.to_string();
        }
        match &result {
            Err(error) if error.is_retryable() => {
                self.watch.failures.fetch_add(1, Ordering::Relaxed);
            }
            // The server answers.
            Ok(_) | Err(_) => self.watch.failures.store(0, Ordering::Relaxed),
        }
        result
    }
}

/// What the spool says goes where this program's own messages go.
struct Notes;

impl log::Log for Notes {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "tinkex_telemetry" && metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            output::say(&text::visible(&record.args().to_string()));
        }
    }

    fn flush(&self) {}
}
