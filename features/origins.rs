//! The crates whose logs telemetry itself causes, by the first part of their targets.

/// The crates that transports use, this one included, sorted.
///
/// What they log never becomes telemetry through the tracing layer, whatever its filter says: sending it would make them
/// log more.
// Add the crates of a new HTTP client here.
pub const ORIGINS: &[&str] = &[
    "async_compat",
    "async_executor",
    "async_h1",
    "async_io",
    "async_native_tls",
    "async_nats",
    "async_net",
    "async_std",
    "async_tls",
    "blocking",
    "curl",
    "h2",
    "h3",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "http_client",
    "http_types",
    "hyper",
    "hyper_rustls",
    "hyper_tls",
    "hyper_util",
    "isahc",
    "mio",
    "native_tls",
    "polling",
    "quinn",
    "quinn_proto",
    "quinn_udp",
    "reqwest",
    "rustls",
    "rustls_native_certs",
    "rustls_platform_verifier",
    "rustls_webpki",
    "smol",
    "surf",
    "tinkex_telemetry",
    "tokio",
    "tokio_native_tls",
    "tokio_rustls",
    "tokio_util",
    "tower",
    "trust_dns_proto",
    "trust_dns_resolver",
    "ureq",
    "ureq_proto",
    "want",
    "webpki",
];

/// Whether a record or event with this target comes from this crate, or from a crate that transports use: an HTTP
/// client, TLS, a runtime. Its first part decides, as in `hyper::proto`.
///
/// A logger or subscriber that forwards what it sees to a session should leave such records out. The session refuses
/// what its own work logs ([`OwnWork`](crate::stats::Refusal::OwnWork)), but cannot recognize what a client logs in tasks
/// of its own, as for a connection that several requests share.
///
/// ```
/// use tinkex_telemetry::targets;
///
/// assert!(targets::is_transport("hyper::proto::h1"));
/// assert!(!targets::is_transport("my_app::hyper"));
/// ```
#[must_use]
pub fn is_transport(target: &str) -> bool {
    let bytes = target.as_bytes();
    let end = bytes.iter().position(|&byte| byte == b':');
    let origin = &bytes[..end.unwrap_or(bytes.len())];
    let Some(first) = origin.first() else {
        return false;
    };
    // Almost all other targets fail this check.
    let may_match = LENGTHS[usize::from(first % 32)] & bit(origin.len()) != 0;
    may_match && ORIGINS.iter().any(|other| other.as_bytes() == origin)
}

/// For each first letter, a bit for each length that an origin with that letter has.
const LENGTHS: [u32; 32] = {
    let mut lengths = [0; 32];
    let mut index = 0;
    while index < ORIGINS.len() {
        let origin = ORIGINS[index].as_bytes();
        lengths[(origin[0] % 32) as usize] |= bit(origin.len());
        index += 1;
    }
    lengths
};

const fn bit(length: usize) -> u32 {
    1 << (length % 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_sorted_unique_crate_names() {
        assert!(ORIGINS.is_sorted());
        assert!(ORIGINS.windows(2).all(|two| two[0] != two[1]));
        assert!(ORIGINS.iter().all(|origin| !origin.contains(':')));
    }
}
