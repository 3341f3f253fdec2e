//! Why a spool cannot be started.

use crate::spawner::SpawnError;
use crate::transport::SetupError;
use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use core::error::Error;
use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A spool could not be started.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpoolError {
    /// The directory cannot be created or used: the disk is full or read-only, or permissions are missing.
    #[non_exhaustive]
    Disk {
        /// The directory.
        path: PathBuf,
        /// The kind of the operating system's error.
        kind: io::ErrorKind,
        /// What it says.
        reason: String,
    },
    /// Other users could interfere with the directory; the text says how, and what to change.
    #[non_exhaustive]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The transport's configuration is invalid.
    Transport(SetupError),
    /// The transport does not name its destination, and neither did
    /// [`destination`](super::SpoolBuilder::destination).
    NoDestination,
    /// An option has a value that it cannot have; the text names it.
    Option(&'static str),
    /// The forwarder or one of the spool's threads cannot be started.
    Spawn(SpawnError),
}

impl SpoolError {
    pub(super) fn disk(path: &Path, error: io::Error) -> Self {
        Self::Disk {
            path: path.to_owned(),
            kind: error.kind(),
            reason: error.to_string(),
        }
    }

    pub(super) fn unsafe_directory(path: &Path, what: &'static str) -> Self {
        let path = path.to_owned();
        Self::UnsafeDirectory { path, what }
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { path, reason, .. } => {
                write!(f, "the spool's directory {path:?} cannot be used: {reason}")
            }
            Self::UnsafeDirectory { path, what } => {
                write!(f, "the spool's directory {path:?} is not safe: {what}")
            }
            Self::Transport(_) => f.write_str("the spool's transport cannot be used"),
            Self::NoDestination => f.write_str(
                "the spool's transport does not name its destination: set one with destination()",
            ),
            Self::Option(what) => f.write_str(what),
            Self::Spawn(_) => f.write_str("the spool cannot be started"),
        }
    }
}

crate::text::debug_with_causes!(SpoolError);

impl Error for SpoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Transport(error) => Some(error),
            Self::Spawn(error) => Some(error),
            Self::Disk { .. }
            | Self::UnsafeDirectory { .. }
            | Self::NoDestination
            | Self::Option(_) => None,
        }
    }
}
