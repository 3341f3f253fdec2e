//! Events in the program's own log, for people to read.

use super::{AttachError, Bus, Event, EventNames, HandlerId, Value, Values};
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

impl Bus {
    /// Attaches a handler that writes each of the [automatic events](EventNames::AUTOMATIC) to the `log` facade at this
    /// level, target `tinkex_telemetry`, in one line. Answers its id, with which [`detach`](Self::detach) ends it.
    ///
    /// # Errors
    /// In the child of a `fork()`, unless the bus is its own.
    pub fn attach_logger(&self, level: log::Level) -> Result<String, AttachError> {
        let write = move |event: &Event<'_>| {
            log::log!(target: "tinkex_telemetry", level, "{}", Line(event));
        };
        let id = HandlerId::Like("tinkex-logger");
        let handler = self.add(id, EventNames::AUTOMATIC, Box::new(write))?;
        Ok(handler.id().into())
    }
}

/// `tinkex.http.request.stop duration=1.5ms method=GET path=/train`
struct Line<'a>(&'a Event<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        write_all(f, self.0.measurements())?;
        write_all(f, self.0.metadata())
    }
}

fn write_all(f: &mut fmt::Formatter<'_>, values: Values<'_>) -> fmt::Result {
    for (name, value) in values.iter() {
        write!(f, " {name}=")?;
        match value {
            Value::U64(nanos) if name == "duration" => {
                write!(f, "{:?}", Duration::from_nanos(nanos))?;
            }
            // Metadata comes from anywhere, and a line must stay one.
            Value::Str(text) if !is_plain(text) => write!(f, "{text:?}")?,
            Value::Str(text) => f.write_str(text)?,
            other => write!(f, "{other}")?,
        }
    }
    Ok(())
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let measurements = [("duration", Value::U64(1_500_000)), ("depth", 3.into())];
        let metadata = [
            ("method", Value::Str("GET")),
            ("path", "/a\nb \u{1b}[2J".into()),
            ("reason", "".into()),
            ("status", 200.into()),
            ("none", Value::Null),
        ];
        let event = Event::new("tinkex.http.request.stop", &measurements, &metadata);
        assert_eq!(
            Line(&event).to_string(),
            "tinkex.http.request.stop duration=1.5ms depth=3 method=GET path=\"/a\\nb \\u{1b}[2J\" reason=\"\" \
             status=200 none=null"
        );
    }
}
