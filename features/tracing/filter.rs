//! Which events and spans become telemetry: by target and level, and never what telemetry itself causes.

use crate::features::origins;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use tracing_core::subscriber::Interest;
use tracing_core::{Level, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// What a [`TelemetryLayer`](super::TelemetryLayer) selects, as a per-layer filter; see
/// [`TelemetryLayer::filtered`](super::TelemetryLayer::filtered).
#[derive(Clone)]
pub struct TelemetryFilter {
    pub(super) level: LevelFilter,
    /// Longest target first.
    targets: Vec<(String, LevelFilter)>,
    excluded: Vec<String>,
    /// The most verbose of all these levels.
    max_level: LevelFilter,
}

impl TelemetryFilter {
    pub(super) const fn new() -> Self {
        Self {
            level: LevelFilter::INFO,
            targets: Vec::new(),
            excluded: Vec::new(),
            max_level: LevelFilter::INFO,
        }
    }

    pub(super) fn set_level(&mut self, level: LevelFilter) {
        self.level = level;
        self.update_max_level();
    }

    pub(super) fn set_target(&mut self, target: String, level: LevelFilter) {
        self.targets.retain(|(other, _)| *other != target);
        self.targets.push((target, level));
        self.targets
            .sort_by_key(|(target, _)| core::cmp::Reverse(target.len()));
        self.update_max_level();
    }

    pub(super) fn exclude(&mut self, target: String) {
        self.excluded.push(target);
    }

    /// Selects nothing, for a session that is switched off.
    pub(super) fn set_off(&mut self) {
        self.targets.clear();
        self.set_level(LevelFilter::OFF);
    }

    fn update_max_level(&mut self) {
        let levels = self.targets.iter().map(|(_, level)| *level);
        self.max_level = levels.fold(self.level, Ord::max);
    }

    /// Whether events and spans of this level and target are selected.
    pub(super) fn admits(&self, level: Level, target: &str) -> bool {
        level <= self.max_level && level <= self.level_of(target) && !self.is_excluded(target)
    }

    fn level_of(&self, target: &str) -> LevelFilter {
        let mut levels = self.targets.iter();
        levels
            .find(|(prefix, _)| is_within(target, prefix))
            .map_or(self.level, |(_, level)| *level)
    }

    fn is_excluded(&self, target: &str) -> bool {
        origins::is_transport(target)
            || self.excluded.iter().any(|prefix| is_within(target, prefix))
    }
}

/// Whether `target` is `prefix` or one of its modules.
fn is_within(target: &str, prefix: &str) -> bool {
    target
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The target that `tracing-log` gives to all records of the `log` facade.
pub(super) const LOG_TARGET: &str = "log";

impl<S: Subscriber> Filter<S> for TelemetryFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.admits(*metadata.level(), metadata.target())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == LOG_TARGET {
            return Interest::sometimes();
        }
        if self.admits(*metadata.level(), metadata.target()) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.max_level)
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
    fn the_longest_target_counts_and_matches_whole_module_names() {
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
    fn transport_crates_are_excluded_whatever_the_filter_says() {
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
}
