//! A spool on a real disk, from a session's events to the backend's answer.

use super::bad_disk::{BadDisk, Faulty};
use super::testing::Place;
use super::{Spool, SpoolBuilder, Sync, folder};
use crate::features::thread::Thread;
use crate::session::{GiveUp, Reporter};
use crate::transport::{Batch, Receipt, SendError, Transport};
use crate::{Drain, Handle, fields};
use alloc::borrow::ToOwned as _;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

mod discarding;
#[cfg(all(test, feature = "sim"))]
mod stalled;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A backend in memory. What it answers is scripted; then it accepts everything.
#[derive(Clone, Default)]
struct Backend(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    always: Option<Answer>,
    /// The events of accepted batches, in order, and the keys of all requests.
    events: Vec<String>,
    keys: Vec<uuid::Uuid>,
    most_in_flight: usize,
}

#[derive(Clone, Copy)]
enum Answer {
    Busy,
    Unauthorized,
    /// An event that contains this text is invalid.
    Invalid(&'static str),
}

impl Backend {
    fn always(answer: Answer) -> Self {
        let backend = Self::default();
        backend.answer(Some(answer));
        backend
    }

    fn answer(&self, always: Option<Answer>) {
        self.0.lock().expect("no panic").always = always;
    }

    fn events(&self) -> Vec<String> {
        self.0.lock().expect("no panic").events.clone()
    }

    /// The values of `n` in the events' data.
    fn numbers(&self) -> Vec<u64> {
        let events = self.events();
        let values = events.iter().map(|event| {
            let value: serde_json::Value = serde_json::from_str(event).expect("JSON");
            value["event_data"]["n"].as_u64()
        });
        values.flatten().collect()
    }
}

impl Transport for Backend {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let mut state = self.0.lock().expect("no panic");
        state.keys.push(batch.idempotency_key());
        let events: Vec<_> = batch
            .events()
            .map(|event| String::from_utf8(event.to_owned()).expect("text"))
            .collect();
        state.most_in_flight = state.most_in_flight.max(events.len());
        let body: serde_json::Value = serde_json::from_slice(batch.body()).expect("JSON");
        assert_eq!(body["session_id"], batch.session_id());
        assert_eq!(
            body["events"].as_array().map(Vec::len),
            Some(batch.event_count())
        );
        let answer = state.script.pop_front().or(state.always);
        match answer {
            Some(Answer::Busy) => Err(SendError::retryable("busy")),
            Some(Answer::Unauthorized) => Err(SendError::unauthorized("no such key")),
            Some(Answer::Invalid(text)) if events.iter().any(|event| event.contains(text)) => {
                Err(SendError::invalid_events("invalid"))
            }
            _ => {
                state.events.extend(events);
                Ok(Receipt::delivered())
            }
        }
    }
}

fn builder(place: &Place, backend: &Backend) -> SpoolBuilder<Backend, Thread> {
    // A session's id may be live once per process and destination, and tests run side by side.
    let destination = place.path().to_string_lossy();
    Spool::builder(place.path().join("spool"))
        .transport(backend.clone())
        .destination(destination)
        .runtime(Thread)
        .retry_base_delay(Duration::from_millis(2))
        .retry_max_delay(Duration::from_millis(20))
        .enabled(true)
}

fn spool(place: &Place, backend: &Backend) -> Spool {
    builder(place, backend).start().expect("a spool")
}

/// Logs events with these numbers in a session of their own, and stops it.
fn log_all(spool: &Spool, session: &str, numbers: core::ops::Range<u64>) -> Drain {
    with_session(spool, session, |handle| {
        for n in numbers {
            assert!(handle.log("step", fields! { n }));
        }
    })
}

fn with_session(spool: &Spool, session: &str, work: impl FnOnce(&Handle)) -> Drain {
    let reporter = Reporter::builder(session)
        .transport(spool.transport())
        .runtime(Thread)
        .give_up(GiveUp::WhenFull)
        .retry_base_delay(Duration::from_millis(2))
        .enabled(true)
        .start()
        .expect("a session");
    work(&reporter.handle());
    reporter.stop_blocking(LONG).expect("it may wait here")
}

