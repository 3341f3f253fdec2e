//! What `--keep` writes: lines of JSON that people, `jq` and DuckDB can read.
//!
//! `DIR/<time>-<random>/<number>.ndjson` is one run of one session as one process of this program received it: a head,
//! then an event a line, `{"n": line, "i": index, "c": CRC-32, "e": event}`.

use core::time::Duration;
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::features::collector::tap::{KeptEvents, Sender};

use super::prelude::*;
use super::{text, token};

/// Batches that wait for the disk, and their bytes; what is more is not written, and that is said.
const MAX_WAITING: usize = 4_096;
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Files that are open at once.
const MAX_OPEN: usize = 32;
/// How long the end waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// A line as often as this, at most, says what could not be written.
const SILENCE: Duration = Duration::from_secs(10);

/// A directory that is written to, on a thread of its own: a disk that is slow or full stops nothing.
pub(super) struct Keep {
    shared: Arc<Shared>,
    work: Mutex<Option<SyncSender<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<usize>,
    state: Mutex<Trouble>,
}

/// What was not written.
#[derive(Default)]
struct Trouble {
    events: u64,
    said: Option<Instant>,
    reason: String,
    say: Option<Box<dyn Fn(String) + Send>>,
}

struct Work {
    session: String,
    run: u32,
    sender: Sender,
    events: Vec<(u64, Arc<str>)>,
    bytes: usize,
}

