//! The base URL: what is wrong with one that cannot work, found before a client sees it.
//!
//! HTTP clients read invalid URLs in ways of their own: one of them takes a port that is no number for port 80, another
//! resolves `..` away. So a base URL is read strictly here, and what is accepted means the same to all of them.

use super::config_error::ConfigProblem;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use http::Uri;

pub(super) const PATH: &str = "/api/v1/telemetry";

/// Far longer than a URL that anyone writes, and short enough for every client.
const MAX_BYTES: usize = 2048;

/// A base URL that was read.
pub(crate) struct Endpoint {
    /// Where events go.
    pub(crate) uri: Uri,
    /// The same for every spelling of it.
    pub(crate) canonical: Box<str>,
    /// The host, where it is another machine and the connection is not encrypted.
    pub(crate) cleartext_host: Option<Box<str>>,
}

/// What is wrong with a URL: its kind, and in words that continue "the setting …".
pub(crate) type Fault = (ConfigProblem, String);

type Parsed<T> = Result<T, Fault>;

fn fault<T>(problem: ConfigProblem, message: impl Into<String>) -> Parsed<T> {
    Err((problem, message.into()))
}

/// Reads the base URL of a backend.
pub(super) fn parse(base: &str) -> Parsed<Endpoint> {
    parse_to(base, PATH, &[PATH, "/api/v1"])
}

/// Reads a base URL to which `suffix` is added. It ends in none of `own`, which people add to it by mistake.
pub(crate) fn parse_to(base: &str, suffix: &str, own: &[&str]) -> Parsed<Endpoint> {
    read(base, Some(suffix), own)
}

/// Reads a URL that is used as it is: its path stays as it is written, and it may have a query.
#[cfg(feature = "otlp")]
pub(crate) fn parse_whole(url: &str) -> Parsed<Endpoint> {
    read(url, None, &[])
}

fn read(base: &str, suffix: Option<&str>, own: &[&str]) -> Parsed<Endpoint> {
    if base.is_empty() {
        return fault(ConfigProblem::Empty, "is empty");
    }
    if base.len() > MAX_BYTES {
        let message = format!("is longer than {MAX_BYTES} bytes");
        return fault(ConfigProblem::TooLong, message);
    }
    check_characters(base)?;
    let (is_encrypted, rest) = scheme(base)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains('@') {
        let message = "has a user or password (the part before \"@\"): leave it out";
        return fault(ConfigProblem::Userinfo, message);
    }
    let is_whole = suffix.is_none();
    let unfit: &[char] = if is_whole { &['#'] } else { &['?', '#'] };
    if let Some(at) = rest.find(unfit) {
        let what = if rest[at..].starts_with('?') {
            "a query (the part from \"?\" on)"
        } else {
            "a fragment (the part from \"#\" on)"
        };
        let message = format!("has {what}: leave it out");
        return fault(ConfigProblem::Query, message);
    }
    let (host, port) = authority_parts(authority, rest)?;
    let host_kind = check_host(host)?;
    let port = port.map(check_port).transpose()?;
    let path = match is_whole {
        true => rest,
        false => rest.trim_end_matches('/'),
    };
    check_path(path.split('?').next().unwrap_or_default(), own)?;
    let suffix = suffix.unwrap_or_default();

    let scheme = if is_encrypted { "https" } else { "http" };
    let uri = format!("{scheme}://{authority}{path}{suffix}");
    let Ok(uri) = uri.parse() else {
        return fault(ConfigProblem::Url, "is not an absolute URL");
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let port = port.unwrap_or(if is_encrypted { 443 } else { 80 });
    Ok(Endpoint {
        uri,
        canonical: format!("{scheme}://{host}:{port}{path}").into(),
        cleartext_host: (!is_encrypted && !host_kind.is_local(&host)).then(|| host.into()),
    })
}

/// RFC 3986 allows these; anything else must be percent-encoded.
fn check_characters(base: &str) -> Parsed<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    if let Some((at, character)) = (1..).zip(base.chars()).find(|(_, c)| !is_plain(*c)) {
        let shown = show(character);
        let message = format!("contains {shown} as character {at}, which no URL may");
        return fault(ConfigProblem::Character, message);
    }
    for (at, _) in base.match_indices('%') {
        let hex = base.get(at + 1..at + 3).unwrap_or_default();
        if hex.len() < 2 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!(
                "contains \"%\" as character {} without two hexadecimal digits after it",
                at + 1
            );
            return fault(ConfigProblem::Character, message);
        }
    }
    Ok(())
}

/// One character as messages show it, whatever it does to a terminal.
pub(crate) fn show(character: char) -> String {
    if character.is_ascii_graphic() {
        format!("\"{character}\"")
    } else {
        match character {
            ' ' => "a space".to_owned(),
            _ => format!("U+{:04X}", u32::from(character)),
        }
    }
}