/// Drops the spool and waits until its threads have let go of the directory.
fn end(spool: Spool) {
    let path = spool.path().to_owned();
    drop(spool);
    let until = Instant::now() + LONG;
    while folder::holds_any(&path) {
        assert!(Instant::now() < until, "the spool does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait(spool: &Spool) -> super::Left {
    spool
        .wait_until_delivered_blocking(LONG)
        .expect("it may wait here")
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn segments(place: &Place) -> Vec<PathBuf> {
    let mut files = files(place.path());
    files.retain(|path| path.extension().is_some_and(|it| it == "ndjson"));
    files
}

#[test]
fn a_session_hands_over_to_the_disk_and_the_forwarder_delivers() {
    let place = Place::new();
    let backend = Backend::default();
    let spool = spool(&place, &backend);
    let drain = log_all(&spool, "s", 0..250);
    assert!(drain.all_safe() && !drain.all_delivered(), "{drain:?}");
    assert!(wait(&spool).is_empty());
    let stats = spool.stats();
    assert!(
        stats.is_balanced() && stats.stored == drain.handed_over,
        "{stats:?}"
    );
    assert_eq!(
        (stats.delivered, stats.pending, stats.late),
        (stats.stored, 0, 0)
    );
    assert!(backend.numbers().into_iter().eq(0..250));
    end(spool);
    let left = files(place.path());
    let names: Vec<_> = left.iter().filter_map(|path| path.file_name()).collect();
    assert_eq!(names, ["README"], "nothing else is left");
}

#[test]
fn what_is_left_is_sent_by_the_next_spool_once_and_as_it_was() {
    let place = Place::new();
    let away = Backend::always(Answer::Busy);
    let spool = spool(&place, &away);
    let drain = log_all(&spool, "s", 0..250);
    assert!(drain.all_safe(), "{drain:?}");
    let left = spool.wait_until_delivered_blocking(Duration::from_millis(1));
    assert!(left.is_ok_and(|left| left.pending == drain.handed_over));
    let written: Vec<_> = segments(&place)
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("text"))
        .collect();
    end(spool);
    let backend = Backend::default();
    let spool = self::spool(&place, &backend);
    assert!(wait(&spool).is_empty());
    let stats = spool.stats();
    assert_eq!(
        (stats.recovered, stats.delivered),
        (drain.handed_over, drain.handed_over)
    );
    assert!(backend.numbers().into_iter().eq(0..250));
    for event in backend.events() {
        assert!(written.iter().any(|text| text.contains(&event)), "{event}");
    }
    end(spool);
    let spool = self::spool(&place, &backend);
    assert!(wait(&spool).is_empty());
    assert_eq!(spool.stats().recovered, 0);
}

#[test]
fn a_backend_that_refuses_the_sender_costs_nothing() {
    let place = Place::new();
    let backend = Backend::always(Answer::Unauthorized);
    let spool = spool(&place, &backend);
    let drain = log_all(&spool, "s", 0..10);
    let left = wait(&spool);
    assert!(
        left.is_paused && left.pending == drain.handed_over,
        "{left:?}"
    );
    end(spool);
    backend.answer(None);
    let spool = self::spool(&place, &backend);
    assert!(wait(&spool).is_empty());
    assert!(backend.numbers().into_iter().eq(0..10));
}

#[test]
fn an_event_that_the_backend_refuses_is_kept_apart_and_the_others_arrive() {
    let place = Place::new();
    let backend = Backend::always(Answer::Invalid("\"n\":57}"));
    let spool = spool(&place, &backend);
    let _ = log_all(&spool, "s", 0..250);
    assert!(wait(&spool).is_empty());
    let stats = spool.stats();
    assert!(stats.rejected == 1 && stats.is_balanced(), "{stats:?}");
    assert!(
        backend
            .numbers()
            .into_iter()
            .eq((0..250).filter(|n| *n != 57))
    );
    let kept = files(&place.path().join("spool/rejected"));
    let kept = std::fs::read_to_string(&kept[0]).expect("text");
    assert!(kept.contains("\"n\":57}"), "{kept}");
}

#[test]
fn events_for_another_destination_are_left_alone() {
    let place = Place::new();
    let away = Backend::always(Answer::Busy);
    let staging = builder(&place, &away).destination("staging").start();
    let staging = staging.expect("a spool");
    let _ = log_all(&staging, "s", 0..10);
    end(staging);
    let backend = Backend::default();
    let spool = spool(&place, &backend);
    let left = wait(&spool);
    assert!(left.is_empty() && left.elsewhere == 1, "{left:?}");
    assert!(backend.events().is_empty());
    end(spool);
    let spool = builder(&place, &backend).destination("staging").start();
    assert!(wait(&spool.expect("a spool")).is_empty());
    assert!(backend.numbers().into_iter().eq(0..10));
}

#[test]
fn the_sessions_of_a_process_share_its_spool() {
    let place = Place::new();
    let backend = Backend::default();
    let spool = spool(&place, &backend);
    for session in ["a", "b", "c"] {
        assert!(log_all(&spool, session, 0..20).all_safe());
    }
    // The same id again, after the first has ended: its indices begin anew.
    assert!(log_all(&spool, "a", 20..40).all_safe());
    assert!(wait(&spool).is_empty());
    let mut numbers = backend.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers.len(), 80);
    assert_eq!(spool.stats().duplicates, 0);
}

#[test]
fn a_full_spool_drops_the_oldest_and_keeps_the_beginning() {
    let place = Place::new();
    let backend = Backend::always(Answer::Busy);
    let max = 64 << 10;
    let spool = builder(&place, &backend)
        .max_bytes(max)
        .start()
        .expect("a spool");
    let drain = log_all(&spool, "s", 0..1000);
    assert!(drain.all_safe(), "{drain:?}");
    // The writer may still be ending the session's last segment.
    let until = Instant::now() + LONG;
    let evicted = loop {
        let stats = spool.stats();
        assert!(stats.evicted > 0 && stats.is_balanced(), "{stats:?}");
        let on_disk: u64 = segments(&place)
            .iter()
            .map(|path| std::fs::metadata(path).expect("a file").len())
            .sum();
        assert!(on_disk <= max + max / 8, "{on_disk} {stats:?}");
        if stats.bytes == on_disk {
            break stats.evicted;
        }
        assert!(Instant::now() < until, "{on_disk} {stats:?}");
        std::thread::sleep(Duration::from_millis(1));
    };
    end(spool);
    backend.answer(None);
    let spool = self::spool(&place, &backend);
    assert!(wait(&spool).is_empty());
    let events = backend.events();
    assert!(events[0].contains("SESSION_START"), "{}", events[0]);
    let numbers = backend.numbers();
    assert_eq!(numbers.last(), Some(&999));
    assert!(numbers.is_sorted() && numbers.len() as u64 + evicted + 2 >= 1000);
}

#[test]
fn damage_costs_what_it_hits_and_is_counted() {
    let place = Place::new();
    let away = Backend::always(Answer::Busy);
    let spool = spool(&place, &away);
    let drain = log_all(&spool, "s", 0..100);
    end(spool);
    let path = segments(&place).remove(0);
    let mut bytes = std::fs::read(&path).expect("a file");
    let at = bytes
        .windows(7)
        .position(|part| part == b"\"n\":50}")
        .expect("it is there");
    bytes[at + 4] = b'6';
    std::fs::write(&path, bytes).expect("it is written");
    let backend = Backend::default();
    let spool = self::spool(&place, &backend);
    assert!(wait(&spool).is_empty());
    let stats = spool.stats();
    assert_eq!((stats.recovered, stats.unreadable), (drain.handed_over, 1));
    assert!(
        backend
            .numbers()
            .into_iter()
            .eq((0..100).filter(|n| *n != 50))
    );
}

#[test]
fn a_disk_that_is_full_costs_nothing_and_is_tried_again() {
    let place = Place::new();
    let backend = Backend::default();
    let bad = Arc::new(BadDisk::default());
    bad.is_full.store(true, Ordering::SeqCst);
    let disk = Arc::new(Faulty(Arc::clone(&bad)));
    let spool = builder(&place, &backend)
        .disk(disk)
        .start()
        .expect("a spool");
    let drain = log_all(&spool, "s", 0..300);
    assert!(drain.all_safe(), "{drain:?}");
    assert!(wait(&spool).is_empty());
    let stats = spool.stats();
    assert!(stats.straight > 0 && stats.is_balanced(), "{stats:?}");
    let mut numbers = backend.numbers();
    numbers.dedup();
    assert!(numbers.into_iter().eq(0..300));
}

#[test]
fn a_disk_that_hangs_holds_up_neither_log_nor_stop() {
    let place = Place::new();
    let backend = Backend::default();
    let bad = Arc::new(BadDisk::default());
    let disk = Arc::new(Faulty(Arc::clone(&bad)));
    let spool = builder(&place, &backend)
        .disk(disk)
        .start()
        .expect("a spool");
    bad.stall(true);
    let reporter = Reporter::builder("s")
        .transport(spool.transport())
        .runtime(Thread)
        .http_timeout(Duration::from_millis(20))
        .enabled(true)
        .start()
        .expect("a session");
    for n in 0..100_u64 {
        assert!(reporter.log("step", fields! { n }));
    }
    // It returns; that it does so in time is the session's promise, whatever a transport does.
    let drain = reporter.stop_blocking(Duration::from_millis(200));
    let drain = drain.expect("it may wait here");
    let accounted = drain.delivered + drain.handed_over + drain.dropped + drain.remaining;
    assert!(accounted > 100, "{drain:?}");
    bad.stall(false);
    let stats = reporter.stats();
    drop(reporter);
    assert!(wait(&spool).is_empty());
    let spooled = spool.stats();
    let arrived = backend.events().len() as u64;
    assert!(
        arrived <= stats.delivered + stats.handed_over + spooled.late,
        "{stats:?} {spooled:?}"
    );
}

#[test]
fn what_a_failed_sync_leaves_in_doubt_is_written_elsewhere_and_sent_once() {
    let place = Place::new();
    let backend = Backend::always(Answer::Busy);
    let bad = Arc::new(BadDisk::default());
    bad.bad_syncs.store(1, Ordering::SeqCst);
    let disk = Arc::new(Faulty(Arc::clone(&bad)));
    let spool = builder(&place, &backend)
        .disk(disk)
        .sync(Sync::OnStop)
        .start()
        .expect("a spool");
    let drain = log_all(&spool, "s", 0..50);
    assert!(drain.all_safe(), "{drain:?}");
    assert_eq!(bad.bad_syncs.load(Ordering::SeqCst), 0);
    assert_eq!(segments(&place).len(), 2);
    backend.answer(None);
    assert!(wait(&spool).is_empty());
    let stats = spool.stats();
    assert!(
        stats.duplicates > 0 && stats.stored == drain.handed_over,
        "{stats:?}"
    );
    assert!(backend.numbers().into_iter().eq(0..50));
}

#[test]
fn a_retried_request_has_the_same_key_and_no_two_others_have() {
    let place = Place::new();
    let backend = Backend::default();
    let script = [Answer::Busy; 3];
    backend.0.lock().expect("no panic").script.extend(script);
    let spool = spool(&place, &backend);
    let _ = log_all(&spool, "s", 0..10);
    assert!(wait(&spool).is_empty());
    let keys = backend.0.lock().expect("no panic").keys.clone();
    let mut distinct = keys.clone();
    distinct.dedup();
    assert!(
        keys.len() >= 4 && distinct.len() == keys.len() - 3,
        "{keys:?}"
    );
}

#[test]
fn neither_key_nor_address_is_on_disk() {
    let place = Place::new();
    let spool = spool(&place, &Backend::always(Answer::Busy));
    let _ = log_all(&spool, "s", 0..10);
    for path in files(place.path()) {
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(
            !text.contains("backend") && !text.contains("https:"),
            "{text}"
        );
    }
}

#[cfg(unix)]
mod on_unix {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn folders_and_files_are_the_users_alone() {
        let place = Place::new();
        let spool = spool(&place, &Backend::always(Answer::Busy));
        let _ = log_all(&spool, "s", 0..10);
        assert_eq!(mode(spool.path()), 0o700);
        for path in files(place.path()) {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            assert_eq!(mode(path.parent().expect("a folder")), 0o700);
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let place = Place::new();
        let path = place.path().join("spool");
        std::fs::create_dir(&path).expect("a folder");
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("it is its own");
        let refused = builder(&place, &Backend::default()).start();
        let error = refused.expect_err("it is not safe");
        assert!(alloc::format!("{error}").contains("chmod 700"), "{error}");
    }

    #[test]
    fn what_others_may_have_planted_is_not_read() {
        let place = Place::new();
        let away = Backend::always(Answer::Busy);
        let spool = self::spool(&place, &away);
        let _ = log_all(&spool, "s", 0..10);
        end(spool);
        let segment = segments(&place).remove(0);
        let folder = segment.parent().expect("a folder");
        let name = |number: u32| folder.join(alloc::format!("{number:010}-{number:016x}.ndjson"));
        let outside = place.path().join("outside");
        std::fs::copy(&segment, &outside).expect("it is copied");
        symlink(&outside, name(7)).expect("a link");
        std::fs::hard_link(&outside, name(8)).expect("a link");
        std::fs::copy(&segment, name(9)).expect("it is copied");
        std::fs::set_permissions(name(9), Permissions::from_mode(0o666)).expect("its own");
        let fifo = std::process::Command::new("mkfifo").arg(name(10)).status();
        assert!(fifo.is_ok_and(|status| status.success()));
        let backend = Backend::default();
        let spool = self::spool(&place, &backend);
        assert!(wait(&spool).is_empty());
        assert!(backend.numbers().into_iter().eq(0..10));
        assert!(outside.exists());
    }
}
