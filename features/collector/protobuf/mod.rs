//! The calls that newer clients make in protobuf: the passes of training, and the results of passes and samples.

mod request;
mod result;
mod wire;

use http::{HeaderMap, header};

pub(super) use request::to_json;
pub(super) use result::from_json;
pub(super) use wire::Malformed;

/// The type of such a body, in `content-type` and `accept`.
pub(super) const CONTENT_TYPE: &str = "application/x-protobuf";

/// Whether the request's body is protobuf.
pub(super) fn is_sent(headers: &HeaderMap) -> bool {
    names_protobuf(headers, &header::CONTENT_TYPE)
}

/// Whether the request asks for a result in protobuf.
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    names_protobuf(headers, &header::ACCEPT)
}

fn names_protobuf(headers: &HeaderMap, name: &header::HeaderName) -> bool {
    let values = headers.get_all(name).iter();
    let mut types = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    types.any(|one| {
        let name = one.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case(CONTENT_TYPE)
    })
}
