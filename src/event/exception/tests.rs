//! What errors become.

use super::*;
use crate::event::limits::DataLimits;
use crate::event::writer::encoded;
use alloc::boxed::Box;
use serde_json::{Value, json};

#[derive(Debug)]
struct Failed<S>(&'static str, Option<S>);

impl<S> fmt::Display for Failed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<S: Error + 'static> Error for Failed<S> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_ref().map(|source| source as _)
    }
}

fn event<E: AnyError + ?Sized>(rules: ErrorRules, error: &E) -> Value {
    let at = Timestamp::from_unix_micros(0);
    let tail = encoded(4_000, |out| {
        rules.encode(out, at, error, Severity::Critical, &DataLimits::NONE)
    });
    serde_json::from_slice(&[b"{\"event_id\":0", &tail.unwrap()[..]].concat()).unwrap()
}

/// The traceback without the stack, which is there when `RUST_BACKTRACE` is set.
fn sources(event: &Value) -> &str {
    let traceback = event["traceback"].as_str().unwrap_or_default();
    traceback.split("Stack:\n").next().unwrap().trim_end()
}

#[test]
fn an_error_is_an_unhandled_exception_with_its_sources() {
    let error = Failed("outer", Some("x".parse::<u8>().unwrap_err()));
    let json = event(ErrorRules::default(), &error);
    assert_eq!(json["event"], "UNHANDLED_EXCEPTION");
    assert_eq!(json["severity"], "CRITICAL");
    assert_eq!(json["error_type"], "Failed");
    assert_eq!(json["error_message"], "outer");
    assert_eq!(
        sources(&json),
        "Caused by: ParseIntError: invalid digit found in string"
    );
}

#[test]
fn an_error_without_sources_has_no_traceback() {
    let json = event(ErrorRules::default(), &fmt::Error);
    assert_eq!(sources(&json), "");
    let wants_stack = Traceback::new(&fmt::Error, Stack::Here).is_some();
    assert_eq!(json.get("traceback").is_some(), wants_stack);
}

#[test]
fn behind_dyn_the_type_is_what_debug_begins_with() {
    let boxed: Box<dyn Error> = Box::new("x".parse::<u8>().unwrap_err());
    assert_eq!(
        event(ErrorRules::default(), &*boxed)["error_type"],
        "ParseIntError"
    );
    let text: Box<dyn Error + Send + Sync> = "just text".into();
    assert_eq!(event(ErrorRules::default(), &*text)["error_type"], "Error");
}

#[test]
fn a_4xx_anywhere_on_the_chain_is_the_users_own_fault() {
    for status in 100..600 {
        let error = Failed("outer", Some(StatusError::new(status).with_body("no")));
        let json = event(ErrorRules::default(), &error);
        if (400..500).contains(&status) && status != 408 && status != 429 {
            assert_eq!(json["event_name"], "user_error");
            assert_eq!(json["severity"], "WARNING");
            assert_eq!(
                json["event_data"],
                json!({"error_type": "Failed", "message": "outer", "status_code": status})
            );
        } else {
            assert_eq!(json["event"], "UNHANDLED_EXCEPTION", "{status}");
        }
    }
}

#[test]
fn bodies_and_empty_messages_are_left_out_unless_wanted() {
    let error = Failed("", Some(StatusError::new(404).with_body("no such model")));
    let with_bodies = ErrorRules {
        with_bodies: true,
        classify: None,
        ..ErrorRules::default()
    };
    assert_eq!(
        event(with_bodies, &error)["event_data"],
        json!({"error_type": "Failed", "status_code": 404, "body": "no such model"})
    );
}

#[test]
fn a_classifier_of_the_applications_own_is_asked_for_every_error_on_the_chain() {
    let rules = ErrorRules {
        classify: Some(|error| error.is::<fmt::Error>().then(Fault::user)),
        with_bodies: false,
        ..ErrorRules::default()
    };
    let json = event(rules, &Failed("outer", Some(fmt::Error)));
    assert_eq!(
        json["event_data"],
        json!({"error_type": "Failed", "message": "outer"})
    );
}

#[test]
fn the_application_knows_better_than_the_client_whose_fault_it_was() {
    let rules = ErrorRules {
        known: Some(|error| error.is::<fmt::Error>().then(|| Fault::status(404))),
        ..ErrorRules::default()
    };
    let json = event(rules, &Failed("outer", Some(fmt::Error)));
    assert_eq!(json["event_data"]["status_code"], 404);
    let overruled = ErrorRules {
        classify: Some(|_| Some(Fault::status(500))),
        ..rules
    };
    let json = event(overruled, &Failed("outer", Some(fmt::Error)));
    assert_eq!(json["event"], "UNHANDLED_EXCEPTION");
}

#[test]
fn a_chain_that_is_a_loop_ends() {
    #[derive(Debug)]
    struct Loop;
    impl fmt::Display for Loop {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }
    impl Error for Loop {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Self)
        }
    }
    let json = event(ErrorRules::default(), &Loop);
    assert_eq!(sources(&json).lines().count(), MAX_CHAIN - 1);
}

#[test]
fn a_huge_message_is_cut_and_not_refused() {
    let long = "y".repeat(10_000);
    let error: Box<dyn Error> = long.clone().into();
    let json = event(ErrorRules::default(), &*error);
    let message = json["error_message"].as_str().unwrap();
    assert!(message.ends_with("… (cut)") && long.starts_with(&message[..100]));
}

#[test]
fn a_user_error_of_long_texts_fits_into_the_smallest_event() {
    let long = "y".repeat(10_000);
    let error = StatusError::new(404).with_body(long);
    let rules = ErrorRules {
        with_bodies: true,
        classify: None,
        ..ErrorRules::default()
    };
    let room = crate::Options::MIN_EVENT_BYTES - crate::event::encode::Front::MAX;
    let at = Timestamp::from_unix_micros(0);
    let tail = encoded(room, |out| {
        rules.encode(out, at, &error, Severity::Error, &DataLimits::NONE)
    });
    assert!(tail.is_ok(), "{tail:?}");
}

#[test]
fn an_error_whose_display_fails_is_reported_as_far_as_it_went() {
    #[derive(Debug)]
    struct Half;
    impl fmt::Display for Half {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half of")?;
            Err(fmt::Error)
        }
    }
    impl Error for Half {}
    assert_eq!(
        event(ErrorRules::default(), &Half)["error_message"],
        "half of"
    );
}
