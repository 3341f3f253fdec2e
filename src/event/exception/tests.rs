//! Tests of the encoding of errors.

use super::*;
use crate::event::limits::DataLimits;
use crate::event::writer::encode_to_vec;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use serde_json::{Value, json};

/// The path of [`Failed`].
const FAILED: &str = "tinkex_telemetry::event::exception::tests::Failed";

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

fn heading(severity: Severity) -> Heading<'static> {
    Heading {
        name: "",
        severity,
        context: None,
        is_cut: false,
    }
}

fn event<E: AnyError + ?Sized>(rules: ErrorRules, error: &E) -> Value {
    let at = Timestamp::from_unix_micros(0);
    let tail = encode_to_vec(4_000, |out| {
        rules
            .encode(
                out,
                at,
                error,
                heading(Severity::Critical),
                &DataLimits::NONE,
            )
            .map(drop)
    });
    serde_json::from_slice(&[b"{\"event_id\":0", &tail.unwrap()[..]].concat()).unwrap()
}

/// The traceback without the stack, which is present if `RUST_BACKTRACE` is set.
fn sources(event: &Value) -> &str {
    let traceback = event["traceback"].as_str().unwrap_or_default();
    traceback.split("Stack:\n").next().unwrap().trim_end()
}

#[test]
fn an_error_becomes_an_unhandled_exception_with_its_sources() {
    let error = Failed("outer", Some("x".parse::<u8>().unwrap_err()));
    let json = event(ErrorRules::default(), &error);
    assert_eq!(json["event"], "UNHANDLED_EXCEPTION");
    assert_eq!(json["severity"], "CRITICAL");
    assert_eq!(json["error_type"], FAILED);
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
    let wants_stack =
        Traceback::new(&fmt::Error, TypeNames::default(), Stack::Here, None).is_some();
    assert_eq!(json.get("traceback").is_some(), wants_stack);
}

fn type_of<E: AnyError + ?Sized>(error: &E) -> String {
    let json = event(ErrorRules::default(), error);
    json["error_type"].as_str().unwrap().into()
}

/// An error whose `Debug` writes this text.
struct Written(&'static str);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In pieces, as derived implementations do.
        self.0.chars().try_for_each(|part| f.write_char(part))
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("written")
    }
}

impl Error for Written {}

#[test]
fn a_known_type_is_named_by_its_path_without_arguments() {
    let number = "x".parse::<u8>().unwrap_err();
    assert_eq!(type_of(&number), "core::num::error::ParseIntError");
    let io = std::io::Error::other("the disk is gone");
    assert_eq!(type_of(&io), type_name::<std::io::Error>());
    assert!(type_of(&io).ends_with("::io::error::Error"));
    let json = serde_json::from_str::<u8>("x").unwrap_err();
    assert_eq!(type_of(&json), "serde_json::error::Error");
    let nested = Failed("a", Some(Failed("b", Some(number))));
    assert_eq!(type_of(&nested), FAILED);
    // Whatever its `Debug` writes.
    let path = "tinkex_telemetry::event::exception::tests::Written";
    assert_eq!(type_of(&Written("sk-secret")), path);
}

#[test]
fn a_pointer_to_an_error_is_named_after_the_error() {
    assert_eq!(type_of(&Box::new(Failed("a", Some(fmt::Error)))), FAILED);
    let shared = alloc::sync::Arc::new(Box::new(Failed("a", Some(fmt::Error))));
    assert_eq!(type_of(&shared), FAILED);
    static ERROR: Failed<fmt::Error> = Failed("a", None);
    assert_eq!(type_of(&&ERROR), FAILED);
    let object: alloc::sync::Arc<dyn Error + Send + Sync> = alloc::sync::Arc::new(fmt::Error);
    assert_eq!(type_of(&object), "Error");
}

