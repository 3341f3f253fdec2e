//! Options from the environment.

use super::assembly::report_setting;
use crate::diagnostic::Observer;
use crate::session::options::{OptionError, Options};
use crate::session::switch::{self, Switch};
use crate::text::Text;
use crate::text::near::Nearest;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::OsString;

/// What the name of each option's variable begins with.
const PREFIX: &str = "TINKER_TELEMETRY_";

/// A value that repeats it is not shown.
const KEY_VARIABLE: &str = "TINKER_API_KEY";

/// The option that has a variable of its own; see [`Options::enabled`].
const SWITCH: &str = "enabled";

/// Variables that begin alike, and that are read elsewhere.
const NO_OPTIONS: [&str; 2] = [switch::ENABLED, "TINKER_TELEMETRY_SPOOL"];

/// # From the environment
impl Options {
    /// The defaults, changed by the variables; see [`with_env`](Self::with_env).
    ///
    /// ```
    /// use tinkex_telemetry::Options;
    ///
    /// // What the program sets here wins over the environment.
    /// let options = Options { max_batch_size: 50, ..Options::from_env()? };
    /// # drop(options);
    /// # Ok::<_, tinkex_telemetry::session::VariableError>(())
    /// ```
    ///
    /// # Errors
    /// As for [`with_env`](Self::with_env).
    pub fn from_env() -> Result<Self, VariableError> {
        Self::default().with_env()
    }

    /// These options, changed by the variables that are set: each option `x_y` by `TINKER_TELEMETRY_X_Y`. So the
    /// environment wins over what the options were before, and a builder's setters, called later, win over the
    /// environment.
    ///
    /// Durations are written `10s`, `250ms` or `1m30s`, sizes `65536` or `64KiB`, lists `a,b`. An empty variable counts
    /// as not set. The option [`enabled`](Self::enabled) has switches of its own in the environment: if one is set, the
    /// option becomes `None`, and a session reads them when it is built. A variable that begins with `TINKER_TELEMETRY_`
    /// and belongs to no option is [reported](crate::diagnostic::DiagnosticKind::Setting) through the `log` facade, once
    /// per process, with the nearest that does.
    ///
    /// # Errors
    /// A [`VariableError`] that names the variable and says what it must be, if the value is not one that the option can
    /// have. Whether the options fit together is checked when a session is built.
    pub fn with_env(self) -> Result<Self, VariableError> {
        static ARE_TOLD: AtomicBool = AtomicBool::new(false);
        let (mut options, unknown) = read(self, std::env::vars_os(), cfg!(windows))?;
        if Switch::is_set(|name| std::env::var_os(name)) {
            options.enabled = None;
        }
        if !unknown.is_empty() && !ARE_TOLD.swap(true, Ordering::Relaxed) {
            for unknown in unknown {
                report_setting(&Observer::Log, "", &unknown);
            }
        }
        Ok(options)
    }
}

/// The options, changed by these variables, and what to say of those that belong to no option. On Windows the case of a
/// variable's name does not matter.
fn read(
    mut options: Options,
    variables: impl Iterator<Item = (OsString, OsString)>,
    ignores_case: bool,
) -> Result<(Options, Vec<String>), VariableError> {
    let mut secret = None;
    let mut ours: BTreeMap<String, OsString> = variables
        .filter_map(|(name, value)| {
            let mut name = name.into_string().ok()?;
            if ignores_case {
                name.make_ascii_uppercase();
            }
            Some((name, value))
        })
        .inspect(|(name, value)| {
            if name == KEY_VARIABLE {
                secret = value.to_str().map(|key| key.trim().to_owned());
            }
        })
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    let secret = secret.filter(|secret| !secret.is_empty());
    let names = Options::NAMES.iter().copied();
    for option in names.filter(|option| *option != SWITCH) {
        let variable = variable_of(option);
        let Some(value) = ours.remove(&variable) else {
            continue;
        };
        let error = |problem: &dyn fmt::Display| VariableError {
            message: format!("{variable} {problem}").into(),
            variable: variable.as_str().into(),
        };
        let Some(text) = value.to_str().map(str::trim) else {
            return Err(error(&"is not Unicode"));
        };
        if text.is_empty() {
            continue;
        }
        options.set(option, text).map_err(|refused| {
            let is_secret = secret
                .as_deref()
                .is_some_and(|secret| text.contains(secret));
            if is_secret {
                error(&"repeats TINKER_API_KEY, which belongs in no option")
            } else {
                error(&refused)
            }
        })?;
    }
    for other in NO_OPTIONS {
        ours.remove(other);
    }
    let unknown = ours.into_keys().map(|name| unknown(&name)).collect();
    Ok((options, unknown))
}

