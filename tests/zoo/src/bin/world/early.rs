//! A proxy that answers from the head of a request alone and closes at once, while the body is still being sent.

use core::net::Ipv4Addr;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// The response to a request, given the number of bytes of its body and how many requests came before; `None` forwards
/// it.
pub(crate) type Rule = fn(len: u64, before: usize) -> Option<&'static str>;

/// It serves until the process ends.
pub(crate) struct Early {
    pub(crate) port: u16,
    requests: &'static Mutex<Vec<Request>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) arrived: Instant,
    pub(crate) is_refused: bool,
}

impl Early {
    /// Forwards to the collector what `rule` does not refuse.
    pub(crate) fn start(collector: u16, rule: Rule) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        let requests: &Mutex<_> = Box::leak(Box::default());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A broken connection is the client's to notice.
                thread::spawn(move || drop(serve(client, collector, rule, requests)));
            }
        });
        Ok(Self { port, requests })
    }

    /// The requests whose heads were read, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn refused(&self) -> usize {
        self.requests().iter().filter(|it| it.is_refused).count()
    }
}

fn serve(
    mut client: TcpStream,
    collector: u16,
    rule: Rule,
    requests: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    // Byte by byte: what follows the head belongs to the body.
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let len = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|len| len.trim().parse().ok())
        .unwrap_or(0);
    let refusal = {
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = rule(len, requests.len());
        requests.push(Request {
            arrived: Instant::now(),
            is_refused: refusal.is_some(),
        });
        refusal
    };
    if let Some(refusal) = refusal {
        // Dropping the connection while bytes are unread resets it.
        return client.write_all(refusal.as_bytes());
    }
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"connection: close\r\n\r\n");
    let mut backend = TcpStream::connect((Ipv4Addr::LOCALHOST, collector))?;
    backend.write_all(&head)?;
    let (from, mut to) = (client.try_clone()?, backend.try_clone()?);
    thread::spawn(move || drop(io::copy(&mut from.take(len), &mut to)));
    io::copy(&mut backend, &mut client)?;
    client.shutdown(Shutdown::Both)
}
