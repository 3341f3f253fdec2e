//! The places for connections: how many there are, who must give one up, and how long each may take.

use alloc::{collections::BTreeMap, format, string::String, sync::Arc};
use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: usize,
    /// For a request's head, from its first byte.
    pub(super) head: Duration,
    /// Without progress: between requests, in a body, in a response.
    pub(super) idle: Duration,
}

/// A body may take this many times [`Limits::idle`], however steadily it drips.
const BODY_IDLES: u32 = 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// All connections.
pub(super) struct Seats {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// In the order in which they came.
    seats: BTreeMap<u64, Arc<Activity>>,
}

/// The place of one connection, given up when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    pub(super) activity: Arc<Activity>,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a new connection. If all are taken, the connection that has waited the longest without a complete
    /// request loses its own. `None` if each has a request in progress.
    pub(super) fn take(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken();
        if taken.seats.len() >= self.limits.connections {
            let waiting = taken.seats.iter().filter_map(|(number, activity)| {
                let (rank, since) = activity.progress().waits()?;
                Some((rank, since, *number))
            });
            let (_, _, number) = waiting.min()?;
            if let Some(activity) = taken.seats.remove(&number) {
                activity.evicted.notify_one();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let activity = Arc::new(Activity::new());
        taken.seats.insert(number, Arc::clone(&activity));
        Some(Seat {
            seats: Arc::clone(self),
            number,
            activity,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().seats.remove(&self.number);
    }
}

impl Seat {
    /// Completes when the connection must be closed. Returns the reason, if there is something to say.
    pub(super) async fn overdue(&self) -> Option<String> {
        let limits = self.seats.limits;
        // Looking again now and then costs less than waking a timer with each byte.
        let step = limits.head.min(limits.idle) / 4;
        let step = step.clamp(Duration::from_millis(5), Duration::from_secs(5));
        let ticks = async {
            loop {
                tokio::time::sleep(step).await;
                if let Some(reason) = self.activity.progress().exceeds(limits, Instant::now()) {
                    return reason;
                }
            }
        };
        let (mut ticks, mut evicted) = (
            core::pin::pin!(ticks),
            core::pin::pin!(self.activity.evicted.notified()),
        );
        core::future::poll_fn(|context| {
            if evicted.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(
                    "it had no complete request, and others need the place".into(),
                ));
            }
            ticks.as_mut().poll(context)
        })
        .await
    }
}

/// What a connection is doing.
pub(super) struct Activity {
    progress: Mutex<Progress>,
    evicted: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When the last byte was read or written.
    last: Instant,
    /// Whether there has been a complete request.
    is_known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests, or while a response is sent.
    Idle,
    Head,
    Body,
    /// A request is being handled.
    Busy,
}

impl Activity {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            progress: Mutex::new(Progress {
                phase: Phase::Idle,
                since: now,
                last: now,
                is_known: false,
            }),
            evicted: Notify::new(),
        }
    }

    fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Progress, Instant)) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress, Instant::now());
    }

    fn enter(&self, phase: Phase) {
        self.update(|progress, now| {
            (progress.phase, progress.since, progress.last) = (phase, now, now);
            progress.is_known |= phase == Phase::Busy;
        });
    }

    /// A head is complete: its body is read next.
    pub(super) fn reads_body(&self) {
        self.enter(Phase::Body);
    }

    /// A request is complete.
    pub(super) fn is_busy(&self) {
        self.enter(Phase::Busy);
    }

    /// A response is ready.
    pub(super) fn responds(&self) {
        self.enter(Phase::Idle);
    }

    fn note_read(&self) {
        self.update(|progress, now| {
            if progress.phase == Phase::Idle {
                (progress.phase, progress.since) = (Phase::Head, now);
            }
            progress.last = now;
        });
    }

    fn note_write(&self) {
        self.update(|progress, now| progress.last = now);
    }
}

impl Progress {
    /// Since when it waits for its client, and its rank among those that do: strangers come first.
    fn waits(&self) -> Option<(u8, Instant)> {
        match self.phase {
            Phase::Busy => None,
            Phase::Body => Some((2, self.since)),
            Phase::Idle | Phase::Head if !self.is_known => Some((0, self.since)),
            Phase::Idle | Phase::Head => Some((1, self.since)),
        }
    }

    /// The inner `None`: it was only idle, which is normal.
    fn exceeds(&self, limits: Limits, now: Instant) -> Option<Option<String>> {
        let (phase, silence) = (now - self.since, now - self.last);
        let late = |what: &str, limit: Duration| {
            Some(Some(format!("{what} within {} s", limit.as_secs_f32())))
        };
        match self.phase {
            Phase::Busy => None,
            Phase::Head if phase >= limits.head => {
                late("the head of its request was not complete", limits.head)
            }
            Phase::Body if silence >= limits.idle => {
                late("its request's body made no progress", limits.idle)
            }
            Phase::Body if phase >= limits.idle * BODY_IDLES => {
                late("its request was not complete", limits.idle * BODY_IDLES)
            }
            Phase::Idle if silence >= limits.idle => Some(None),
            _ => None,
        }
    }
}

/// A stream that notes its progress.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    pub(super) activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.note_read();
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        if poll.is_ready() {
            self.activity.note_write();
        }
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if poll.is_ready() {
            self.activity.note_write();
        }
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
