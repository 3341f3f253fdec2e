//! A whole directory that real processes have left, damaged in every way that a disk has: what was not hit arrives as it
//! was, and nothing else does.

use crate::{KEY, LONG, Place, child_by_init, files, heard, number};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::ops::Range;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tinkex_telemetry::Thread;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::http::{Config, HttpTransport, Ureq};
use tinkex_telemetry::spool::{Spool, SpoolStats};
use tinkex_telemetry::transport::{Batch, Receipt, SendError, Transport};

/// Session and index.
type Name = (String, u64);

/// The events, as their bytes.
type Events = BTreeMap<Name, Vec<u8>>;

/// A backend in memory that accepts everything.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Events>>);

impl Transport for Memory {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let mut events = self.0.lock().expect("no panic");
        for (event, index) in batch.events().zip(batch.first_index()..) {
            let value: serde_json::Value = serde_json::from_slice(event).expect("JSON");
            let index = value["event_session_index"].as_u64().unwrap_or(index);
            let name = (batch.session_id().to_owned(), index);
            let before = events.insert(name, event.to_vec());
            assert!(
                before.is_none_or(|before| before == event),
                "one index, two events"
            );
        }
        Ok(Receipt::delivered())
    }
}

/// A line of a segment with an event: where it is, and what it says.
struct Line {
    name: Name,
    range: Range<usize>,
}

/// The events of a segment, line by line.
fn lines(path: &Path) -> (Vec<Line>, Events) {
    let bytes = fs::read(path).expect("a file");
    let (mut session, mut at) = (String::new(), 0);
    let (mut lines, mut events) = (Vec::new(), Events::new());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let range = at..at + line.len();
        at = range.end;
        // What was being written at the kill is no line yet.
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else {
            continue;
        };
        if let Some(id) = value["head"]["session_id"].as_str() {
            id.clone_into(&mut session);
            continue;
        }
        let name = (session.clone(), value["i"].as_u64().expect("an index"));
        let begin = line
            .windows(5)
            .position(|part| part == b",\"e\":")
            .expect("an event")
            + 5;
        let end = line.iter().rposition(|byte| *byte == b'}').expect("an end");
        events.insert(name.clone(), line[begin..end].to_vec());
        lines.push(Line { name, range });
    }
    (lines, events)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    fs::set_permissions(to, fs::metadata(from).expect("it").permissions()).expect("the same");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("copied")),
        }
    }
}

/// What arrives of a directory.
fn recovered(directory: &Path, destination: &str) -> (Events, SpoolStats, u64) {
    let memory = Memory::default();
    let spool = Spool::builder(directory)
        .transport(memory.clone())
        .destination(destination)
        .runtime(Thread)
        .enabled(true)
        .start()
        .expect("a spool");
    let left = spool
        .wait_until_delivered_blocking(LONG)
        .expect("it may wait here");
    assert!(left.is_empty(), "{left:?}");
    let stats = spool.stats();
    drop(spool);
    let events = memory.0.lock().expect("no panic").clone();
    (events, stats, left.others)
}

/// Two processes, of which one could send the first of its events; both were killed.
fn directory(place: &Place) -> (PathBuf, String) {
    let collector = Collector::builder()
        .api_key(KEY)
        .start()
        .expect("a collector");
    let directory = place.directory();
    let mut first = child_by_init(&directory, &collector.url(), "sent-in-part");
    let until = std::time::Instant::now() + LONG;
    while collector
        .session("sent-in-part")
        .is_none_or(|session| session.len() < 20)
    {
        assert!(std::time::Instant::now() < until, "nothing arrives");
        std::thread::sleep(core::time::Duration::from_millis(5));
    }
    collector.always(Reply::status(503));
    let mut second = child_by_init(&directory, &collector.url(), "not-sent");
    std::thread::sleep(core::time::Duration::from_millis(600));
    for child in [&mut first, &mut second] {
        child.kill().expect("it runs");
        let (_, confirmed) = heard(child);
        child.wait().expect("it has ended");
        assert!(confirmed > 30, "{confirmed}");
    }
    let config = Config::new(&collector.url(), KEY).expect("a config");
    let transport = HttpTransport::new(config, Ureq::new());
    let destination = transport.destination().expect("it has one").to_owned();
    (directory, destination)
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Truncated,
    Zeroed,
}

