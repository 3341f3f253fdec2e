//! The simulated network: an HTTP client whose exchanges end as the faults decide.

use super::faults::Fault;
use super::hash::mix;
use super::reply::{Reply, asked, http_date, retry_after};
use super::server::Inspected;
use super::world::{Draw, World};
use crate::clock::Clock;
use crate::features::http::{HttpClient, HttpError};
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use bytes::Bytes;
use core::fmt;
use core::future::pending;
use core::time::Duration;
use http::header::{DATE, EXPECT, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};

/// An [`HttpClient`] for the simulated server: each exchange ends with a fault or with the server's response.
#[derive(Clone)]
pub struct SimHttp(pub(super) Arc<World>);

/// The faults that end an exchange, those of the connection first.
const EXCHANGE_FAULTS: [Fault; 27] = [
    Fault::TransportPanics,
    Fault::Refused,
    Fault::Dns,
    Fault::Tls,
    Fault::ResetBeforeBody,
    Fault::ResetWithinBody,
    Fault::ResetAfterBody,
    Fault::Stalled,
    Fault::ResponseLost,
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
    Fault::EarlyResponse,
    Fault::DamagedBody,
];

const RETRY_AFTER_FAULTS: [Fault; 6] = [
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
    request_delay: Duration,
    response_delay: Duration,
    reply: Option<Reply>,
    /// Whether a stalled server has stored the request: in half of the cases.
    keeps_on_stall: bool,
}

impl SimHttp {
    fn plan(&self) -> Plan {
        let mut state = self.0.state();
        let mut rng = state.draw(Draw::Exchange);
        let mut latency = |spread| Duration::from_micros(500 + rng.below(spread));
        let (mut request_delay, mut response_delay) = (latency(10_000), latency(10_000));
        if state.server.is_instant {
            (request_delay, response_delay) = (Duration::ZERO, Duration::ZERO);
        }
        let slow = Duration::from_micros(rng.below(10_000_000));
        let keeps_on_stall = rng.below(2) == 0;
        if state.occurs(&mut rng, Fault::Slow) {
            response_delay += slow;
        }
        let fault = state.first_to_occur(&mut rng, &EXCHANGE_FAULTS);
        let reply = match state.server.script.pop_front() {
            Some(reply) => Some(reply),
            None => state.server.always.clone(),
        };
        let server_utc = state.server_utc(self.0.clock.utc());
        let reply = reply.or_else(|| {
            if fault == Some(Fault::EarlyResponse) {
                let status = [413, 413, 429, 401][rng.below(4) as usize];
                return Some(Reply::status(status).early());
            }
            let mut reply = Reply::status(fault.and_then(status)?);
            if matches!(reply.status, Some(408 | 425 | 429 | 500..))
                && let Some(kind) = state.first_to_occur(&mut rng, &RETRY_AFTER_FAULTS)
            {
                reply = reply.retry_after(retry_after(kind, &mut rng, server_utc));
            }
            Some(reply)
        });
        Plan {
            fault,
            request_delay,
            response_delay,
            reply,
            keeps_on_stall,
        }
    }

    async fn delay(&self, duration: Duration) {
        if !duration.is_zero() {
            let clock = &self.0.clock;
            clock.sleep_until(clock.after(duration)).await;
        }
    }
}

impl HttpClient for SimHttp {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let key = parts.headers.get("x-idempotency-key");
        let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
        let plan = self.plan();
        self.0.state().server.begin(&body);
        self.delay(plan.request_delay).await;
        match plan.fault {
            Some(Fault::Refused) => return Err(HttpError::new("connection refused")),
            Some(Fault::Dns) => return Err(HttpError::new("DNS lookup failed")),
            Some(Fault::Tls) => return Err(HttpError::new("invalid certificate")),
            Some(Fault::ResetBeforeBody) => return Err(HttpError::new("connection reset")),
            // A panic without the message that the hook would print.
            Some(Fault::TransportPanics) => std::panic::resume_unwind(Box::new("simulated")),
            _ => {}
        }
        let is_cut_short = plan.reply.as_ref().is_some_and(|reply| reply.is_early)
            && !parts.headers.contains_key(EXPECT);
        let mut exchange = self.deliver(key, &body, &plan);
        if is_cut_short {
            if let Some(exchange) = &exchange {
                exchange.break_while_sending();
            }
            return Err(HttpError::new("connection reset").broke_while_sending());
        }
        match plan.fault {
            Some(Fault::ResetWithinBody | Fault::ResetAfterBody) => {
                return Err(HttpError::new("connection reset"));
            }
            Some(Fault::Stalled) if plan.reply.is_none() => return pending().await,
            _ => {}
        }
        let is_refused = exchange
            .as_ref()
            .is_some_and(|exchange| exchange.has_invalid_event);
        let reply = plan.reply.unwrap_or_else(|| match is_refused {
            true => Reply::status(422),
            false => Reply::accept(),
        });
        self.delay(plan.response_delay + reply.delay).await;
        match plan.fault {
            Some(Fault::ResponseLost) => return Err(HttpError::new("connection reset")),
            Some(Fault::Garbage) => return Err(HttpError::new("the response is not HTTP")),
            Some(Fault::Truncated) => return Err(HttpError::new("the response broke off")),
            _ => {}
        }
        let Some(status) = reply.status else {
            return pending().await;
        };
        if let Some(exchange) = &mut exchange {
            exchange.complete(status);
        }
        self.0.note(format_args!("response {status}"));
        let utc = self.0.state().server_utc(self.0.clock.utc());
        if let Some(exchange) = &exchange
            && let Some(asked) = reply.retry_after.as_deref().and_then(|it| asked(it, utc))
        {
            exchange.ask_for_a_pause(self.0.clock.now(), asked);
        }
        let response = response(status, reply.retry_after, utc)?;
        if plan.fault == Some(Fault::DamagedBody) {
            return Err(HttpError::new("the response broke off").with_response(response));
        }
        Ok(response)
    }
}

