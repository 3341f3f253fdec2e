//! A signal that ends the program ends its sessions first, and then has the effect that it would have had anyway.
//!
//! Each signalled program is a separate process: this test binary, running one of its `child_…` tests.
#![cfg(unix)]

extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;
use tinkex_telemetry::client::ServiceClient;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::signal::stop_on_signals;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq};

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(20);
/// Long enough never to pass.
const HOUR: Duration = Duration::from_secs(3600);

const BACKEND: &str = "TINKEX_TEST_BACKEND";

type Session = Reporter<HttpTransport<Ureq>, Thread, Thread>;

/// A program that has said that it is ready.
struct Program(Child, BufReader<ChildStdout>);

impl Program {
    fn start(collector: &Collector, test: &str) -> Self {
        let program = std::env::current_exe().expect("the path of this binary");
        Self::run(Command::new(program), collector, test)
    }

    /// Started by a shell that has run `before`.
    fn start_below(before: &str, collector: &Collector, test: &str) -> Self {
        let mut shell = Command::new("sh");
        let program = std::env::current_exe().expect("the path of this binary");
        shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]);
        shell.arg(program);
        Self::run(shell, collector, test)
    }

    fn run(mut command: Command, collector: &Collector, test: &str) -> Self {
        let mut child = command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(BACKEND, collector.url())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let output = child.stdout.take().expect("a pipe");
        let mut program = Self(child, BufReader::new(output));
        program.wait_for("ready");
        program
    }

    /// Waits for a line that ends so. Returns the line.
    fn wait_for(&mut self, end: &str) -> String {
        let mut line = String::new();
        while !line.trim_end().ends_with(end) {
            line.clear();
            let read = self.1.read_line(&mut line).expect("text");
            assert!(read > 0, "the program has ended before {end:?}");
        }
        line
    }

    fn signal(&self, name: &str) {
        kill(name, self.0.id());
    }

    /// The status, with which it must end soon.
    fn status(mut self) -> ExitStatus {
        let give_up = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child process") {
                return status;
            }
            if Instant::now() > give_up {
                self.0.kill().expect("it can be killed");
                panic!("it does not end");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn kill(name: &str, process: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(sent.expect("there is `kill`").success());
}

/// The backend's URL, if this process is a signalled program.
fn backend() -> Option<String> {
    std::env::var(BACKEND).ok()
}

fn session(id: &str, url: &str) -> Session {
    let config = Config::new(url, "key").expect("a config");
    Reporter::builder(id)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .start()
        .expect("the session starts")
}

/// Never returns: the program ends by a signal.
fn wait_for_a_signal() -> ! {
    println!("\nready");
    loop {
        thread::sleep(HOUR);
    }
}

/// The names of a session's generic events and the kinds of its others, with the signal of each interruption.
fn events(collector: &Collector, session: &str) -> Vec<String> {
    let Some(session) = collector.session(session) else {
        return Vec::new();
    };
    let name = |value: &Value| match &value["event_data"]["signal"] {
        Value::String(signal) => format!("{} {signal}", value["event_name"].as_str().unwrap_or("")),
        _ => value
            .get("event_name")
            .unwrap_or(&value["event"])
            .as_str()
            .unwrap_or_default()
            .into(),
    };
    let events = session.events().iter();
    events.map(|event| name(&event.value())).collect()
}

fn collector() -> Collector {
    Collector::start().expect("a collector")
}

#[test]
fn the_session_ends_first_and_the_status_is_that_of_the_signal() {
    for (name, number) in [("TERM", SIGTERM), ("INT", SIGINT)] {
        let collector = collector();
        let program = Program::start(&collector, "child_stops_on_signals");
        program.signal(name);
        assert_eq!(program.status().signal(), Some(number));
        let interrupted = format!("session.interrupted SIG{name}");
        let expected = ["SESSION_START", "working", &interrupted, "SESSION_END"];
        assert_eq!(events(&collector, "s"), expected);
    }
}

#[test]
fn child_stops_on_signals() {
    let Some(url) = backend() else { return };
    let session = session("s", &url);
    let _guard = stop_on_signals(&session, HOUR).expect("handlers");
    session.log("working", ());
    wait_for_a_signal();
}

#[test]
fn several_sessions_end_at_once_and_those_without_a_guard_do_not() {
    let collector = collector();
    let program = Program::start(&collector, "child_has_several_sessions");
    program.signal("TERM");
    assert_eq!(program.status().signal(), Some(SIGTERM));
    for id in ["a", "b"] {
        let expected = [
            "SESSION_START",
            "session.interrupted SIGTERM",
            "SESSION_END",
        ];
        assert_eq!(events(&collector, id), expected, "{id}");
    }
    assert!(events(&collector, "c").is_empty());
}

#[test]
fn child_has_several_sessions() {
    let Some(url) = backend() else { return };
    let [a, b, c] = ["a", "b", "c"].map(|id| session(id, &url));
    let guards = [&a, &b, &c].map(|session| stop_on_signals(session, HOUR).expect("handlers"));
    let [_of_a, _of_b, of_c] = guards;
    drop(of_c);
    wait_for_a_signal();
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let collector = collector();
    collector.always(Reply::stall());
    let program = Program::start(&collector, "child_stops_on_signals");
    program.signal("TERM");
    while collector.requests().is_empty() {
        thread::sleep(Duration::from_millis(2));
    }
    program.signal("INT");
    assert_eq!(program.status().signal(), Some(SIGINT));
    assert!(events(&collector, "s").is_empty());
}

#[test]
fn the_grace_bounds_the_stop() {
    let collector = collector();
    collector.always(Reply::stall());
    let program = Program::start(&collector, "child_has_a_short_grace");
    program.signal("TERM");
    assert_eq!(program.status().signal(), Some(SIGTERM));
}

#[test]
fn child_has_a_short_grace() {
    let Some(url) = backend() else { return };
    let session = session("s", &url);
    let _guard = stop_on_signals(&session, Duration::from_millis(50)).expect("handlers");
    wait_for_a_signal();
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let collector = collector();
    let program = Program::start_below("trap '' INT", &collector, "child_stops_on_signals");
    program.signal("INT");
    program.signal("TERM");
    assert_eq!(program.status().signal(), Some(SIGTERM));
    let expected = [
        "SESSION_START",
        "working",
        "session.interrupted SIGTERM",
        "SESSION_END",
    ];
    assert_eq!(events(&collector, "s"), expected);
}

#[test]
fn a_handler_of_the_program_itself_runs_and_decides_how_it_ends() {
    let collector = collector();
    let program = Program::start(&collector, "child_handles_signals_itself");
    program.signal("TERM");
    assert_eq!(program.status().code(), Some(42));
    let expected = [
        "SESSION_START",
        "session.interrupted SIGTERM",
        "SESSION_END",
    ];
    assert_eq!(events(&collector, "s"), expected);
}

#[test]
fn child_handles_signals_itself() {
    let Some(url) = backend() else { return };
    let has_arrived = Arc::default();
    signal_hook::flag::register(SIGTERM, Arc::clone(&has_arrived)).expect("a handler");
    let session = session("s", &url);
    let _guard = stop_on_signals(&session, HOUR).expect("handlers");
    println!("\nready");
    while !has_arrived.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(2));
    }
    while session.stats().driver_alive {
        thread::sleep(Duration::from_millis(2));
    }
    std::process::exit(42);
}

