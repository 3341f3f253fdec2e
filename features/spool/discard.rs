//! Discarding all that is on disk: first the writer, which has files open, then the keeper, which claims what ended
//! processes have left. Meanwhile nothing is sent.

use super::disk::Disk;
use super::inner::Inner;
use super::keeper::Keeper;
use super::notes;
use super::segment::done_path;
use super::state::{Run, Shared};
use super::stats::{Left, SpoolStats};
use super::worker::{Answer, Sender, Teller, answer};
use crate::spawner::WouldDeadlock;
use crate::sys::park::Parker;
use crate::time::Instant;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future as _, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;

/// One call, on its way.
pub(super) struct Discard {
    keeper: Teller<Keeper>,
    /// Which one it is: the first, the second, ...
    number: u64,
    done: Arc<Sender<()>>,
}

impl Discard {
    /// The writer has done its part, and removed everything or not.
    pub(super) fn go_on(&self, is_all: bool) {
        let (number, done) = (self.number, Arc::clone(&self.done));
        self.keeper.tell(move |keeper| {
            let is_all = keeper.discard() && is_all;
            if is_all {
                keeper
                    .shared
                    .update(|state| state.discards.1 = state.discards.1.max(number));
            }
            done.send(Some(()));
        });
    }
}

impl Keeper {
    /// Removes what ended processes have left, and what is in `rejected`. Returns whether that is all gone.
    fn discard(&mut self) -> bool {
        let (now, utc) = (self.shared.time.now(), self.shared.time.utc());
        self.done = None;
        self.look(now, utc);
        let are_gone = remove_all(&*self.disk, &self.shared, |run| run.is_recovered);
        let is_empty = self.refused.discard(&*self.disk, &self.directory);
        self.tidy(now);
        are_gone && is_empty
    }
}

/// Removes every segment of these runs, from disk and from the books. Returns whether all are gone; those that are not
/// stay in the books.
pub(super) fn remove_all(disk: &dyn Disk, shared: &Shared, of: fn(&Run) -> bool) -> bool {
    let segments: Vec<_> = {
        let state = shared.lock();
        let runs = state.runs.iter().filter(|(_, run)| of(run));
        runs.flat_map(|(key, run)| run.segments.iter().map(|it| (*key, it.id, it.path.clone())))
            .collect()
    };
    let mut is_all = true;
    for (key, id, path) in segments {
        match disk.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                is_all = false;
                notes::say_error(
                    log::Level::Error,
                    "Telemetry spool cannot discard a file, and sends nothing until it can",
                    &error,
                );
            }
            _ => {
                // What says how far it is settled says nothing about events.
                let _ = disk.remove_file(&done_path(&path));
                shared.update(|state| {
                    state.forget(key, id, |counts: &mut SpoolStats| &mut counts.discarded);
                });
            }
        }
    }
    is_all
}

impl Inner {
    /// From now on nothing is sent that is on disk. `None` where there is nothing to discard: the spool is off, or the
    /// parent process's.
    pub(super) fn begin_discard(&self) -> Option<Answer<()>> {
        if self.fork.is_forked() || !self.is_on {
            return None;
        }
        let keeper = self.keeper.clone()?;
        let number = self.shared.update(|state| {
            state.discards.0 += 1;
            state.discards.0
        });
        let (done, answer) = answer();
        self.queue.discard(Discard {
            keeper,
            number,
            done: Arc::new(done),
        });
        Some(answer)
    }

    /// Waits until it is done, and says what is left.
    pub(super) async fn discarded(
        self: Arc<Self>,
        mut done: Option<Answer<()>>,
        deadline: Option<Instant>,
    ) -> Left {
        let mut timer = deadline.map(|at| (self.runtime.sleep)(at));
        if let Some(done) = &mut done {
            poll_fn(|context| {
                if Pin::new(&mut *done).poll(context).is_ready() {
                    return Poll::Ready(());
                }
                match &mut timer {
                    Some(timer) => timer.as_mut().poll(context),
                    None => Poll::Pending,
                }
            })
            .await;
            return self.shared.left();
        }
        Left::default()
    }

    /// The same, on the calling thread.
    pub(super) fn discarded_blocking(
        &self,
        done: Option<Answer<()>>,
        timeout: Duration,
    ) -> Result<Left, WouldDeadlock> {
        let Some(mut done) = done else {
            return Ok(Left::default());
        };
        let until = std::time::Instant::now().checked_add(timeout);
        let (parker, waker) = Parker::current();
        // The forwarder has no part in it, so that its own thread may wait.
        (self.runtime.block)(false, &mut || {
            let mut context = Context::from_waker(&waker);
            while Pin::new(&mut done).poll(&mut context).is_pending()
                && until.is_none_or(|until| std::time::Instant::now() < until)
            {
                parker.park(until);
            }
        })?;
        Ok(self.shared.left())
    }
}