/// What to say of a variable that belongs to no option.
fn unknown(name: &str) -> String {
    let nearest = Nearest::to(&name[PREFIX.len()..], Options::NAMES.iter().copied());
    let shown = nearest.shown(|option, f| f.write_str(&variable_of(option)));
    let name = Text::<48>::new(name.escape_debug());
    format!("{name} belongs to no option: {shown}")
}

fn variable_of(option: &str) -> String {
    match option {
        SWITCH => switch::SWITCH.to_string(),
        option => PREFIX.to_owned() + &option.to_ascii_uppercase(),
    }
}

/// A variable whose value its option cannot have, or which does not fit the other options. The message names the variable
/// and says what it must be.
#[derive(Clone, PartialEq, Eq)]
pub struct VariableError {
    variable: Box<str>,
    message: Box<str>,
}

impl VariableError {
    /// What is wrong with options that the environment has set and that do not fit together, in terms of their variables;
    /// `None` if no variable sets any of them. It names each variable that does.
    ///
    /// For a program whose options all come from [`Options::from_env`], as for `init`. A builder knows nothing of
    /// variables: its [`BuildError::Option`](crate::session::BuildError::Option) names the options.
    #[must_use]
    pub fn of_combination(error: &OptionError) -> Option<Self> {
        Self::of(error, |name| std::env::var_os(name))
    }

    fn of(error: &OptionError, value: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let is_set = |name: &String| {
            value(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
        };
        let all = error.options().map(variable_of);
        let (set, unset): (Vec<_>, Vec<_>) = all.partition(is_set);
        let first = set.first()?;
        let verb = if set.len() == 1 { "does" } else { "do" };
        let mut message = format!(
            "{} {verb} not fit the other options: {error}",
            set.join(" and ")
        );
        if !unset.is_empty() {
            message.push_str("; change it, or set ");
            message.push_str(&unset.join(" and "));
            message.push_str(" as well");
        }
        Some(Self {
            variable: first.as_str().into(),
            message: message.into(),
        })
    }

    /// The name of the variable.
    #[must_use]
    pub const fn variable(&self) -> &str {
        &self.variable
    }
}

impl fmt::Display for VariableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

crate::text::debug_with_causes!(VariableError);

impl core::error::Error for VariableError {}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn read(variables: &[(&str, &str)]) -> Result<(Options, Vec<String>), String> {
        read_as(variables, false)
    }

    fn read_as(
        variables: &[(&str, &str)],
        ignores_case: bool,
    ) -> Result<(Options, Vec<String>), String> {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        super::read(Options::default(), variables, ignores_case).map_err(|error| {
            let message = error.to_string();
            assert!(message.starts_with(error.variable()), "{message}");
            message
        })
    }