/// Damages a file, and returns the bytes that it had there.
fn damage(path: &Path, kind: Damage) -> Range<usize> {
    let mut bytes = fs::read(path).expect("a file");
    let len = bytes.len();
    let at = crate::random(len as u64) as usize;
    let hit = match kind {
        Damage::Flip => {
            bytes[at] ^= 1 << crate::random(8);
            at..at + 1
        }
        Damage::Truncated => {
            bytes.truncate(at);
            at..len
        }
        Damage::Zeroed => {
            let start = at / 512 * 512;
            let end = len.min(start + 512);
            bytes[start..end].fill(0);
            start..end
        }
    };
    fs::write(path, bytes).expect("written");
    hit
}

#[test]
fn damage_anywhere_in_a_directory_costs_what_it_hits_and_is_never_believed() {
    let place = Place::new();
    let (origin, destination) = directory(&place);
    let damaged: Vec<_> = files(&origin)
        .into_iter()
        .filter(|path| path.extension().is_some())
        .map(|path| path.strip_prefix(&origin).expect("below it").to_owned())
        .collect();
    let is_done = |path: &PathBuf| path.extension().is_some_and(|end| end == "done");
    assert!(
        damaged.iter().any(is_done) && damaged.len() >= 3,
        "{damaged:?}"
    );
    let mut all = Events::new();
    let mut segments = BTreeMap::new();
    for path in damaged.iter().filter(|path| !is_done(path)) {
        let (lines, events) = lines(&origin.join(path));
        all.extend(events);
        segments.insert(path.clone(), lines);
    }
    let untouched = place.directory().with_file_name("untouched");
    copy(&origin, &untouched);
    let (expected, stats, _) = recovered(&untouched, &destination);
    assert!(expected.len() < all.len(), "a part was settled");
    assert_eq!(stats.delivered, expected.len() as u64);

    let rounds = number("TINKEX_DAMAGES").unwrap_or(60);
    let next = core::sync::atomic::AtomicU64::new(0);
    let sums = Mutex::new((0, 0, 0, 0));
    let one = |round: u64| {
        let path = &damaged[crate::random(damaged.len() as u64) as usize];
        let kind = match round % 3 {
            0 => Damage::Flip,
            1 => Damage::Truncated,
            _ => Damage::Zeroed,
        };
        let copied = place.directory().with_file_name(format!("round-{round}"));
        copy(&origin, &copied);
        let hit = damage(&copied.join(path), kind);
        let (arrived, stats, others) = recovered(&copied, &destination);
        let what = format!("{kind:?} of {hit:?} in {path:?}: {stats:?}");
        assert!(stats.is_balanced() && others == 0, "{what}");
        for (name, event) in &arrived {
            assert_eq!(
                all.get(name),
                Some(event),
                "silently wrong: {name:?} {what}"
            );
        }
        let lost: BTreeSet<_> = expected
            .keys()
            .filter(|name| !arrived.contains_key(name))
            .collect();
        // With the line feed before it, a line is two that became one.
        let is_hit = |line: &&Line| line.range.start <= hit.end && hit.start < line.range.end;
        let hit_lines = segments.get(path).into_iter().flatten().filter(is_hit);
        let may_be_lost: BTreeSet<_> = hit_lines.map(|line| &line.name).collect();
        assert!(lost.is_subset(&may_be_lost), "{lost:?} {what}");
        let bound = match kind {
            Damage::Flip => 2,
            Damage::Zeroed => 2 + 512 / 60,
            Damage::Truncated => usize::MAX,
        };
        assert!(lost.len() <= bound, "{lost:?} {what}");
        // What was at the end may not be known to have been there.
        let last = segments.get(path).and_then(|lines| lines.last());
        let is_tail = last.is_some_and(|last| hit.end >= last.range.start);
        assert!(stats.unreadable <= may_be_lost.len() as u64, "{what}");
        assert!(
            is_tail || stats.unreadable >= lost.len() as u64,
            "uncounted: {lost:?} {what}"
        );
        let mut sums = sums.lock().expect("no panic");
        sums.0 += lost.len();
        sums.1 += stats.unreadable;
        sums.2 += arrived
            .keys()
            .filter(|name| !expected.contains_key(name))
            .count();
        sums.3 = sums.3.max(if matches!(kind, Damage::Truncated) {
            0
        } else {
            lost.len()
        });
        drop(sums);
        fs::remove_dir_all(&copied).expect("removed");
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let round = next.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
                    if round >= rounds {
                        return;
                    }
                    one(round);
                }
            });
        }
    });
    let (lost, unreadable, again, most) = *sums.lock().expect("no panic");
    println!(
        "damage: {rounds} directories of {} events, {lost} lost, {unreadable} of them counted, {most} at most by a flip \
         or a sector, {again} sent again, 0 wrong",
        expected.len()
    );
}
