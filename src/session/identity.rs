//! The identity that each request states: session id, platform, version and process.

use crate::event::writer::EventWriter;
use crate::sys::entropy::Random;
use core::fmt::{self, Write};
use uuid::Uuid;

#[cfg(feature = "std")]
use crate::sys::entropy::Entropy;
#[cfg(feature = "std")]
use crate::sys::fork::PerProcess;
#[cfg(feature = "alloc")]
use alloc::string::String;

use crate::text::Str;

/// The id of a session.
///
/// Strings convert into it. Building a session fails if the id is empty, contains a control or an invisible character,
/// begins or ends with a space, or is `.` or `..`, which no URL can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId(Id);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    Given(Str),
    Sessionless,
}

/// The id; `sessionless` for one that is chosen when the session is built.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Given(id) => f.pad(id),
            Id::Sessionless => f.pad("sessionless"),
        }
    }
}

impl SessionId {
    /// The id for programs without a session on the backend: it becomes `sessionless-<uuid4>`.
    #[must_use]
    pub const fn sessionless() -> Self {
        Self(Id::Sessionless)
    }

    /// A fresh id: a random UUID, drawn by this call. Its clones are the same id, so each run and each session needs a
    /// call of its own. [`Handle::session_id`](crate::session::Handle::session_id) shows it.
    ///
    /// Where the operating system has no random source, building the session fails.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn random() -> Self {
        match Entropy::from_os() {
            Ok(entropy) => Self::from(alloc::format!("{}", Random::new(entropy).uuid())),
            // Without a random source the build fails for every id.
            Err(_) => Self::sessionless(),
        }
    }

    /// The id, unless it is made when the session is built.
    #[cfg(feature = "std")]
    pub(crate) fn given(&self) -> Option<&str> {
        match &self.0 {
            Id::Given(id) => Some(id),
            Id::Sessionless => None,
        }
    }
}

#[cfg(feature = "alloc")]
impl From<&str> for SessionId {
    fn from(id: &str) -> Self {
        Self(Id::Given(String::from(id).into()))
    }
}

#[cfg(not(feature = "alloc"))]
impl From<&'static str> for SessionId {
    fn from(id: &'static str) -> Self {
        Self(Id::Given(Str::new(id)))
    }
}

#[cfg(feature = "alloc")]
impl From<String> for SessionId {
    fn from(id: String) -> Self {
        Self(Id::Given(id.into()))
    }
}

#[cfg(feature = "alloc")]
impl From<&String> for SessionId {
    fn from(id: &String) -> Self {
        Self::from(id.as_str())
    }
}

/// The fields at the beginning of every request's body.
#[derive(Debug)]
pub(crate) struct Identity {
    id: Str,
    platform: Str,
    sdk_version: Str,
    process_uuid: Option<Uuid>,
}

/// Where the id of a sessionless session is stored: with an allocator, in a string.
#[cfg(feature = "alloc")]
pub(crate) struct IdPlace;
/// Where the id of a sessionless session is stored: in the memory that the program provides for the queue.
#[cfg(not(feature = "alloc"))]
pub(crate) type IdPlace = &'static mut [u8];

/// The length of `sessionless-` and a UUID, in bytes.
pub(crate) const ID_BYTES: usize = 48;

#[cfg(feature = "alloc")]
fn sessionless(uuid: Uuid, _: IdPlace) -> Str {
    alloc::format!("sessionless-{uuid}").into()
}

#[cfg(not(feature = "alloc"))]
fn sessionless(uuid: Uuid, place: IdPlace) -> Str {
    const PREFIX: &[u8] = b"sessionless-";
    if let Some((prefix, rest)) = place.split_at_mut_checked(PREFIX.len()) {
        prefix.copy_from_slice(PREFIX);
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        for (to, from) in rest.iter_mut().zip(text) {
            *to = from;
        }
    }
    Str::new(core::str::from_utf8(place).unwrap_or("sessionless"))
}

/// The identity as set on the builder, without its defaults.
#[derive(Clone, Debug)]
pub(crate) struct IdentitySettings {
    pub(crate) id: SessionId,
    pub(crate) platform: Option<Str>,
    pub(crate) sdk_version: Str,
    pub(crate) process_uuid: ProcessUuid,
}

/// The `process_uuid` that a session sends. Default: the process's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProcessUuid {
    #[default]
    Own,
    Given(Uuid),
    Omitted,
}

impl IdentitySettings {
    pub(crate) fn new(id: SessionId) -> Self {
        Self {
            id,
            platform: None,
            sdk_version: env!("CARGO_PKG_VERSION").into(),
            process_uuid: ProcessUuid::default(),
        }
    }

    /// Validates the strings and fills in the defaults.
    pub(crate) fn resolve(
        self,
        random: &mut Random,
        id: IdPlace,
    ) -> Result<Identity, IdentityError> {
        let platform = self.platform.unwrap_or_else(host_platform);
        if let Id::Given(id) = &self.id.0 {
            check_id(id)?;
        }
        check("platform", &platform)?;
        if !is_platform(&platform) {
            return Err(IdentityError::Platform(platform));
        }
        check("sdk_version", &self.sdk_version)?;
        visible("sdk_version", &self.sdk_version)?;
        Ok(Identity {
            id: match self.id.0 {
                Id::Given(given) => given,
                Id::Sessionless => sessionless(random.uuid(), id),
            },
            platform,
            sdk_version: self.sdk_version,
            process_uuid: match self.process_uuid {
                ProcessUuid::Own => Some(process_uuid(random)),
                ProcessUuid::Given(uuid) => Some(uuid),
                ProcessUuid::Omitted => None,
            },
        })
    }
}

