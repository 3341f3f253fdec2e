//! A collector in a process of its own, so that its CPU time is not the clients'. It acknowledges each request, and
//! counts the records in it.

use core::sync::atomic::{AtomicU64, Ordering};
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

const VARIABLE: &str = "OTLP_BENCH_COLLECTOR";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

/// What a collector has received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) requests: u64,
    /// Of the bodies.
    pub(crate) bytes: u64,
}

/// The measuring process's handle on a collector. Dropping it ends the collector's process.
pub(crate) struct Collector {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Its root, without a slash at the end.
    pub(crate) url: String,
}

impl Collector {
    /// Starts this program again, as a collector.
    pub(crate) fn start() -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut address = String::new();
        output.read_line(&mut address)?;
        Ok(Self {
            child,
            input,
            output,
            url: format!("http://{}", address.trim_end()),
        })
    }

    /// The counts so far.
    pub(crate) fn counts(&mut self) -> io::Result<Counts> {
        let mut line = String::new();
        if let Some(input) = &mut self.input {
            writeln!(input)?;
            self.output.read_line(&mut line)?;
        }
        let numbers = line.split_whitespace().map(str::parse);
        match numbers.collect::<Result<Vec<u64>, _>>().as_deref() {
            Ok(&[records, requests, bytes]) => Ok(Counts {
                records,
                requests,
                bytes,
            }),
            _ => Err(io::Error::other("the collector has ended")),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

static RECORDS: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Runs the collector if this process is one. Returns true when it has finished.
pub(crate) fn is_this_process() -> bool {
    if env::var_os(VARIABLE).is_none() {
        return false;
    }
    if let Err(error) = run() {
        eprintln!("collector: {error}");
    }
    true
}

fn run() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Err(error) = serve(&stream) {
                    eprintln!("collector: {error}");
                }
            });
        }
    });
    // A line requests the counts; end of input ends the process.
    for line in io::stdin().lines() {
        line?;
        let [records, requests, bytes] =
            [&RECORDS, &REQUESTS, &BYTES].map(|count| count.load(Ordering::Acquire));
        println!("{records} {requests} {bytes}");
    }
    Ok(())
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = None;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok();
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        body.resize(length.ok_or(io::Error::other("no content-length"))?, 0);
        reader.read_exact(&mut body)?;
        let records = records(&body).ok_or(io::Error::other("not a request in protobuf"))?;
        RECORDS.fetch_add(records, Ordering::Release);
        BYTES.fetch_add(body.len() as u64, Ordering::Release);
        REQUESTS.fetch_add(1, Ordering::Release);
        let mut out = stream;
        out.write_all(RESPONSE)?;
    }
}

/// The number of log records in an `ExportLogsServiceRequest`: `resource_logs`, `scope_logs`, `log_records`.
fn records(body: &[u8]) -> Option<u64> {
    let mut count = 0;
    each(body, 1, &mut |resource| {
        each(resource, 2, &mut |scope| {
            each(scope, 2, &mut |_| {
                count += 1;
                Some(())
            })
        })
    })?;
    Some(count)
}

/// Visits the messages in the field of this number.
fn each(mut message: &[u8], wanted: u64, visit: &mut dyn FnMut(&[u8]) -> Option<()>) -> Option<()> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let len = match tag & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = message.split_at_checked(len)?;
        if tag == wanted << 3 | 2 {
            visit(value)?;
        }
        message = rest;
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
