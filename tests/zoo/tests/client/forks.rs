//! After a `fork()` the session belongs to the parent: in the child, calls end at once and nothing is sent.

use crate::runtimes::{KEY, names};
use fork::{ChildEvent, ProcessFork, Signal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, exit};
use std::thread;
use std::time::{Duration, Instant};
use tinkex_telemetry::client::{ClientError, LoraConfig, SamplingParams, ServiceClient};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::{Config, Thread, Ureq};

const FORKING: &str = "TINKEX_TEST_FORKS";
/// Longer than any child takes.
const BOUND: Duration = Duration::from_secs(20);

/// The forking program runs in a separate process: this test binary, running only the test below.
#[test]
fn in_the_child_of_a_fork_calls_end_at_once_and_send_nothing() {
    let program = std::env::current_exe().expect("the path of this binary");
    let name = "forks::child_of_this_program";
    let output = Command::new(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(FORKING, "1")
        .output()
        .expect("the binary runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
}

#[test]
fn child_of_this_program() {
    if std::env::var_os(FORKING).is_none() {
        return;
    }
    let collector = Collector::start().unwrap();
    let config = Config::new(&collector.url(), KEY).unwrap();
    let service = ServiceClient::builder(config)
        .http(Ureq::new())
        .runtime(Thread)
        .telemetry(|telemetry| telemetry.enabled(true));
    let service = service.connect().wait().unwrap();
    let sampler = service.create_sampling_client("small").wait().unwrap();
    let training = service.create_training_client("small", LoraConfig::default());
    let training = training.wait().unwrap();
    let waiting = training.save_weights("a");
    let sample = || sampler.sample(vec![1], 1, SamplingParams::new());

    match fork::fork_process().expect("the fork succeeds") {
        ProcessFork::Child => {
            let code = catch_unwind(AssertUnwindSafe(move || {
                assert_eq!(waiting.wait(), Err(ClientError::Closed));
                assert_eq!(sample().wait(), Err(ClientError::Closed));
                let saved = training.save_weights("b");
                assert_eq!(saved.wait(), Err(ClientError::Closed));
                let _ = service.close_blocking();
                drop((service, training));
            }));
            exit(i32::from(code.is_err()));
        }
        ProcessFork::Parent(child) => {
            let give_up = Instant::now() + BOUND;
            loop {
                match fork::wait_event_nohang(child).expect("a child process") {
                    Some(ChildEvent::Exited { code, .. }) => break assert_eq!(code, 0),
                    Some(event) if event.is_terminal() => panic!("{event:?}"),
                    // Polls, because nothing notifies of the end of a process.
                    _ if Instant::now() < give_up => thread::sleep(Duration::from_millis(1)),
                    _ => {
                        let _ = fork::signal_process(child, Signal::KILL);
                        panic!("the child hangs");
                    }
                }
            }
        }
    }
    assert!(waiting.wait().is_ok() && sample().wait().is_ok());
    let backend = collector.backend();
    assert_eq!(backend.calls_of("asample").len(), 1);
    assert_eq!(backend.calls_of("save_weights").len(), 1);
    assert_eq!(backend.calls_of("finish").len(), 0);
    assert!(service.close_blocking().all_delivered());
    assert_eq!(backend.calls_of("finish").len(), 1);
    let session = collector.session(service.session_id()).unwrap();
    let ends = names(&session);
    let ends = ends.iter().filter(|name| *name == "SESSION_END");
    assert_eq!((ends.count(), session.duplicates()), (1, 0));
    assert_eq!(collector.violations(), []);
}
