//! The `tinkex-collector` binary.

use std::{
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use crate::client::*;

fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinkex-collector"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = binary(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn bad_arguments_are_named_and_exit_with_2() {
    for (arguments, named) in [
        (&["--loud"][..], "--loud"),
        (&["--port"], "--port"),
        (&["--port", "http"], "http"),
        (&["--api-key"], "--api-key"),
        (&["--memory", "0"], "--memory"),
    ] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, Some(2));
        assert!(stderr.contains(named), "{stderr}");
    }
}

#[test]
fn help_names_every_argument() {
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for argument in [
        "--port",
        "--strict",
        "--api-key",
        "--memory",
        "TINKEX_COLLECTOR_KEY",
    ] {
        assert!(stdout.contains(argument), "{stdout}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, _, stderr) = run(&["--port", &port]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("port {port} is in use")),
        "{stderr}"
    );
}

#[cfg(unix)]
mod on_unix {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, ChildStdout},
    };

    use super::*;
    use core::net::SocketAddr;
    use std::time::Instant;

    /// Kills the process even when a test fails.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Running {
        fn start(command: &mut Command) -> (Self, BufReader<ChildStdout>, SocketAddr) {
            let mut running = Self(command.spawn().expect("it runs"));
            let mut stdout = BufReader::new(running.0.stdout.take().expect("piped"));
            let first = next(&mut stdout);
            let addr = first
                .strip_prefix("listening on http://")
                .expect("the address");
            (running, stdout, addr.parse().expect("an address"))
        }

        fn signal(&self, name: &str) {
            let pid = self.0.id().to_string();
            let kill = Command::new("kill").args([name, &pid]).status();
            assert!(kill.expect("kill runs").success());
        }

        /// Its exit code, if it ends within the bound.
        fn code(&mut self) -> Option<i32> {
            let end = Instant::now() + BOUND;
            while Instant::now() < end {
                if let Some(status) = self.0.try_wait().expect("a child") {
                    return status.code();
                }
                // Another process ends when it ends.
                std::thread::sleep(core::time::Duration::from_millis(10));
            }
            None
        }
    }

    fn next(stdout: &mut BufReader<ChildStdout>) -> String {
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn deliver(addr: SocketAddr, body: &str) -> u16 {
        let mut stream = connect(addr);
        write_request(&mut stream, LINE, &HEADERS, body.as_bytes());
        status(&read(stream))
    }

    #[test]
    fn the_binary_prints_a_line_for_each_event_and_a_table_on_ctrl_c() {
        let (mut running, mut stdout, addr) = Running::start(&mut binary(&["--port", "0"]));
        let mut line = || next(&mut stdout);
        let events = [start(), generic(3), exception(4), end(5)];
        let body = batch("s\u{1b}[2J", &events).to_string();
        assert_eq!(deliver(addr, &body), 200);
        assert_eq!(line(), r"s\u{1b}[2J 0 INFO     SESSION_START");
        assert_eq!(line(), r#"s\u{1b}[2J 3 INFO     x {"n":3}"#);
        assert_eq!(line(), r#"s\u{1b}[2J 4 INFO     Error """#);
        assert_eq!(line(), r"s\u{1b}[2J 5 INFO     SESSION_END 25:00:00.000001");

        running.signal("-INT");
        assert_eq!(line(), "session     events  gaps  duplicates  ended");
        assert_eq!(line(), r"s\u{1b}[2J  4       1-2   0           yes");
        assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
    }

    #[test]
    fn refused_requests_are_lines_with_their_reason() {
        let (_running, mut stdout, addr) = Running::start(&mut binary(&["--port", "0"]));
        let mut wrong = batch("s", &[generic(1)]);
        wrong["events"][0]["severity"] = "LOUD\u{1b}[2J".into();
        assert_eq!(deliver(addr, &wrong.to_string()), 422);
        assert_eq!(
            next(&mut stdout),
            r"refused (422): POST /api/v1/telemetry: session s: events[0].severity must be one of the five severities, not `LOUD\u{1b}[2J`"
        );
    }

    #[test]
    fn data_keep_the_order_of_their_keys_and_long_ones_are_cut() {
        let (_running, mut stdout, addr) = Running::start(&mut binary(&["--port", "0"]));
        let body = batch("s", &[generic(1)]).to_string();
        let long = "x".repeat(3_000_000);
        let data = format!(r#"{{"z":1,"a":2,"long":"{long}"}}"#);
        assert_eq!(deliver(addr, &body.replace(r#"{"n":1}"#, &data)), 200);
        let line = next(&mut stdout);
        assert!(
            line.starts_with(r#"s 1 INFO     x {"z":1,"a":2,"long":"xxx"#),
            "{line}"
        );
        assert!(
            line.len() < 3_000 && line.ends_with("x… (3000023 bytes)"),
            "{line}"
        );
    }

    #[test]
    fn the_key_can_come_from_a_variable() {
        let mut command = binary(&["--port", "0"]);
        let (_running, mut stdout, addr) =
            Running::start(command.env("TINKEX_COLLECTOR_KEY", "secret"));
        assert_eq!(deliver(addr, &batch("s", &[start()]).to_string()), 401);
        let line = next(&mut stdout);
        assert!(
            line.contains("x-api-key does not match") && !line.contains("secret"),
            "{line}"
        );
    }

    #[test]
    fn sigterm_prints_the_table() {
        let (mut running, mut stdout, addr) = Running::start(&mut binary(&["--port", "0"]));
        assert_eq!(deliver(addr, &batch("s", &[start()]).to_string()), 200);
        assert_eq!(next(&mut stdout), "s 0 INFO     SESSION_START");
        running.signal("-TERM");
        assert_eq!(
            next(&mut stdout),
            "session  events  gaps  duplicates  ended"
        );
        assert_eq!(running.code(), Some(0));
    }

    #[test]
    fn it_ends_when_nothing_reads_its_output_any_more() {
        let (mut running, stdout, addr) = Running::start(&mut binary(&["--port", "0"]));
        // As `head` does. Nothing more is printed.
        drop(stdout);
        assert_eq!(running.code(), Some(0));
        TcpListener::bind(addr).expect("the port is free");
    }

    #[test]
    fn a_reader_that_stops_does_not_stop_the_server_or_its_end() {
        let (mut running, mut stdout, addr) = Running::start(&mut binary(&["--port", "0"]));
        // More than a pipe holds, unread.
        let data = "x".repeat(1_500);
        for n in 0..100 {
            let mut request = batch("s", &[generic(n)]);
            request["events"][0]["event_data"]["text"] = data.clone().into();
            assert_eq!(deliver(addr, &request.to_string()), 200);
        }
        running.signal("-TERM");
        assert_eq!(running.code(), Some(0));
        assert!(next(&mut stdout).starts_with("s 0 INFO"));
    }
}
