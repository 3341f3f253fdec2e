//! Scripts of responses, as `--fail` takes them: `503x3,429:2,stall`.

use crate::features::collector::Reply;

use super::prelude::*;

/// The replies to the next requests.
#[derive(Clone)]
pub(super) struct Script(pub(super) Vec<Reply>);

/// More are a slip of the finger.
const MAX_REPLIES: usize = 100_000;

pub(super) const HELP: &str = "\
Answer the first requests with telemetry like this, and later ones as usual. A list of:
  503        this status, and no event is kept; 200 accepts
  429:2      the same, with Retry-After: 2
  stall      no response
  lost       the events are kept, and the connection is closed without a response
  close      the connection is closed before the body is read
  garbage    bytes that are not HTTP
  truncated  half a response
Each may be followed by x and a number of times: 503x3,429:2,stall";

pub(super) fn parse(text: &str) -> Result<Script, String> {
    let mut replies = Vec::new();
    for item in text.split(',') {
        let item = item.trim();
        let (what, times) = match item.rsplit_once('x') {
            Some((what, times)) if !times.is_empty() => {
                let times = times.parse::<usize>().ok().filter(|times| *times > 0);
                let times = times.ok_or_else(|| format!("`{item}`: the times are not a number"))?;
                (what, times)
            }
            _ => (item, 1),
        };
        let reply = reply(what).map_err(|problem| format!("`{item}`: {problem}"))?;
        if times > MAX_REPLIES - replies.len() {
            return Err(format!("more than {MAX_REPLIES} responses"));
        }
        replies.extend(core::iter::repeat_n(reply, times));
    }
    Ok(Script(replies))
}

/// One reply: `503`, `429:2`, `stall`.
pub(super) fn reply(text: &str) -> Result<Reply, String> {
    Ok(match text {
        "stall" => Reply::stall(),
        "lost" => Reply::lost(),
        "close" => Reply::close_before_body(),
        "garbage" => Reply::garbage(),
        "truncated" => Reply::truncated(),
        _ => {
            let (status, after) = match text.split_once(':') {
                Some((status, after)) => (status, Some(after)),
                None => (text, None),
            };
            let status = status.parse::<u16>().ok();
            let status = status
                .filter(|status| (200..=999).contains(status))
                .ok_or("must be a status from 200, stall, lost, close, garbage or truncated")?;
            let reply = Reply::status(status);
            match after {
                None => reply,
                Some(after) => {
                    let seconds = after.parse::<u32>();
                    let seconds = seconds.map_err(|_| "Retry-After must be whole seconds")?;
                    reply.retry_after(&seconds.to_string())
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::collector::ReplyKind;

    #[test]
    fn a_script_is_a_list_with_repetitions() {
        let script = parse("503x3, 429:2,stall").unwrap();
        assert_eq!(script.0.len(), 5);
        let response = script.0[3].response().unwrap();
        assert_eq!(response.headers()["retry-after"], "2");
        assert!(script.0[4].response().is_none());
        assert_eq!(
            parse("lostx2").map(|script| script.0.len()).ok(),
            Some(2),
            "a name may be repeated as well"
        );
        let _ = ReplyKind::Stall;
    }

    #[test]
    fn a_script_that_cannot_be_is_refused_with_the_part_that_is_wrong() {
        for wrong in [
            "",
            "x3",
            "5x",
            "99",
            "1000",
            "503x0",
            "503xx",
            "429:soon",
            "503x99999999",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("503,hang").err().unwrap().contains("`hang`"));
    }
}
