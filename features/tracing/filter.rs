//! Which events and spans become telemetry: by target and level, and never what telemetry itself brings about.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use tracing_core::subscriber::Interest;
use tracing_core::{Level, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// The crates that transports are made of, this one included.
///
/// What they emit never becomes telemetry, however it is filtered: sending it would make them emit more.
pub(super) const ORIGINS: &[&str] = &[
    "async_compat",
    "async_executor",
    "async_h1",
    "async_io",
    "async_native_tls",
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

/// What a [`TelemetryLayer`](super::TelemetryLayer) selects, as a filter of its own; see
/// [`TelemetryLayer::filtered`](super::TelemetryLayer::filtered).
#[derive(Clone)]
pub struct TelemetryFilter {
    pub(super) level: LevelFilter,
    /// The longest first.
    targets: Vec<(String, LevelFilter)>,
    excluded: Vec<String>,
    /// The most that any of them lets through.
    most: LevelFilter,
}

impl TelemetryFilter {
    pub(super) const fn new() -> Self {
        Self {
            level: LevelFilter::INFO,
            targets: Vec::new(),
            excluded: Vec::new(),
            most: LevelFilter::INFO,
        }
    }

    pub(super) fn set_level(&mut self, level: LevelFilter) {
        self.level = level;
        self.note_most();
    }

    pub(super) fn set_target(&mut self, target: String, level: LevelFilter) {
        self.targets.retain(|(other, _)| *other != target);
        self.targets.push((target, level));
        self.targets
            .sort_by_key(|(target, _)| core::cmp::Reverse(target.len()));
        self.note_most();
    }

    pub(super) fn exclude(&mut self, target: String) {
        self.excluded.push(target);
    }

    /// Nothing at all, for a session that is switched off.
    pub(super) fn set_off(&mut self) {
        self.targets.clear();
        self.set_level(LevelFilter::OFF);
    }

    fn note_most(&mut self) {
        let levels = self.targets.iter().map(|(_, level)| *level);
        self.most = levels.fold(self.level, Ord::max);
    }

    /// Whether something of this level and target is wanted.
    pub(super) fn admits(&self, level: Level, target: &str) -> bool {
        level <= self.most && level <= self.level_of(target) && !self.is_excluded(target)
    }

    fn level_of(&self, target: &str) -> LevelFilter {
        let mut levels = self.targets.iter();
        levels
            .find(|(prefix, _)| is_within(target, prefix))
            .map_or(self.level, |(_, level)| *level)
    }

    fn is_excluded(&self, target: &str) -> bool {
        is_of_transport(target) || self.excluded.iter().any(|prefix| is_within(target, prefix))
    }
}

/// Whether a target is one of [`ORIGINS`] or a module of one.
fn is_of_transport(target: &str) -> bool {
    let bytes = target.as_bytes();
    let end = bytes.iter().position(|&byte| byte == b':');
    let origin = &bytes[..end.unwrap_or(bytes.len())];
    let Some(first) = origin.first() else {
        return false;
    };
    // Next to all targets end here.
    let has_such = LENGTHS[usize::from(first % 32)] & bit(origin.len()) != 0;
    has_such && ORIGINS.iter().any(|other| other.as_bytes() == origin)
}

/// By first letter, the lengths of the origins, a bit each.
const LENGTHS: [u32; 32] = {
    let mut lengths = [0; 32];
    let mut at = 0;
    while at < ORIGINS.len() {
        let origin = ORIGINS[at].as_bytes();
        lengths[(origin[0] % 32) as usize] |= bit(origin.len());
        at += 1;
    }
    lengths
};

const fn bit(length: usize) -> u32 {
    1 << (length % 32)
}

/// Whether a target is this one or one of its modules.
fn is_within(target: &str, prefix: &str) -> bool {
    target
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The target of all records of the `log` facade, as tracing sees them at first.
pub(super) const LOG: &str = "log";

impl<S: Subscriber> Filter<S> for TelemetryFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.admits(*metadata.level(), metadata.target())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == LOG {
            return Interest::sometimes();
        }
        if self.admits(*metadata.level(), metadata.target()) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }
}

impl fmt::Debug for TelemetryFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryFilter")
            .field("level", &self.level)
            .field("targets", &self.targets)
            .field("excluded", &self.excluded)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_target_counts_and_ends_where_a_module_does() {
        let mut filter = TelemetryFilter::new();
        filter.set_target("app".into(), LevelFilter::WARN);
        filter.set_target("app::db".into(), LevelFilter::TRACE);
        filter.set_target("app::db::pool".into(), LevelFilter::OFF);
        assert!(!filter.admits(Level::INFO, "app"));
        assert!(filter.admits(Level::WARN, "app::net"));
        assert!(filter.admits(Level::TRACE, "app::db::query"));
        assert!(!filter.admits(Level::ERROR, "app::db::pool"));
        assert!(filter.admits(Level::INFO, "application"));
        assert!(!filter.admits(Level::DEBUG, "application"));
    }

    #[test]
    fn what_transports_emit_is_left_out_whatever_is_asked_for() {
        let mut filter = TelemetryFilter::new();
        filter.set_level(LevelFilter::TRACE);
        filter.set_target("hyper".into(), LevelFilter::TRACE);
        for target in [
            "hyper",
            "hyper::proto::h1",
            "tinkex_telemetry",
            "ureq_proto::util",
        ] {
            assert!(!filter.admits(Level::ERROR, target), "{target}");
        }
        assert!(filter.admits(Level::TRACE, "hyperion"));
        assert!(filter.admits(Level::TRACE, "my::hyper"));
        filter.exclude("my".into());
        assert!(!filter.admits(Level::ERROR, "my::hyper"));
        assert!(filter.admits(Level::TRACE, "mine"));
    }

    #[test]
    fn origins_are_crates_each_of_them_once() {
        assert!(ORIGINS.is_sorted());
        assert!(ORIGINS.windows(2).all(|two| two[0] != two[1]));
        assert!(ORIGINS.iter().all(|origin| !origin.contains(':')));
    }
}
