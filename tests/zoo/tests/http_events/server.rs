//! A server on loopback whose response depends on the path.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Contained in a header, the query and the userinfo of every request.
pub(crate) const SECRET: &str = "Zm9yYmlkZGVu";

pub(crate) struct Server {
    port: u16,
    /// The stalled requests so far.
    stalled: Mutex<Receiver<TcpStream>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (stalls, stalled) = channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let stalls = stalls.clone();
                thread::spawn(move || serve(stream, &stalls));
            }
        });
        Self {
            port,
            stalled: Mutex::new(stalled),
        }
    }

    /// The URL of a path, with secrets around it.
    pub(crate) fn url(&self, path: &str) -> String {
        url(self.port, path)
    }

    /// Waits for a request that gets no response.
    pub(crate) fn wait_for_stalled(&self) {
        let stalled = self.stalled.lock().expect("no panic");
        drop(stalled.recv().expect("the server is running"));
    }
}

/// A URL on a port where nothing listens.
pub(crate) fn refused(path: &str) -> String {
    url(1, path)
}

fn url(port: u16, path: &str) -> String {
    format!("http://{SECRET}:{SECRET}@127.0.0.1:{port}{path}?key={SECRET}")
}

/// Serves one request after another: a client that keeps connections may find a closed one reset.
fn serve(stream: TcpStream, stalls: &Sender<TcpStream>) {
    let mut reader = BufReader::new(stream);
    while respond(&mut reader, stalls).is_some() {}
}

/// `None` closes the connection.
fn respond(reader: &mut BufReader<TcpStream>, stalls: &Sender<TcpStream>) -> Option<()> {
    let (mut line, mut len) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    let path = line.split([' ', '?']).nth(1)?.to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let header = line.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            len = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let stream = reader.get_mut();
    let status = match path.as_str() {
        "/stall" => {
            stalls.send(stream.try_clone().ok()?).ok()?;
            // Until the client disconnects.
            let _ = stream.read(&mut [0]);
            return None;
        }
        "/close" => return None,
        path => path
            .strip_prefix('/')
            .and_then(|path| path.parse::<u16>().ok()),
    };
    let status = status.unwrap_or(200);
    let head = format!("HTTP/1.1 {status} Any\r\ncontent-length: 2\r\n\r\nok");
    stream.write_all(head.as_bytes()).ok()
}
