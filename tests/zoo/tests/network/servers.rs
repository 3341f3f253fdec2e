//! Servers on loopback that say what a test wants, byte by byte.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

/// Serves until the process ends.
pub(crate) struct Server {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

/// A connection, after the head of a request has been read.
pub(crate) struct Asked<'a> {
    pub(crate) stream: &'a TcpStream,
    /// In lower case.
    pub(crate) head: String,
    /// The number of this request at this server, from 0.
    pub(crate) n: usize,
}

impl Server {
    /// `answer` returns whether the connection stays open.
    pub(crate) fn start(answer: impl Fn(&Asked<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", answer)
    }

    pub(crate) fn on(
        address: &str,
        answer: impl Fn(&Asked<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (requests, heads) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let connections = Arc::new(AtomicUsize::new(0));
        let server = Self {
            port,
            connections: Arc::clone(&connections),
            requests: Arc::clone(&requests),
            heads: Arc::clone(&heads),
        };
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                let heads = Arc::clone(&heads);
                thread::spawn(move || {
                    while let Some(head) = read_head(&stream) {
                        heads.lock().expect("no panic").push(head.clone());
                        let asked = Asked {
                            stream: &stream,
                            head,
                            n: requests.fetch_add(1, Ordering::SeqCst),
                        };
                        if !answer(&asked) {
                            break;
                        }
                    }
                });
            }
        });
        server
    }

    /// Reads each request and sends the same response; then holds the connection open, or closes it.
    pub(crate) fn saying(response: &'static [u8], then: Then) -> Self {
        Self::start(move |asked| {
            asked.read_body();
            asked.say(response);
            if then == Then::Stall {
                asked.wait_for_the_end();
            }
            false
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests have begun.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    Stall,
}

impl Asked<'_> {
    pub(crate) fn say(&self, bytes: impl AsRef<[u8]>) {
        let mut stream = self.stream;
        // The client may be gone.
        let _ = stream.write_all(bytes.as_ref());
    }

    pub(crate) fn read_body(&self) -> Vec<u8> {
        let length = self.head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let mut stream = self.stream;
        let _ = stream.read_exact(&mut body);
        body
    }

    /// Until the client has closed the connection.
    pub(crate) fn wait_for_the_end(&self) {
        let mut stream = self.stream;
        while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
    }
}

/// The head of a request, in lower case.
fn read_head(mut stream: &TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok().map(|head| head.to_lowercase())
}
