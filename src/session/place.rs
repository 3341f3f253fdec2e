//! A place in static memory, for what is made while the program runs.

/// The place of a session, or of what refers to one.
///
/// Not an `Option`, which may encode `None` as a non-zero value of one of the session's bytes: the whole memory would
/// then be initialized data, with a copy in the device's flash.
#[repr(u8)]
pub(crate) enum Place<T> {
    Empty = 0,
    Taken(T) = 1,
}

impl<T> Place<T> {
    pub(crate) fn insert(&mut self, value: T) -> &mut T {
        *self = Self::Taken(value);
        match self {
            Self::Taken(value) => value,
            Self::Empty => unreachable!("the value was just inserted"),
        }
    }
}
