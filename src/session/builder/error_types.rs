//! The errors whose type a session recognizes behind a trait object, whatever their `Debug` writes: this crate's own, and
//! two that most programs have.

use super::BuildError;
use crate::event::exception::{StatusError, TypeName, UserFault, type_name_if};
use crate::event::severity::ParseSeverityError;
use crate::session::identity::IdentityError;
use crate::session::options::OptionError;
use crate::spawner::{SpawnError, WouldDeadlock};
use crate::transport::{SendError, SetupError};
use core::error::Error;

/// The path of an error's type, if it is one of these.
pub(super) fn name(error: &(dyn Error + 'static)) -> Option<&'static str> {
    const NAMES: &[TypeName] = &[
        type_name_if::<std::io::Error>,
        type_name_if::<serde_json::Error>,
        type_name_if::<crate::bus::AttachError>,
        type_name_if::<crate::engine::AlreadyDriven>,
        type_name_if::<BuildError>,
        type_name_if::<IdentityError>,
        type_name_if::<OptionError>,
        type_name_if::<ParseSeverityError>,
        type_name_if::<SendError>,
        type_name_if::<SetupError>,
        type_name_if::<SpawnError>,
        type_name_if::<StatusError>,
        type_name_if::<UserFault>,
        type_name_if::<WouldDeadlock>,
    ];
    NAMES.iter().find_map(|name| name(error))
}
