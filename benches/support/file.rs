//! A client by hand that keeps its events: `serde_json` on the calling thread into a `BufWriter`, and a loop that reads
//! such a file and posts its lines. No limits, no checks, no retries, no ledger.

use crate::by_hand::{PREFIX, Poster, SUFFIX, Sent, Writer};
use crate::event::Data;
use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Writes events to a file, one a line.
pub struct File(Mutex<Parts>);

struct Parts {
    writer: Writer,
    file: BufWriter<fs::File>,
}

impl File {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(64 << 10, fs::File::create(path)?);
        let writer = Writer::new();
        Ok(Self(Mutex::new(Parts { writer, file })))
    }

    /// Encodes an event into the file's buffer.
    ///
    /// # Errors
    ///
    /// The file cannot be written to.
    #[inline]
    pub fn log(&self, data: Data) -> io::Result<()> {
        let at = SystemTime::now();
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Parts { writer, file } = &mut *parts;
        writer.append(at, data, file);
        file.write_all(b"\n")
    }

    /// Writes what is in the buffer, and syncs the file if asked.
    ///
    /// # Errors
    ///
    /// The file cannot be written to.
    pub fn flush(&self, and_sync: bool) -> io::Result<()> {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.file.flush()?;
        match and_sync {
            true => parts.file.get_ref().sync_all(),
            false => Ok(()),
        }
    }
}

/// Posts the lines of a file, so many in each request.
///
/// # Errors
///
/// The file cannot be read.
pub fn post(path: &Path, url: &str, batch: usize) -> io::Result<Sent> {
    let mut poster = Poster::new(url, None);
    let mut file = BufReader::with_capacity(64 << 10, fs::File::open(path)?);
    let (mut body, mut events) = (Vec::new(), 0);
    loop {
        let begin = body.len();
        if events == 0 {
            body.extend_from_slice(PREFIX);
        } else {
            body.push(b',');
        }
        let read = file.read_until(b'\n', &mut body)?;
        if read == 0 {
            body.truncate(begin);
        } else {
            body.pop();
            events += 1;
        }
        if events == batch || (read == 0 && events > 0) {
            body.extend_from_slice(SUFFIX);
            poster.post(&body, events);
            body.clear();
            events = 0;
        }
        if read == 0 {
            return Ok(poster.sent);
        }
    }
}
