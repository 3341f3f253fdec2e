//! Conversion to a handle.

#[cfg(feature = "alloc")]
use super::Telemetry;
use super::{Handle, Reporter};
#[cfg(feature = "alloc")]
use alloc::boxed::Box;

/// Conversion to a [`Handle`].
///
/// Implemented for `Handle`, [`Reporter`] and `Telemetry`, and for an `Option`, a reference, a `Box`, an `Rc` and an `Arc` of one.
pub trait AsHandle {
    /// Returns the handle, if there is one.
    fn as_handle(&self) -> Option<&Handle>;
}

impl AsHandle for Handle {
    fn as_handle(&self) -> Option<&Handle> {
        Some(self)
    }
}

impl<T, C, S> AsHandle for Reporter<T, C, S> {
    fn as_handle(&self) -> Option<&Handle> {
        Some(self)
    }
}

#[cfg(feature = "alloc")]
impl AsHandle for Telemetry {
    fn as_handle(&self) -> Option<&Handle> {
        Some(self)
    }
}

impl<H: AsHandle> AsHandle for Option<H> {
    fn as_handle(&self) -> Option<&Handle> {
        self.as_ref()?.as_handle()
    }
}

impl<H: AsHandle + ?Sized> AsHandle for &H {
    fn as_handle(&self) -> Option<&Handle> {
        (**self).as_handle()
    }
}

#[cfg(feature = "alloc")]
macro_rules! as_handle_in {
    ($($owner:ty),*) => {$(
        impl<H: AsHandle + ?Sized> AsHandle for $owner {
            fn as_handle(&self) -> Option<&Handle> {
                (**self).as_handle()
            }
        }
    )*};
}

#[cfg(feature = "alloc")]
as_handle_in!(Box<H>, alloc::rc::Rc<H>);
#[cfg(has_arc)]
as_handle_in!(alloc::sync::Arc<H>);
