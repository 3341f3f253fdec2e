//! Submits a model's requests one at a time, in the order of the calls.

use super::api::Api;
use super::error::{ClientError, Result};
use super::io::{Boxed, catch_panic};
use super::kind::RequestKind;
use super::progress::Progress;
use super::submission::Submission;
use crate::spawner::SpawnError;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use async_channel::{Receiver, Sender, bounded, unbounded};
use std::panic::resume_unwind;
use std::thread;

/// The queue of a task that submits requests. Dropping it ends the task once the queue is empty.
pub(super) struct Sequencer(Sender<Queued>);

/// A request that waits to be submitted.
struct Queued {
    kind: RequestKind,
    /// Without its `seq_id`.
    body: Vec<u8>,
    progress: Arc<Progress>,
    outcome: Sender<Outcome>,
}

/// The result of a submission with its request id, or its panic.
type Outcome = thread::Result<Result<(Submission, String)>>;

/// Waits for the submission of one request.
pub(super) struct Ticket(Receiver<Outcome>);

impl Sequencer {
    /// Starts the task that submits.
    pub(super) fn start(api: &Arc<Api>) -> Result<Self> {
        let (sender, queue) = unbounded();
        let task: Boxed<'static, ()> = Box::pin(submit_all(Arc::clone(api), queue));
        api.spawn(task)?;
        Ok(Self(sender))
    }

    /// Queues a request. `body` is a JSON object.
    pub(super) fn submit(
        &self,
        kind: RequestKind,
        body: Vec<u8>,
        progress: Arc<Progress>,
    ) -> Ticket {
        let (outcome, ticket) = bounded(1);
        let request = Queued {
            kind,
            body,
            progress,
            outcome,
        };
        let _ = self.0.try_send(request);
        Ticket(ticket)
    }
}

impl Ticket {
    /// Waits until the request is submitted. A panic of the submission resumes here.
    pub(super) async fn submitted(self) -> Result<(Submission, String)> {
        match self.0.recv().await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => {
                let reason = "the executor dropped the task that submits requests";
                Err(ClientError::Spawn(SpawnError::new(reason)))
            }
        }
    }
}

async fn submit_all(api: Arc<Api>, queue: Receiver<Queued>) {
    let mut seq_id = 0_u64;
    let all = async {
        while let Ok(request) = queue.recv().await {
            // Its call was dropped before the backend received anything.
            if request.outcome.is_closed() {
                continue;
            }
            seq_id += 1;
            let body = with_seq_id(request.body, seq_id);
            let submission = Submission::with_body(&api, request.kind, body, request.progress);
            // Not cancelled from here on: the backend would wait forever for the missing number.
            let result = catch_panic(submission.submit(&api, None)).await;
            let result = result.map(|id| id.map(|id| (submission, id)));
            drop(request.outcome.try_send(result));
        }
        Ok(())
    };
    let _ = api.while_open(all).await;
}

/// Adds the key `seq_id` to a JSON object.
fn with_seq_id(mut body: Vec<u8>, seq_id: u64) -> Vec<u8> {
    if body.last() == Some(&b'}') {
        body.pop();
        body.extend_from_slice(alloc::format!(",\"seq_id\":{seq_id}}}").as_bytes());
    }
    body
}
