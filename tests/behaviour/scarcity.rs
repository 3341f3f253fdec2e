//! A host on which no more threads can be started. The program is a separate process, whose address space has no room for
//! another stack.
#![cfg(target_os = "linux")]

use crate::support::{BOUND, KEY, SESSION, child, is_child, names};
use std::process::Command;
use std::thread;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::init;

#[test]
fn where_no_thread_can_be_started_the_driver_makes_the_calls_itself() {
    let collector = Collector::start().expect("a collector");
    let plain = child("scarcity::child_has_no_thread_left");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -v 12000000 && exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args())
        // Stacks of a gibibyte each.
        .env("RUST_MIN_STACK", "1073741824");
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    // Here, since that of the plain one has been removed.
    limited.env("TINKER_API_KEY", KEY);
    limited.env("TINKER_BASE_URL", collector.url());
    let output = limited.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(&collector), ["SESSION_START", "x", "SESSION_END"]);
}

#[test]
fn child_has_no_thread_left() {
    if !is_child() {
        return;
    }
    let session = init(SESSION).expect("it starts");
    let mut started = 0;
    let park = || {
        loop {
            thread::park();
        }
    };
    while thread::Builder::new().spawn(park).is_ok() {
        started += 1;
        assert!(started < 100, "there is no limit");
    }
    assert!(session.log("x", ()));
    let drain = session.stop_blocking(BOUND).expect("no deadlock");
    assert!(drain.all_delivered(), "{drain:?}");
}
