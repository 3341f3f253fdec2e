//! A directory in which other users can plant links: the spool reads, writes and removes nothing where they lead.

use crate::{KEY, LONG, Place, check, child, files, heard, recover, spool};
use alloc::collections::BTreeMap;
use core::time::Duration;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tinkex_telemetry::collector::{Collector, Reply};

const VICTIM: &str = "as it was\n";

/// Has a process log into a directory until it is killed. Returns its folder, and what it logged and had confirmed.
fn killed(directory: &Path, session: &str) -> (PathBuf, Vec<String>, u64) {
    let mut child = child("child_logs_until_it_is_killed", directory, session);
    std::thread::sleep(Duration::from_millis(200));
    child.kill().expect("it runs");
    let (payloads, confirmed) = heard(&mut child);
    child.wait().expect("it has ended");
    assert!(confirmed > 0, "nothing was tested");
    let segment = segments(directory).remove(0);
    (
        segment.parent().expect("a folder").into(),
        payloads,
        confirmed,
    )
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files = files(directory);
    files.retain(|path| path.extension().is_some_and(|it| it == "ndjson"));
    files
}

/// All that is in a folder, byte for byte.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files(folder).into_iter();
    files
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect()
}

#[test]
fn planted_links_lead_nowhere_and_hold_up_nothing() {
    let place = Place::new();
    let directory = place.directory();
    let (folder, payloads, confirmed) = killed(&directory, "kept");
    // Another user's spool, say, and a file: this process can write to both.
    let outside = place.0.join("outside");
    let (other, ..) = killed(&outside, "outsider");
    let victim = outside.join("victim");
    fs::write(&victim, VICTIM).expect("it is written");
    let before = content(&outside);

    let name = |path: &Path| path.file_name().expect("a name").to_owned();
    // The folder of a process that has ended, segments, what says how far each of them is settled, and the rest.
    symlink(&other, directory.join(name(&other))).expect("a link");
    for segment in segments(&other) {
        symlink(&segment, folder.join(name(&segment))).expect("a link");
    }
    for segment in segments(&folder) {
        symlink(&victim, segment.with_extension("done")).expect("a link");
    }
    fs::remove_file(directory.join("README")).expect("it is there");
    symlink(&victim, directory.join("README")).expect("a link");
    symlink(outside.join("missing"), folder.join("lock-00000000")).expect("a link");

    let backend = Collector::builder().api_key(KEY).start();
    let backend = backend.expect("a collector");
    let (left, stats) = recover(&directory, &backend);
    assert!(left.is_empty() && stats.is_balanced(), "{left:?} {stats:?}");
    check(&backend, "kept", &payloads, confirmed);
    assert!(backend.session("outsider").is_none(), "it was not ours");
    assert!(content(&outside) == before, "something was written outside");
}

#[test]
fn a_lock_that_is_a_link_keeps_its_folder_from_being_claimed() {
    let place = Place::new();
    let directory = place.directory();
    let (folder, ..) = killed(&directory, "locked");
    let victim = place.0.join("victim");
    fs::write(&victim, VICTIM).expect("it is written");
    fs::remove_file(folder.join("lock")).expect("it is there");
    symlink(&victim, folder.join("lock")).expect("a link");
    let before = content(&folder);
    let backend = Collector::builder().api_key(KEY).start();
    let backend = backend.expect("a collector");
    let (left, stats) = recover(&directory, &backend);
    assert!(
        left.is_empty() && stats.recovered == 0,
        "{left:?} {stats:?}"
    );
    assert!(content(&folder) == before, "it was touched");
    assert_eq!(fs::read(&victim).expect("a file"), VICTIM.as_bytes());
}

#[test]
fn events_that_the_backend_refuses_follow_no_link_out_of_the_directory() {
    let place = Place::new();
    let directory = place.directory();
    let (_, payloads, confirmed) = killed(&directory, "refused");
    let outside = place.0.join("outside");
    fs::create_dir(&outside).expect("a folder");
    symlink(&outside, directory.join("rejected")).expect("a link");
    let backend = Collector::builder().api_key(KEY).start();
    let backend = backend.expect("a collector");
    backend.always(Reply::status(400));
    let refusing = spool(&directory, &backend.url());
    let left = refusing.wait_until_delivered_blocking(Duration::from_millis(1500));
    let (left, stats) = (left.expect("it may wait here"), refusing.stats());
    // They could not be kept apart, so they stay where they are.
    assert!(
        left.pending == stats.recovered && stats.rejected == 0 && stats.is_balanced(),
        "{left:?} {stats:?}"
    );
    assert!(files(&outside).is_empty(), "something was written outside");
    drop(refusing);
    fs::remove_file(directory.join("rejected")).expect("a link");
    backend.always(Reply::accept());
    // The spool that was refused ends on threads of its own.
    let until = std::time::Instant::now() + LONG;
    loop {
        let (left, stats) = recover(&directory, &backend);
        if left.others == 0 {
            assert!(left.is_empty() && stats.is_balanced(), "{left:?} {stats:?}");
            break;
        }
        assert!(std::time::Instant::now() < until, "the first does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    check(&backend, "refused", &payloads, confirmed);
}
