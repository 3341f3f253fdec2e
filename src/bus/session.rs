//! A session on a bus: it takes the events that are its own, until it stops.

use super::value::Without;
use super::{
    AttachError, Bus, Event, HTTP_REQUEST_EXCEPTION, HTTP_REQUEST_START, HTTP_REQUEST_STOP,
    Handler, HandlerId, QUEUE_STATE_CHANGE, Values,
};
use crate::handle::Handle;
use crate::lock::Lock;
use crate::session::Str;
use crate::severity::Severity;
use crate::shared::WeakSink;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// The key in the metadata that says whose event it is.
const SESSION_ID: &str = "session_id";

/// The names of the events that a session takes from its bus. Default: the [automatic ones](Self::AUTOMATIC).
#[derive(Clone, PartialEq, Eq)]
pub struct Events(Cow<'static, [Str]>);

impl Events {
    /// The events that HTTP clients and the queue's state emit by themselves.
    pub const AUTOMATIC: [&'static str; 4] = [
        HTTP_REQUEST_START,
        HTTP_REQUEST_STOP,
        HTTP_REQUEST_EXCEPTION,
        QUEUE_STATE_CHANGE,
    ];

    const DEFAULT: &'static [Str] = &[
        Cow::Borrowed(HTTP_REQUEST_START),
        Cow::Borrowed(HTTP_REQUEST_STOP),
        Cow::Borrowed(HTTP_REQUEST_EXCEPTION),
        Cow::Borrowed(QUEUE_STATE_CHANGE),
    ];

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl Default for Events {
    fn default() -> Self {
        Self(Cow::Borrowed(Self::DEFAULT))
    }
}

impl<S: Into<Str>> FromIterator<S> for Events {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let names: Vec<_> = names.into_iter().map(Into::into).collect();
        Self(Cow::Owned(names))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == *Self::DEFAULT {
            f.write_str("AUTOMATIC")
        } else {
            f.debug_list().entries(self.iter()).finish()
        }
    }
}

/// A session's bus, and its handler there.
pub(crate) struct OnBus {
    bus: Option<Bus>,
    handler: Lock<Option<Arc<Handler>>>,
}

impl OnBus {
    pub(crate) fn new(bus: Option<Bus>) -> Self {
        Self {
            bus,
            handler: Lock::new(None),
        }
    }

    pub(crate) fn bus(&self) -> Option<&Bus> {
        self.bus.as_ref()
    }

    /// Takes these events from now on, if they are the session's own.
    pub(crate) fn attach(
        &self,
        session: WeakSink,
        session_id: &str,
        handler_id: Option<&str>,
        events: &Events,
    ) -> Result<(), AttachError> {
        let Some(bus) = &self.bus else {
            return Ok(());
        };
        let generated = format!("tinkex-telemetry-{session_id}");
        let id = handler_id.map_or(HandlerId::Like(&generated), HandlerId::Given);
        let own: Box<str> = session_id.into();
        // There may be many sessions, and most events are others'.
        let take = move |event: &Event<'_>| {
            if event.metadata().str(SESSION_ID) == Some(&own)
                && let Some(handle) = session.upgrade()
            {
                take(&handle, event);
            }
        };
        let handler = bus.add(id, events.iter(), Box::new(take))?;
        self.handler.with(|slot| *slot = Some(handler));
        Ok(())
    }

    /// Takes no more events.
    pub(crate) fn detach(&self) {
        let handler = self.handler.with(Option::take);
        if let (Some(bus), Some(handler)) = (&self.bus, handler) {
            bus.remove(&handler);
        }
    }
}

impl Drop for OnBus {
    fn drop(&mut self) {
        self.detach();
    }
}

fn take(session: &Handle, event: &Event<'_>) {
    let severity = if event.name().ends_with(".exception") {
        Severity::Error
    } else {
        Severity::Info
    };
    let data = Taken(event.measurements(), event.metadata());
    session.log_with(event.name(), data, severity);
}

/// `event_data` of an event that was taken from a bus.
struct Taken<'a>(Values<'a>, Values<'a>);

impl Serialize for Taken<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut data = serializer.serialize_struct("Event", 2)?;
        data.serialize_field("measurements", &self.0)?;
        data.serialize_field("metadata", &Without(self.1, Some(SESSION_ID)))?;
        data.end()
    }
}
