//! The scenario on this host: the same code in simulated time, with a console that keeps the output.

use embassy_executor::{Executor, Spawner};
use embassy_time::{Duration, MockDriver};
use scenario::{Console, Printer, REPLIES, SessionMemory};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Poll;
use tinkex_telemetry::Handle;
use tinkex_telemetry::runtime::Embassy;
use tinkex_telemetry::session::Driver;

struct Kept(Mutex<Vec<u8>>);

static PRINTED: Kept = Kept(Mutex::new(Vec::new()));
static HAS_ENDED: AtomicBool = AtomicBool::new(false);

impl Console for Kept {
    fn print(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
    }
}

/// The scenario's output on this host. It runs once, because time and tasks are global.
pub(crate) fn run() -> &'static str {
    static RESULT: OnceLock<String> = OnceLock::new();
    RESULT.get_or_init(|| {
        let executor: &'static mut Executor = Box::leak(Box::new(Executor::new()));
        executor.run_until(
            |spawner| {
                spawner.spawn(program(spawner).expect("it is the first"));
                spawner.spawn(pass_time().expect("it is the first"));
            },
            || HAS_ENDED.load(Ordering::Acquire),
        );
        let kept = PRINTED.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(kept.clone()).expect("requests are text")
    })
}

#[embassy_executor::task]
async fn program(spawner: Spawner) {
    let memory = Box::leak(Box::new(SessionMemory::new()));
    let builder = scenario::session("scenario", 7, Printer::new(&PRINTED, REPLIES));
    let (reporter, driver) = builder.build_in(memory).expect("it is large enough");
    spawner.spawn(drive(driver).expect("it is the first"));
    spawner.spawn(sample(reporter.handle()).expect("it is the first"));
    let telemetry = reporter.handle();
    let interrupt = || scenario::interrupted(&telemetry);
    if let Err(what) = scenario::run(reporter, &PRINTED, interrupt).await {
        PRINTED.print(format!("failed: not so: {what}\n").as_bytes());
    }
    HAS_ENDED.store(true, Ordering::Release);
}

#[embassy_executor::task]
async fn drive(driver: Driver<Printer<Kept>, Embassy>) {
    driver.run_local().await;
}

#[embassy_executor::task]
async fn sample(telemetry: Handle) {
    scenario::sample(telemetry).await;
}

/// Lets all tasks run, then advances time by one of the firmware's steps, and again.
#[embassy_executor::task]
async fn pass_time() {
    while !HAS_ENDED.load(Ordering::Acquire) {
        for _ in 0..64 {
            yield_now().await;
        }
        MockDriver::get().advance(Duration::from_millis(10));
    }
}

async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
