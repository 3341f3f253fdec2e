//! A socket that makes no system call which the request does not need.
//!
//! * **A request leaves in one write**, head and body, if it is of the usual size: what ureq has ready is held back
//!   until there is enough of it, or until the response is awaited.
//! * **Timeouts are set once**, not for each phase of each request. The socket's own timeout may be shorter than what
//!   is left of a phase, for the deadline decides: an early end is a moment to look at it, and to go on.
//! * **A kept connection is probed once**, when it is used again, however short the pause: a server that closes
//!   unannounced must cost no attempt. ureq asks also when the connection is returned, which shows nothing that the
//!   second time does not.

use super::buffers::{Buffers, WRITE};
use alloc::sync::Arc;
use core::fmt;
use core::mem;
use core::time::Duration;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;
use ureq::unversioned::transport::{self, Buffers as _, NextTimeout, Transport};
use ureq::{Error, Timeout};

pub(super) struct Socket {
    stream: Arc<TcpStream>,
    buffers: Buffers,
    /// For what is held back.
    write_limit: Limit,
    write_timeout: SocketTimeout,
    read_timeout: SocketTimeout,
    /// Nothing has been received since the connection was made or taken from the pool.
    is_first_flight: bool,
    /// Something has been received since ureq asked whether the connection is open.
    is_used: bool,
}

impl Socket {
    pub(super) fn new(stream: Arc<TcpStream>, max_input: usize) -> Self {
        Self {
            stream,
            buffers: Buffers::new(max_input),
            write_limit: Limit::default(),
            write_timeout: SocketTimeout::default(),
            read_timeout: SocketTimeout::default(),
            is_first_flight: true,
            is_used: false,
        }
    }

    /// Writes what is held back.
    fn write(&mut self) -> Result<(), Error> {
        let mut rest = self.buffers.waiting();
        let mut is_early = false;
        while !rest.is_empty() {
            let left = self.write_limit.left()?;
            let set = |timeout| self.stream.set_write_timeout(timeout);
            self.write_timeout.fit(left, is_early, set)?;
            match (&*self.stream).write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(amount) => rest = &rest[amount..],
                Err(error) => is_early = self.write_limit.goes_on(error)?,
            }
        }
        self.buffers.clear_waiting();
        Ok(())
    }

    /// Whether nothing has arrived on a connection that waits for a request: no end, and no unrequested response,
    /// which would be taken for the response.
    fn probe(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let is_quiet = match (&*self.stream).read(&mut [0]) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false)?;
        Ok(is_quiet)
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn transport::Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.buffers.add_waiting(amount);
        self.write_limit = Limit::new(timeout.for_write())?;
        // After that, ureq may use what it has received, and wait for nothing.
        let may_wait = self.is_first_flight && self.buffers.waiting().len() < WRITE;
        match may_wait {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.write()?;
        // From here on: the time for writing is not the server's.
        let limit = Limit::new(timeout.for_read())?;
        let input = self.buffers.input_append_buf();
        let mut is_early = false;
        let amount = loop {
            let left = limit.left()?;
            let set = |timeout| self.stream.set_read_timeout(timeout);
            self.read_timeout.fit(left, is_early, set)?;
            match (&*self.stream).read(input) {
                Ok(amount) => break amount,
                Err(error) => is_early = limit.goes_on(error)?,
            }
        };
        self.buffers.input_appended(amount);
        self.is_first_flight = false;
        self.is_used = true;
        Ok(amount > 0)
    }

    /// ureq asks twice: before it keeps the connection, and before it uses it again.
    fn is_open(&mut self) -> bool {
        self.is_first_flight = true;
        let is_returned = mem::take(&mut self.is_used);
        let is_written = self.buffers.waiting().is_empty();
        is_written && (is_returned || self.probe().unwrap_or(false))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("peer", &self.stream.peer_addr().ok())
            .finish_non_exhaustive()
    }
}

