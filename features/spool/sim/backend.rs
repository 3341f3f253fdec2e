//! The simulated backends: what they answer, and whether what arrives is what was logged.

use super::faults::Fault;
use super::files::number;
use super::world::{SECOND, World};
use crate::transport::{Batch, Receipt, SendError, Transport};
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use uuid::Uuid;

/// The destinations.
pub(super) const NAMES: [&str; 2] = ["production", "staging"];

pub(super) struct SimBackend {
    pub(super) world: World,
    pub(super) to: usize,
    pub(super) pid: u32,
}

enum Answer {
    Now(Result<Receipt, SendError>),
    Never,
}

impl Transport for SimBackend {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let events: Vec<_> = batch
            .events()
            .map(|event| String::from_utf8_lossy(event).into_owned())
            .collect();
        let session = batch.session_id().to_owned();
        let answer = self.answer(&session, batch.body(), &events);
        match answer {
            Answer::Now(result) => result,
            Answer::Never => core::future::pending().await,
        }
    }
}

impl SimBackend {
    fn answer(&self, session: &str, body: &[u8], events: &[String]) -> Answer {
        let mut core = self.world.lock();
        let core = &mut *core;
        let retry = |what| Answer::Now(Err(SendError::retryable(what)));
        if core.is_dead(self.pid) {
            return Answer::Never;
        }
        let now = core.now;
        if let Some(requests) = &mut core.requests {
            requests.push(now);
        }
        core.note(|| {
            let numbers = events.iter().filter_map(|json| number(json.as_bytes()));
            let numbers: Vec<_> = numbers.collect();
            format!("{} sends events {numbers:?} of {session}", self.pid)
        });
        let prefix = format!(r#"{{"session_id":"{session}","#);
        if !body.starts_with(prefix.as_bytes()) || !body.ends_with(b"]}") {
            core.fail(|| format!("a request that is none: {}", String::from_utf8_lossy(body)));
        }
        if core.happens(Fault::Busy) {
            return retry("busy");
        }
        if core.happens(Fault::NoAnswer) {
            return Answer::Never;
        }
        if core.happens(Fault::Failed) {
            return Answer::Now(Err(SendError::failed("500")));
        }
        if core.happens(Fault::Unauthorized) {
            core.unauthorized_until[self.to] = core.now + core.rng.below(3_600 * SECOND);
        }
        if core.unauthorized_until[self.to] > core.now {
            return Answer::Now(Err(SendError::unauthorized("401")));
        }
        if events.len() > 1 && core.happens(Fault::TooLarge) {
            return Answer::Now(Err(SendError::too_large("413")));
        }
        let numbers: Vec<_> = events.iter().map(|json| number(json.as_bytes())).collect();
        for (number, json) in numbers.iter().zip(events) {
            let known = number.and_then(|number| core.book.event(number));
            let is_known = known.is_some_and(|it| {
                let run = Uuid::from_u128(u128::from(it.session));
                let run = format!(r#""process_uuid":"{run}""#);
                it.json == *json && it.to == self.to && contains(body, run.as_bytes())
            });
            if !is_known {
                let to = NAMES[self.to];
                core.fail(|| format!("{to} gets an event that was not logged for it: {json}"));
                return retry("unknown");
            }
        }
        let numbers = numbers.into_iter().flatten();
        let is_invalid = |core: &mut super::world::Core, number| {
            core.book
                .event(number)
                .is_some_and(|event| event.is_invalid)
        };
        if numbers.clone().any(|number| is_invalid(core, number)) {
            if events.len() == 1
                && let Some(event) = numbers.clone().next().and_then(|it| core.book.event(it))
            {
                event.was_refused = true;
            }
            return Answer::Now(Err(SendError::invalid_events("422")));
        }
        for number in numbers {
            core.mix(3, number);
            core.book.receive(number);
        }
        if core.happens(Fault::AnswerLost) {
            return retry("the answer is lost");
        }
        Answer::Now(Ok(Receipt::delivered()))
    }
}

/// Whether a request's first fields have this one.
fn contains(body: &[u8], field: &[u8]) -> bool {
    let fields = body.get(..body.len().min(200)).unwrap_or_default();
    fields.windows(field.len()).any(|part| part == field)
}