#[test]
fn a_type_inside_an_implementation_keeps_the_path_of_that() {
    let shown = |path: &'static str| {
        let name = ErrorType {
            error: &fmt::Error,
            path: Some(path),
            names: TypeNames::default(),
        };
        name.to_string()
    };
    for (path, name) in [
        ("a::B<c::D<e::F>, &str>", "a::B"),
        ("a::B<fn(c::D) -> e::F>", "a::B"),
        ("a::B<dyn Fn(c::D) -> e::F, u8>::G", "a::B::G"),
        ("<a::B<u8> as c::D>::e::F", "<a::B as c::D>::e::F"),
        (
            "a::<impl b::C for d::E<u8>>::f::G",
            "a::<impl b::C for d::E>::f::G",
        ),
        ("Plain", "Plain"),
    ] {
        assert_eq!(shown(path), name);
    }
}

#[test]
fn behind_a_trait_object_only_what_looks_like_a_types_name_counts() {
    for (debug, name) in [
        ("ParseIntError { kind: InvalidDigit }", "ParseIntError"),
        ("Failed(\"outer\", None)", "Failed"),
        ("Utf8Error", "Utf8Error"),
        ("Os { code: 2 }", "Os"),
        ("Ünlesbar", "Ünlesbar"),
        // Never a part of the error's data.
        ("", "Error"),
        ("\"Quoted\"", "Error"),
        ("sk_live_0123456789", "Error"),
        ("AKIAIOSFODNN7EXAMPLE", "Error"),
        ("TINKER_API_KEY is not set", "Error"),
        ("Bearer tml-0123456789", "Error"),
        ("Hunter2: refused", "Error"),
        ("Hunter2-refused", "Error"),
        ("Hunter2, refused", "Error"),
        ("Hunter2 ", "Error"),
        ("Hunter2  {", "Error"),
        ("Hunter2{", "Error"),
        ("Hunter2\n{", "Error"),
        ("_Hunter", "Error"),
        ("7Hunter", "Error"),
        ("Q { }", "Error"),
    ] {
        let object: &(dyn Error + 'static) = &Written(debug);
        assert_eq!(type_of(object), name, "{debug:?}");
    }
    let long: &'static str = Box::leak(format!("A{}", "b".repeat(64)).into());
    assert_eq!(type_of::<dyn Error>(&Written(long)), "Error");
    let boxed: Box<dyn Error> = Box::new("x".parse::<u8>().unwrap_err());
    assert_eq!(type_of(&*boxed), "ParseIntError");
    let text: Box<dyn Error + Send + Sync> = "just text".into();
    assert_eq!(type_of(&*text), "Error");
}

#[test]
fn a_type_that_the_session_knows_is_named_behind_a_trait_object_and_as_a_source() {
    let rules = ErrorRules {
        names: TypeNames::new(type_name_if::<Written>),
        ..ErrorRules::default()
    };
    let object: &(dyn Error + 'static) = &Written("sk-secret");
    let path = "tinkex_telemetry::event::exception::tests::Written";
    assert_eq!(event(rules, object)["error_type"], path);
    let json = event(rules, &Failed("outer", Some(Written("sk-secret"))));
    assert_eq!(sources(&json), format!("Caused by: {path}: written"));
}

#[test]
fn a_4xx_anywhere_on_the_chain_makes_a_user_error() {
    for status in 100..600 {
        let error = Failed("outer", Some(StatusError::new(status).with_body("no")));
        let json = event(ErrorRules::default(), &error);
        if (400..500).contains(&status) && status != 408 && status != 429 {
            assert_eq!(json["event_name"], "user_error");
            assert_eq!(json["severity"], "WARNING");
            assert_eq!(
                json["event_data"],
                json!({"error_type": FAILED, "message": "outer", "status_code": status})
            );
        } else {
            assert_eq!(json["event"], "UNHANDLED_EXCEPTION", "{status}");
        }
    }
}

#[test]
fn empty_messages_are_left_out_and_bodies_are_opt_in() {
    let error = Failed("", Some(StatusError::new(404).with_body("no such model")));
    let with_bodies = ErrorRules {
        with_bodies: true,
        classify: None,
        ..ErrorRules::default()
    };
    assert_eq!(
        event(with_bodies, &error)["event_data"],
        json!({"error_type": FAILED, "status_code": 404, "body": "no such model"})
    );
}

#[test]
fn the_applications_classifier_sees_every_error_on_the_chain() {
    let rules = ErrorRules {
        classify: Some(|error| error.is::<fmt::Error>().then(Blame::user)),
        with_bodies: false,
        ..ErrorRules::default()
    };
    let json = event(rules, &Failed("outer", Some(fmt::Error)));
    assert_eq!(
        json["event_data"],
        json!({"error_type": FAILED, "message": "outer"})
    );
}

#[test]
fn the_applications_classifier_overrules_the_clients() {
    let rules = ErrorRules {
        known: Some(|error| error.is::<fmt::Error>().then(|| Blame::status(404))),
        ..ErrorRules::default()
    };
    let json = event(rules, &Failed("outer", Some(fmt::Error)));
    assert_eq!(json["event_data"]["status_code"], 404);
    let overruled = ErrorRules {
        classify: Some(|_| Some(Blame::status(500))),
        ..rules
    };
    let json = event(overruled, &Failed("outer", Some(fmt::Error)));
    assert_eq!(json["event"], "UNHANDLED_EXCEPTION");
}

/// An error that says itself who is to blame.
struct Blamed<'a>(&'a (dyn Error + 'static), Blame<'static>);

impl sealed::Sealed for Blamed<'_> {}

impl AnyError for Blamed<'_> {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self.0
    }

    fn type_name(&self) -> Option<&'static str> {
        None
    }

    fn blame(&self) -> Option<Blame<'_>> {
        Some(self.1)
    }
}

