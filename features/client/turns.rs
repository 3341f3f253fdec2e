//! The order of a model's requests: they are submitted one after the other, in the order of the calls.

use super::error::{ClientError, Result};
use super::link::Link;
use super::poll::{Kind, Submission};
use super::port::{Boxed, caught};
use crate::spawner::SpawnError;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use async_channel::{Receiver, Sender, bounded, unbounded};
use std::panic::resume_unwind;
use std::thread;

/// Takes what is to be submitted. Dropping it ends the task behind it, after what it has.
pub(super) struct Turns(Sender<Turn>);

/// A request that waits for its turn.
struct Turn {
    kind: Kind,
    /// Without its `seq_id`.
    body: Vec<u8>,
    taken: Sender<Taken>,
}

/// What came of a submission, or its panic.
type Taken = thread::Result<Result<(Submission, String)>>;

/// A request that is on its way.
pub(super) struct Ticket(Receiver<Taken>);

impl Turns {
    /// Starts the task that submits.
    pub(super) fn start(link: &Arc<Link>) -> Result<Self> {
        let (sender, turns) = unbounded();
        let task: Boxed<'static, ()> = Box::pin(submit_all(Arc::clone(link), turns));
        link.spawn(task)?;
        Ok(Self(sender))
    }

    /// Queues a request: an object, as JSON.
    pub(super) fn submit(&self, kind: Kind, body: Vec<u8>) -> Ticket {
        let (taken, ticket) = bounded(1);
        let _ = self.0.try_send(Turn { kind, body, taken });
        Ticket(ticket)
    }
}

impl Ticket {
    /// Waits until the request is submitted.
    pub(super) async fn taken(self) -> Result<(Submission, String)> {
        match self.0.recv().await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => {
                let reason = "the executor has dropped the task that submits requests";
                Err(ClientError::Spawn(SpawnError::new(reason)))
            }
        }
    }
}

async fn submit_all(link: Arc<Link>, turns: Receiver<Turn>) {
    let mut seq_id = 0_u64;
    let all = async {
        while let Ok(Turn { kind, body, taken }) = turns.recv().await {
            // Nobody wants it any more, and the backend does not know of it.
            if taken.is_closed() {
                continue;
            }
            seq_id += 1;
            let submission = Submission::with_body(&link, kind, with_seq_id(body, seq_id));
            // From here on it goes to its end: the backend would wait for a number that never comes.
            let result = caught(submission.submit(&link, None)).await;
            let result = result.map(|id| id.map(|id| (submission, id)));
            drop(taken.try_send(result));
        }
        Ok(())
    };
    let _ = link.while_open(all).await;
}

/// An object with one more key.
fn with_seq_id(mut body: Vec<u8>, seq_id: u64) -> Vec<u8> {
    if body.last() == Some(&b'}') {
        body.pop();
        body.extend_from_slice(alloc::format!(",\"seq_id\":{seq_id}}}").as_bytes());
    }
    body
}
