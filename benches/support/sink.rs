//! A backend in a separate process, so that its CPU time is not the client's. It reads requests, responds to each with
//! the same 200, and counts.

use core::sync::atomic::{AtomicU64, Ordering};
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

const VARIABLE: &str = "SEND_PATH_SINK";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n\
    {\"status\":\"accepted\"}";

/// What a sink does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Responds at once, with a 200.
    Responds,
    /// Accepts connections and never responds.
    Stalls,
}

/// What a sink has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Complete ones.
    pub requests: u64,
    /// Of the bodies.
    pub bytes: u64,
}

impl Counts {
    /// What came since an earlier count.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// The measuring process's handle on a sink. Dropping it ends the sink's process.
pub struct Sink {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Its root, without a slash at the end.
    pub url: String,
}

impl Sink {
    /// Starts this program again, as a sink.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub fn start(mode: Mode) -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .env(VARIABLE, format!("{mode:?}"))
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
    ///
    /// # Errors
    ///
    /// The sink has ended.
    pub fn counts(&mut self) -> io::Result<Counts> {
        let mut line = String::new();
        if let Some(input) = &mut self.input {
            writeln!(input)?;
            self.output.read_line(&mut line)?;
        }
        let mut numbers = line
            .split_whitespace()
            .filter_map(|number| number.parse().ok());
        Ok(Counts {
            requests: numbers.next().unwrap_or_default(),
            bytes: numbers.next().unwrap_or_default(),
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Runs the sink if this process is one. Returns true when the sink has finished.
#[must_use]
pub fn is_this_process() -> bool {
    let Ok(mode) = env::var(VARIABLE) else {
        return false;
    };
    if let Err(error) = run(mode == format!("{:?}", Mode::Stalls)) {
        eprintln!("sink: {error}");
    }
    true
}

fn run(stalls: bool) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        let (keep, kept) = mpsc::channel();
        for stream in listener.incoming().flatten() {
            if stalls {
                let _ = keep.send(stream);
            } else {
                thread::spawn(move || serve(stream));
            }
        }
        drop(kept);
    });
    // A line requests the counts; end of input ends the process.
    for line in io::stdin().lines() {
        line?;
        let requests = REQUESTS.load(Ordering::Acquire);
        println!("{requests} {}", BYTES.load(Ordering::Acquire));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    loop {
        let Some(head) = end_of_head(&buffer[..filled]) else {
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                count => filled += count,
            }
            continue;
        };
        let length = content_length(&buffer[..head]);
        let here = length.min(filled - head);
        buffer.copy_within(head + here..filled, 0);
        filled -= head + here;
        let mut left = length - here;
        while left > 0 {
            let piece = left.min(buffer.len());
            match stream.read(&mut buffer[..piece])? {
                0 => return Ok(()),
                count => left -= count,
            }
        }
        BYTES.fetch_add(length as u64, Ordering::Release);
        REQUESTS.fetch_add(1, Ordering::Release);
        stream.write_all(RESPONSE)?;
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    head.split(|&byte| byte == b'\n')
        .filter_map(|line| line.split_at_checked(NAME.len()))
        .find(|(name, _)| name.eq_ignore_ascii_case(NAME))
        .and_then(|(_, value)| core::str::from_utf8(value).ok()?.trim().parse().ok())
        .unwrap_or(0)
}
