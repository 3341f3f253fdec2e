//! Which proxy a request goes through: by the variables of the environment, or by a client's setting.

use super::client::HttpError;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, sync::Arc};
use core::net::IpAddr;
use http::Uri;
use http::uri::{Authority, Scheme};

/// The proxies of one client.
#[derive(Clone)]
pub(crate) struct Proxies(Arc<Kind>);

enum Kind {
    None,
    /// For every URL: the program has asked for it.
    One(String),
    Environment(Environment),
}

#[derive(Default)]
struct Environment {
    /// For `http://`, `https://`.
    proxies: [Option<Variable>; 2],
    exceptions: Vec<Exception>,
}

#[derive(Clone)]
struct Variable {
    name: &'static str,
    value: String,
}

impl Proxies {
    pub(crate) fn none() -> Self {
        Self(Arc::new(Kind::None))
    }

    pub(crate) fn one(url: &str) -> Result<Self, HttpError> {
        Ok(Self(Arc::new(Kind::One(parse("proxy", url)?))))
    }

    /// As the environment is now.
    pub(crate) fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = get(name)?.trim().to_owned();
                (!value.is_empty()).then_some(Variable { name, value })
            })
        };
        let all = first(&["all_proxy", "ALL_PROXY"]);
        // Under CGI, a request's header `Proxy` becomes the variable `HTTP_PROXY`. Windows does not tell cases apart.
        let is_cgi = get("REQUEST_METHOD").is_some();
        let http = first(match is_cgi {
            false => &["http_proxy", "HTTP_PROXY"],
            true if cfg!(windows) => &[],
            true => &["http_proxy"],
        });
        let https = first(&["https_proxy", "HTTPS_PROXY"]);
        let exceptions = first(&["no_proxy", "NO_PROXY"]).map_or_else(Vec::new, |list| {
            let entries = list.value.split(|c: char| c == ',' || c.is_whitespace());
            entries.filter_map(Exception::parse).collect()
        });
        Self(Arc::new(Kind::Environment(Environment {
            proxies: [http.or_else(|| all.clone()), https.or(all)],
            exceptions,
        })))
    }

    /// The URL of the proxy for `url`, with its credentials; `None` if the request goes directly.
    ///
    /// Fails if there is one that cannot be used. The message names the setting, never a credential.
    pub(crate) fn find(&self, url: &Uri) -> Result<Option<String>, HttpError> {
        match &*self.0 {
            Kind::None => Ok(None),
            Kind::One(proxy) => Ok(Some(proxy.clone())),
            Kind::Environment(environment) => environment.find(url),
        }
    }
}

impl Environment {
    fn find(&self, url: &Uri) -> Result<Option<String>, HttpError> {
        let is_https = url.scheme() == Some(&Scheme::HTTPS);
        let Some(variable) = &self.proxies[usize::from(is_https)] else {
            return Ok(None);
        };
        let host = plain_host(url.host().unwrap_or_default());
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if is_loopback(host) || self.exceptions.iter().any(|it| it.covers(host, port)) {
            return Ok(None);
        }
        parse(variable.name, &variable.value).map(Some)
    }
}

/// Without brackets and the dot at the end.
fn plain_host(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => is_within(host, "localhost"),
    }
}

/// Whether `host` is `domain` or a name under it.
fn is_within(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.as_bytes(), domain.as_bytes());
    let Some(split) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    host[split..].eq_ignore_ascii_case(domain) && (split == 0 || host[split - 1] == b'.')
}

/// An entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// The domain and the names under it.
    Domain(String),
    /// Addresses that have the first bits in common.
    Network(IpAddr, u8),
}

impl Exception {
    /// `None` for what no host can match.
    fn parse(entry: &str) -> Option<Self> {
        if let Some(hosts) = Hosts::parse(entry) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = entry.rsplit_once(':')?;
        let (hosts, port) = (Hosts::parse(host)?, port.parse().ok());
        port.map(|port| Self {
            hosts,
            port: Some(port),
        })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        match &self.hosts {
            Hosts::All => true,
            Hosts::Domain(domain) => is_within(host, domain),
            Hosts::Network(network, bits) => host
                .parse::<IpAddr>()
                .is_ok_and(|address| is_in(address.to_canonical(), *network, *bits)),
        }
    }
}

impl Hosts {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (entry, None),
        };
        if let Ok(address) = plain_host(address).parse::<IpAddr>() {
            let max = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.unwrap_or(max);
            return (bits <= max).then_some(Self::Network(address, bits));
        }
        let domain = entry.strip_prefix('*').unwrap_or(entry);
        let domain = plain_host(domain.strip_prefix('.').unwrap_or(domain));
        let is_name = !domain.is_empty() && !domain.contains([':', '/', '*']);
        is_name.then(|| Self::Domain(domain.to_owned()))
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differ = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= u32::from(bits)
}

/// Schemes that an error may show: other text before `://` might be a credential.
const KNOWN_SCHEMES: [&str; 6] = ["socks", "socks4", "socks4a", "socks5", "socks5h", "ftp"];

