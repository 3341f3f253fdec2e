//! `replay`: sends recorded requests again, or answers as recorded.

use core::time::Duration;
use std::{env, thread, time::Instant};

use http::{HeaderValue, Request, Uri};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::features::http::HttpClient;
use crate::features::ureq::Ureq;

use super::args::{self, ReplayArgs};
use super::cassette::{self, Answers, Recorded};
use super::output;
use super::prelude::*;
use super::{Failure, Outcome, serve, signals, text};

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn replay(options: ReplayArgs) -> Outcome {
    if options.responses {
        let answers = Answers::read(&options.file)?;
        output::say(&format!(
            "{} to give",
            text::count(answers.left() as u64, "response")
        ));
        return serve::answer(options.serve, answers);
    }
    let to = options
        .to
        .as_deref()
        .unwrap_or_default()
        .trim_end_matches('/');
    let uri: Uri = to
        .parse()
        .map_err(|error| Failure::Usage(format!("--to {to:?} is not a URL: {error}")))?;
    let mut client = Ureq::with_timeout(TIMEOUT);
    client
        .check(&uri)
        .map_err(|error| Failure::Usage(format!("--to {to:?}: {error}")))?;
    let key = env::var("TINKER_API_KEY").ok();
    let key = key.filter(|key| !key.trim().is_empty());
    let key = key.map(|key| HeaderValue::from_str(key.trim()));
    let mut key = key.transpose().map_err(|_| {
        Failure::Usage("TINKER_API_KEY has characters that no header may have".to_owned())
    })?;
    if let Some(key) = &mut key {
        key.set_sensitive(true);
    }
    // Read first, so that a damaged recording sends nothing.
    let total =
        cassette::read(&options.file)?.try_fold(0_u64, |count, line| line.map(|_| count + 1))?;
    let bar = bar(total);
    let runtime = signals::runtime()?;
    let start = Instant::now();
    let (mut unanswered, mut different) = (0, 0);
    for (at, recorded) in cassette::read(&options.file)?.enumerate() {
        let recorded = recorded?;
        let due = args::scaled(recorded.offset, options.speed);
        thread::sleep(due.saturating_sub(start.elapsed()));
        let request = request(&recorded, to, key.as_ref())
            .ok_or_else(|| format!("line {}: {} is no path", at + 1, recorded.path))?;
        let result = runtime.block_on(client.send(request));
        let response = match result {
            Ok(response) => Some(response),
            Err(error) => error.response(),
        };
        let status = response.map(|response| response.status().as_u16());
        unanswered += u64::from(status.is_none());
        if !cassette::is_same(&recorded.response, status) {
            different += 1;
            let now = status.map_or("none".to_owned(), |status| status.to_string());
            let line = format!(
                "request {} ({} {}): answered {now}, recorded {}",
                at + 1,
                recorded.method,
                recorded.path,
                recorded.response
            );
            bar.suspend(|| output::say(&super::text::visible(&line)));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    output::say(&format!(
        "{} sent, {different} answered differently than recorded",
        text::count(total, "request")
    ));
    match total > 0 && unanswered == total {
        true => Err(format!("nothing at {to} answered").into()),
        false => Ok(()),
    }
}

/// Over a terminal alone.
pub(super) fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// The request as it was, to another server, with the caller's key.
fn request(
    recorded: &Recorded,
    to: &str,
    key: Option<&HeaderValue>,
) -> Option<Request<bytes::Bytes>> {
    let mut request = Request::new(recorded.body.clone());
    *request.method_mut() = recorded.method.clone();
    *request.uri_mut() = format!("{to}{}", recorded.path).parse().ok()?;
    request.headers_mut().clone_from(&recorded.headers);
    if let Some(key) = key {
        request.headers_mut().insert("x-api-key", key.clone());
    }
    Some(request)
}
