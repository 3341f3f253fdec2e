//! The faults: what can go wrong, and how often.

use super::rng::Rng;
use core::fmt;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident $per_mille:literal,)*) => {
        /// Something that goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// How often it happens, in a thousand, in a swarm of average size.
            const fn usual(self) -> u16 {
                match self {
                    $(Self::$name => $per_mille,)*
                }
            }
        }
    };
}

faults! {
    // The network, for each exchange.
    /// The connection is refused.
    Refused 40,
    /// The name cannot be looked up.
    Dns 20,
    /// TLS fails.
    Tls 20,
    /// Nothing is ever answered; the server may have the request.
    Stalled 30,
    /// The connection is reset before the body is sent.
    ResetBeforeBody 30,
    /// The connection is reset within the body: the server sees half of it.
    ResetWithinBody 30,
    /// The connection is reset after the body; the server has not taken it in.
    ResetAfterBody 30,
    /// The server has taken the request in, and the answer is lost.
    AnswerLost 40,
    /// The server gets the request twice.
    Duplicated 20,
    /// The server takes the request in, and something answers that is not HTTP.
    Garbage 20,
    /// The server takes the request in, and the answer breaks off.
    Truncated 20,
    /// The answer points elsewhere.
    Redirect 5,
    /// The answer takes up to ten seconds.
    Slow 60,
    // The server's answer, for each exchange.
    /// 400, for good.
    Status400 8,
    /// 401, for good.
    Status401 8,
    /// 403, for good.
    Status403 8,
    /// 404, for good.
    Status404 8,
    /// 408, to be tried again.
    Status408 20,
    /// 413: too large, in events, at a limit that the run decides.
    Status413 40,
    /// 425, to be tried again.
    Status425 20,
    /// 429, to be tried again.
    Status429 40,
    /// 500, to be tried again.
    Status500 40,
    /// 502, to be tried again.
    Status502 20,
    /// 503, to be tried again.
    Status503 40,
    /// 504, to be tried again.
    Status504 20,
    // Headers of the answers that are to be tried again.
    /// `Retry-After` in seconds, up to two minutes.
    RetryAfterSeconds 200,
    /// `Retry-After` as a date.
    RetryAfterDate 100,
    /// `Retry-After: 0`.
    RetryAfterZero 50,
    /// `Retry-After: -5`.
    RetryAfterNegative 50,
    /// `Retry-After` of more seconds than fit anywhere.
    RetryAfterEnormous 50,
    /// `Retry-After` that means nothing.
    RetryAfterGarbage 50,
    // Time, for each disturbance.
    /// The wall clock jumps ahead, up to a day.
    WallJumpsAhead 60,
    /// The wall clock jumps back, up to a day.
    WallJumpsBack 60,
    /// The machine sleeps up to an hour: all clocks jump.
    Suspend 40,
    // Time, for a run.
    /// The monotonic clock begins some minutes before its end.
    MonotonicEnd 20,
    /// The wall clock begins in 1970.
    Epoch1970 40,
    /// The wall clock begins before the 32 bits of 2038 are over.
    Year2038 40,
    // The host, for each disturbance.
    /// The driver is dropped where it waits, and replaced some time later.
    DriverDropped 60,
    /// The process ends without a word and starts again, as another session.
    Crash 20,
    /// The runtime ends, with all its tasks, and does not come back.
    RuntimeGone 10,
    /// A burst of events that no queue takes.
    Burst 30,
    /// A `Serialize` panics.
    SerializePanics 60,
    /// A `Serialize` logs an event of its own.
    SerializeLogs 60,
    /// The session is stopped while it waits for a retry.
    ShutdownInRetry 20,
    // The transport, for each exchange.
    /// It panics.
    TransportPanics 20,
}

/// Which faults happen, and how often: in so many of a thousand cases each.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    per_mille: [u16; Fault::ALL.len()],
    is_swarm: bool,
}

impl Faults {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            per_mille: [0; Fault::ALL.len()],
            is_swarm: false,
        }
    }

    /// A random set at random rates, which the seed draws. Each run is gentle in its own way: faults that hide behind
    /// others come out when those are away.
    #[must_use]
    pub const fn swarm() -> Self {
        Self {
            is_swarm: true,
            ..Self::none()
        }
    }

    /// With this fault, in `per_mille` of a thousand cases. A swarm keeps the rate.
    #[must_use]
    pub const fn with(mut self, fault: Fault, per_mille: u16) -> Self {
        self.per_mille[fault as usize] = per_mille;
        self
    }

    /// Without this fault.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        self.with(fault, 0)
    }

    /// How often a fault happens, in a thousand; of a swarm that is not drawn yet, what was set.
    #[must_use]
    pub const fn rate(&self, fault: Fault) -> u16 {
        self.per_mille[fault as usize]
    }

    /// The faults that can happen.
    pub fn iter(&self) -> impl Iterator<Item = Fault> {
        let faults = Fault::ALL.iter().copied();
        faults.filter(|&fault| self.rate(fault) > 0)
    }

    /// What the seed makes of a swarm.
    pub(super) fn draw(&self, rng: &mut Rng) -> Self {
        let mut drawn = self.clone();
        drawn.is_swarm = false;
        if self.is_swarm {
            // Of few or of many: from one in sixteen to nearly all.
            let chance = 60 + rng.below(800) as u16;
            // Mild or wild.
            let scale = 1 + rng.below(60);
            for &fault in Fault::ALL {
                if rng.happens(chance) && self.rate(fault) == 0 {
                    let rate = (u64::from(fault.usual()) * scale / 10).clamp(1, 700);
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
