//! The faults that a simulation injects, and their rates.

use super::rng::Rng;
use core::fmt;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $(#[cfg($cfg:meta)])? $name:ident $per_mille:literal,)*) => {
        /// A fault that a simulation can inject.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $(
                $(#[doc = $doc])+
                $(#[cfg($cfg)] #[cfg_attr(docsrs, doc(cfg($cfg)))])?
                $name,
            )*
        }

        impl Fault {
            /// All faults.
            pub const ALL: &[Self] = &[$($(#[cfg($cfg)])? Self::$name),*];

            /// Its rate per 1000 in an average swarm.
            const fn average_rate(self) -> u16 {
                match self {
                    $($(#[cfg($cfg)])? Self::$name => $per_mille,)*
                }
            }
        }
    };
}

faults! {
    // The network, drawn for each exchange.
    /// The connection is refused.
    Refused 40,
    /// The DNS lookup fails.
    Dns 20,
    /// The TLS handshake fails.
    Tls 20,
    /// No response ever comes; the server may have the request.
    Stalled 30,
    /// The connection is reset before the body is sent.
    ResetBeforeBody 30,
    /// The connection is reset within the body; the server does not process the request.
    ResetWithinBody 30,
    /// The connection is reset after the body; the server does not process the request.
    ResetAfterBody 30,
    /// The server processes the request, but the response is lost.
    ResponseLost 40,
    /// The server receives the request twice.
    Duplicated 20,
    /// The server processes the request, but the response is not HTTP.
    Garbage 20,
    /// The server processes the request, but the response breaks off.
    Truncated 20,
    /// The response is a redirect (307).
    Redirect 5,
    /// The response takes up to ten seconds longer.
    Slow 60,
    // The server's response, drawn for each exchange.
    /// 400: not retryable.
    Status400 8,
    /// 401: not retryable.
    Status401 8,
    /// 403: not retryable.
    Status403 8,
    /// 404: not retryable.
    Status404 8,
    /// 408: retryable.
    Status408 20,
    /// 413: the request is too large.
    Status413 40,
    /// 425: retryable.
    Status425 20,
    /// 429: retryable.
    Status429 40,
    /// 500: retryable.
    Status500 40,
    /// 502: retryable.
    Status502 20,
    /// 503: retryable.
    Status503 40,
    /// 504: retryable.
    Status504 20,
    // Headers of retryable responses.
    /// `Retry-After` in seconds, up to two minutes.
    RetryAfterSeconds 200,
    /// `Retry-After` as a date.
    RetryAfterDate 100,
    /// `Retry-After: 0`.
    RetryAfterZero 50,
    /// `Retry-After: -5`.
    RetryAfterNegative 50,
    /// `Retry-After` with more seconds than 64 bits hold.
    RetryAfterEnormous 50,
    /// `Retry-After` that cannot be parsed.
    RetryAfterGarbage 50,
    // Time, drawn every few turns.
    /// The wall clock jumps ahead by up to a day.
    WallJumpsAhead 60,
    /// The wall clock jumps back by up to a day.
    WallJumpsBack 60,
    /// The machine is suspended for up to an hour: all clocks jump.
    Suspend 40,
    // Time, drawn once for a run.
    /// The monotonic clock starts minutes before its maximum.
    MonotonicEnd 20,
    /// The wall clock starts in 1970.
    Epoch1970 40,
    /// The wall clock starts minutes before 32-bit Unix time overflows in 2038.
    Year2038 40,
    // The host, drawn every few turns.
    /// The driver is dropped at its current await, and replaced within five seconds.
    DriverDropped 60,
    /// The process crashes: sessions and spools are gone.
    Crash 20,
    /// The runtime of a session ends, with all its tasks, and does not come back.
    RuntimeGone 10,
    // The application, drawn where the scenario asks with `Env::occurs`.
    /// A burst of events overflows every queue.
    Burst 30,
    /// A `Serialize` panics.
    SerializePanics 60,
    /// A `Serialize` logs an event of its own.
    SerializeLogs 60,
    /// The session is stopped while it waits for a retry.
    ShutdownInRetry 20,
    // The transport, drawn for each exchange.
    /// The transport panics.
    TransportPanics 20,
    // What a real network and a real server do besides.
    /// The server answers from the request's head alone and closes, so that the connection breaks while the body is
    /// sent. The answer (413, 429 or 401) is heard only by a client that asks first, with `expect: 100-continue`.
    EarlyResponse 30,
    /// The server processes the request and answers 200, but the body of the response breaks off.
    DamagedBody 20,
    /// The server finds an event invalid, and refuses each request that has it (422). Drawn for each event.
    InvalidEvent 4,
    /// The server's clock is up to an hour off, which the `Date` of its responses shows. Drawn once for a run.
    ServerClockOff 100,
    // The disk, drawn for each operation of a spool.
    /// A write to the disk fails with a part of it written; a power cut leaves zeros or old bytes in what was not synced.
    #[cfg(feature = "spool")]
    TornWrite 15,
    /// A sync reports success and does nothing.
    #[cfg(feature = "spool")]
    LostSync 40,
    /// A sync fails, and the next one of the same file reports success for what is lost.
    #[cfg(feature = "spool")]
    FailingSync 80,
    /// A read of a file fails, once.
    #[cfg(feature = "spool")]
    ReadError 15,
    /// The process crashes within an operation on the disk.
    #[cfg(feature = "spool")]
    CrashInOperation 2,
    /// A spool's access to the disk takes up to five seconds.
    #[cfg(feature = "spool")]
    DiskSlow 8,
    /// A spool's access to the disk takes up to ten minutes.
    #[cfg(feature = "spool")]
    DiskStalled 3,
    // At a power cut, drawn for each entry of a folder.
    /// A power cut loses a file's unsynced entry.
    #[cfg(feature = "spool")]
    EntryLost 400,
    /// A power cut undoes a file's unsynced removal.
    #[cfg(feature = "spool")]
    UnlinkUndone 400,
    // The disk, drawn every few turns once there is a spool.
    /// A bit of a file changes.
    #[cfg(feature = "spool")]
    BitFlip 20,
    /// 512 bytes of a file become zeros.
    #[cfg(feature = "spool")]
    ZeroedSector 20,
    /// 4096 bytes of a file cannot be read any more.
    #[cfg(feature = "spool")]
    BadSector 20,
    /// The disk is full for up to an hour.
    #[cfg(feature = "spool")]
    DiskFull 40,
    /// The disk is read-only for up to an hour.
    #[cfg(feature = "spool")]
    DiskReadOnly 40,
    /// A spool's directory is removed, with all that is in it.
    #[cfg(feature = "spool")]
    DirectoryRemoved 10,
    /// The power fails: the process crashes, and part of what was not synced is lost.
    #[cfg(feature = "spool")]
    PowerCut 20,
}

/// Which faults occur, and the rate of each per 1000.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    per_mille: [u16; Fault::ALL.len()],
    is_swarm: bool,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            per_mille: [0; Fault::ALL.len()],
            is_swarm: false,
        }
    }

    /// A random set of faults at random rates, drawn from the seed (swarm testing). Each run lacks some faults, which
    /// exposes bugs that those would mask.
    #[must_use]
    pub const fn swarm() -> Self {
        Self {
            is_swarm: true,
            ..Self::none()
        }
    }

    /// Adds this fault, in `per_mille` of 1000 cases; from 1000 on, in all. A swarm keeps a rate above 0.
    #[must_use]
    pub const fn with(mut self, fault: Fault, per_mille: u16) -> Self {
        self.per_mille[fault as usize] = per_mille;
        self
    }

    /// Removes this fault. A swarm may still draw it.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        self.with(fault, 0)
    }

    /// The rate of a fault per 1000; for a swarm that is not drawn yet, the rate that was set.
    #[must_use]
    pub const fn rate(&self, fault: Fault) -> u16 {
        self.per_mille[fault as usize]
    }

    /// The faults with a rate above 0.
    pub fn iter(&self) -> impl Iterator<Item = Fault> {
        let faults = Fault::ALL.iter().copied();
        faults.filter(|&fault| self.rate(fault) > 0)
    }

    /// The faults of a run: a swarm becomes a fixed set.
    pub(super) fn draw(&self, rng: &mut Rng) -> Self {
        let mut drawn = self.clone();
        drawn.is_swarm = false;
        if self.is_swarm {
            // Few faults or many: from one in sixteen to six in seven.
            let chance = 60 + rng.below(800) as u16;
            // Rare or frequent.
            let scale = 1 + rng.below(60);
            for &fault in Fault::ALL {
                if rng.happens(chance) && self.rate(fault) == 0 {
                    let rate = (u64::from(fault.average_rate()) * scale / 10).clamp(1, 700);
                    drawn.per_mille[fault as usize] = rate as u16;
                }
            }
        }
        drawn
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        if self.is_swarm {
            map.entry(&"swarm", &true);
        }
        map.entries(self.iter().map(|fault| (fault, self.rate(fault))));
        map.finish()
    }
}
