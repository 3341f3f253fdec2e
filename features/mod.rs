//! The adapters: everything that touches a runtime, a socket or a disk. One file or folder for each Cargo feature.

#[cfg(feature = "collector")]
#[cfg_attr(docsrs, doc(cfg(feature = "collector")))]
pub mod collector;
