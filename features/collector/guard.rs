//! Which requests are the business of this machine: a web page or a rebound name may not use the collector.

use alloc::{format, string::String};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, Uri, header, request::Parts, uri::Authority};

use super::super::wire::violation::Excerpt;

/// Why a request is none of this collector's business, by its head alone.
pub(super) fn stranger(head: &Parts, own: SocketAddr) -> Option<String> {
    if let Some(host) = foreign_host(&head.uri, &head.headers) {
        return Some(format!(
            "the Host header must name this machine's loopback (localhost, 127.0.0.1, [::1]), not {host}"
        ));
    }
    if let Some(origin) = foreign_origin(&head.headers, own) {
        return Some(format!(
            "requests of web pages are refused: the Origin header is {origin}"
        ));
    }
    foreign_site(&head.headers).map(|site| {
        format!("requests of web pages are refused: the Sec-Fetch-Site header is {site}")
    })
}

/// A name of another host, under which a page's script can reach a server on loopback by DNS rebinding.
fn foreign_host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    // An absolute URI is the one that counts, but both must be right.
    if let Some(authority) = uri.authority()
        && !is_loopback(authority.as_str())
    {
        return Some(quoted(authority.as_str().as_bytes()));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        return Some("missing".into());
    };
    if hosts.next().is_some() {
        return Some("given twice".into());
    }
    let is_own = host.to_str().is_ok_and(is_loopback);
    (!is_own).then(|| quoted(host.as_bytes()))
}

/// Browsers send the header with every request that can change something, and with every one by a script of another
/// origin.
fn foreign_origin(headers: &HeaderMap, own: SocketAddr) -> Option<String> {
    let is_own = |origin: &str| {
        let authority = origin.strip_prefix("http://");
        authority.is_some_and(|authority| {
            let port = authority
                .parse::<Authority>()
                .map(|authority| authority.port_u16());
            is_loopback(authority) && port.is_ok_and(|port| port.unwrap_or(80) == own.port())
        })
    };
    let foreign = headers
        .get_all(header::ORIGIN)
        .iter()
        .find(|origin| !origin.to_str().is_ok_and(is_own));
    foreign.map(|origin| quoted(origin.as_bytes()))
}

/// Also sent with requests without an `Origin`: images, links.
fn foreign_site(headers: &HeaderMap) -> Option<String> {
    let foreign = headers
        .get_all("sec-fetch-site")
        .iter()
        .find(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    foreign.map(|site| quoted(site.as_bytes()))
}

/// `host` or `host:port`, where the host can only be this machine.
fn is_loopback(authority: &str) -> bool {
    if authority.contains('@') {
        return false;
    }
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    // The parser takes what follows a bracket for nothing.
    let port = authority.as_str().strip_prefix(host);
    if !port.is_some_and(|port| port.is_empty() || is_port(port)) {
        return false;
    }
    if host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case("localhost.") {
        return true;
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) => bare
            .parse::<Ipv6Addr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback()),
        None => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':');
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn quoted(text: &[u8]) -> String {
    format!("{}", Excerpt(&String::from_utf8_lossy(text)))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use http::Request;

    use super::*;

    fn refusal(uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        stranger(&head, "127.0.0.1:8787".parse().unwrap())
    }

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        for host in [
            "localhost",
            "LocalHost:1",
            "localhost.:8787",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:8787",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(refusal("/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8787",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost:8787:1",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[2001:db8::1]",
            "::1",
            "[::1]evil.example",
            "[::1]evil:80",
            "localhost/",
            "localhost, evil.example",
        ] {
            assert!(refusal("/", &[("host", host)]).is_some(), "{host}");
        }
        assert!(refusal("/", &[]).is_some(), "no host");
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert!(refusal("/", &twice).is_some());
        let local = [("host", "localhost")];
        assert!(refusal("http://evil.example/", &local).is_some());
        assert_eq!(refusal("http://localhost:8787/", &local), None);
    }

    #[test]
    fn only_the_collectors_own_pages_are_an_origin() {
        let with = |name, value| refusal("/", &[("host", "localhost:8787"), (name, value)]);
        for origin in ["http://localhost:8787", "http://127.0.0.1:8787"] {
            assert_eq!(with("origin", origin), None, "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://evil.example:8787",
            "https://localhost:8787",
            "http://localhost",
            "http://localhost:3000",
            "http://localhost:8787.evil.example",
            "file://",
        ] {
            assert!(with("origin", origin).is_some(), "{origin}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(with("sec-fetch-site", site).is_some(), "{site}");
        }
        assert_eq!(with("sec-fetch-site", "none"), None);
        assert_eq!(with("sec-fetch-site", "same-origin"), None);
    }

    #[test]
    fn any_head_gets_an_answer_and_only_a_loopback_host_passes() {
        use arbtest::arbitrary::Unstructured;

        const PARTS: [&str; 16] = [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "::1",
            "evil",
            ".",
            ":",
            "@",
            "/",
            "8787",
            "[",
            "]",
            "http://",
            "0x7f.1",
            "%6c",
            ",",
        ];
        fn text(u: &mut Unstructured<'_>) -> arbtest::arbitrary::Result<Vec<u8>> {
            let mut text = Vec::new();
            for _ in 0..u.int_in_range(0..=5)? {
                match u.ratio(1, 8)? {
                    true => text.push(u.arbitrary()?),
                    false => text.extend(u.choose::<&str>(&PARTS)?.as_bytes()),
                }
            }
            Ok(text)
        }

        let own = "127.0.0.1:8787".parse().unwrap();
        arbtest::arbtest(|u| {
            let mut request = Request::new(());
            for name in ["host", "origin", "sec-fetch-site", "host"] {
                if u.ratio(1, 2)?
                    && let Ok(value) = http::HeaderValue::from_bytes(&text(u)?)
                {
                    request.headers_mut().append(name, value);
                }
            }
            if let Ok(uri) = Uri::try_from(text(u)?) {
                *request.uri_mut() = uri;
            }
            let (head, ()) = request.into_parts();
            match stranger(&head, own) {
                Some(reason) => assert!(!reason.contains(char::is_control), "{reason}"),
                None => {
                    let host = head.headers["host"].to_str().unwrap().to_ascii_lowercase();
                    let is_known = host.starts_with("localhost")
                        || host.starts_with("127.")
                        || host.starts_with("[::");
                    assert!(is_known && !host.contains("evil"), "{host}");
                }
            }
            Ok(())
        });
    }

    #[test]
    fn a_refusal_quotes_no_control_characters() {
        let refusal = refusal("/", &[("host", "evil\tname")]).unwrap();
        assert!(refusal.contains("`evil\\tname`"), "{refusal}");
    }
}