impl SimHttp {
    /// Delivers the request to the server, as far as the fault permits.
    fn deliver<'a>(&self, key: &'a str, body: &'a Bytes, plan: &Plan) -> Option<Exchange<'a>> {
        let mut state = self.0.state();
        let request = state.server.inspect(self.0.clock.now(), key, body)?;
        state.trace = mix(state.trace, request.hash);
        let is_cut = matches!(
            plan.fault,
            Some(Fault::ResetWithinBody | Fault::ResetAfterBody)
        );
        let is_lost_in_stall = plan.fault == Some(Fault::Stalled) && !plan.keeps_on_stall;
        let has_invalid_event = plan.reply.is_none() && state.has_invalid_event(&request);
        let keeps = plan.reply.as_ref().is_none_or(|reply| reply.keeps)
            && !is_cut
            && !is_lost_in_stall
            && !has_invalid_event;
        if keeps {
            state.server.store(&request, body, false);
            #[cfg(feature = "spool")]
            state.note_arrival(&request.session, body);
            if plan.fault == Some(Fault::Duplicated) {
                state.server.store(&request, body, true);
            }
        }
        drop(state);
        let kept = if keeps { "kept" } else { "not kept" };
        self.0.note(format_args!(
            "request of {} with {} events up to index {}: {kept}{}",
            request.session,
            request.event_count(),
            request.last_index(),
            match plan.fault {
                Some(fault) => alloc::format!(", {fault:?}"),
                None => String::new(),
            }
        ));
        Some(Exchange {
            world: Arc::clone(&self.0),
            key,
            body,
            unconfirmed: Some(request),
            has_invalid_event,
        })
    }
}

/// A request at the server. Dropped without a 2xx, it stays unconfirmed there.
struct Exchange<'a> {
    world: Arc<World>,
    key: &'a str,
    body: &'a [u8],
    unconfirmed: Option<Inspected>,
    has_invalid_event: bool,
}

impl Exchange<'_> {
    /// Records that the client finds the connection broken while it sends.
    fn break_while_sending(&self) {
        if let Some(request) = &self.unconfirmed {
            self.world.state().server.break_while_sending(request);
        }
    }

    /// Records that the client receives a `Retry-After`.
    fn ask_for_a_pause(&self, now: Instant, asked: Duration) {
        if let Some(request) = &self.unconfirmed {
            let server = &mut self.world.state().server;
            server.ask_for_a_pause(request, self.key, now, asked);
        }
    }

    /// Records that the client receives this status.
    fn complete(&mut self, status: u16) {
        let server = &mut self.world.state().server;
        match &self.unconfirmed {
            Some(request) if (200..300).contains(&status) => {
                server.confirm(request, self.key);
                self.unconfirmed = None;
            }
            Some(request) => server.refuse(request, status),
            None => {}
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(request) = &self.unconfirmed {
            let mut state = self.world.state();
            state.server.leave_unconfirmed(request, self.key, self.body);
        }
    }
}

fn response(
    status: u16,
    retry_after: Option<String>,
    utc: Timestamp,
) -> Result<Response<Bytes>, HttpError> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::from_u16(status).map_err(HttpError::new)?;
    let date = HeaderValue::try_from(http_date(utc)).map_err(HttpError::new)?;
    response.headers_mut().insert(DATE, date);
    if let Some(value) = retry_after {
        let value = HeaderValue::try_from(value).map_err(HttpError::new)?;
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    Ok(response)
}

impl fmt::Debug for SimHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHttp").finish_non_exhaustive()
    }
}
