//! The tokens that a session has used: counted where results arrive.

use super::api::Api;
use super::open_calls::nanos;
use crate::bus::{Bus, USAGE, Value};
use crate::session::Handle;
use crate::time::Instant;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::AddAssign;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tokens, by what was done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Tokens {
    /// Read as prompts, once for each call that samples, and as data of a forward pass without gradients.
    pub prefilled: u64,
    /// Those among [`prefilled`](Self::prefilled) that the backend took from its cache, if it says so.
    pub cached: u64,
    /// Sampled, over all sequences.
    pub sampled: u64,
    /// Passed forward and backward.
    pub trained: u64,
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.prefilled = self.prefilled.saturating_add(other.prefilled);
        self.cached = self.cached.saturating_add(other.cached);
        self.sampled = self.sampled.saturating_add(other.sampled);
        self.trained = self.trained.saturating_add(other.trained);
    }
}

/// What a session has used so far: see [`ServiceClient::usage`](super::ServiceClient::usage).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// The tokens of all models.
    #[serde(flatten)]
    pub tokens: Tokens,
    /// The tokens of each model: base models by name, sampled weights by path, at most [`Usage::MAX_MODELS`] of them.
    /// Those of more are under [`Usage::OTHERS`].
    pub by_model: BTreeMap<String, Tokens>,
    /// The cost, if the program has given a [price](super::ServiceBuilder::price) for each model with tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

impl Usage {
    /// How many models are told apart.
    pub const MAX_MODELS: usize = 256;
    /// The name under which the tokens of more models are counted.
    pub const OTHERS: &'static str = "(others)";
}

/// What tokens of a model cost, per million, in any currency.
///
/// ```
/// use tinkex_telemetry::client::Prices;
///
/// let prices = Prices::per_million(0.13, 0.40, 0.40).cached(0.03);
/// # let _ = prices;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    prefilled: f64,
    cached: f64,
    sampled: f64,
    trained: f64,
}

impl Prices {
    /// The prices of prefilled, sampled and trained tokens. Cached ones cost as much as prefilled ones.
    #[must_use]
    pub const fn per_million(prefilled: f64, sampled: f64, trained: f64) -> Self {
        Self {
            prefilled,
            cached: prefilled,
            sampled,
            trained,
        }
    }

    /// Sets the price of prefilled tokens that came from the backend's cache.
    #[must_use]
    pub const fn cached(mut self, cached: f64) -> Self {
        self.cached = cached;
        self
    }

    /// The cost of tokens.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> f64 {
        let cached = tokens.cached.min(tokens.prefilled);
        let read = (tokens.prefilled - cached) as f64;
        (read * self.prefilled
            + cached as f64 * self.cached
            + tokens.sampled as f64 * self.sampled
            + tokens.trained as f64 * self.trained)
            / 1e6
    }
}

/// Counts what a session uses.
pub(super) struct UsageMeter {
    api: Arc<Api>,
    bus: Option<Bus>,
    session_id: Box<str>,
    started: Instant,
    interval: Duration,
    prices: BTreeMap<String, Prices>,
    by_model: Mutex<BTreeMap<String, Tokens>>,
}

impl UsageMeter {
    pub(super) fn new(
        api: Arc<Api>,
        handle: &Handle,
        session_id: &str,
        interval: Duration,
        prices: BTreeMap<String, Prices>,
    ) -> Self {
        Self {
            started: api.now(),
            api,
            bus: handle.bus().cloned(),
            session_id: session_id.into(),
            interval: interval.max(Duration::from_millis(1)),
            prices,
            by_model: Mutex::default(),
        }
    }

    fn by_model(&self) -> MutexGuard<'_, BTreeMap<String, Tokens>> {
        self.by_model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts tokens of a model.
    pub(super) fn add(&self, model: &str, tokens: Tokens) {
        let mut by_model = self.by_model();
        if let Some(counted) = by_model.get_mut(model) {
            *counted += tokens;
            return;
        }
        let name = match by_model.len() {
            Usage::MAX_MODELS.. => Usage::OTHERS,
            _ => model,
        };
        *by_model.entry(name.to_owned()).or_default() += tokens;
    }

    pub(super) fn usage(&self) -> Usage {
        // In the child of a fork the lock may be held for ever.
        if self.api.is_forked() {
            return Usage::default();
        }
        let by_model = self.by_model().clone();
        let mut tokens = Tokens::default();
        for model in by_model.values() {
            tokens += *model;
        }
        let cost = (!self.prices.is_empty()).then(|| {
            let mut used = by_model
                .iter()
                .filter(|(_, tokens)| **tokens != Tokens::default());
            used.try_fold(0.0, |sum, (model, tokens)| {
                Some(sum + self.prices.get(model)?.cost(tokens))
            })
        });
        Usage {
            tokens,
            by_model,
            cost: cost.flatten(),
        }
    }

    /// Reports what was used so far, as an event.
    pub(super) fn report(&self) {
        let Some(bus) = &self.bus else {
            return;
        };
        let usage = self.usage();
        let duration = self.api.now().saturating_duration_since(self.started);
        let mut measurements = Vec::from([
            ("duration", nanos(duration)),
            ("prefilled", usage.tokens.prefilled.into()),
            ("cached", usage.tokens.cached.into()),
            ("sampled", usage.tokens.sampled.into()),
            ("trained", usage.tokens.trained.into()),
        ]);
        if let Some(cost) = usage.cost {
            measurements.push(("cost", Value::F64(cost)));
        }
        let metadata = [("session_id", Value::Str(&self.session_id))];
        bus.execute(USAGE, &measurements, &metadata);
    }

    /// Reports again and again, for as long as the session is open.
    pub(super) async fn report_regularly(&self) {
        let mut next = self.started;
        loop {
            next = next.checked_add(self.interval).unwrap_or(Instant::END);
            self.api.sleep_until(next).await;
            self.report();
            // If the executor was late, the reports that are overdue are skipped.
            next = next.max(self.api.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_have_their_own_price_and_are_prefilled_ones() {
        let tokens = Tokens {
            prefilled: 3_000_000,
            cached: 1_000_000,
            sampled: 2_000_000,
            trained: 500_000,
        };
        let prices = Prices::per_million(1.0, 10.0, 100.0);
        assert_eq!(prices.cost(&tokens), 73.0);
        assert_eq!(prices.cached(0.25).cost(&tokens), 72.25);
        let more_cached = Tokens {
            cached: u64::MAX,
            ..tokens
        };
        assert_eq!(prices.cached(0.0).cost(&more_cached), 70.0);
    }
}