/// The end of a phase, and what to report then.
#[derive(Clone, Copy)]
struct Limit {
    at: Option<Instant>,
    reason: Timeout,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            at: None,
            reason: Timeout::Global,
        }
    }
}

impl Limit {
    fn new(timeout: NextTimeout) -> Result<Self, Error> {
        let reason = timeout.reason;
        if timeout.after.is_zero() {
            return Err(Error::Timeout(reason));
        }
        let after = (!timeout.after.is_not_happening()).then_some(*timeout.after);
        let at = after.and_then(|after| Instant::now().checked_add(after));
        Ok(Self { at, reason })
    }

    /// What is left, or nothing if there is no end. An error once it has passed.
    fn left(&self) -> Result<Option<Duration>, Error> {
        let Some(at) = self.at else { return Ok(None) };
        match at.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(Error::Timeout(self.reason)),
        }
    }

    /// True if the call may be repeated: the socket's own timeout has passed, or a signal came.
    fn goes_on(&self, error: io::Error) -> Result<bool, Error> {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(true),
            io::ErrorKind::TimedOut => Err(Error::Timeout(self.reason)),
            _ => Err(error.into()),
        }
    }
}

/// A timeout as the socket has it: for one system call.
#[derive(Default)]
struct SocketTimeout {
    current: Option<Duration>,
}