/// The URL with its scheme, without a path.
fn parse(setting: &str, url: &str) -> Result<String, HttpError> {
    let fail = |problem: &str| {
        let advice = "set the URL of an http:// or https:// proxy";
        HttpError::new(format_args!("{setting}: {problem}; {advice}")).not_retryable()
    };
    let (scheme, rest) = match url.trim().split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ("http".to_owned(), url.trim()),
    };
    if !matches!(&*scheme, "http" | "https") {
        return Err(match KNOWN_SCHEMES.contains(&&*scheme) {
            true => fail(&format!("{scheme}:// proxies are not supported")),
            false => fail("proxies of this scheme are not supported"),
        });
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let parsed: Result<Authority, _> = authority.parse();
    let Ok(parsed) = parsed else {
        return Err(fail("this is not the URL of a proxy"));
    };
    let after_host = parsed.as_str().rsplit('@').next().unwrap_or_default();
    let port = after_host.strip_prefix(parsed.host()).unwrap_or_default();
    let has_port = match port.strip_prefix(':') {
        Some(port) => matches!(port.parse::<u16>(), Ok(1..)),
        None => port.is_empty(),
    };
    if plain_host(parsed.host()).is_empty() || !has_port {
        return Err(fail("this is not the URL of a proxy"));
    }
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn found(variables: &[(&str, &str)], url: &str) -> Result<Option<String>, String> {
        let get = |name: &str| {
            let variable = variables.iter().find(|(set, _)| *set == name);
            variable.map(|(_, value)| (*value).to_owned())
        };
        let url = url.parse().unwrap();
        let found = Proxies::from_variables(get).find(&url);
        found.map_err(|error| error.to_string())
    }

    fn proxy(url: &str) -> Result<Option<String>, String> {
        Ok(Some(url.to_owned()))
    }

    #[test]
    fn the_variable_of_the_scheme_comes_before_that_of_all() {
        let variables = [
            ("HTTP_PROXY", "one:1"),
            ("https_proxy", "https://two:2/"),
            ("HTTPS_PROXY", "three:3"),
            ("ALL_PROXY", "four:4"),
        ];
        assert_eq!(found(&variables, "http://host/"), proxy("http://one:1"));
        assert_eq!(found(&variables, "https://host/"), proxy("https://two:2"));
        assert_eq!(
            found(&variables[3..], "http://host/"),
            proxy("http://four:4")
        );
        assert_eq!(found(&[("HTTP_PROXY", " ")], "http://host/"), Ok(None));
        assert_eq!(found(&[("HTTP_PROXY", "a:1")], "https://host/"), Ok(None));
    }

    #[test]
    fn under_cgi_the_variable_that_a_request_can_set_is_ignored() {
        let cgi = [("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(found(&cgi, "http://host/"), Ok(None));
        let lower = [("http_proxy", "own:1"), ("REQUEST_METHOD", "GET")];
        let expected = if cfg!(windows) {
            Ok(None)
        } else {
            proxy("http://own:1")
        };
        assert_eq!(found(&lower, "http://host/"), expected);
        let secure = [("HTTPS_PROXY", "own:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(found(&secure, "https://host/"), proxy("http://own:1"));
    }

    #[test]
    fn loopback_is_exempt() {
        for url in [
            "http://localhost:80/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://127.0.0.1/",
            "http://127.9.9.9:1/",
            "http://[::1]:1/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert_eq!(found(&[("ALL_PROXY", "p:1")], url), Ok(None), "{url}");
        }
        let other = found(&[("ALL_PROXY", "p:1")], "http://notlocalhost/");
        assert_eq!(other, proxy("http://p:1"));
    }

    #[test]
    fn no_proxy_names_domains_addresses_networks_and_ports() {
        for (list, url, is_exempt) in [
            ("*", "http://host/", true),
            ("a.com , b.com", "http://b.com/", true),
            ("a.com b.com", "http://x.b.com./", true),
            (" .A.com", "http://x.a.COM/", true),
            ("*.a.com", "http://a.com/", true),
            ("a.com", "http://ba.com/", false),
            ("a.com:8080", "http://a.com:8080/", true),
            ("a.com:8080", "http://a.com/", false),
            ("a.com:80", "http://a.com/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8,", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("10.1.2.3", "http://10.1.2.3:99/", true),
            ("10.1.2.3", "http://10.1.2.30/", false),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("[fd12::1]:80", "http://[fd12::1]/", true),
            ("fd12::1", "http://[fd12::2]/", false),
            ("10.0.0.0/33", "http://10.0.0.0/", false),
            ("10.0.0.0/x", "http://10.0.0.0/", false),
            (",, ,", "http://host/", false),
        ] {
            let variables = [("http_proxy", "p:1"), ("NO_PROXY", list)];
            let expected = if is_exempt {
                Ok(None)
            } else {
                proxy("http://p:1")
            };
            assert_eq!(found(&variables, url), expected, "{list} {url}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_that_names_the_variable_and_no_credential() {
        for (value, problem) in [
            ("socks5://me:secret@p:1", "socks5:// proxies are not"),
            ("SOCKS5h://secret@p:1", "socks5h:// proxies are not"),
            ("secret://p:1", "proxies of this scheme are not"),
            ("http://me:secret@p:99999", "this is not the URL"),
            ("http://me:secret@p:0", "this is not the URL"),
            ("http://me:secret@", "this is not the URL"),
            ("http://me:secret@p:x y", "this is not the URL"),
            ("http://", "this is not the URL"),
        ] {
            let error = found(&[("ALL_PROXY", value)], "https://host/").unwrap_err();
            assert!(
                error.starts_with(&format!("ALL_PROXY: {problem}")),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
            let loopback = found(&[("ALL_PROXY", value)], "https://localhost/");
            assert_eq!(loopback, Ok(None), "nothing goes through it");
        }
        let good = found(&[("ALL_PROXY", "http://me:pw@[::1]:3128/")], "http://h/");
        assert_eq!(good, proxy("http://me:pw@[::1]:3128"));
    }
}