    #[test]
    fn each_option_has_its_variable() {
        let (options, unknown) = read(&[
            ("TINKER_TELEMETRY_FLUSH_INTERVAL", "2s"),
            ("TINKER_TELEMETRY_FLUSH_THRESHOLD", "5"),
            ("TINKER_TELEMETRY_FLUSH_TIMEOUT", "3s"),
            ("TINKER_TELEMETRY_DROP_TIMEOUT", "1m30s"),
            ("TINKER_TELEMETRY_HTTP_TIMEOUT", " 250 ms "),
            ("TINKER_TELEMETRY_GIVE_UP", "WhenFull"),
            ("TINKER_TELEMETRY_MAX_RETRIES", "7"),
            ("TINKER_TELEMETRY_RETRY_BASE_DELAY", "10ms"),
            ("TINKER_TELEMETRY_RETRY_MAX_DELAY", "2m"),
            ("TINKER_TELEMETRY_MAX_QUEUE_SIZE", "50"),
            ("TINKER_TELEMETRY_MAX_QUEUE_BYTES", "1MiB"),
            ("TINKER_TELEMETRY_RESERVE", "0"),
            ("TINKER_TELEMETRY_MAX_BATCH_SIZE", "9"),
            ("TINKER_TELEMETRY_MAX_BATCH_BYTES", "300000"),
            ("TINKER_TELEMETRY_MIN_SEVERITY", "warning"),
            ("TINKER_TELEMETRY_MAX_EVENT_BYTES", "4KiB"),
            ("TINKER_TELEMETRY_MAX_DATA_DEPTH", "unlimited"),
            ("TINKER_TELEMETRY_MAX_STRING_BYTES", "100"),
            ("TINKER_TELEMETRY_MAX_FIELDS", "20"),
            ("TINKER_TELEMETRY_ATTACH_EVENTS", "off"),
            ("TINKER_TELEMETRY_EVENTS", "app.started, app.ended,"),
            ("TINKER_TELEMETRY_HANDLER_ID", "mine"),
        ])
        .expect("all are valid");
        let expected = Options {
            flush_interval: Duration::from_secs(2),
            flush_threshold: 5,
            flush_timeout: Duration::from_secs(3),
            drop_timeout: Duration::from_secs(90),
            http_timeout: Duration::from_millis(250),
            give_up: crate::GiveUp::WhenFull,
            max_retries: 7,
            retry_base_delay: Duration::from_millis(10),
            retry_max_delay: Duration::from_secs(120),
            max_queue_size: 50,
            max_queue_bytes: 1 << 20,
            reserve: Some(0),
            max_batch_size: 9,
            max_batch_bytes: 300_000,
            min_severity: crate::Severity::Warning,
            max_event_bytes: 4 << 10,
            max_data_depth: usize::MAX,
            max_string_bytes: 100,
            max_fields: 20,
            attach_events: false,
            events: ["app.started", "app.ended"].into_iter().collect(),
            handler_id: Some("mine".into()),
            ..Options::default()
        };
        assert_eq!((options, unknown), (expected, Vec::new()));
    }

    #[test]
    fn on_windows_the_case_of_a_name_does_not_matter() {
        let key = "sk-sentinel-0123456789";
        let variables = [
            ("Tinker_Telemetry_Max_Retries", "7"),
            ("tinker_telemetry_spool", "a/directory"),
            ("tinker_telemetry_max_retrys", "1"),
        ];
        let (options, unknown) = read_as(&variables, true).expect("they are valid");
        assert_eq!(options.max_retries, 7);
        assert_eq!(unknown.len(), 1, "{unknown:?}");
        assert!(
            unknown[0].starts_with("TINKER_TELEMETRY_MAX_RETRYS "),
            "{unknown:?}"
        );
        let error = read_as(
            &[
                ("tinker_telemetry_http_timeout", key),
                ("Tinker_Api_Key", key),
            ],
            true,
        );
        assert!(error.is_err_and(|error| !error.contains(key)));
        // Elsewhere these are other variables.
        assert_eq!(read(&variables), Ok((Options::default(), Vec::new())));
    }

    #[test]
    fn what_is_empty_or_not_of_the_options_changes_nothing() {
        let read = read(&[
            ("TINKER_TELEMETRY", "off"),
            ("TINKER_TELEMETRY_ENABLED", "off"),
            ("TINKER_TELEMETRY_SPOOL", "a/directory"),
            ("TINKER_TELEMETRY_MAX_RETRIES", " "),
            ("TINKER_BASE_URL", "nonsense"),
            ("OTHER_TELEMETRY_MAX_RETRIES", "nonsense"),
            ("TINKER_TELEMETRY2", "1"),
        ]);
        assert_eq!(read, Ok((Options::default(), Vec::new())));
    }

