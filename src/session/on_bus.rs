//! A session on its bus: takes the session's own events until the session stops.

use crate::bus::value::Without;
use crate::bus::{
    AttachError, Bus, Calls, Event, EventNames, Handler, HandlerId, REQUEST_STALLED, Values,
};
use crate::event::severity::Severity;
use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// The metadata key that names an event's session.
const SESSION_ID: &str = "session_id";

/// A session's bus and its handler there.
pub(crate) struct OnBus {
    bus: Option<Bus>,
    /// Keeps the numbers of the session's calls unique as long as it exists.
    _calls: Option<Calls>,
    handler: Lock<Option<Arc<Handler>>>,
}

impl OnBus {
    pub(crate) fn new(bus: Option<Bus>, session_id: &str) -> Self {
        Self {
            _calls: bus.as_ref().map(|bus| bus.calls_of_new_session(session_id)),
            bus,
            handler: Lock::new(None),
        }
    }

    pub(crate) fn bus(&self) -> Option<&Bus> {
        self.bus.as_ref()
    }

    /// Attaches a handler that takes the session's own among `events`.
    pub(crate) fn attach(
        &self,
        session_id: &str,
        handler_id: Option<&str>,
        events: &EventNames,
        log: impl Fn(&str, Taken<'_>, Severity) + Send + Sync + 'static,
    ) -> Result<(), AttachError> {
        let Some(bus) = &self.bus else {
            return Ok(());
        };
        let generated = format!("tinkex-telemetry-{session_id}");
        let id = handler_id.map_or(HandlerId::Like(&generated), HandlerId::Given);
        let own: Box<str> = session_id.into();
        // With many sessions on a bus, most events belong to other sessions, so the id is compared first.
        let take = move |event: &Event<'_>| {
            if event.metadata().str(SESSION_ID) == Some(&own) {
                let data = Taken(event.measurements(), event.metadata());
                log(event.name(), data, severity(event.name()));
            }
        };
        let handler = bus.add(id, events.iter(), Box::new(take))?;
        self.handler.with(|slot| *slot = Some(handler));
        Ok(())
    }

    /// Detaches the handler: no more events are taken.
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

fn severity(name: &str) -> Severity {
    if name.ends_with(".exception") {
        Severity::Error
    } else if name == REQUEST_STALLED {
        Severity::Warning
    } else {
        Severity::Info
    }
}

/// `event_data` of an event that was taken from a bus.
pub(crate) struct Taken<'a>(Values<'a>, Values<'a>);

impl Serialize for Taken<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut data = serializer.serialize_struct("Event", 2)?;
        data.serialize_field("measurements", &self.0)?;
        data.serialize_field("metadata", &Without(self.1, Some(SESSION_ID)))?;
        data.end()
    }
}
