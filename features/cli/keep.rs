//! What `--keep` writes: lines of JSON that people, `jq`, DuckDB and this program's other commands can read, in the form
//! of a spool.

use core::time::Duration;
use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use serde_json::Value;

use crate::features::collector::tap::{KeptEvents, Sender};
use crate::features::spool::store::{Store, StoredFile};

use super::{prelude::*, text};

/// Batches that wait for the disk, and their bytes; what is more is not written, and that is said.
const MAX_WAITING: usize = 4_096;
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How often its folder shows that this process lives: while nothing comes, and else after so many batches.
const TOUCH: Duration = Duration::from_secs(60);
const TOUCHES: u64 = 1_000;
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
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(|error| cannot(&error))?;
        let store = Store::create(folder).map_err(|error| cannot(&error))?;
        let shared = Arc::<Shared>::default();
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let writer = Writer {
            store,
            files: HashMap::new(),
            runs: 0,
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
        let text = format!(
            "{} {} not kept: {reason}",
            text::count(trouble.events, "event"),
            text::is_or_are(trouble.events)
        );
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
    store: Store,
    files: HashMap<(String, u32), Open>,
    /// Runs are told apart by a number.
    runs: u64,
    shared: Arc<Shared>,
}

/// What is written of a run.
struct Open {
    run: u64,
    file: Option<StoredFile>,
    used: u64,
}

impl Writer {
    fn run(mut self, work: &Receiver<Work>) {
        let mut clock = 0;
        loop {
            let work = match work.recv_timeout(TOUCH) {
                Ok(work) => work,
                Err(RecvTimeoutError::Timeout) => {
                    self.store.touch();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            clock += 1;
            let count = work.events.len() as u64;
            if let Err(error) = self.append(&work, clock) {
                self.shared.fail(count, &error.to_string());
            }
            *lock(&self.shared.waiting) -= work.bytes;
            if clock % TOUCHES == 0 {
                self.store.touch();
            }
        }
        for file in self
            .files
            .values_mut()
            .filter_map(|open| open.file.as_mut())
        {
            file.sync();
        }
        self.store.finish();
    }

    fn append(&mut self, work: &Work, clock: u64) -> io::Result<()> {
        let head = head(&work.session, &work.sender);
        let key = (work.session.clone(), work.run);
        if !self.files.contains_key(&key) {
            let open = Open {
                run: self.runs,
                file: None,
                used: 0,
            };
            self.runs += 1;
            self.files.insert(key.clone(), open);
        }
        self.close_oldest(&key);
        let Some(open) = self.files.get_mut(&key) else {
            return Ok(());
        };
        open.used = clock;
        let goes_on = |file: &StoredFile| file.fields == head && !file.is_full();
        let mut file = match open.file.take().filter(goes_on) {
            Some(file) => file,
            None => self.store.file(head)?,
        };
        let events = work.events.iter().map(|(index, json)| (*index, &**json));
        // A file that has failed has ended.
        file.append(open.run, events)?;
        open.file = Some(file);
        Ok(())
    }

    /// Makes room for a file that is not open.
    fn close_oldest(&mut self, key: &(String, u32)) {
        let is_open = |open: &Open| open.file.as_ref().is_some_and(|file| !file.is_resting());
        if self.files.get(key).is_some_and(is_open) {
            return;
        }
        let open: Vec<_> = self
            .files
            .values_mut()
            .filter(|open| is_open(open))
            .collect();
        if open.len() >= MAX_OPEN
            && let Some(oldest) = open.into_iter().min_by_key(|open| open.used)
            && let Some(file) = &mut oldest.file
        {
            file.rest();
        }
    }
}

/// The fields before a request's events, in the order in which clients send them.
fn head(session: &str, sender: &Sender) -> String {
    let field = |name: &str, value: &str| format!("\"{name}\":{}", Value::from(value));
    let mut fields = Vec::from([
        field("session_id", session),
        field("platform", &sender.platform),
        field("sdk_version", &sender.sdk_version),
    ]);
    fields.extend(
        sender
            .process_uuid
            .as_deref()
            .map(|process| field("process_uuid", process)),
    );
    format!("{{{}}}", fields.join(","))
}
