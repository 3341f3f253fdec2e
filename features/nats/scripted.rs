//! A NATS server of a few lines, for faults that a real one does not commit on request.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// A message that the server has received.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// The number of its connection, from 0.
    pub(super) connection: usize,
    pub(super) subject: String,
    pub(super) id: String,
    pub(super) payload: String,
    /// Headers and payload, as on the wire.
    size: usize,
}

/// What the server does with a message.
pub(super) enum Reaction {
    Acknowledge,
    /// Answers with this JSON.
    Answer(&'static str),
    NoResponders,
    Silence,
    /// Closes the connection.
    Close,
    /// Says this without having been asked, and nothing else.
    Complain(&'static str),
}

type Script = dyn FnMut(&Published) -> Reaction + Send;

/// Everything that connections share.
struct Shared {
    script: Mutex<Box<Script>>,
    received: Mutex<Vec<Published>>,
    connections: Mutex<usize>,
    stream_info: String,
    info: String,
}

pub(super) struct Server {
    shared: Arc<Shared>,
    pub(super) url: String,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// A server with a stream `EVENTS` that recognizes duplicates for two minutes.
    pub(super) fn start(script: impl FnMut(&Published) -> Reaction + Send + 'static) -> Self {
        let config = r#"{"config":{"duplicate_window":120000000000}}"#;
        Self::with(config, 1 << 20, script)
    }

    pub(super) fn with(
        stream_info: &str,
        max_payload: usize,
        script: impl FnMut(&Published) -> Reaction + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            received: Mutex::default(),
            connections: Mutex::default(),
            stream_info: stream_info.to_owned(),
            info: format!(
                r#"INFO {{"server_id":"S","version":"2.9.10","go":"go","host":"127.0.0.1","port":{port},"headers":true,"max_payload":{max_payload},"proto":1,"jetstream":true}}"#
            ),
        });
        let accepting = Arc::clone(&shared);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    let connection = {
                        let mut count = lock(&shared.connections);
                        *count += 1;
                        *count - 1
                    };
                    let _ = serve(&shared, connection, &stream);
                });
            }
        });
        Self {
            shared,
            url: format!("nats://127.0.0.1:{port}"),
        }
    }

    pub(super) fn received(&self) -> Vec<Published> {
        lock(&self.shared.received).clone()
    }

    /// The ids of what it has received, in order.
    pub(super) fn ids(&self) -> Vec<String> {
        let received = self.received();
        received.into_iter().map(|message| message.id).collect()
    }

    /// The size of the largest message that it has received, headers included.
    pub(super) fn largest(&self) -> usize {
        let sizes = self.received();
        sizes.iter().map(|message| message.size).max().unwrap_or(0)
    }

    pub(super) fn connections(&self) -> usize {
        *lock(&self.shared.connections)
    }
}

/// Serves one connection until either side closes it.
fn serve(shared: &Shared, connection: usize, stream: &TcpStream) -> std::io::Result<()> {
    let mut out = stream;
    write!(out, "{}\r\n", shared.info)?;
    let mut reader = BufReader::new(stream);
    let mut sid = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["PING"] => out.write_all(b"PONG\r\n")?,
            // The client's own subscription for requests has the id 0.
            ["SUB", subject, id] if subject.ends_with('*') && id != "0" => {
                id.clone_into(&mut sid);
            }
            ["PUB", subject, reply, len] if subject.starts_with("$JS.API.STREAM.INFO.") => {
                read_payload(&mut reader, len)?;
                answer(&mut out, "0", reply, &shared.stream_info)?;
            }
            ["HPUB", subject, reply, headers, total] => {
                let headers: usize = headers.parse().unwrap_or(0);
                let bytes = read_payload(&mut reader, total)?;
                let (head, payload) = bytes.split_at(headers);
                let head = String::from_utf8_lossy(head).to_string();
                let id = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Nats-Msg-Id: "));
                let message = Published {
                    connection,
                    subject: subject.to_owned(),
                    id: id.unwrap_or_default().to_owned(),
                    payload: String::from_utf8_lossy(payload).to_string(),
                    size: bytes.len(),
                };
                let reaction = lock(&shared.script)(&message);
                lock(&shared.received).push(message);
                match reaction {
                    Reaction::Acknowledge => {
                        answer(&mut out, &sid, reply, r#"{"stream":"EVENTS","seq":1}"#)?;
                    }
                    Reaction::Answer(json) => answer(&mut out, &sid, reply, json)?,
                    Reaction::NoResponders => {
                        let head = "NATS/1.0 503\r\n\r\n";
                        write!(out, "HMSG {reply} {sid} {0} {0}\r\n{head}\r\n", head.len())?;
                    }
                    Reaction::Silence => {}
                    Reaction::Close => return stream.shutdown(std::net::Shutdown::Both),
                    Reaction::Complain(text) => write!(out, "-ERR '{text}'\r\n")?,
                }
            }
            _ => {}
        }
    }
}

/// Reads a payload and the end of its line.
fn read_payload(reader: &mut BufReader<&TcpStream>, len: &str) -> std::io::Result<Vec<u8>> {
    let len: usize = len.parse().unwrap_or(0);
    let mut bytes = vec![0; len + 2];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

fn answer(out: &mut &TcpStream, sid: &str, reply: &str, json: &str) -> std::io::Result<()> {
    write!(out, "MSG {reply} {sid} {}\r\n{json}\r\n", json.len())
}
