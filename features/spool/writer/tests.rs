//! What other threads do while the writer writes.

use super::*;
use crate::features::spool::bad_disk::{BadDisk, Faulty};
use crate::features::spool::job::JobParts;
use crate::features::spool::parcel::Source;
use crate::features::spool::std_disk::StdDisk;
use crate::features::spool::testing::{Place, event};
use crate::sys::entropy::Entropy;
use alloc::boxed::Box;
use alloc::format;
use core::sync::atomic::Ordering;

fn job(index: u64) -> Job {
    let mut body = r#"{"session_id":"s","platform":"a/b","sdk_version":"1","events":["#.to_owned();
    let start = body.len();
    body.push_str(&event(index, 40));
    let list = (start, body.len());
    body.push_str("]}");
    Job::new(JobParts {
        transport: 1,
        session: "s".to_owned(),
        first_index: index,
        events: 1,
        is_last: false,
        attempt: 0,
        key: uuid::Uuid::nil(),
        list,
        body: body.into(),
    })
}

/// Notes that all that is on disk was sent.
fn settle(disk: &dyn Disk, shared: &Shared) {
    let state = shared.lock();
    let (key, run) = state.runs.iter().next().expect("a run");
    let source = Source::new(*key, run, run.segments.back().expect("a segment"));
    drop(state);
    let parcel = source.read(disk).expect("it is read");
    shared.update(|state| state.note_read(&parcel, |counts| &mut counts.delivered));
}

#[test]
fn a_segment_that_is_removed_when_its_file_has_failed_does_not_cost_the_folder() {
    let place = Place::new();
    let bad = Arc::new(BadDisk::default());
    let disk: Arc<dyn Disk> = Arc::new(Faulty(Arc::clone(&bad)));
    let shared = Arc::new(Shared::default());
    let folders = OwnFolders::default();
    let mut random = Random::new(Entropy::new([1; 32]));
    let path = place.path().join("spool");
    let directory = Directory::open(&*disk, &path, &mut random).expect("a directory");
    let settings = Settings {
        to: Destination::of("test"),
        sync: Sync::OnStop,
        max_bytes: 1 << 20,
    };
    let mut writer = Writer::new(
        Arc::clone(&disk),
        directory,
        Arc::clone(&shared),
        settings,
        random,
        Arc::clone(&folders),
    );
    writer.write(&job(0));
    settle(&*disk, &shared);
    let own = || {
        let folders = folders.lock().expect("no panic");
        let paths = folders.iter().map(|folder| folder.path.clone());
        paths.collect::<Vec<_>>()
    };
    let before = own();
    assert_eq!(before.len(), 1);

    // The file fails, and all that it holds is settled: the keeper removes it before the writer looks where it is.
    let tidied = Arc::clone(&shared);
    *bad.before_stat.lock().expect("no panic") = Some(Box::new(move || {
        for settled in tidy::settled(&tidied, None) {
            tidy::remove(&StdDisk, &tidied, &settled);
        }
    }));
    bad.is_full.store(true, Ordering::SeqCst);
    writer.write(&job(1));
    bad.is_full.store(false, Ordering::SeqCst);
    writer.write(&job(1));
    assert_eq!(own(), before, "the folder is where it was");
    let stats = shared.stats();
    assert_eq!((stats.stored, stats.delivered, stats.pending), (2, 1, 1));
    let unreadable = format!("{stats:?}");
    assert!(stats.is_balanced() && stats.unreadable == 0, "{unreadable}");
}
