//! nginx and tinyproxy: child processes with a configuration, ports and files of their own.

use crate::report::ensure;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

const TINYPROXY: &str = include_str!("../../../world/tinyproxy.conf");
const NGINX: &str = include_str!("../../../world/nginx.conf");

/// How long a server may take to start or to end.
const BOUND: Duration = Duration::from_secs(20);

/// The ports of all servers on 127.0.0.1, free when this is made.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) collector: u16,
    pub(crate) http: u16,
    pub(crate) https: u16,
    pub(crate) proxy: u16,
    /// Where nothing listens.
    nothing: u16,
}

impl Ports {
    pub(crate) fn free(collector: u16) -> io::Result<Self> {
        // All are held until all are known, so that they differ.
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let held = [bind()?, bind()?, bind()?, bind()?];
        let port = |at: usize| held[at].local_addr().map(|addr| addr.port());
        Ok(Self {
            collector,
            http: port(0)?,
            https: port(1)?,
            proxy: port(2)?,
            nothing: port(3)?,
        })
    }

    fn fill(self, template: &str, folder: &Path) -> String {
        template
            .replace("@FOLDER@", &folder.to_string_lossy())
            .replace("@COLLECTOR@", &self.collector.to_string())
            .replace("@HTTP@", &self.http.to_string())
            .replace("@HTTPS@", &self.https.to_string())
            .replace("@NOTHING@", &self.nothing.to_string())
            .replace("@PROXY@", &self.proxy.to_string())
    }
}

/// Runs a command that must succeed; the error has what it wrote.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let name = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", name()))?;
    let written = String::from_utf8_lossy(&output.stderr);
    ensure(
        output.status.success(),
        format_args!("{}: {}", name(), written.trim()),
    )?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) struct Nginx {
    folder: PathBuf,
    ports: Ports,
    master: Option<Child>,
}

impl Nginx {
    /// Starts it; the folder has the certificate.
    pub(crate) fn start(folder: &Path, ports: Ports) -> Result<Self, String> {
        let configuration = ports.fill(NGINX, folder);
        fs::write(folder.join("nginx.conf"), configuration).map_err(|error| error.to_string())?;
        let mut nginx = Self {
            folder: folder.to_owned(),
            ports,
            master: None,
        };
        nginx.resume()?;
        Ok(nginx)
    }

    /// Starts it again after [`stop`](Self::stop).
    pub(crate) fn resume(&mut self) -> Result<(), String> {
        let master = Command::new("nginx")
            .args(self.arguments())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nginx: {error}"))?;
        self.master = Some(master);
        listens(self.ports.http).map_err(|problem| {
            let log = fs::read_to_string(self.folder.join("nginx.error.log")).unwrap_or_default();
            format!(
                "nginx {problem}: {}",
                log.lines().last().unwrap_or_default()
            )
        })
    }

    /// Ends it at once, requests in progress included.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let Some(mut master) = self.master.take() else {
            return Ok(());
        };
        let signalled = signal(&master, "TERM");
        if signalled.is_err() || !ends(&mut master) {
            let _ = master.kill();
            let _ = master.wait();
        }
        signalled
    }

    /// New workers take over; the old ones end when their connections do.
    pub(crate) fn reload(&self) -> Result<(), String> {
        match &self.master {
            Some(master) => signal(master, "HUP"),
            None => Err("nginx is not running".to_owned()),
        }
    }

    /// The requests so far, except those that are still in progress.
    pub(crate) fn requests(&self) -> Vec<Logged> {
        let log = fs::read_to_string(self.folder.join("nginx.access.log")).unwrap_or_default();
        log.lines().filter_map(Logged::read).collect()
    }

    fn arguments(&self) -> [String; 6] {
        let file = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        // The log is named here, too: nginx opens it before it reads its configuration.
        ["-p", "-c", "-e"]
            .into_iter()
            .zip([file(""), file("nginx.conf"), file("nginx.error.log")])
            .flat_map(|(option, value)| [option.to_owned(), value])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// A line of nginx's access log.
pub(crate) struct Logged {
    /// When the response was complete, in seconds since 1970.
    pub(crate) at: f64,
    pub(crate) status: u16,
    /// How many requests its connection had had.
    pub(crate) on_connection: u32,
    pub(crate) session: String,
}

impl Logged {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let (at, status, _connection) = (next()?, next()?, next()?);
        Some(Self {
            at: at.parse().ok()?,
            status: status.parse().ok()?,
            on_connection: next()?.parse().ok()?,
            session: next()?.to_owned(),
        })
    }
}

pub(crate) struct Tinyproxy {
    folder: PathBuf,
    child: Child,
}

impl Tinyproxy {
    pub(crate) fn start(folder: &Path, ports: Ports) -> Result<Self, String> {
        let file = folder.join("tinyproxy.conf");
        fs::write(&file, ports.fill(TINYPROXY, folder)).map_err(|error| error.to_string())?;
        let child = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("tinyproxy: {error}"))?;
        let tinyproxy = Self {
            folder: folder.to_owned(),
            child,
        };
        listens(ports.proxy).map_err(|problem| format!("tinyproxy {problem}"))?;
        Ok(tinyproxy)
    }

    /// How many requests it has had.
    pub(crate) fn requests(&self) -> usize {
        let log = fs::read_to_string(self.folder.join("tinyproxy.log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("Request ("))
            .count()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By the shell's own command: not every machine has another.
fn signal(child: &Child, signal: &str) -> Result<(), String> {
    let command = format!("kill -{signal} {}", child.id());
    run("sh", &["-c", &command]).map(drop)
}

/// Waits until something accepts connections there.
fn listens(port: u16) -> Result<(), String> {
    let end = Instant::now() + BOUND;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure(Instant::now() < end, "does not start")?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits until the process has ended; false if it does not.
fn ends(child: &mut Child) -> bool {
    let end = Instant::now() + BOUND;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            result => return result.is_ok(),
        }
    }
    false
}
