//! Runs forking programs and reads what their processes sent.

use alloc::collections::BTreeMap;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use fork::{ChildEvent, ProcessFork, ProcessId, Signal};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, exit, id};
use std::thread;
use std::time::Instant;
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport};

/// Longer than any child takes.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// A timeout that never expires here.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const JOURNAL: &str = "TINKEX_TEST_JOURNAL";

/// Runs a program until it ends. Returns each process's requests, in order.
pub(crate) fn run(child: &str) -> BTreeMap<u64, Vec<Value>> {
    let journal = path_of(child);
    // Not a pipe: its reader would wait until every process that holds the other end has exited.
    let output = journal.with_extension("output");
    let file = File::create(&output).expect("a file");
    let mut program = Command::new(std::env::current_exe().expect("the path of this binary"))
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env(JOURNAL, &journal)
        // Tracebacks with stacks.
        .env("RUST_BACKTRACE", "1")
        .stdout(file.try_clone().expect("a file"))
        .stderr(file)
        .spawn()
        .expect("the program runs");
    let give_up = Instant::now() + 6 * BOUND;
    let status = loop {
        match program.try_wait().expect("a child process") {
            None if Instant::now() < give_up => thread::sleep(Duration::from_millis(1)),
            None => program.kill().expect("the program can be killed"),
            Some(status) => break status,
        }
    };
    let printed = fs::read_to_string(&output).expect("the file is readable");
    assert!(status.success(), "{status}: {printed}");
    fs::remove_file(output).expect("the file exists");
    for line in printed.lines().filter(|line| line.contains("forks")) {
        println!("{line}");
    }
    let mut sent = BTreeMap::<_, Vec<_>>::new();
    let lines = fs::read_to_string(&journal).expect("the file is readable");
    for line in lines.lines() {
        let (process, body) = line.split_once(' ').expect("two parts");
        let body = serde_json::from_str(body).expect("JSON");
        let process = process.parse().expect("a number");
        sent.entry(process).or_default().push(body);
    }
    fs::remove_file(journal).expect("the file exists");
    sent
}

/// The path of a program's journal. Files beside it have an extension.
pub(crate) fn path_of(child: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{child}-{}", id()))
}

/// The path of the journal, if this process is a forking program.
pub(crate) fn journal() -> Option<PathBuf> {
    std::env::var_os(JOURNAL).map(PathBuf::from)
}

/// A transport that writes each batch to a file, with the id of the sending process.
pub(crate) struct Journal(File);

impl Journal {
    pub(crate) fn new(path: &Path) -> Self {
        let mut options = File::options();
        Self(
            options
                .create(true)
                .append(true)
                .open(path)
                .expect("a file"),
        )
    }

    pub(crate) fn write(&mut self, batch: &Batch<'_>) {
        let line = [id().to_string().as_bytes(), b" ", batch.body(), b"\n"].concat();
        self.0.write_all(&line).expect("the journal is writable");
    }
}

impl Transport for Journal {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        self.write(&batch);
        Ok(Receipt::delivered())
    }
}

pub(crate) fn session<T: Transport>(name: &str, transport: T) -> Builder<T, Thread, Thread> {
    Reporter::builder(name)
        .transport(transport)
        .runtime(Thread)
        .enabled(true)
        .flush_interval(DAY)
        .flush_timeout(DAY)
        .drop_timeout(DAY)
}

/// Forks. The child runs `child` and exits with the code it returns. Returns that code; panics if the child hangs.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> u8 {
    match fork::fork_process().expect("the fork succeeds") {
        ProcessFork::Child => {
            let code = catch_unwind(AssertUnwindSafe(child));
            exit(code.map_or(101, i32::from))
        }
        ProcessFork::Parent(child) => exit_code(child),
    }
}

/// Waits for the child's exit code, up to [`BOUND`].
pub(crate) fn exit_code(child: ProcessId) -> u8 {
    let give_up = Instant::now() + BOUND;
    loop {
        match fork::wait_event_nohang(child).expect("a child process") {
            Some(ChildEvent::Exited { code, .. }) => return code,
            Some(event) if event.is_terminal() => panic!("{event:?}"),
            _ if Instant::now() < give_up => thread::sleep(Duration::from_millis(1)),
            _ => {
                let _ = fork::signal_process(child, Signal::KILL);
                let _ = fork::wait_event(child);
                panic!("the child hangs");
            }
        }
    }
}