impl SocketTimeout {
    /// Changes it if it would end later than `left`. Unless it has just ended too early, it becomes much shorter than
    /// that, so that it will do for the next requests too.
    fn fit(
        &mut self,
        left: Option<Duration>,
        is_early: bool,
        set: impl FnOnce(Option<Duration>) -> io::Result<()>,
    ) -> io::Result<()> {
        // On Windows, a socket is not fit for use after a timeout.
        let is_exact = is_early || cfg!(windows);
        let fits = match (self.current, left) {
            (Some(current), Some(left)) if !is_exact => current <= left,
            (Some(_), None) if !is_exact => true,
            (current, left) => current == left,
        };
        if fits {
            return Ok(());
        }
        let timeout = match is_exact {
            true => left,
            false => left.map(|left| (left / 2).max(Duration::from_millis(1)).min(left)),
        };
        match set(timeout) {
            Ok(()) => self.current = timeout,
            // macOS refuses once the server has closed the connection; its response may still be there.
            Err(error) if cfg!(target_os = "macos") && is_invalid(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn is_invalid(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;
    use std::thread;
    use ureq::unversioned::transport::time;

    const MAX_INPUT: usize = 68 * 1024;

    /// More than the buffers of a connection over loopback hold.
    const LARGE: usize = 32 << 20;

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(60);

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).expect("it accepts");
        let (server, _) = listener.accept().expect("a connection");
        (Socket::new(Arc::new(stream), MAX_INPUT), server)
    }

    fn timeout(after: Duration, reason: Timeout) -> NextTimeout {
        NextTimeout {
            after: time::Duration::from(after),
            reason,
            ..NextTimeout::default()
        }
    }

    /// Does with `bytes` what ureq does with a head or a body.
    fn send(socket: &mut Socket, mut bytes: &[u8], limit: Duration) -> Result<(), Error> {
        let started = Instant::now();
        while !bytes.is_empty() {
            let output = socket.buffers().output();
            let amount = output.len().min(bytes.len());
            output[..amount].copy_from_slice(&bytes[..amount]);
            bytes = &bytes[amount..];
            let left = limit.saturating_sub(started.elapsed());
            socket.transmit_output(amount, timeout(left, Timeout::SendBody))?;
        }
        Ok(())
    }

    fn await_input(socket: &mut Socket) -> Result<bool, Error> {
        socket.await_input(timeout(LONG, Timeout::RecvResponse))
    }

    fn has_arrived(server: &TcpStream) -> bool {
        server.set_nonblocking(true).expect("a socket");
        let has_arrived = server.peek(&mut [0]).is_ok();
        server.set_nonblocking(false).expect("a socket");
        has_arrived
    }

    /// Receives `request` and responds.
    fn exchange(socket: &mut Socket, server: &mut TcpStream, request: &[u8]) {
        send(socket, request, LONG).expect("it is held back, or sent");
        server.write_all(b"response").expect("it reads");
        assert!(await_input(socket).expect("a response"));
        let amount = socket.buffers().input().len();
        socket.buffers().input_consume(amount);
        let mut received = vec![0; request.len()];
        server.read_exact(&mut received).expect("the request");
        assert_eq!(received, request);
    }

    #[test]
    fn head_and_body_leave_together_when_the_response_is_awaited() {
        let (mut socket, mut server) = pair();
        for _ in 0..3 {
            send(&mut socket, b"head ", LONG).expect("it is held back");
            send(&mut socket, &[b'x'; 30_000], LONG).expect("it is held back");
            assert!(!has_arrived(&server));
            server.write_all(b"response").expect("it reads");
            assert!(await_input(&mut socket).expect("a response"));
            assert_eq!(socket.buffers().input(), b"response");
            socket.buffers().input_consume(8);
            let mut request = vec![0; 30_005];
            server.read_exact(&mut request).expect("the request");
            assert_eq!(request, [b"head ".as_slice(), &[b'x'; 30_000]].concat());
            // As when it is returned, and taken again.
            assert!(socket.is_open() && socket.is_open());
        }
    }

    #[test]
    fn after_the_first_input_nothing_is_held_back() {
        let (mut socket, mut server) = pair();
        server.write_all(b"100 Continue").expect("it reads");
        send(&mut socket, b"head", LONG).expect("it is held back");
        assert!(await_input(&mut socket).expect("a response"));
        let mut request = [0; 8];
        server.read_exact(&mut request[..4]).expect("the head");
        send(&mut socket, b"body", LONG).expect("it is sent");
        server.read_exact(&mut request[4..]).expect("the body");
        assert_eq!(&request, b"headbody");
    }

    #[test]
    fn a_body_that_needs_several_writes_arrives_whole_at_a_server_that_reads_slowly() {
        let (mut socket, mut server) = pair();
        let body: Vec<u8> = (0..=250).cycle().take(LARGE).collect();
        let expected = body.clone();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            let mut piece = vec![0; 1 << 20];
            while received.len() < LARGE {
                // The client meets full buffers, at times for longer than its socket's timeout.
                thread::sleep(Duration::from_millis(5));
                let amount = server.read(&mut piece).expect("more of the body");
                received.extend_from_slice(&piece[..amount]);
            }
            server.write_all(b"response").expect("it reads");
            received
        });
        socket.write_timeout.current = Some(Duration::from_millis(1));
        let set = socket
            .stream
            .set_write_timeout(Some(Duration::from_millis(1)));
        set.expect("a socket");
        send(&mut socket, &body, LONG).expect("it is sent");
        assert!(await_input(&mut socket).expect("a response"));
        assert!(reader.join().expect("no panic") == expected);
    }

    #[test]
    fn the_deadline_holds_while_a_server_reads_nothing() {
        let (mut socket, _server) = pair();
        let limit = Duration::from_millis(200);
        let started = Instant::now();
        let result = send(&mut socket, &vec![b'x'; LARGE], limit);
        assert!(matches!(result, Err(Error::Timeout(Timeout::SendBody))));
        assert!(started.elapsed() >= limit);
    }

    #[test]
    fn the_deadline_holds_while_a_server_reads_a_little_at_a_time() {
        let (mut socket, mut server) = pair();
        // Fills the connection.
        let limit = Duration::from_millis(100);
        assert!(send(&mut socket, &vec![b'x'; LARGE], limit).is_err());
        socket.buffers.clear_waiting();
        thread::spawn(move || {
            while matches!(server.read(&mut [0; 64]), Ok(1..)) {
                // Real time: what it reads must not be enough for the rest.
                thread::sleep(Duration::from_millis(1));
            }
        });
        let result = send(&mut socket, &vec![b'x'; LARGE], limit);
        assert!(matches!(result, Err(Error::Timeout(Timeout::SendBody))));
    }

