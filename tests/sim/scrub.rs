//! A scrub hook that changes, drops and panics at random, and limits on data, under every fault: the ledger balances.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use tinkex_telemetry::event::{Draft, Verdict};
use tinkex_telemetry::sim::{Env, Faults, Sim};
use tinkex_telemetry::{Options, Severity, fields};

/// What the hook did with the events it saw.
#[derive(Default)]
struct Seen {
    random: AtomicU64,
    dropped: AtomicU64,
    panicked: AtomicU64,
}

impl Seen {
    fn inspect(&self, draft: &mut Draft<'_>) -> Verdict {
        let random = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let random = (random ^ (random >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
        assert_ne!(draft.name(), "SESSION_START");
        match random % 8 {
            0 => {
                self.dropped.fetch_add(1, Ordering::SeqCst);
                return Verdict::Drop;
            }
            1 => {
                self.panicked.fetch_add(1, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new("in the hook"));
            }
            2 => draft.set_severity(Severity::Critical),
            3 | 4 => {
                let text = "long ".repeat((random % 2_000) as usize);
                draft.data_mut().insert("text".into(), text.into());
            }
            _ => {}
        }
        Verdict::Keep
    }
}

/// What happened at least once: an event was truncated, the hook made one too large, it refused a fatal exception, it
/// let one pass.
#[derive(Default)]
struct Reached([AtomicU64; 4]);

impl Reached {
    fn note(&self, at: usize, has_happened: bool) {
        self.0[at].fetch_add(u64::from(has_happened), Ordering::SeqCst);
    }
}

async fn scenario(env: Env, seed: u64, reached: Arc<Reached>) {
    let options = Options {
        max_queue_size: 40,
        flush_threshold: 10,
        max_event_bytes: 4_096,
        max_data_depth: 2,
        max_string_bytes: 5_000,
        max_fields: 4,
        ..Default::default()
    };
    let seen = Arc::new(Seen::default());
    seen.random.store(seed, Ordering::SeqCst);
    let hook = Arc::clone(&seen);
    let reporter = env.reporter_with(options, |builder| {
        builder.scrub(move |draft| hook.inspect(draft))
    });
    for step in 0..200_u64 {
        let before = reporter.stats();
        let accepted = match env.random(20) {
            0 => {
                let error = std::io::Error::other("simulated");
                reporter.log_exception(&error, Severity::Error)
            }
            1 => reporter.log("wide", fields! { list: [1, 2, 3, 4, 5], step: step }),
            _ => reporter.log("event", fields! { step: step }),
        };
        let after = reporter.stats();
        assert!(after.is_balanced());
        assert_eq!(after.accepted - before.accepted, u64::from(accepted));
        let refused = after.refused.total() - before.refused.total();
        assert_eq!(refused, u64::from(!accepted));
        reached.note(0, after.truncated > before.truncated);
        let too_large = after.refused.event_too_large > before.refused.event_too_large;
        reached.note(1, too_large);
        if env.random(10) == 0 {
            env.advance(Duration::from_millis(env.random(2_000))).await;
        }
    }
    let refused = reporter.stats().refused;
    assert_eq!(refused.scrubbed, seen.dropped.load(Ordering::SeqCst));
    assert_eq!(refused.scrub_panicked, seen.panicked.load(Ordering::SeqCst));

    // Whatever the hook does to it, a fatal exception ends the session.
    let before = reporter.stats();
    let error = std::io::Error::other("simulated, fatal");
    let drain = reporter.log_fatal_exception(&error, Severity::Critical);
    let after = reporter.stats();
    assert!(after.session_ended && after.is_balanced());
    let was_refused = after.refused.total() > before.refused.total();
    let ended = u64::from(!before.session_ended);
    // A report of what was lost may come before the end.
    let reports = after.reports - before.reports;
    assert_eq!(
        after.accepted - before.accepted,
        ended + reports + u64::from(!was_refused)
    );
    reached.note(2, was_refused);
    reached.note(3, !was_refused);
    let _ = drain.await;
    env.heal();
    let _ = reporter.stop(Duration::from_secs(5)).await;
    assert!(reporter.stats().is_balanced());
}

#[test]
fn an_unpredictable_hook_leaves_the_ledger_balanced() {
    let reached = Arc::new(Reached::default());
    for seed in 0..300 {
        let reached = Arc::clone(&reached);
        Sim::new(seed)
            .faults(Faults::swarm())
            .run(|env| scenario(env, seed, reached))
            .assert_ok();
    }
    let counts = reached
        .0
        .each_ref()
        .map(|count| count.load(Ordering::SeqCst));
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
}