impl Keep {
    /// Creates the directory if there is none.
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        let cannot = |error: &dyn core::fmt::Display| {
            format!("--keep {}: cannot be written to: {error}", folder.display())
        };
        let micros = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros();
        let own = folder.join(format!("{micros:016}-{}", token::random(4)?));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&own).map_err(|error| cannot(&error))?;
        let shared = Arc::<Shared>::default();
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let writer = Writer {
            folder: own,
            files: HashMap::new(),
            next: 0,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("keep".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| cannot(&error))?;
        Ok(Self {
            shared,
            work: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Calls `say` with what could not be written.
    pub(super) fn on_trouble(&self, say: impl Fn(String) + Send + 'static) {
        lock(&self.shared.state).say = Some(Box::new(say));
    }

    /// Writes events soon.
    pub(super) fn write(&self, kept: &KeptEvents) {
        let events: Vec<_> = kept
            .events
            .iter()
            .map(|event| (event.index(), event.shared_json()))
            .collect();
        let count = events.len() as u64;
        let bytes = events.iter().map(|(_, json)| json.len() + 64).sum();
        let has_room = {
            let mut waiting = lock(&self.shared.waiting);
            let has_room = *waiting == 0 || *waiting + bytes <= MAX_WAITING_BYTES;
            *waiting += if has_room { bytes } else { 0 };
            has_room
        };
        let work = Work {
            session: kept.session.clone(),
            run: kept.run,
            sender: kept.sender.clone(),
            events,
            bytes,
        };
        let work_sender = lock(&self.work);
        let is_taken = has_room
            && work_sender
                .as_ref()
                .is_some_and(|sender| sender.try_send(work).is_ok());
        if has_room && !is_taken {
            *lock(&self.shared.waiting) -= bytes;
        }
        drop(work_sender);
        if !is_taken {
            self.shared.fail(count, "the disk is too slow");
        }
    }

    /// Waits for the disk. Returns how many events are not on it, and why.
    pub(super) fn finish(&self) -> Option<(u64, String)> {
        drop(lock(&self.work).take());
        if let Some(thread) = lock(&self.thread).take() {
            let deadline = Instant::now() + PATIENCE;
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                let _ = thread.join();
            } else {
                self.shared.fail(0, "the disk did not respond at the end");
            }
        }
        let trouble = lock(&self.shared.state);
        let has_trouble = trouble.events > 0 || !trouble.reason.is_empty();
        has_trouble.then(|| (trouble.events, trouble.reason.clone()))
    }
}

impl Shared {
    fn fail(&self, events: u64, reason: &str) {
        let mut trouble = lock(&self.state);
        trouble.events += events;
        reason.clone_into(&mut trouble.reason);
        let is_silent = trouble.said.is_some_and(|said| said.elapsed() < SILENCE);
        if is_silent {
            return;
        }
        trouble.said = Some(Instant::now());
        let text = format!("{} events are not kept: {reason}", trouble.events);
        if let Some(say) = &trouble.say {
            say(text);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that writes.
struct Writer {
    folder: PathBuf,
    files: HashMap<(String, u32), Segment>,
    /// The number of the next file.
    next: u64,
    shared: Arc<Shared>,
}

struct Segment {
    path: PathBuf,
    id: String,
    head: String,
    /// The number of the next line.
    line: u64,
    /// What is known to be whole.
    length: u64,
    open: Option<File>,
    used: u64,
}

impl Writer {
    fn run(mut self, work: &Receiver<Work>) {
        let mut clock = 0;
        while let Ok(work) = work.recv() {
            clock += 1;
            let count = work.events.len() as u64;
            if let Err(error) = self.append(&work, clock) {
                self.shared.fail(count, &error.to_string());
            }
            *lock(&self.shared.waiting) -= work.bytes;
        }
        for segment in self.files.values() {
            if let Some(file) = &segment.open {
                let _ = file.sync_data();
            }
        }
    }

    fn append(&mut self, work: &Work, clock: u64) -> io::Result<()> {
        let head = head(&work.session, &work.sender);
        let key = (work.session.clone(), work.run);
        if !self.files.contains_key(&key) {
            let segment = self.segment()?;
            self.files.insert(key.clone(), segment);
        }
        self.close_oldest(&key);
        let Some(segment) = self.files.get_mut(&key) else {
            return Ok(());
        };
        segment.used = clock;
        let mut lines = String::new();
        if segment.head != head {
            lines.push_str(&head_line(&segment.id, &head));
        }
        let mut line = segment.line;
        for (index, json) in &work.events {
            let json = match json.contains(['\n', '\r']) {
                true => Cow::Owned(text::compact(json)),
                false => Cow::Borrowed(&**json),
            };
            let crc = crc(&segment.id, line, *index, json.as_bytes());
            lines.push_str(&format!(
                "{{\"n\":{line},\"i\":{index},\"c\":\"{crc:08x}\",\"e\":{json}}}\n"
            ));
            line += 1;
        }
        segment.write(lines.as_bytes())?;
        (segment.line, segment.head) = (line, head);
        Ok(())
    }

    fn segment(&mut self) -> io::Result<Segment> {
        let path = self.folder.join(format!("{:010}.ndjson", self.next));
        let id = token::random(8).map_err(io::Error::other)?;
        self.next += 1;
        Ok(Segment {
            path,
            id,
            head: String::new(),
            line: 0,
            length: 0,
            open: None,
            used: 0,
        })
    }

    /// Makes room for a file that is not open.
    fn close_oldest(&mut self, key: &(String, u32)) {
        let is_open = self.files.get(key).is_some_and(|own| own.open.is_some());
        let open = self.files.values_mut().filter(|other| other.open.is_some());
        let open: Vec<_> = open.collect();
        if !is_open
            && open.len() >= MAX_OPEN
            && let Some(oldest) = open.into_iter().min_by_key(|segment| segment.used)
        {
            oldest.open = None;
        }
    }
}

impl Segment {
    /// Writes all or nothing, as far as the disk allows.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            let mut options = OpenOptions::new();
            options.append(true).create(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            self.open = Some(options.open(&self.path)?);
        }
        let Some(file) = &mut self.open else {
            return Ok(());
        };
        match file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What was half written must not stand before the next line.
                if file.set_len(self.length).is_err() {
                    let _ = file.write_all(b"\n");
                }
                self.open = None;
                Err(error)
            }
        }
    }
}

fn head(session: &str, sender: &Sender) -> String {
    let mut head = json!({
        "session_id": session, "platform": sender.platform, "sdk_version": sender.sdk_version,
    });
    if let Some(process) = &sender.process_uuid {
        head["process_uuid"] = process.clone().into();
    }
    head.to_string()
}

fn head_line(id: &str, head: &str) -> String {
    let crc = crc(id, 0, 0, head.as_bytes());
    format!("{{\"tinkex\":1,\"segment\":\"{id}\",\"head\":{head},\"c\":\"{crc:08x}\"}}\n")
}

/// CRC-32 over the segment's id, the line's number, the event's index and its bytes.
pub(super) fn crc(id: &str, line: u64, index: u64, json: &[u8]) -> u32 {
    let parts = [
        id.as_bytes(),
        &line.to_le_bytes(),
        &index.to_le_bytes(),
        json,
    ];
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        let at = (crc ^ u32::from(*byte)) & 0xff;
        crc = (crc >> 8) ^ TABLE[at as usize];
    }
    !crc
}

/// The remainders of all bytes by the polynomial of IEEE 802.3, reflected.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "a byte")]
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = remainder & 1;
            remainder >>= 1;
            if carry == 1 {
                remainder ^= 0xedb8_8320;
            }
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_everybody_calls_crc_32() {
        // The check value of the catalogues, for the digits 1 to 9; here behind the bytes that are always there.
        let plain = |bytes: &[u8]| {
            let mut crc = u32::MAX;
            for byte in bytes {
                crc = (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize];
            }
            !crc
        };
        assert_eq!(plain(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc("", 0, 0, b"1"), plain(&[&[0; 16][..], b"1"].concat()));
    }
}