/// Whether the scheme is `https`, and what follows it.
fn scheme(base: &str) -> Parsed<(bool, &str)> {
    let Some((scheme, rest)) = base.split_once("://") else {
        let shown = address_like(base).map_or(String::new(), |base| format!(" (\"{base}\")"));
        let message = format!("is not an absolute URL{shown}: begin it with https:// or http://");
        return fault(ConfigProblem::Url, message);
    };
    let is_encrypted = scheme.eq_ignore_ascii_case("https");
    if !is_encrypted && !scheme.eq_ignore_ascii_case("http") {
        let is_scheme = |text: &str| {
            let mut bytes = text.bytes();
            bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        let shown = match scheme {
            "" => " (it has none)".to_owned(),
            _ if scheme.len() <= 8 && is_scheme(scheme) => format!(" (\"{scheme}://\")"),
            _ => String::new(),
        };
        let message = format!("begins with neither https:// nor http://{shown}");
        return fault(ConfigProblem::Scheme, message);
    }
    Ok((is_encrypted, rest))
}

/// A text without a scheme, if it can be shown: it looks like an address, and so is not a key in the wrong place.
fn address_like(text: &str) -> Option<&str> {
    let end = text.find(['/', '?', '#']).unwrap_or(text.len());
    let address = text.get(..end)?;
    let (host, port) = address.split_once(':').unwrap_or((address, ""));
    let is_known = host == "localhost" || host.parse::<Ipv4Addr>().is_ok();
    let is_word = |label: &str| {
        (1..=20).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let is_name = host.contains('.') && host.split('.').all(is_word) && host.len() <= 40;
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    ((is_known || is_name) && is_port).then_some(address)
}

/// Host, in brackets if it has them, and port.
fn authority_parts<'a>(authority: &'a str, path: &str) -> Parsed<(&'a str, Option<&'a str>)> {
    let is_scheme = |text: &str| ["http", "https"].contains(&&*text.to_ascii_lowercase());
    let name = authority.strip_suffix(':').unwrap_or(authority);
    if is_scheme(name) && path.starts_with("//") {
        let message = format!("names a scheme twice (\"{name}\" follows \"://\")");
        return fault(ConfigProblem::Host, message);
    }
    if authority.starts_with('[') {
        let Some((address, rest)) = authority.split_once(']') else {
            return fault(
                ConfigProblem::Host,
                "has a host with \"[\" and without \"]\"",
            );
        };
        let host = &authority[..=address.len()];
        return match rest.strip_prefix(':') {
            _ if rest.is_empty() => Ok((host, None)),
            Some(port) => Ok((host, Some(port))),
            None => fault(
                ConfigProblem::Port,
                "has something other than a port after \"]\"",
            ),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((_, port)) if port.contains(':') => fault(
            ConfigProblem::Host,
            "has several \":\" in its host and port: write an IPv6 address in brackets, as in [::1]:8080",
        ),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn check_port(port: &str) -> Parsed<u16> {
    if port.is_empty() {
        return fault(
            ConfigProblem::Port,
            "has \":\" without a port after its host",
        );
    }
    let is_number = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number @ 1..) if is_number => Ok(number),
        _ => {
            // What stands here may be a password whose "@" is missing.
            let shown = if port.len() <= 7 {
                format!("the port \"{port}\"")
            } else {
                format!("a port of {} characters", port.len())
            };
            let message = format!("has {shown}, which is not a number from 1 to 65535");
            fault(ConfigProblem::Port, message)
        }
    }
}

enum Host {
    Address(IpAddr),
    Name,
}

impl Host {
    /// Whether connections to it stay on this machine.
    fn is_local(&self, name: &str) -> bool {
        match self {
            Self::Address(address) => {
                let address = address.to_canonical();
                // Connecting to the unspecified address reaches this machine, too.
                address.is_loopback() || address.is_unspecified()
            }
            Self::Name => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

fn check_host(host: &str) -> Parsed<Host> {
    let wrong = |what: &str| {
        let shown = host.chars().take(64).collect::<String>();
        fault(
            ConfigProblem::Host,
            format!("has a host that {what} (\"{shown}\")"),
        )
    };
    if host.is_empty() {
        return fault(ConfigProblem::Host, "has no host");
    }
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or(address);
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Host::Address(address.into())),
            Err(_) => wrong("is not an IPv6 address"),
        };
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let odd = host.chars().find(|c| {
        let byte = u8::try_from(*c).unwrap_or(0);
        !is_letter(byte) && byte != b'.'
    });
    if let Some(odd) = odd {
        return wrong(&format!("contains {}", show(odd)));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels = || name.split('.');
    if labels().any(str::is_empty) {
        return wrong("has an empty part between dots");
    }
    if name.len() > 253 || labels().any(|label| label.len() > 63) {
        return wrong("is longer than names may be");
    }
    if labels().any(|label| label.starts_with('-') || label.ends_with('-')) {
        return wrong("has a part that begins or ends with \"-\"");
    }
    let last = labels().next_back().unwrap_or_default();
    if is_number(last) {
        return match host.parse::<Ipv4Addr>() {
            Ok(address) => Ok(Host::Address(address.into())),
            Err(_) => wrong("is not an IPv4 address"),
        };
    }
    Ok(Host::Name)
}

/// Whether clients read a host that ends in this as an IPv4 address, in one of its many forms.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn check_path(path: &str, own: &[&str]) -> Parsed<()> {
    let lower = path.to_ascii_lowercase();
    for own in own {
        if lower.ends_with(own) {
            let message = format!("ends in {own}, which is added to it: leave that out");
            return fault(ConfigProblem::Path, message);
        }
    }
    let is_dots = |segment: &str| matches!(&*segment.replace("%2e", "."), "." | "..");
    match lower.split('/').find(|segment| is_dots(segment)) {
        Some(dots) => fault(
            ConfigProblem::Path,
            format!("has the part \"{dots}\" in its path: write the path that it stands for"),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn refused(base: &str) -> (ConfigProblem, String) {
        match parse(base) {
            Ok(endpoint) => panic!("{base:?} is read as {}", endpoint.uri),
            Err(fault) => fault,
        }
    }

    #[test]
    fn a_port_that_is_not_one_is_refused_and_shown() {
        for port in [
            "99999", "65536", "8O80", "-1", "+80", "0", "0x50", "80.", "8_0", "000080", "a", "80=",
        ] {
            for host in ["127.0.0.1", "[::1]", "host.example", "localhost"] {
                let (problem, message) = refused(&format!("http://{host}:{port}/base"));
                assert_eq!(problem, ConfigProblem::Port, "{port}");
                assert!(message.contains(&format!("\"{port}\"")), "{message}");
            }
        }
        assert_eq!(refused("http://host:").0, ConfigProblem::Port);
        assert_eq!(refused("http://host:/x").0, ConfigProblem::Port);
        assert_eq!(refused("http://[::1]8080").0, ConfigProblem::Port);
        let (_, message) = refused("http://user:correct-horse-battery/x");
        assert!(!message.contains("correct"), "{message}");
    }

    #[test]
    fn a_host_that_is_not_one_is_refused() {
        for base in [
            "http://",
            "http:///path",
            "http://:80",
            "http://a..b",
            "http://.host",
            "http://host..",
            "http://.",
            "http://-host",
            "http://host-.example",
            "http://$HOST",
            "http://(host)",
            "http://ho%73t",
            "http://a,b",
            "http://256.1.1.1",
            "http://127.0.0",
            "http://127.0.0.1.5",
            "http://0x7f.1",
            "http://0x7f000001",
            "http://2130706433",
            "http://[::1",
            "http://[::g]",
            "http://[]",
            "http://[1.2.3.4]",
            "http://[fe80::1%25eth0]",
            "http://::1:8080",
            "http://fe80::1",
            "http://http://x",
            "https://http://x",
            "http://HTTPS//x",
            "http://a]",
        ] {
            let (problem, message) = refused(base);
            assert_eq!(problem, ConfigProblem::Host, "{base}: {message}");
        }
        let long = format!("http://{}.example", "a".repeat(64));
        assert_eq!(refused(&long).0, ConfigProblem::Host);
    }

    #[test]
    fn a_text_that_is_no_url_is_refused_and_shown_only_if_it_is_an_address() {
        for base in ["localhost:8080", "127.0.0.1:8080/x", "api.example.com/x"] {
            let (problem, message) = refused(base);
            assert_eq!(problem, ConfigProblem::Url);
            let address = base.split('/').next().unwrap_or_default();
            assert!(message.contains(address), "{message}");
        }
        for base in [
            "sk-0123456789abcdef",
            "eyJhbGciOi.eyJzdWIi.c2ln",
            "/x/y",
            "http:/x",
            "http:x",
        ] {
            let (problem, message) = refused(base);
            assert_eq!(problem, ConfigProblem::Url, "{base}");
            assert!(!message.contains(base), "{message}");
        }
        for base in [
            "ftp://host",
            "file:///x",
            "://host",
            "httpss://x",
            "ws://host",
            "HTTP+x://h",
        ] {
            assert_eq!(refused(base).0, ConfigProblem::Scheme, "{base}");
        }
        assert!(refused("ftp://host").1.contains("\"ftp://\""));
    }

    #[test]
    fn userinfo_query_and_fragment_are_refused_and_not_shown() {
        for (base, problem) in [
            ("https://me:secret@host", ConfigProblem::Userinfo),
            ("https://secret@host", ConfigProblem::Userinfo),
            ("https://@host", ConfigProblem::Userinfo),
            ("https://a:b@secret@host:1/x?y", ConfigProblem::Userinfo),
            ("https://host?secret", ConfigProblem::Query),
            ("https://host/?", ConfigProblem::Query),
            ("https://host/a?secret=b#c", ConfigProblem::Query),
            ("https://host/#secret", ConfigProblem::Query),
            ("https://host#", ConfigProblem::Query),
        ] {
            let (found, message) = refused(base);
            assert_eq!(found, problem, "{base}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn characters_that_no_url_has_are_refused_and_shown() {
        for (base, shown) in [
            ("http://a b", "a space as character 9"),
            ("http://host\r\nx: y", "U+000D"),
            ("http://host/\u{0}", "U+0000"),
            ("http://h\u{f6}st", "U+00F6"),
            ("http://host\u{200b}", "U+200B"),
            ("\u{feff}http://host", "U+FEFF as character 1,"),
            ("\"http://host\"", "\"\"\" as character 1,"),
            ("http://<host>", "\"<\""),
            ("http://${HOST}", "\"{\""),
            ("http:\\\\host", "\"\\\""),
            ("http://host/a|b", "\"|\""),
            ("http://host/%", "\"%\""),
            ("http://host/%4", "\"%\""),
            ("http://host/%zz", "\"%\""),
        ] {
            let (problem, message) = refused(base);
            assert_eq!(problem, ConfigProblem::Character, "{base}");
            assert!(message.contains(shown), "{message}");
        }
        let long = format!("http://host/{}", "a".repeat(MAX_BYTES));
        assert_eq!(refused(&long).0, ConfigProblem::TooLong);
    }

    #[test]
    fn a_path_that_already_leads_to_the_endpoint_or_out_of_itself_is_refused() {
        for base in [
            "https://host/api/v1/telemetry",
            "https://host/api/v1/telemetry/",
            "https://host/services/API/v1/Telemetry//",
            "https://host/api/v1",
            "https://host/a/../b",
            "https://host/./b",
            "https://host/a/..",
            "https://host/%2E%2e/b",
            "https://host/.%2e",
        ] {
            assert_eq!(refused(base).0, ConfigProblem::Path, "{base}");
        }
    }

    #[test]
    fn what_works_is_accepted_and_has_one_canonical_form() {
        for (base, uri, canonical) in [
            (
                "http://127.0.0.1:1",
                "http://127.0.0.1:1",
                "http://127.0.0.1:1",
            ),
            (
                "HTTPS://Host.example/",
                "https://Host.example",
                "https://host.example:443",
            ),
            (
                "https://host.example.:443/a/b//",
                "https://host.example.:443/a/b",
                "https://host.example:443/a/b",
            ),
            (
                "https://[::1]:8443/x",
                "https://[::1]:8443/x",
                "https://[::1]:8443/x",
            ),
            (
                "http://my_service:00080",
                "http://my_service:00080",
                "http://my_service:80",
            ),
            (
                "http://xn--hst-sna.example/a%20b/~c@d",
                "http://xn--hst-sna.example/a%20b/~c@d",
                "http://xn--hst-sna.example:80/a%20b/~c@d",
            ),
            (
                "https://host/api",
                "https://host/api",
                "https://host:443/api",
            ),
            (
                "https://3com.example/.a/..b",
                "https://3com.example/.a/..b",
                "https://3com.example:443/.a/..b",
            ),
        ] {
            let endpoint = parse(base).unwrap_or_else(|(_, message)| panic!("{base} {message}"));
            assert_eq!(endpoint.uri.to_string(), format!("{uri}{PATH}"));
            assert_eq!(&*endpoint.canonical, canonical);
        }
    }

    #[test]
    fn only_plain_http_to_another_machine_is_cleartext() {
        for (base, host) in [
            ("http://host.example", Some("host.example")),
            ("http://10.0.0.1:8080", Some("10.0.0.1")),
            ("http://localhost.example", Some("localhost.example")),
            ("http://[fe80::1]", Some("[fe80::1]")),
            ("https://host.example", None),
            ("http://LOCALHOST:80", None),
            ("http://a.localhost.", None),
            ("http://127.8.0.1", None),
            ("http://[::1]:1", None),
            ("http://[::ffff:127.0.0.1]", None),
            ("http://0.0.0.0", None),
        ] {
            let endpoint = parse(base).unwrap_or_else(|(_, message)| panic!("{base} {message}"));
            assert_eq!(endpoint.cleartext_host.as_deref(), host, "{base}");
        }
    }
}
