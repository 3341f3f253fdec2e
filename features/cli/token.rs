//! The token that opens the page: where it is kept, and how it is compared.

use std::{
    env, fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use super::prelude::*;

/// A secret of 128 bits.
pub(super) struct Token(String);

/// A token in the user's runtime directory, removed when this is dropped.
pub(super) struct TokenFile(PathBuf);

/// The end of the name of the file that stays.
const LAST: &str = ".last";

/// Random letters and digits: twice as many as `bytes`.
pub(super) fn random(bytes: usize) -> Result<String, String> {
    let mut random = [0; 32];
    let random = random.get_mut(..bytes).unwrap_or_default();
    getrandom::fill(random).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Token {
    pub(super) fn new() -> Result<Self, String> {
        random(16).map(Self)
    }

    /// The one that this port had last, so that a page that is open goes on after a restart; or a new one.
    pub(super) fn for_port(port: u16) -> Result<Self, String> {
        match read(&format!("{port}{LAST}")).filter(|_| port != 0) {
            Some(token) => Ok(Self(token)),
            None => Self::new(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in constant time.
    pub(super) fn is(&self, other: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), other.as_bytes());
        let pairs = own.iter().zip(other);
        let difference = pairs.fold(0, |all, (one, two)| all | (one ^ two));
        own.len() == other.len() && core::hint::black_box(difference) == 0
    }

    /// Writes it where this user's other processes find it, and no other user's.
    pub(super) fn save(&self, port: u16) -> io::Result<TokenFile> {
        let Some(folder) = folder() else {
            return Err(io::Error::other("there is no directory of this user's"));
        };
        create(&folder)?;
        for name in [format!("{port}{LAST}"), port.to_string()] {
            let path = folder.join(name);
            // One of an earlier process; its permissions are not to be trusted.
            let _ = fs::remove_file(&path);
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&path)?.write_all(self.0.as_bytes())?;
        }
        Ok(TokenFile(folder.join(port.to_string())))
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The token of the collector that runs on this port, if it is this user's.
pub(super) fn of_port(port: u16) -> Option<String> {
    read(&port.to_string())
}

fn read(name: &str) -> Option<String> {
    let token = fs::read_to_string(folder()?.join(name)).ok()?;
    let is_token = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_token.then_some(token)
}

fn folder() -> Option<PathBuf> {
    let of = |name| env::var_os(name).filter(|value| !value.is_empty());
    let of = |name| {
        of(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = || of("HOME").map(|home| home.join(".local/state"));
    let base = of("XDG_RUNTIME_DIR")
        .or_else(|| of("XDG_STATE_HOME"))
        .or_else(home)
        .or_else(|| of("LOCALAPPDATA"))?;
    Some(base.join("tinkex-telemetry"))
}

#[cfg(unix)]
fn create(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn create(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::new().unwrap();
        assert!(token.is(token.as_str()));
        assert!(!token.is("") && !token.is(&token.as_str()[1..]));
        assert!(!token.is(Token::new().unwrap().as_str()));
    }
}