    #[test]
    fn a_wrong_variable_is_named_with_its_value_and_what_is_allowed() {
        for (name, value, expected) in [
            (
                "FLUSH_INTERVAL",
                "10 parsecs",
                "is \"10 parsecs\", where \"parsecs\" is no unit; it must be a duration, such as \"10s\", \"250ms\" or \"1m30s\" (d, h, m, s, ms, us, ns)",
            ),
            (
                "FLUSH_THRESHOLD",
                "many",
                "is \"many\", where \"many\" is no number; it must be a whole number",
            ),
            (
                "FLUSH_THRESHOLD",
                "0",
                "is \"0\": the option flush_threshold must be above zero",
            ),
            (
                "MAX_EVENT_BYTES",
                "1B",
                "is \"1B\": the option max_event_bytes must be at least 512 (the smallest that holds a SESSION_END)",
            ),
            (
                "ATTACH_EVENTS",
                "maybe\n\u{202e}",
                "is \"maybe\\n\\u{202e}\"; it must be true or false (or 1, yes, on; 0, no, off)",
            ),
            (
                "GIVE_UP",
                "never",
                "is \"never\"; it must be \"after_retries\" or \"when_full\"",
            ),
        ] {
            let name = PREFIX.to_owned() + name;
            let error = read(&[(&name, value)]).expect_err(value);
            assert_eq!(error, format!("{name} {expected}"));
        }
        let long = read(&[("TINKER_TELEMETRY_GIVE_UP", &"x".repeat(10_000))]);
        assert!(long.is_err_and(|error| error.len() < 200));
        // It fits, if the program raises the other.
        let above = read(&[("TINKER_TELEMETRY_FLUSH_THRESHOLD", "20000")]);
        assert!(above.is_ok_and(|(options, _)| options.check(0).is_err()));
    }

    #[test]
    fn variables_of_options_that_do_not_fit_together_are_named() {
        let message = |variables: &[(&str, &str)]| {
            let (options, _) = read(variables).expect("each is valid by itself");
            let error = options.check(300).expect_err("they do not fit together");
            let value = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            VariableError::of(&error, value).map(|error| error.to_string())
        };
        for (variables, expected) in [
            (
                &[("TINKER_TELEMETRY_MAX_QUEUE_SIZE", "10")][..],
                "TINKER_TELEMETRY_MAX_QUEUE_SIZE does not fit the other options: the option flush_threshold must be at most 10 (max_queue_size); change it, or set TINKER_TELEMETRY_FLUSH_THRESHOLD as well",
            ),
            (
                &[("TINKER_TELEMETRY_FLUSH_THRESHOLD", "20000")],
                "TINKER_TELEMETRY_FLUSH_THRESHOLD does not fit the other options: the option flush_threshold must be at most 10000 (max_queue_size); change it, or set TINKER_TELEMETRY_MAX_QUEUE_SIZE as well",
            ),
            (
                &[
                    ("TINKER_TELEMETRY_FLUSH_THRESHOLD", "20"),
                    ("TINKER_TELEMETRY_MAX_QUEUE_SIZE", "10"),
                ],
                "TINKER_TELEMETRY_FLUSH_THRESHOLD and TINKER_TELEMETRY_MAX_QUEUE_SIZE do not fit the other options: the option flush_threshold must be at most 10 (max_queue_size)",
            ),
            (
                &[("TINKER_TELEMETRY_MAX_EVENT_BYTES", "2MiB")],
                "TINKER_TELEMETRY_MAX_EVENT_BYTES does not fit the other options: the option max_batch_bytes must be at least 2097452 (max_event_bytes and the head of a request); change it, or set TINKER_TELEMETRY_MAX_BATCH_BYTES as well",
            ),
            (
                &[("TINKER_TELEMETRY_MAX_QUEUE_BYTES", "1KiB")],
                "TINKER_TELEMETRY_MAX_QUEUE_BYTES does not fit the other options: the option max_queue_bytes must be at least 65548 (max_event_bytes + 12); change it, or set TINKER_TELEMETRY_MAX_EVENT_BYTES as well",
            ),
            (
                &[("TINKER_TELEMETRY_RETRY_MAX_DELAY", "10ms")],
                "TINKER_TELEMETRY_RETRY_MAX_DELAY does not fit the other options: the option retry_base_delay must be at most retry_max_delay; change it, or set TINKER_TELEMETRY_RETRY_BASE_DELAY as well",
            ),
            (
                &[
                    ("TINKER_TELEMETRY_GIVE_UP", "when_full"),
                    ("TINKER_TELEMETRY_MAX_RETRIES", "9"),
                ],
                "TINKER_TELEMETRY_MAX_RETRIES and TINKER_TELEMETRY_GIVE_UP do not fit the other options: the option max_retries must not be set with give_up WhenFull",
            ),
        ] {
            assert_eq!(message(variables).as_deref(), Some(expected));
        }
        let options = Options {
            max_queue_size: 10,
            ..Options::default()
        };
        let error = options.check(300).expect_err("it does not fit");
        assert_eq!(VariableError::of(&error, |_| None), None);
    }

