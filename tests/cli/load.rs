//! Many sessions at once: the memory that the program takes, and whether its page still answers.
#![cfg(target_os = "linux")]

use std::{fs, thread};

use serde_json::{Value, json};

use crate::process::*;

const SESSIONS: u64 = 1_000;
const EVENTS: u64 = 100;
const CLIENTS: u64 = 4;

/// A session's events, of about 500 bytes each.
fn events(session: u64) -> Vec<Value> {
    let text = "x".repeat(250);
    let data =
        |n| json!({"event_name": "step", "event_data": {"session": session, "n": n, "text": text}});
    let rest = (1..EVENTS).map(|n| event(n, "GENERIC_EVENT", data(n)));
    core::iter::once(start()).chain(rest).collect()
}

/// The most that a process has had in memory so far, in KiB.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[test]
fn a_thousand_sessions_take_the_memory_that_is_given_and_the_page_still_answers() {
    let folder = Folder::new();
    let (running, addr) = Running::serve(&folder, &["--memory", "8"]);
    let before = peak(running.child.id());
    let head = format!(
        "GET /ui/api/sessions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}",
        token(&folder, addr).trim()
    );
    let listed = || {
        let (status, body) = request(addr, &head, "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Vec<Value>>(&body).expect("JSON")
    };
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for session in (client..SESSIONS).step_by(CLIENTS as usize) {
                    let body = batch(&format!("load-{session}"), &events(session));
                    assert_eq!(deliver(addr, &body), 200);
                }
            });
        }
        for _ in 0..20 {
            let _ = listed();
        }
    });
    // Of the 50 MiB that came, it keeps the newest.
    let listed = listed();
    let name = |session: &Value| session["session"].as_str().map(str::to_owned);
    let last = format!("load-{}", SESSIONS - 1);
    assert!(
        listed
            .iter()
            .any(|session| name(session) == Some(last.clone()))
    );
    assert!(listed.len() < 300, "{}", listed.len());
    let grown = peak(running.child.id()) - before;
    assert!(grown < 32 << 10, "{grown} KiB");
}
