//! The collector of the feature `cli`, in a process of its own.

use core::time::Duration;
use std::env;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

/// `tinkex-telemetry serve`, whose output is thrown away. Dropping it ends the process.
pub struct Collector {
    child: Child,
    /// Its root, without a slash at the end.
    pub url: String,
}

impl Collector {
    /// Builds the program as a user does, and starts it on a free port.
    ///
    /// # Errors
    ///
    /// It cannot be built or started.
    pub fn start() -> io::Result<Self> {
        let program = build()?;
        let addr = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let mut child = Command::new(program)
            .args(["serve", "--port", &addr.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(addr).is_err() {
            let has_ended = child.try_wait()?.is_some();
            if has_ended || Instant::now() > deadline {
                let _ = child.kill();
                return Err(io::Error::other("the collector does not listen"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        let url = format!("http://{addr}");
        Ok(Self { child, url })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn build() -> io::Result<PathBuf> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--locked",
            "--quiet",
            "--release",
            "--features",
            "cli",
        ])
        .args(["--bin", "tinkex-telemetry", "--message-format", "json"])
        .args(["--manifest-path", manifest])
        .stderr(Stdio::inherit())
        .output()?;
    let output = String::from_utf8_lossy(&output.stdout);
    let executable = output
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\""))
        .filter_map(|(_, rest)| rest.split_once('"'))
        .next_back()
        .ok_or_else(|| io::Error::other("the collector cannot be built"))?;
    Ok(executable.0.into())
}
