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
pub(super) struct TokenFile([PathBuf; 2]);

/// The end of the name of the file that stays.
const LAST: &str = ".last";
/// The end of the name of the file that says which process has the token.
const OWNER: &str = ".process";

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

    /// The one that this port had last, so that a page that is open goes on after a restart; or a new one. The port must
    /// be this process's. A process that was killed left its file, and another may have taken the port since and been
    /// given the token: that one is not used again.
    pub(super) fn for_port(port: u16) -> Result<Self, String> {
        let was_killed = || read(&port.to_string()).is_some();
        match read(&format!("{port}{LAST}")).filter(|_| port != 0 && !was_killed()) {
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

    /// Writes it where this user's other processes find it, and no other user's. One that `stays` is there at the next
    /// start.
    pub(super) fn save(&self, port: u16, stays: bool) -> io::Result<TokenFile> {
        let Some(folder) = folder() else {
            return Err(io::Error::other("there is no directory of this user's"));
        };
        create(&folder)?;
        let live = [format!("{port}{OWNER}"), port.to_string()];
        let last = stays.then(|| (format!("{port}{LAST}"), self.0.clone()));
        let owner = process(std::process::id()).unwrap_or_default();
        let texts = live.clone().into_iter().zip([owner, self.0.clone()]);
        for (name, text) in last.into_iter().chain(texts) {
            let path = folder.join(name);
            // One of an earlier process; its permissions are not to be trusted.
            let _ = fs::remove_file(&path);
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&path)?.write_all(text.as_bytes())?;
        }
        Ok(TokenFile(live.map(|name| folder.join(name))))
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The token of the collector that runs on this port, if it is this user's. If the process that wrote it has ended,
/// another may have the port.
pub(super) fn of_port(port: u16) -> Option<String> {
    let token = read(&port.to_string())?;
    let owner = fs::read_to_string(folder()?.join(format!("{port}{OWNER}"))).ok()?;
    let id = owner.split(' ').next()?.parse().ok()?;
    (process(id)? == owner).then_some(token)
}

/// What no other process has: its id, and when it started.
#[cfg(target_os = "linux")]
fn process(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before may have spaces.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?;
    (!matches!(state, "Z" | "X")).then(|| format!("{id} {start}"))
}

/// Elsewhere there is no file that says when a process started.
#[cfg(not(target_os = "linux"))]
fn process(id: u32) -> Option<String> {
    Some(id.to_string())
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
