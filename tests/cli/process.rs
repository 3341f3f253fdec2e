//! The program as a child, and a minimal client.

use core::{net::SocketAddr, time::Duration};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Instant,
};

use serde_json::{Value, json};

/// Longer than anything here takes, shorter than a person waits.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// A folder of this test's own, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let unique = format!("tinkex-{}-{}", std::process::id(), id(0));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The program, whose files for the user are here.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinkex-telemetry"));
        command.args(arguments).env("XDG_RUNTIME_DIR", &self.0);
        for name in ["TINKER_API_KEY", "TINKER_BASE_URL", "TINKEX_COLLECTOR_KEY"] {
            command.env_remove(name);
        }
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed even when a test fails, and the lines that it prints.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    pub(crate) stdin: Option<ChildStdin>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        Self {
            out: lines(child.stdout.take().expect("piped")),
            err: lines(child.stderr.take().expect("piped")),
            stdin: child.stdin.take(),
            child,
        }
    }

    /// A collector on a free port, once it listens.
    pub(crate) fn serve(folder: &Folder, arguments: &[&str]) -> (Self, SocketAddr) {
        let mut command = folder.program(&["serve", "--port", "0"]);
        Self::listening(command.args(arguments))
    }

    pub(crate) fn listening(command: &mut Command) -> (Self, SocketAddr) {
        let mut running = Self::start(command);
        let line = running.line_with("listening on http://");
        running.line_with("page at http://");
        let addr = line.rsplit("http://").next().expect("an address");
        let addr = addr.parse().expect("an address");
        (running, addr)
    }

    /// The next line of standard output.
    pub(crate) fn line(&mut self) -> String {
        self.out.recv_timeout(BOUND).expect("a line in time")
    }

    /// The next line of standard output that contains this text.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The next line of standard error that contains this text.
    pub(crate) fn error_with(&mut self, text: &str) -> String {
        loop {
            let line = self.err.recv_timeout(BOUND).expect("a line in time");
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args([name, &pid]).status();
        assert!(kill.expect("kill runs").success());
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.stdin = None;
        let end = Instant::now() + BOUND;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            // Another process ends when it ends.
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }

    /// Its code, and the rest of what it printed.
    pub(crate) fn finish(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let code = self.ended().code();
        let all = |lines: &Receiver<String>| {
            let mut all = Vec::new();
            while let Ok(line) = lines.recv_timeout(BOUND) {
                all.push(line);
            }
            all
        };
        (code, all(&self.out), all(&self.err))
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else {
                return;
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Runs the program to its end.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let (code, out, err) = Running::start(command).finish();
    (code, out.join("\n"), err.join("\n"))
}

// Requests.

pub(crate) fn id(n: u64) -> String {
    use core::hash::BuildHasher;
    use std::collections::hash_map::RandomState;
    let random = RandomState::new().hash_one(n);
    format!(
        "{:08x}-4b5a-4c7d-8e9f-{:012x}",
        random >> 32,
        random & 0xffff_ffff_ffff
    )
}

pub(crate) fn event(n: u64, kind: &str, fields: Value) -> Value {
    let mut event = json!({
        "event": kind, "event_id": id(n), "event_session_index": n, "severity": "INFO",
        "timestamp": "2025-11-26T10:30:45.250000Z",
    });
    let all = event.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("an object").clone());
    event
}

pub(crate) fn start() -> Value {
    event(0, "SESSION_START", json!({}))
}

pub(crate) fn generic(n: u64) -> Value {
    event(
        n,
        "GENERIC_EVENT",
        json!({"event_name": "x", "event_data": {"n": n}}),
    )
}

pub(crate) fn batch(session: &str, events: &[Value]) -> String {
    json!({
        "session_id": session, "platform": "unix/linux", "sdk_version": "1.0.0",
        "process_uuid": "5f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f", "events": events,
    })
    .to_string()
}

/// The status and the body of the response to a request.
pub(crate) fn request(addr: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    let length = body.len();
    let head = format!(
        "{head}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("written");
    let _ = stream.write_all(body.as_bytes());
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    let response = String::from_utf8_lossy(&response).into_owned();
    let status = response.get(9..12).and_then(|status| status.parse().ok());
    let body = response
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    (status.unwrap_or(0), body.unwrap_or_default())
}

pub(crate) fn deliver(addr: SocketAddr, body: &str) -> u16 {
    let head = "POST /api/v1/telemetry HTTP/1.1\r\nhost: localhost\r\nx-api-key: k\r\nuser-agent: test/1\r\n\
        x-idempotency-key: 0d1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f";
    request(addr, head, body).0
}

/// The token of the collector on this port.
pub(crate) fn token(folder: &Folder, addr: SocketAddr) -> String {
    let file = folder
        .join("tinkex-telemetry")
        .join(addr.port().to_string());
    std::fs::read_to_string(file).expect("the token's file")
}
