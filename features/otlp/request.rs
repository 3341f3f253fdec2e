//! One request: the resource, and the records of a batch.

use super::config::{Protocol, ResolvedConfig};
use super::event;
use super::form::Form;
use super::json::{Cursor, Malformed, RawStr, Token};
use super::protobuf::{self, Protobuf};
use super::record::{Common, write_event, write_resource, write_resource_attribute};
use super::text::{self, Json};
use alloc::boxed::Box;
use alloc::vec::Vec;

const SCOPE: &str = "tinkex-telemetry";

/// Turns the bodies of batches into requests.
#[derive(Default)]
pub(super) struct Encoder {
    /// The fields of the whole session, as JSON, once they were seen.
    context: Option<Box<str>>,
    /// Reused from request to request.
    records: Vec<u8>,
}

/// What stands before the events in a batch's body.
#[derive(Default)]
struct Head<'a> {
    session_id: Option<RawStr<'a>>,
    platform: Option<RawStr<'a>>,
    sdk_version: Option<RawStr<'a>>,
    process_uuid: Option<RawStr<'a>>,
}

impl Encoder {
    /// Appends the request for a batch's body to `out`.
    pub(super) fn encode(
        &mut self,
        config: &ResolvedConfig,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        match config.protocol {
            Protocol::HttpProtobuf => {
                let resource = self.write(config, body, Protobuf)?;
                let scope = (SCOPE, env!("CARGO_PKG_VERSION"));
                protobuf::write_head(&resource, scope, self.records.len(), out);
                out.extend_from_slice(&self.records);
            }
            Protocol::HttpJson => {
                let resource = self.write(config, body, Json)?;
                text::write_head(&resource, (SCOPE, env!("CARGO_PKG_VERSION")), out);
                out.extend_from_slice(&self.records);
                text::write_tail(out);
            }
        }
        Ok(())
    }

    /// Writes the records, and returns the resource's attributes.
    fn write<F: Form>(
        &mut self,
        config: &ResolvedConfig,
        body: &[u8],
        form: fn(Vec<u8>) -> F,
    ) -> Result<Vec<u8>, Malformed> {
        let mut buffer = core::mem::take(&mut self.records);
        buffer.clear();
        let mut out = form(buffer);
        let result = self.write_records(body, form, &mut out);
        self.records = core::mem::take(out.bytes());
        self.write_resource(config, &result?, form(Vec::new()))
    }

    fn write_records<'a, F: Form>(
        &mut self,
        body: &'a [u8],
        form: fn(Vec<u8>) -> F,
        out: &mut F,
    ) -> Result<Head<'a>, Malformed> {
        let mut head = Head::default();
        let mut cursor = Cursor::new(body);
        cursor.object()?;
        let mut is_first = true;
        while let Some(key) = cursor.key(is_first)? {
            is_first = false;
            match key.text {
                "session_id" => head.session_id = event::text(&mut cursor)?,
                "platform" => head.platform = event::text(&mut cursor)?,
                "sdk_version" => head.sdk_version = event::text(&mut cursor)?,
                "process_uuid" => head.process_uuid = event::text(&mut cursor)?,
                // The last of the body's members, so that the session's id is known.
                "events" => {
                    let session = head.session_id.ok_or(Malformed)?;
                    let common = Common::new(session, form(Vec::new()))?;
                    self.write_events(&mut cursor, &common, out)?;
                }
                _ => drop(cursor.value()?),
            }
        }
        Ok(head)
    }

    fn write_events<F: Form>(
        &mut self,
        cursor: &mut Cursor<'_>,
        common: &Common,
        out: &mut F,
    ) -> Result<(), Malformed> {
        let Token::Array = cursor.token()? else {
            return Err(Malformed);
        };
        let mut is_first = true;
        while cursor.element(is_first)? {
            is_first = false;
            if let Some(data) = write_event(cursor, common, out)? {
                self.context = Some(data.into());
            }
        }
        Ok(())
    }

    fn write_resource<F: Form>(
        &self,
        config: &ResolvedConfig,
        head: &Head<'_>,
        mut out: F,
    ) -> Result<Vec<u8>, Malformed> {
        let os_type = head.platform.and_then(|platform| os_type(platform.text));
        let sdk_version = head.sdk_version.map(|version| version.decoded());
        let sdk_version = sdk_version.transpose()?;
        let own = [
            ("telemetry.sdk.name", Some(SCOPE)),
            ("telemetry.sdk.language", Some("rust")),
            ("telemetry.sdk.version", sdk_version.as_deref()),
            ("service.instance.id", head.process_uuid.map(|id| id.text)),
            ("os.type", os_type),
        ];
        let configured = config.resource.iter();
        let configured = configured.map(|(name, value)| (&**name, Some(&**value)));
        let mut taken: Vec<&str> = Vec::with_capacity(own.len() + config.resource.len());
        // What the configuration says goes before what this crate would.
        for (name, value) in configured.chain(own) {
            if let Some(value) = value.filter(|_| !taken.contains(&name)) {
                write_resource_attribute(name, value, &mut out)?;
                taken.push(name);
            }
        }
        if let Some(context) = &self.context {
            write_resource(context, &taken, &mut out)?;
        }
        Ok(core::mem::take(out.bytes()))
    }
}

/// The operating system, as semantic conventions name it, of a platform such as `unix/linux`.
fn os_type(platform: &str) -> Option<&str> {
    match platform.split_once('/')?.1 {
        "macos" | "ios" => Some("darwin"),
        "nt" => Some("windows"),
        "dragonfly" => Some("dragonflybsd"),
        "illumos" => Some("solaris"),
        known @ ("linux" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "aix") => Some(known),
        "android" => Some("linux"),
        _ => None,
    }
}
