//! Requests to a running collector's page, as `tail`, `trace` and a second `serve` make them.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read};

use ureq::{Agent, BodyReader};

use super::prelude::*;
use super::token;

/// A collector on this machine.
pub(super) struct Remote {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// A longer message is not from a collector.
const MAX_MESSAGE: u64 = 512 << 20;

/// A message of a stream.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) data: String,
}

impl Remote {
    /// The collector at this URL, which may carry the token: `http://127.0.0.1:8787/ui?t=…`.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let uri: http::Uri = url
            .parse()
            .map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        let authority = uri.authority().map(|authority| authority.as_str());
        let authority = authority.filter(|authority| !authority.contains('@'));
        let (Some("http"), Some(authority)) = (uri.scheme_str(), authority) else {
            return Err(format!("{url:?} must be like http://127.0.0.1:8787"));
        };
        let token = uri.query().and_then(|query| query.strip_prefix("t="));
        let port = uri.port_u16().unwrap_or(80);
        // What listens on another address may be another user's.
        let host = uri.host().unwrap_or_default();
        let is_local = matches!(host, "127.0.0.1" | "localhost");
        let authority = match is_local {
            true => format!("127.0.0.1:{port}"),
            false => authority.to_owned(),
        };
        let own = || is_local.then(|| token::of_port(port)).flatten();
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(10)))
            .input_buffer_size(64 << 10)
            .build();
        Ok(Self {
            agent: config.into(),
            base: format!("http://{authority}"),
            token: token.map(str::to_owned).or_else(own),
        })
    }

    /// Its URL.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Opens its stream, with everything of each event, after a message of this id.
    pub(super) fn stream(&self, query: &str, after: Option<&str>) -> Result<Stream, String> {
        let url = format!("{}/ui/api/stream?full=1{query}", self.base);
        let mut request = self.agent.get(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request
            .call()
            .map_err(|error| format!("no collector at {}: {error}", self.base))?;
        match response.status().as_u16() {
            200 => Ok(Stream(BufReader::new(response.into_body().into_reader()))),
            401 => Err(format!(
                "the collector at {} is another user's, or its token is not the one given: take the URL that it printed",
                self.base
            )),
            status => Err(format!(
                "what is at {} answers {status}, and is not this program",
                self.base
            )),
        }
    }
}

/// A stream of messages.
pub(super) struct Stream(BufReader<BodyReader<'static>>);

impl Stream {
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        let length = (&mut self.0)
            .take(MAX_MESSAGE)
            .read_until(b'\n', &mut line)?;
        if length == 0 || line.pop() != Some(b'\n') {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }
}

impl Iterator for Stream {
    type Item = Message;

    /// `None` when the connection has ended.
    fn next(&mut self) -> Option<Message> {
        let mut message = Message {
            id: String::new(),
            data: String::new(),
        };
        loop {
            let line = self.line().ok()??;
            if let Some(data) = line.strip_prefix("data: ") {
                data.clone_into(&mut message.data);
            } else if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut message.id);
            } else if line.is_empty() && !message.data.is_empty() {
                return Some(message);
            }
        }
    }
}