    #[test]
    fn the_api_key_is_not_shown_where_it_is_given_by_mistake() {
        let key = "sk-sentinel-0123456789";
        for value in [key.to_owned(), format!("Bearer {key}")] {
            let error = read(&[
                ("TINKER_TELEMETRY_HTTP_TIMEOUT", &value),
                ("TINKER_API_KEY", key),
            ]);
            let error = error.expect_err("refused");
            assert_eq!(
                error,
                "TINKER_TELEMETRY_HTTP_TIMEOUT repeats TINKER_API_KEY, which belongs in no option"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_unicode_is_refused_and_other_names_are_ignored() {
        use std::os::unix::ffi::OsStringExt as _;
        let odd = || OsString::from_vec(b"1\xff".to_vec());
        let name = OsString::from("TINKER_TELEMETRY_MAX_RETRIES");
        let error = super::read(Options::default(), [(name, odd())].into_iter(), false);
        assert_eq!(
            error.expect_err("refused").to_string(),
            "TINKER_TELEMETRY_MAX_RETRIES is not Unicode"
        );
        let ignored = super::read(Options::default(), [(odd(), odd())].into_iter(), false);
        assert!(ignored.is_ok_and(|(_, unknown)| unknown.is_empty()));
    }

    #[test]
    fn a_variable_of_no_option_is_named_with_the_nearest() {
        let (options, unknown) = read(&[
            ("TINKER_TELEMETRY_FLUSH_INTERVALL", "x"),
            ("TINKER_TELEMETRY_TIMEOUT", "1s"),
            ("TINKER_TELEMETRY_ENABLE", "0"),
            ("TINKER_TELEMETRY_", "0"),
        ])
        .expect("that is no error");
        assert_eq!(options, Options::default());
        let expected = [
            "TINKER_TELEMETRY_ belongs to no option: the nearest is TINKER_TELEMETRY_GIVE_UP",
            "TINKER_TELEMETRY_ENABLE belongs to no option: the nearest is TINKER_TELEMETRY",
            "TINKER_TELEMETRY_FLUSH_INTERVALL belongs to no option: the nearest is TINKER_TELEMETRY_FLUSH_INTERVAL",
            "TINKER_TELEMETRY_TIMEOUT belongs to no option: the nearest are TINKER_TELEMETRY_FLUSH_TIMEOUT, TINKER_TELEMETRY_DROP_TIMEOUT and TINKER_TELEMETRY_HTTP_TIMEOUT",
        ];
        assert_eq!(unknown, expected);
        assert!(unknown.iter().all(|line| line.len() <= 160));
    }
}
