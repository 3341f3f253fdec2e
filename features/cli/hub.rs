//! What sees everything that the collector does: it prints, keeps, records, feeds the page, and passes requests on.

use alloc::sync::Weak;
use core::sync::atomic::{AtomicBool, Ordering};
use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use axum::response::Response;
use bytes::Bytes;
use http::Request;

use crate::features::collector::{
    Collector, Notice, Reply,
    tap::{Exchange, KeptEvents, Later, Sender, Tap},
};

use super::cassette::{Answers, Recorder};
use super::feed::Feed;
use super::item::{Item, RequestItem};
use super::keep::Keep;
use super::line::Format;
use super::output::Printer;
use super::page;
use super::prelude::*;
use super::text;
use super::token::Token;
use super::upstream::Upstream;

/// The parts of a collector with everything around it.
pub(super) struct Hub {
    me: Weak<Self>,
    pub(super) feed: Arc<Feed>,
    pub(super) token: Token,
    /// The collector, once it has started.
    collector: OnceLock<Weak<Collector>>,
    pub(super) parts: Parts,
    senders: Mutex<Senders>,
    /// Not while events are read that were kept before.
    is_live: AtomicBool,
}

/// What there may be.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) printer: Option<(Arc<Printer>, Format)>,
    pub(super) keep: Option<Keep>,
    pub(super) upstream: Option<Upstream>,
    pub(super) recorder: Option<Recorder>,
    pub(super) answers: Option<Answers>,
}

/// Who sends each run, as it was told.
#[derive(Default)]
struct Senders {
    of: HashMap<(Arc<str>, u32), Sender>,
    /// Of all texts, about.
    bytes: usize,
}

/// Bytes of senders; if there are more, they are told again.
const MAX_SENDERS: usize = 8 << 20;

impl Hub {
    pub(super) fn new(feed: Feed, token: Token, parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            feed: Arc::new(feed),
            token,
            collector: OnceLock::new(),
            parts,
            senders: Mutex::default(),
            is_live: AtomicBool::new(true),
        })
    }

    pub(super) fn set_collector(&self, collector: &Arc<Collector>) {
        let _ = self.collector.set(Arc::downgrade(collector));
    }

    /// The collector, unless it is starting or has ended.
    pub(super) fn collector(&self) -> Option<Arc<Collector>> {
        self.collector.get()?.upgrade()
    }

    /// Reads what was kept before, without printing or keeping it again.
    pub(super) fn while_not_live<T>(&self, work: impl FnOnce() -> T) -> T {
        self.is_live.store(false, Ordering::Relaxed);
        let result = work();
        self.is_live.store(true, Ordering::Relaxed);
        result
    }

    pub(super) fn notice(&self, notice: &Notice) {
        self.add(Item::notice(notice));
    }

    /// Something that the program itself has to say.
    pub(super) fn say(&self, what: &'static str, text: String) {
        self.add(Item::said(what, None, text));
    }

    pub(super) fn add(&self, item: Item) {
        let item = Arc::new(item);
        if self.is_live.load(Ordering::Relaxed)
            && let Some((printer, format)) = &self.parts.printer
        {
            printer.print_item(Arc::clone(&item), *format);
        }
        self.feed.push(item);
    }

    /// Tells who sends a run, the first time and when that changes.
    fn add_sender(&self, session: &Arc<str>, kept: &KeptEvents) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(session), kept.run);
        let Sender {
            platform,
            sdk_version,
            process_uuid,
        } = &kept.sender;
        if senders.of.get(&key) == Some(&kept.sender) {
            return;
        }
        if senders.bytes >= MAX_SENDERS {
            *senders = Senders::default();
        }
        let uuid = process_uuid.as_ref().map_or(0, String::len);
        senders.bytes += 128 + session.len() + platform.len() + sdk_version.len() + uuid;
        senders.of.insert(key, kept.sender.clone());
        drop(senders);
        self.add(Item::Session {
            session: Arc::clone(session),
            run: kept.run,
            platform: kept.sender.platform.clone(),
            sdk_version: kept.sender.sdk_version.clone(),
            process_uuid: kept.sender.process_uuid.clone(),
        });
    }
}

impl Tap for Hub {
    fn answer<'a>(&'a self, request: &'a Request<Bytes>) -> Later<'a, Option<Reply>> {
        Box::pin(async move {
            let path = request.uri().path();
            if let Some(answers) = &self.parts.answers {
                let whole = request.uri().path_and_query();
                let whole = whole.map_or(path, |whole| whole.as_str());
                return answers.next(request.method(), whole);
            }
            let upstream = self.parts.upstream.as_ref()?;
            if path == "/api/v1/telemetry" && !upstream.takes_telemetry {
                return None;
            }
            if !upstream.takes(path) {
                let body = r#"{"error":"this is no call that is passed on"}"#;
                return Some(Reply::status(404).body(body));
            }
            Some(upstream.pass(request).await)
        })
    }

    fn kept(&self, kept: &KeptEvents) {
        let session: Arc<str> = (*kept.session).into();
        self.add_sender(&session, kept);
        for event in &kept.events {
            self.add(Item::Event {
                session: Arc::clone(&session),
                run: kept.run,
                event: event.clone(),
            });
        }
        if self.is_live.load(Ordering::Relaxed)
            && let Some(keep) = &self.parts.keep
        {
            keep.write(kept);
        }
    }

    fn exchanged(&self, exchange: Exchange) {
        if let Some(recorder) = &self.parts.recorder
            && let Some(problem) = recorder.add(&exchange)
        {
            self.say("recording", problem);
        }
        let header = |name: &str| Some(exchange.headers.get(name)?.to_str().ok()?.to_owned());
        let key = header("x-idempotency-key");
        let retry_after = exchange.reply_headers.get(http::header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        let (session, run, events, new, is_kept) = match exchange.telemetry {
            None => (None, 0, None, 0, false),
            Some(telemetry) => {
                let ends = (telemetry.events.first(), telemetry.events.last());
                let events = match ends {
                    (Some((_, first)), Some((_, last))) => {
                        Some((telemetry.events.len(), *first, *last))
                    }
                    _ => None,
                };
                let telemetry = (
                    telemetry.session,
                    telemetry.run,
                    telemetry.new,
                    telemetry.is_kept,
                );
                (telemetry.0, telemetry.1, events, telemetry.2, telemetry.3)
            }
        };
        self.add(Item::Request(Box::new(RequestItem {
            at: exchange.arrived,
            took: exchange.took,
            delay: exchange.delay,
            method: exchange.method.to_string(),
            path: text::cut(&exchange.path, 1_000).into_owned(),
            key,
            bytes: exchange.body.len(),
            reply: exchange.reply,
            retry_after: retry_after.map(str::to_owned),
            reason: exchange.reason,
            session,
            run,
            events,
            new,
            is_kept,
        })));
    }

    fn serve(&self, request: Request<Bytes>) -> Later<'static, Option<Response>> {
        let me = self.me.upgrade();
        Box::pin(async move {
            let hub = me?;
            Some(page::respond(&hub, request).await)
        })
    }
}