    #[test]
    fn what_was_held_back_and_cannot_be_written_is_a_timeout_of_sending() {
        let (mut socket, _server) = pair();
        // Fills the connection.
        let result = send(&mut socket, &vec![b'x'; LARGE], Duration::from_millis(100));
        assert!(result.is_err());
        socket.buffers.clear_waiting();
        send(&mut socket, b"body", Duration::from_millis(100)).expect("it is held back");
        let result = await_input(&mut socket);
        assert!(matches!(result, Err(Error::Timeout(Timeout::SendBody))));
    }

    #[test]
    fn a_socket_timeout_that_ends_early_does_not_end_the_phase() {
        let (mut socket, mut server) = pair();
        let short = Some(Duration::from_millis(1));
        socket.read_timeout.current = short;
        socket.stream.set_read_timeout(short).expect("a socket");
        let (says, told) = channel();
        let waiting = thread::spawn(move || {
            let () = told.recv().expect("it is told");
            // Real time: the client's socket must time out meanwhile.
            thread::sleep(Duration::from_millis(50));
            server.write_all(b"response").expect("it reads");
            server
        });
        says.send(()).expect("it listens");
        assert!(await_input(&mut socket).expect("a response"));
        let _server = waiting.join().expect("no panic");
        let limit = Duration::from_millis(50);
        socket.buffers().input_consume(8);
        let result = socket.await_input(timeout(limit, Timeout::RecvBody));
        assert!(matches!(result, Err(Error::Timeout(Timeout::RecvBody))));
    }

    #[test]
    fn a_kept_connection_that_was_closed_or_says_something_is_not_used_again() {
        let after: [fn(TcpStream) -> Option<TcpStream>; 3] = [
            |_server| None,
            |mut server| {
                server.write_all(b"408").expect("it reads");
                Some(server)
            },
            |server| {
                server.shutdown(std::net::Shutdown::Write).expect("open");
                Some(server)
            },
        ];
        for then in after {
            let (mut socket, mut server) = pair();
            exchange(&mut socket, &mut server, b"request");
            assert!(socket.is_open(), "as it is returned");
            assert!(socket.is_open(), "as it is taken");
            exchange(&mut socket, &mut server, b"request");
            assert!(socket.is_open(), "as it is returned");
            let _server = then(server);
            assert!(!socket.is_open(), "as it is taken");
        }
    }

    #[test]
    fn a_connection_whose_request_was_not_sent_whole_is_not_kept() {
        let (mut socket, mut server) = pair();
        exchange(&mut socket, &mut server, b"request");
        assert!(socket.is_open() && socket.is_open());
        send(&mut socket, b"held back", LONG).expect("it is held back");
        assert!(!socket.is_open());
    }

    #[test]
    fn the_socket_timeout_is_set_once_for_phases_of_about_the_same_length() {
        let mut timeout = SocketTimeout::default();
        let mut settings = Vec::new();
        let seconds = |n| Some(Duration::from_secs(n));
        for left in [30, 26, 30, 16, 15, 29] {
            let set = |timeout| {
                settings.push(timeout);
                Ok(())
            };
            timeout.fit(seconds(left), false, set).expect("it is set");
            assert!(timeout.current <= seconds(left));
        }
        assert_eq!(settings.len(), if cfg!(windows) { 6 } else { 1 });
        let mut set = None;
        let short = Some(Duration::from_micros(700));
        timeout
            .fit(short, false, |timeout| {
                set = Some(timeout);
                Ok(())
            })
            .expect("it is set");
        assert_eq!(set, Some(short));
        timeout.fit(None, true, |_| Ok(())).expect("it is set");
        assert_eq!(timeout.current, None);
    }
}