#[test]
fn the_applications_classifier_overrules_what_an_error_says_of_itself() {
    let blamed = Failed("outer", Some(fmt::Error));
    let blamed = Blamed(&blamed, Blame::status(404));
    let status = |classify: Option<Classify>| {
        let rules = ErrorRules {
            classify,
            ..ErrorRules::default()
        };
        let json = event(rules, &blamed);
        json["event_data"]["status_code"].as_u64()
    };
    assert_eq!(status(None), Some(404));
    assert_eq!(status(Some(|_| None)), Some(404));
    assert_eq!(status(Some(|_| Some(Blame::status(500)))), None);
    assert_eq!(status(Some(|_| Some(Blame::status(409)))), Some(409));
    // A verdict on any error of the chain is one.
    let on_source: Classify = |error| error.is::<fmt::Error>().then(|| Blame::status(500));
    assert_eq!(status(Some(on_source)), None);
}

#[test]
fn a_chain_that_loops_is_cut_off() {
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
fn a_huge_message_is_cut_instead_of_refused() {
    let long = "y".repeat(10_000);
    let error: Box<dyn Error> = long.clone().into();
    let json = event(ErrorRules::default(), &*error);
    let message = json["error_message"].as_str().unwrap();
    assert!(message.ends_with("… (cut)") && long.starts_with(&message[..100]));
}

#[test]
fn a_user_error_with_long_texts_fits_into_the_smallest_event() {
    let long = "y".repeat(10_000);
    let error = StatusError::new(404).with_body(long);
    let rules = ErrorRules {
        with_bodies: true,
        classify: None,
        ..ErrorRules::default()
    };
    let room = crate::session::Options::MIN_EVENT_BYTES - crate::event::encode::EventPrefix::MAX;
    let at = Timestamp::from_unix_micros(0);
    let tail = encode_to_vec(room, |out| {
        rules
            .encode(out, at, &error, heading(Severity::Error), &DataLimits::NONE)
            .map(drop)
    });
    assert!(tail.is_ok(), "{tail:?}");
}

#[test]
fn an_error_whose_display_fails_is_reported_with_what_it_wrote() {
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
