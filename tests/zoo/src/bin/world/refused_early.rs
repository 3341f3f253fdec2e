//! Requests that are refused while their body is still being sent: what the refusal says must be heard all the same.

use crate::World;
use crate::early::Early;
use crate::report::{Checked, ensure};
use crate::sessions::{Clients, Http, Outcome, Plan, each_of, log, pair_of};
use core::time::Duration;
use std::thread;

const CLIENTS: [Http; 3] = [Http::Ureq, Http::Reqwest, Http::Surf];

/// How often each client is tried: whether it meets the response or the reset first is a matter of luck.
const RUNS: usize = 20;

/// Sessions that run at once.
const AT_ONCE: usize = 10;

/// More than any attempt that waits for nothing takes.
const RETRY_AFTER: f64 = 0.95;

impl World {
    /// No event is larger than the limit, so none may be lost.
    pub(crate) fn early_413(&self) -> Checked {
        each_of(&CLIENTS, |http| {
            let early = Early::start(self.ports.collector, |len, _| {
                (len > 64 * 1024).then_some("HTTP/1.1 413 Payload Too Large\r\n\r\n")
            })?;
            let run = |n| Ok(self.hundred_events(&format!("413-{http:?}-{n}"), http, early.port));
            let outcomes = runs(run)?;
            let whole = outcomes.iter().map(|it| it.lost_nothing(&self.collector));
            let lost: Vec<_> = whole.filter_map(Result::err).collect();
            ensure(
                lost.is_empty(),
                format_args!("{} of {RUNS} lost events: {:?}", lost.len(), lost.first()),
            )?;
            let refused = early.refused();
            ensure(refused >= RUNS, format_args!("only {refused} refusals"))?;
            Ok(format!("{RUNS} of {RUNS} lost nothing, {refused} refusals"))
        })
    }

    /// Only the first two requests are refused. Surf cannot hear it, but what it repeats is not lost either.
    pub(crate) fn early_429(&self) -> Checked {
        each_of(&CLIENTS, |http| {
            let outcomes = runs(|n| {
                let early = Early::start(self.ports.collector, |_, before| {
                    (before < 2)
                        .then_some("HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n\r\n")
                })?;
                let outcome = self.hundred_events(&format!("429-{http:?}-{n}"), http, early.port);
                outcome.lost_nothing(&self.collector)?;
                let requests = early.requests();
                let waited = requests.windows(2).any(|two| {
                    let gap = two[1].arrived - two[0].arrived;
                    two[0].is_refused && gap.as_secs_f64() >= RETRY_AFTER
                });
                ensure(
                    waited || http == Http::Surf,
                    format_args!("{n}: Retry-After was not heard, {:?}", outcome.reasons),
                )?;
                Ok(waited)
            })?;
            let heard = outcomes.iter().filter(|it| **it).count();
            Ok(format!(
                "{RUNS} of {RUNS} lost nothing, {heard} heard Retry-After"
            ))
        })
    }

    /// The key is wrong: no attempt can succeed, so there is no point in many. Surf cannot hear it.
    pub(crate) fn early_401(&self) -> Checked {
        each_of(&CLIENTS, |http| {
            let counts = runs(|n| {
                let early = Early::start(self.ports.collector, |_, _| {
                    Some("HTTP/1.1 401 Unauthorized\r\n\r\n")
                })?;
                let outcome = self.hundred_events(&format!("401-{http:?}-{n}"), http, early.port);
                outcome.is_exact(&self.collector)?;
                ensure(outcome.stats.delivered == 0, "nothing can be delivered")?;
                let heard = outcome.stats.dropped.rejected == outcome.stats.accepted;
                ensure(
                    heard || http == Http::Surf,
                    format_args!("{n}: {:?} {:?}", outcome.stats.dropped, outcome.reasons),
                )?;
                Ok(early.refused())
            })?;
            let most = counts.iter().max().copied().unwrap_or_default();
            Ok(format!("at most {most} requests"))
        })
    }

    /// A session that sends 100 events, its `SESSION_START` and 99 of 9 kB, in one batch.
    fn hundred_events(&self, name: &str, http: Http, port: u16) -> Outcome {
        let url = format!("http://127.0.0.1:{port}");
        let mut plan = Plan::new(format!("early-{name}"), url);
        plan.options.flush_threshold = 1000;
        // Only `Retry-After` asks for more.
        plan.options.retry_base_delay = Duration::from_millis(5);
        let work = |handle: &_| log(handle, 99, 9000);
        plan.run(pair_of(http), &Clients::default(), work)
    }
}

/// [`RUNS`] runs, of which [`AT_ONCE`] at a time.
fn runs<T: Send>(run: impl Fn(usize) -> Result<T, String> + Sync) -> Result<Vec<T>, String> {
    let mut results = Vec::new();
    for first in (0..RUNS).step_by(AT_ONCE) {
        thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = (first..RUNS.min(first + AT_ONCE))
                .map(|n| scope.spawn(move || run(n)))
                .collect();
            results.extend(threads.into_iter().map(|it| it.join().expect("no panic")));
        });
    }
    results.into_iter().collect()
}