#[test]
fn without_a_guard_a_signal_has_its_usual_effect_at_once() {
    let collector = collector();
    let program = Program::start(&collector, "child_drops_its_guard");
    program.signal("TERM");
    assert_eq!(program.status().signal(), Some(SIGTERM));
    assert!(events(&collector, "s").is_empty());
}

#[test]
fn child_drops_its_guard() {
    let Some(url) = backend() else { return };
    let session = session("s", &url);
    drop(stop_on_signals(&session, HOUR).expect("handlers"));
    wait_for_a_signal();
}

#[test]
fn a_signal_to_the_child_of_a_fork_leaves_its_parent_alone() {
    let collector = collector();
    let mut program = Program::start(&collector, "child_forks");
    let line = program.wait_for("forked");
    let child = line.split_whitespace().next().expect("a process id");
    let child = child.parse().expect("a number");
    kill("TERM", child);
    kill("INT", child);
    program.wait_for("child ended");
    program.signal("INT");
    assert_eq!(program.status().signal(), Some(SIGINT));
    let expected = ["SESSION_START", "session.interrupted SIGINT", "SESSION_END"];
    assert_eq!(events(&collector, "s"), expected);
}

#[test]
fn child_forks() {
    let Some(url) = backend() else { return };
    let session = session("s", &url);
    let _guard = stop_on_signals(&session, HOUR).expect("handlers");
    println!("\nready");
    match fork::fork().expect("a fork") {
        fork::Fork::Child => loop {
            thread::sleep(HOUR);
        },
        fork::Fork::Parent(child) => {
            println!("\n{child} forked");
            let _ = fork::waitpid(child);
            println!("\nchild ended");
        }
    }
    loop {
        thread::sleep(HOUR);
    }
}

#[test]
fn a_client_finishes_its_session_as_interrupted() {
    let collector = collector();
    let program = Program::start(&collector, "child_is_a_client");
    program.signal("TERM");
    assert_eq!(program.status().signal(), Some(SIGTERM));
    let calls = collector.backend().calls();
    let finish: Vec<_> = calls
        .iter()
        .filter(|call| call.name() == "finish")
        .collect();
    assert_eq!(finish.len(), 1);
    let body = finish[0].body();
    assert_eq!(body["reason"]["type"], "interrupted");
    assert_eq!(body["detail"], "SIGTERM");
}

#[test]
fn child_is_a_client() {
    let Some(url) = backend() else { return };
    let config = Config::new(&url, "key").expect("a config");
    let client = ServiceClient::builder(config)
        .http(Ureq::new())
        .runtime(Thread)
        .connect()
        .wait()
        .expect("it connects");
    let _guard = client
        .stop_on_signals(Duration::from_secs(10))
        .expect("handlers");
    wait_for_a_signal();
}
