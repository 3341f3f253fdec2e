//! The simulated network: an HTTP client whose exchanges end as the faults want it.

use super::SimClock;
use super::faults::{Fault, Faults};
use super::rng::Rng;
use super::server::{Receipt, Reply, Server, mix, retry_after};
use crate::clock::Clock;
use crate::features::http::{HttpClient, HttpError};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::future::pending;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use http::{HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is shared by all parts of a simulation.
pub(super) struct World {
    pub(super) clock: SimClock,
    state: Mutex<State>,
    /// How often somebody had the state in hand. Written under its lock only.
    looks: AtomicU64,
}

pub(super) struct State {
    seed: u64,
    /// How often something was drawn, for each kind.
    draws: [u64; 3],
    pub(super) faults: Faults,
    pub(super) server: Server,
    pub(super) trace: u64,
    pub(super) happened: [u32; Fault::ALL.len()],
    /// When wanted: what has happened, and when.
    pub(super) timeline: Option<Vec<(Duration, String)>>,
    start: crate::time::Instant,
}

impl World {
    pub(super) fn new(clock: SimClock, seed: u64, faults: Faults, has_timeline: bool) -> Arc<Self> {
        let start = clock.now();
        Arc::new(Self {
            clock,
            state: Mutex::new(State {
                seed,
                draws: [0; 3],
                faults,
                server: Server::default(),
                trace: 0,
                happened: [0; Fault::ALL.len()],
                timeline: has_timeline.then(Vec::new),
                start,
            }),
            looks: AtomicU64::new(0),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.looks.store(self.looks() + 1, Ordering::Relaxed);
        state
    }

    /// How often somebody had the state in hand: while this stays the same, so does the state.
    pub(super) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Notes something for the timeline.
    pub(super) fn note(&self, what: impl fmt::Display) {
        let mut state = self.state();
        let at = self.clock.now().saturating_duration_since(state.start);
        if let Some(timeline) = &mut state.timeline {
            timeline.push((at, alloc::format!("{what}")));
        }
    }
}

/// What is drawn for.
#[derive(Clone, Copy)]
pub(super) enum Draw {
    Exchange,
    Host,
    Scenario,
}

impl State {
    /// A generator for the next thing of its kind. Each has one of its own, so that what happens to one moves nothing in
    /// the next: a failure can be made smaller only if the rest stays as it was.
    pub(super) fn draw(&mut self, what: Draw) -> Rng {
        let count = &mut self.draws[what as usize];
        *count += 1;
        Rng::stream(self.seed, (what as u64 + 1) << 48 | *count)
    }

    /// Whether this fault happens now.
    pub(super) fn strikes(&mut self, rng: &mut Rng, fault: Fault) -> bool {
        let strikes = rng.happens(self.faults.rate(fault));
        if strikes {
            self.happened[fault as usize] += 1;
            self.trace = mix(self.trace, fault as u64);
        }
        strikes
    }

    pub(super) fn first_that_strikes(&mut self, rng: &mut Rng, faults: &[Fault]) -> Option<Fault> {
        let mut faults = faults.iter().copied();
        faults.find(|&fault| self.strikes(rng, fault))
    }
}

/// An [`HttpClient`] of a simulation's: its exchanges end as the faults want it, else at the simulated server.
#[derive(Clone)]
pub struct SimHttp(pub(super) Arc<World>);

/// What can end an exchange. Those of the connection come first.
const OF_EXCHANGES: [Fault; 25] = [
    Fault::TransportPanics,
    Fault::Refused,
    Fault::Dns,
    Fault::Tls,
    Fault::ResetBeforeBody,
    Fault::ResetWithinBody,
    Fault::ResetAfterBody,
    Fault::Stalled,
    Fault::AnswerLost,
    Fault::Garbage,
    Fault::Truncated,
    Fault::Redirect,
    Fault::Status400,
    Fault::Status401,
    Fault::Status403,
    Fault::Status404,
    Fault::Status408,
    Fault::Status413,
    Fault::Status425,
    Fault::Status429,
    Fault::Status500,
    Fault::Status502,
    Fault::Status503,
    Fault::Status504,
    Fault::Duplicated,
];

const OF_RETRY_AFTER: [Fault; 6] = [
    Fault::RetryAfterSeconds,
    Fault::RetryAfterDate,
    Fault::RetryAfterZero,
    Fault::RetryAfterNegative,
    Fault::RetryAfterEnormous,
    Fault::RetryAfterGarbage,
];

const fn status(fault: Fault) -> Option<u16> {
    Some(match fault {
        Fault::Redirect => 307,
        Fault::Status400 => 400,
        Fault::Status401 => 401,
        Fault::Status403 => 403,
        Fault::Status404 => 404,
        Fault::Status408 => 408,
        Fault::Status413 => 413,
        Fault::Status425 => 425,
        Fault::Status429 => 429,
        Fault::Status500 => 500,
        Fault::Status502 => 502,
        Fault::Status503 => 503,
        Fault::Status504 => 504,
        _ => return None,
    })
}

/// How an exchange will go.
struct Plan {
    fault: Option<Fault>,
    there: Duration,
    back: Duration,
    reply: Option<Reply>,
    /// A server that stalls has the request in half of the cases.
    stall_keeps: bool,
}

impl SimHttp {
    fn plan(&self) -> Plan {
        let mut state = self.0.state();
        let mut rng = state.draw(Draw::Exchange);
        let mut ping = |most| Duration::from_micros(500 + rng.below(most));
        let (there, mut back) = (ping(10_000), ping(10_000));
        let slow = Duration::from_micros(rng.below(10_000_000));
        let stall_keeps = rng.below(2) == 0;
        if state.strikes(&mut rng, Fault::Slow) {
            back += slow;
        }
        let fault = state.first_that_strikes(&mut rng, &OF_EXCHANGES);
        let reply = match state.server.script.pop_front() {
            Some(reply) => Some(reply),
            None => state.server.always.clone(),
        };
        let reply = reply.or_else(|| {
            let mut reply = Reply::status(fault.and_then(status)?);
            if matches!(reply.status, Some(408 | 425 | 429 | 500..))
                && let Some(kind) = state.first_that_strikes(&mut rng, &OF_RETRY_AFTER)
            {
                let utc = self.0.clock.utc();
                reply = reply.retry_after(retry_after(kind, &mut rng, utc));
            }
            Some(reply)
        });
        Plan {
            fault,
            there,
            back,
            reply,
            stall_keeps,
        }
    }

    async fn pass(&self, duration: Duration) {
        let clock = &self.0.clock;
        clock.sleep_until(clock.after(duration)).await;
    }
}

fn broken(reason: &'static str) -> HttpError {
    HttpError::new(reason)
}

impl HttpClient for SimHttp {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let key = parts.headers.get("x-idempotency-key");
        let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
        let plan = self.plan();
        self.pass(plan.there).await;
        match plan.fault {
            Some(Fault::Refused) => return Err(broken("connection refused")),
            Some(Fault::Dns) => return Err(broken("the name cannot be looked up")),
            Some(Fault::Tls) => return Err(broken("the certificate is not valid")),
            Some(Fault::ResetBeforeBody) => return Err(broken("connection reset")),
            // As a panic would be, but for the message that the hook would print.
            Some(Fault::TransportPanics) => std::panic::resume_unwind(Box::new("simulated")),
            _ => {}
        }
        let mut open = self.arrive(key, &body, &plan);
        match plan.fault {
            Some(Fault::ResetWithinBody | Fault::ResetAfterBody) => {
                return Err(broken("connection reset"));
            }
            Some(Fault::Stalled) if plan.reply.is_none() => return pending().await,
            _ => {}
        }
        let reply = plan.reply.unwrap_or_else(Reply::accept);
        self.pass(plan.back + reply.delay).await;
        match plan.fault {
            Some(Fault::AnswerLost) => return Err(broken("connection reset")),
            Some(Fault::Garbage) => return Err(broken("the answer is not HTTP")),
            Some(Fault::Truncated) => return Err(broken("the answer broke off")),
            _ => {}
        }
        let Some(status) = reply.status else {
            return pending().await;
        };
        if let Some(open) = &mut open {
            let server = &mut self.0.state().server;
            match &open.receipt {
                Some(receipt) if (200..300).contains(&status) => {
                    server.confirm(receipt, key);
                    open.receipt = None;
                }
                Some(receipt) => server.refuse(receipt, status),
                None => {}
            }
        }
        self.0.note(format_args!("answer {status}"));
        answer(status, reply.retry_after)
    }
}

impl SimHttp {
    /// The request is at the server, as far as the fault lets it.
    fn arrive<'a>(&self, key: &'a str, body: &'a Bytes, plan: &Plan) -> Option<Open<'a>> {
        let mut state = self.0.state();
        let receipt = state.server.look(key, body)?;
        state.trace = mix(state.trace, receipt.hash);
        let is_cut = matches!(
            plan.fault,
            Some(Fault::ResetWithinBody | Fault::ResetAfterBody)
        );
        let stalls = plan.fault == Some(Fault::Stalled) && !plan.stall_keeps;
        let keeps = plan.reply.as_ref().is_none_or(|reply| reply.keeps) && !is_cut && !stalls;
        if keeps {
            state.server.take(&receipt, body, false);
            if plan.fault == Some(Fault::Duplicated) {
                state.server.take(&receipt, body, true);
            }
        }
        drop(state);
        let kept = if keeps { "kept" } else { "not kept" };
        self.0.note(format_args!(
            "request of {} with {} events up to index {}: {kept}{}",
            receipt.session,
            receipt.events(),
            receipt.last(),
            match plan.fault {
                Some(fault) => alloc::format!(", {fault:?}"),
                None => String::new(),
            }
        ));
        Some(Open {
            world: Arc::clone(&self.0),
            key,
            body,
            receipt: Some(receipt),
        })
    }
}

/// A request whose answer has not come: the client will send it again as it is.
struct Open<'a> {
    world: Arc<World>,
    key: &'a str,
    body: &'a [u8],
    receipt: Option<Receipt>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(receipt) = &self.receipt {
            let mut state = self.world.state();
            state.server.leave_open(receipt, self.key, self.body);
        }
    }
}

fn answer(status: u16, retry_after: Option<String>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::from_u16(status).map_err(HttpError::new)?;
    if let Some(value) = retry_after {
        let value = HeaderValue::try_from(value).map_err(HttpError::new)?;
        answer.headers_mut().insert(RETRY_AFTER, value);
    }
    Ok(answer)
}

impl fmt::Debug for SimHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHttp").finish_non_exhaustive()
    }
}
