//! Syncing: what makes events durable against a power cut, and what happens when it fails.

use super::{Stopped, Stream, Writer};
use crate::features::spool::notes;
use alloc::vec::Vec;

impl Writer {
    /// Makes what the stream has written durable. What a failed sync leaves in doubt is written again, to another file:
    /// a second sync of the same one would report success without having written anything.
    pub(super) fn sync(&mut self, stream: &mut Stream) -> Result<(), Stopped> {
        let Some(open) = &mut stream.open else {
            return Ok(());
        };
        if let Err(error) = open.sync(&*self.disk) {
            notes::say_error(
                log::Level::Warn,
                "Telemetry spool cannot sync, writing again",
                &error,
            );
            stream.again = open.unsynced(&*self.disk)?;
            self.abandon(stream);
            self.write_again(stream)?;
            let Some(open) = &mut stream.open else {
                return Ok(());
            };
            if let Err(error) = open.sync(&*self.disk) {
                stream.again = open.unsynced(&*self.disk)?;
                self.abandon(stream);
                return Err(error.into());
            }
        }
        if stream.is_entry_new
            && let Some(folder) = &self.folder
        {
            self.disk.sync_dir(&folder.path)?;
            self.directory.sync(&*self.disk)?;
            stream.is_entry_new = false;
        }
        Ok(())
    }

    pub(in crate::features::spool) fn sync_all(&mut self) {
        let names: Vec<_> = self.streams.keys().cloned().collect();
        for name in names {
            if let Some(mut stream) = self.streams.remove(&name) {
                if let Err(Stopped::Disk(error)) = self.sync(&mut stream) {
                    notes::say_error(log::Level::Warn, "Telemetry spool cannot sync", &error);
                }
                self.streams.insert(name, stream);
            }
        }
        self.rest_some();
    }

    /// Writes copies of the events whose sync has failed.
    pub(super) fn write_again(&mut self, stream: &mut Stream) -> Result<(), Stopped> {
        if stream.again.is_empty() {
            return Ok(());
        }
        let events = core::mem::take(&mut stream.again);
        self.chunk.clear();
        let mut write = || -> Result<(), Stopped> {
            for (index, event) in &events {
                self.add(stream, *index, event)?;
            }
            self.flush(stream, None, true)
        };
        let written = write();
        if written.is_err() {
            stream.again = events;
        }
        written
    }
}
