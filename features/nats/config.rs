//! Which servers, which stream, and as whom.

use super::transport::JetStream;
use crate::transport::SetupError;
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use async_nats::{Auth, ServerAddr};
use core::fmt;
use core::time::Duration;

/// The time that a stream should recognize duplicates for, unless [`JetStream::retry_horizon`] says otherwise: a batch
/// is retried for less with the default options.
const DEFAULT_HORIZON: Duration = Duration::from_secs(60);

/// The servers of a NATS cluster: made by [`JetStream::connect`], and completed by the name of a stream.
///
/// `Debug` shows no password and no token.
#[derive(Clone)]
pub struct Servers {
    servers: Result<Vec<ServerAddr>, SetupError>,
    auth: Auth,
}

/// Everything that a connection needs.
#[derive(Clone)]
pub(super) struct Config {
    /// At least one.
    pub(super) servers: Vec<ServerAddr>,
    pub(super) auth: Auth,
    pub(super) stream: String,
    /// Without credentials.
    pub(super) destination: String,
    pub(super) horizon: Duration,
}

impl Servers {
    pub(super) fn new(urls: &str) -> Self {
        let mut auth = Auth::new();
        let servers = parse(urls, &mut auth);
        Self { servers, auth }
    }

    /// Authenticates with a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.auth.token = Some(token.into());
        self
    }

    /// Authenticates with a user's name and password, in place of those in the URL.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.auth.username = Some(name.into());
        self.auth.password = Some(password.into());
        self
    }

    /// The transport that stores events in this stream. Nothing is connected yet.
    #[must_use]
    pub fn stream(self, name: &str) -> JetStream {
        let config = self.servers.and_then(|servers| {
            check_stream(name)?;
            let hosts: Vec<_> = servers.iter().map(shown).collect();
            Ok(Config {
                destination: format!("{}/{name}", hosts.join(",")),
                servers,
                auth: self.auth,
                stream: name.to_owned(),
                horizon: DEFAULT_HORIZON,
            })
        });
        JetStream::new(config)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.servers.as_ref();
        let hosts = hosts.map(|servers| servers.iter().map(shown).collect::<Vec<_>>());
        f.debug_struct("Servers")
            .field("servers", &hosts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("destination", &self.destination)
            .field("horizon", &self.horizon)
            .finish_non_exhaustive()
    }
}

/// A server's address without credentials.
pub(super) fn shown(server: &ServerAddr) -> String {
    let host = server.host();
    let (open, close) = if host.contains(':') {
        ("[", "]")
    } else {
        ("", "")
    };
    format!(
        "{}://{open}{host}{close}:{}",
        server.scheme(),
        server.port()
    )
}

/// No message repeats the URL, which may have a password in it.
fn parse(urls: &str, auth: &mut Auth) -> Result<Vec<ServerAddr>, SetupError> {
    let mut servers = Vec::new();
    for (at, url) in urls.split(',').map(str::trim).enumerate() {
        let which = at + 1;
        let wrong = |problem| SetupError::new(format_args!("NATS server {which}: {problem}"));
        if url.is_empty() {
            return Err(wrong("the URL is empty; write nats://host:4222"));
        }
        let server: ServerAddr = url
            .parse()
            .map_err(|_| wrong("not a URL such as nats://host:4222 or tls://host:4222"))?;
        if !matches!(server.scheme(), "nats" | "tls") {
            return Err(wrong("the scheme must be nats or tls"));
        }
        if server.host().is_empty() {
            return Err(wrong("the URL has no host"));
        }
        match (server.username(), server.password()) {
            (None, _) => {}
            (Some(name), password) => {
                let decoded =
                    |text: &str| decoded(text).ok_or_else(|| wrong("the user is not UTF-8"));
                match password {
                    // As every client of NATS has it: a name alone is a token.
                    None => auth.token = Some(decoded(name)?),
                    Some(password) => {
                        auth.username = Some(decoded(name)?);
                        auth.password = Some(decoded(password)?);
                    }
                }
            }
        }
        servers.push(server);
    }
    Ok(servers)
}

/// Without its percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(core::str::from_utf8(hex).ok()?, 16).ok());
        rest = if byte.is_some() { &tail[2..] } else { tail };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8(bytes).ok()
}

fn check_stream(name: &str) -> Result<(), SetupError> {
    let is_wrong = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if name.is_empty() || name.len() > 255 || name.contains(is_wrong) {
        return Err(SetupError::new(
            "the name of a stream is 1 to 255 bytes without blanks, '.', '*', '>', '/' and '\\'",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport as _;
    use alloc::string::ToString as _;

    #[test]
    fn several_servers_and_their_user_are_read_and_the_password_is_never_shown() {
        let servers = Servers::new("nats://ann:s%40crt@one.example, tls://[::1]:4333,two");
        assert_eq!(servers.auth.username.as_deref(), Some("ann"));
        assert_eq!(servers.auth.password.as_deref(), Some("s@crt"));
        let transport = servers.clone().stream("EVENTS");
        let expected = "nats://one.example:4222,tls://[::1]:4333,nats://two:4222/EVENTS";
        assert_eq!(transport.destination(), Some(expected));
        assert!(transport.check().is_ok());
        for shown in [format!("{servers:?}"), format!("{transport:?}")] {
            assert!(!shown.contains("crt") && !shown.contains("ann"), "{shown}");
        }
    }

    #[test]
    fn a_name_alone_in_the_url_is_a_token() {
        let servers = Servers::new("nats://tok-3n@one.example");
        assert_eq!(servers.auth.token.as_deref(), Some("tok-3n"));
        assert_eq!(servers.auth.username, None);
        let servers = servers.token("other").user("u", "p");
        assert_eq!(servers.auth.token.as_deref(), Some("other"));
        assert_eq!(servers.auth.password.as_deref(), Some("p"));
    }

    #[test]
    fn what_is_wrong_is_named_when_the_session_is_built_without_the_password() {
        for (url, stream, part) in [
            ("", "S", "NATS server 1"),
            ("nats://a,", "S", "NATS server 2"),
            ("nats://a:secret@b:99999", "S", "NATS server 1: not a URL"),
            ("http://a:secret@b", "S", "NATS server 1: not a URL"),
            ("ws://a:secret@b", "S", "the scheme"),
            ("nats://a", "", "name of a stream"),
            ("nats://a", "a.b", "name of a stream"),
            ("nats://a", "a b", "name of a stream"),
            ("nats://a", "a>", "name of a stream"),
        ] {
            let error = JetStream::connect(url).stream(stream).check();
            let error = error.expect_err(url).to_string();
            assert!(error.contains(part), "{url} {stream}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