impl Identity {
    /// The maximum length of a request's body before its events, in bytes.
    pub(crate) const MAX_BODY_PREFIX: usize = if cfg!(feature = "alloc") {
        8 << 10
    } else {
        1 << 10
    };

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Writes a request's body up to the opening bracket of its events.
    pub(crate) fn write_body_prefix(&self, out: &mut EventWriter<'_>) -> Result<(), IdentityError> {
        let mut member = |key: &[u8], value: &str| {
            out.raw(key);
            out.value(value).map_err(|_| IdentityError::TooLong)
        };
        member(b"{\"session_id\":", self.id())?;
        member(b",\"platform\":", &self.platform)?;
        member(b",\"sdk_version\":", &self.sdk_version)?;
        if let Some(uuid) = &self.process_uuid {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            member(
                b",\"process_uuid\":",
                uuid.hyphenated().encode_lower(&mut text),
            )?;
        }
        out.raw(b",\"events\":[");
        Ok(())
    }
}

fn check(what: &'static str, value: &str) -> Result<(), IdentityError> {
    if value.is_empty() {
        return Err(IdentityError::Empty(what));
    }
    match value.bytes().find(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        Some(b'\r') => Err(IdentityError::Control(what, "CR")),
        Some(b'\n') => Err(IdentityError::Control(what, "LF")),
        Some(_) => Err(IdentityError::Control(what, "NUL")),
        None => Ok(()),
    }
}

fn check_id(id: &str) -> Result<(), IdentityError> {
    const WHAT: &str = "session id";
    check(WHAT, id)?;
    if let Some(odd) = id.chars().find(|c| c.is_control() || is_invisible(*c)) {
        return Err(IdentityError::Character(WHAT, odd));
    }
    if id.starts_with(' ') || id.ends_with(' ') {
        return Err(IdentityError::OuterSpace(WHAT));
    }
    if matches!(id, "." | "..") {
        return Err(IdentityError::Dots(WHAT));
    }
    Ok(())
}

/// Characters that have no width or change the direction of what follows: two ids that look alike would differ.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// The form that backends expect: two words, `family/os`.
fn is_platform(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    let parts = text.split_once('/');
    parts.is_some_and(|(family, os)| is_word(family) && is_word(os) && !os.contains('/'))
}

fn visible(what: &'static str, value: &str) -> Result<(), IdentityError> {
    match value.chars().find(|c| !c.is_ascii_graphic()) {
        Some(odd) => Err(IdentityError::Character(what, odd)),
        None => Ok(()),
    }
}

/// An invalid session id, platform or version.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityError {
    /// The named string is empty.
    Empty(&'static str),
    /// The named string contains the named character: CR, LF or NUL.
    Control(&'static str, &'static str),
    /// The named string contains this character, which it must not.
    Character(&'static str, char),
    /// The named string begins or ends with a space.
    OuterSpace(&'static str),
    /// The named string is `.` or `..`.
    Dots(&'static str),
    /// The platform, which this is, is not of the form `family/os`.
    Platform(Str),
    /// Session id, platform and version make the part of a request's body before its events longer than 8 KiB (1 KiB
    /// without `alloc`).
    TooLong,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(what) => write!(f, "the {what} is empty"),
            Self::Control(what, which) => write!(f, "the {what} contains {which}"),
            Self::Character(what, ' ') => write!(f, "the {what} contains a space"),
            Self::Character(what, odd) => {
                write!(f, "the {what} contains U+{:04X}", u32::from(*odd))
            }
            Self::OuterSpace(what) => write!(f, "the {what} begins or ends with a space"),
            Self::Dots(what) => write!(f, "the {what} is \".\" or \"..\", which no URL can name"),
            Self::Platform(platform) => {
                f.write_str("the platform \"")?;
                for character in platform.chars().take(64) {
                    // It may be anything, and this ends up in terminals.
                    let is_plain = character.is_ascii_graphic() || character == ' ';
                    f.write_char(if is_plain { character } else { '?' })?;
                }
                f.write_str("\" is not of the form family/os, as unix/linux is")
            }
            Self::TooLong => f.write_str("session id, platform and version are too long"),
        }
    }
}

crate::text::debug_with_causes!(IdentityError);

impl core::error::Error for IdentityError {}

#[cfg(feature = "std")]
fn host_platform() -> Str {
    use std::env::consts::{FAMILY, OS};
    if cfg!(windows) {
        Str::new("windows/nt")
    } else {
        alloc::format!("{FAMILY}/{OS}").into()
    }
}

#[cfg(not(feature = "std"))]
fn host_platform() -> Str {
    "unknown/unknown".into()
}

/// One UUID per process, shared by its sessions. The child of a fork has its own.
#[cfg(feature = "std")]
fn process_uuid(random: &mut Random) -> Uuid {
    static PROCESS: PerProcess<Uuid> = PerProcess::new();
    *PROCESS.get_or_init(|| random.uuid())
}

#[cfg(not(feature = "std"))]
fn process_uuid(random: &mut Random) -> Uuid {
    random.uuid()
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn an_id_displays_as_given() {
        assert_eq!(std::format!("{}", SessionId::from("s-1")), "s-1");
        assert_eq!(std::format!("{}", SessionId::sessionless()), "sessionless");
    }

    #[test]
    fn each_random_id_is_another_valid_one() {
        let (one, other) = (SessionId::random(), SessionId::random());
        assert_ne!(one, other);
        for id in [one, other] {
            let settings = IdentitySettings::new(id);
            let mut random = Random::new(Entropy::new([7; 32]));
            let identity = settings.resolve(&mut random, IdPlace).unwrap();
            let uuid = Uuid::parse_str(identity.id()).unwrap();
            assert_eq!(uuid.get_version_num(), 4);
        }
    }
}
