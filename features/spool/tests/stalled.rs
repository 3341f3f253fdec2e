//! A disk that does not answer: what `log` and a stop make of it, by a simulated clock. Only the writer's thread is a
//! real one, and it waits until the test lets it go.

use super::*;
use crate::clock::Clock as _;
use crate::features::sim::SimExecutor;

const STOP: Duration = Duration::from_secs(2);

#[test]
fn a_stop_ends_in_time_while_the_disk_stalls_and_what_is_not_written_is_counted() {
    let place = Place::new();
    let backend = Backend::default();
    let bad = Arc::new(BadDisk::default());
    let disk = Arc::new(Faulty(Arc::clone(&bad)));
    let spool = builder(&place, &backend)
        .disk(disk)
        .start()
        .expect("a spool");
    let mut executor = SimExecutor::new(1);
    let reporter = Reporter::builder("stalled")
        .transport(spool.transport())
        .runtime(executor.spawner())
        .max_queue_size(400)
        .enabled(true)
        .start()
        .expect("a session");
    reporter.flush();
    let until = Instant::now() + LONG;
    while reporter.stats().handed_over == 0 {
        assert!(Instant::now() < until, "nothing is written");
        executor.run();
        std::thread::sleep(Duration::from_millis(1));
    }
    bad.stall(true);
    assert!((0..100_u64).all(|n| reporter.log("step", fields! { n })));
    executor.run();
    // The writer has the batch, and the disk stalls: the keeper's file may be the first that it does not write.
    bad.wait_until_stalled();
    while !spool.inner.queue.is_writing() {
        std::thread::sleep(Duration::from_millis(1));
    }

    // `log` goes on as ever until the queue is full, and each call returns without a disk.
    let accepted = (0..1_000_u64)
        .filter(|n| reporter.log("step", fields! { n: *n }))
        .count();
    executor.run();
    let stats = reporter.stats();
    assert!((200..400).contains(&accepted), "{accepted}");
    assert_eq!(stats.refused.queue_full, 1_000 - accepted as u64);
    assert_eq!(stats.handed_over, 1);

    let clock = executor.clock();
    let start = clock.now();
    let drain = executor.block_on(reporter.stop(STOP)).expect("it ends");
    let took = clock.now().saturating_duration_since(start);
    assert_eq!(took, STOP, "no more, no less: nothing was written");
    let stats = reporter.stats();
    assert_eq!((stats.handed_over, drain.delivered), (1, 0));
    assert_eq!(stats.dropped.shutdown, stats.accepted - 1, "{stats:?}");
    assert_eq!(drain.remaining, stats.dropped.shutdown, "{drain:?}");
    assert!(stats.is_balanced() && stats.queued == 0, "{stats:?}");
    // The spool says how many of these may yet turn up.
    let spooled = spool.stats();
    assert_eq!((spooled.stalled, spooled.stored, spooled.late), (100, 1, 0));

    bad.stall(false);
    drop(reporter);
    let until = Instant::now() + LONG;
    while spool.stats().stalled > 0 {
        assert!(Instant::now() < until, "{:?}", spool.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(wait(&spool).is_empty());
    let spooled = spool.stats();
    assert_eq!(
        (spooled.stalled, spooled.stored, spooled.late),
        (0, 101, 100)
    );
    assert_eq!(backend.events().len(), 101);
}
