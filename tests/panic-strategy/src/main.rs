//! A program that panics or waits where its argument says. What its session delivers goes to stdout.

extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::process::exit;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::capture::PanicHook;
use tinkex_telemetry::{
    Batch, Handle, Receipt, Reporter, SendError, Thread, Tokio, Transport, install_panic_hook,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// Longer than any wait here takes.
const BOUND: Duration = Duration::from_secs(20);

/// Prints each batch after a while, in which a program that does not wait has ended.
struct Slow;

impl Transport for Slow {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        const A_WHILE: Duration = Duration::from_millis(300);
        match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::time::sleep(A_WHILE).await,
            Err(_) => thread::sleep(A_WHILE),
        }
        for event in batch.events() {
            println!("{}", String::from_utf8_lossy(event));
        }
        Ok(Receipt::delivered())
    }
}

fn on_thread() -> Handle {
    let builder = Reporter::builder("s").transport(Slow).runtime(Thread);
    let reporter = builder.enabled(true).drop_timeout(BOUND).start();
    kept(reporter.expect("it starts"))
}

fn on_tokio() -> Handle {
    let builder = Reporter::builder("s").transport(Slow).runtime(Tokio);
    let reporter = builder.enabled(true).drop_timeout(BOUND).start();
    kept(reporter.expect("it starts"))
}

/// A backend that takes everything, answers nothing, or refuses everything.
enum Backend {
    Healthy,
    Silent,
    Refusing,
}

impl Transport for Backend {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        match self {
            Self::Healthy => Ok(Receipt::delivered()),
            Self::Silent => core::future::pending().await,
            Self::Refusing => Err(SendError::retryable("refused")),
        }
    }
}

/// Twelve panics on two workers, and prints the longest time for which a task that yields was kept from running.
async fn panic_beside(backend: Backend) {
    let builder = Reporter::builder("s").transport(backend).runtime(Tokio);
    // A panic that waited would still wait when the guard in `main` ends the program.
    let builder = builder.enabled(true).drop_timeout(BOUND * 100);
    let handle = kept(builder.start().expect("it starts"));
    // The default hook's output would be measured as well.
    std::panic::set_hook(Box::new(|_| {}));
    let _ = install_panic_hook(&handle);
    let is_over = Arc::new(AtomicBool::new(false));
    let tick = |is_over: Arc<AtomicBool>| async move {
        let mut longest = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            let start = Instant::now();
            tokio::task::yield_now().await;
            longest = longest.max(start.elapsed());
        }
        longest
    };
    let healthy: Vec<_> = (0..4)
        .map(|_| tokio::spawn(tick(Arc::clone(&is_over))))
        .collect();
    for _ in 0..12 {
        let handle = handle.clone();
        let task = tokio::spawn(async move {
            handle.log("step", ());
            handle.flush();
            panic!("in a task");
        });
        assert!(task.await.is_err());
    }
    is_over.store(true, Ordering::Relaxed);
    let mut longest = Duration::ZERO;
    for task in healthy {
        longest = longest.max(task.await.expect("no panic"));
    }
    let accepted = handle.stats().accepted;
    println!("{accepted} events, a healthy task waited at most {longest:?}");
}

/// The session's handle. The reporter is never dropped, so that nothing but the hook waits.
fn kept<T, C, S>(reporter: Reporter<T, C, S>) -> Handle
where
    Reporter<T, C, S>: core::ops::Deref<Target = Handle>,
{
    let handle = reporter.handle();
    core::mem::forget(reporter);
    handle
}

fn workers() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
}

fn one_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Waits, and prints how that ended.
fn wait(handle: &Handle) {
    handle.log("x", ());
    match handle.wait_until_drained_blocking(BOUND) {
        Ok(drain) => println!("drained: {}", drain.all_delivered()),
        Err(error) => println!("{error:?}"),
    }
}

fn main() {
    let place = std::env::args().nth(1).unwrap_or_default();
    let _guard = thread::spawn(|| {
        thread::sleep(BOUND * 2);
        exit(9);
    });
    match &*place {
        "strategy" if cfg!(panic = "abort") => println!("abort"),
        "strategy" => println!("unwind"),
        "main" => {
            let _ = install_panic_hook(&on_thread());
            panic!("in main");
        }
        "thread" => {
            let _ = install_panic_hook(&on_thread());
            let _ = thread::spawn(|| panic!("on a thread")).join();
        }
        "thread-with-timeout" => {
            let _ = PanicHook::new(&on_thread()).timeout(BOUND).install();
            let _ = thread::spawn(|| panic!("on a thread")).join();
        }
        "task" => workers().block_on(async {
            let _ = install_panic_hook(&on_tokio());
            let _ = tokio::spawn(async { panic!("in a task") }).await;
            exit(3);
        }),
        "task-with-timeout" => workers().block_on(async {
            let _ = PanicHook::new(&on_tokio()).timeout(BOUND).install();
            let _ = tokio::spawn(async { panic!("in a task") }).await;
            exit(3);
        }),
        "block-on" => workers().block_on(async {
            let _ = install_panic_hook(&on_tokio());
            panic!("in block_on");
        }),
        "block-on-local-set" => LocalSet::new().block_on(&workers(), async {
            let _ = install_panic_hook(&on_tokio());
            panic!("in a local set");
        }),
        "wait-in-task" => workers().block_on(async {
            let handle = on_tokio();
            let _ = install_panic_hook(&handle);
            let task = tokio::spawn(async move { wait(&handle) });
            task.await.expect("no panic");
            exit(0);
        }),
        "wait-in-block-on" => workers().block_on(async {
            let handle = on_tokio();
            let _ = install_panic_hook(&handle);
            wait(&handle);
            exit(0);
        }),
        "wait-in-local-set" => LocalSet::new().block_on(&workers(), async {
            let handle = on_tokio();
            let _ = install_panic_hook(&handle);
            for _ in 0..3 {
                let handle = handle.clone();
                let task = tokio::task::spawn_local(async move { wait(&handle) });
                task.await.expect("no panic");
            }
            let drain = handle.wait_until_drained(BOUND).await;
            println!("drained: {}", drain.all_delivered());
            exit(0);
        }),
        "wait-in-entered" => {
            let workers = workers();
            let handle = {
                let _guard = workers.enter();
                on_tokio()
            };
            let _ = install_panic_hook(&handle);
            one_thread().block_on(async {
                let _guard = workers.enter();
                for _ in 0..3 {
                    wait(&handle);
                }
                exit(0);
            });
        }
        "healthy" => workers().block_on(panic_beside(Backend::Healthy)),
        "silent" => workers().block_on(panic_beside(Backend::Silent)),
        "refusing" => workers().block_on(panic_beside(Backend::Refusing)),
        other => panic!("there is no place {other:?}"),
    }
}
