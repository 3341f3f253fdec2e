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
    for argument in ["--port", "--strict", "--api-key", "--help"] {
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
        process::Child,
    };

    use super::*;

    /// Kills the process even when a test fails.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn the_binary_prints_a_line_for_each_event_and_a_table_on_ctrl_c() {
        let mut running = Running(binary(&["--port", "0"]).spawn().expect("it runs"));
        let mut stdout = BufReader::new(running.0.stdout.take().expect("piped"));
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            line.trim_end().to_owned()
        };
        let first = line();
        let addr = first
            .strip_prefix("listening on http://")
            .expect("the address");
        let mut stream = connect(addr.parse().expect("an address"));
        let events = [start(), generic(3), exception(4), end(5)];
        let body = batch("s\u{1b}[2J", &events).to_string();
        write_request(&mut stream, LINE, &HEADERS, body.as_bytes());
        assert_eq!(status(&read(stream)), 200);
        assert_eq!(line(), r"s\u{1b}[2J 0 INFO     SESSION_START");
        assert_eq!(line(), r#"s\u{1b}[2J 3 INFO     x {"n":3}"#);
        assert_eq!(line(), r#"s\u{1b}[2J 4 INFO     Error """#);
        assert_eq!(line(), r"s\u{1b}[2J 5 INFO     SESSION_END 25:00:00.000001");

        let pid = running.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .expect("kill runs")
                .success()
        );
        assert_eq!(line(), "session     events  gaps  duplicates  ended");
        assert_eq!(line(), r"s\u{1b}[2J  4       1-2   0           yes");
        assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
    }
}
