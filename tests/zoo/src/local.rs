//! A thread with its own single-threaded executor, which runs jobs submitted from outside.

use crate::runtimes::Task;
use alloc::rc::Rc;
use core::marker::PhantomData;
use smol::channel::{Receiver, Sender, unbounded};
use std::thread::{self, JoinHandle};
use tinkex_telemetry::local::{LocalSpawner, LocalTransport};
use tinkex_telemetry::{Batch, Receipt, SendError};

pub(crate) type Job<S> = Box<dyn FnOnce(&S) + Send>;

/// Dropping it ends the executor with all its tasks.
pub(crate) struct LocalThread<S> {
    jobs: Option<Sender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: LocalSpawner + 'static> LocalThread<S> {
    /// `run` creates the executor and runs [`run_jobs`] on it.
    pub(crate) fn start(run: impl FnOnce(Receiver<Job<S>>) + Send + 'static) -> Self {
        let (jobs, receiver) = unbounded();
        let thread = thread::spawn(move || run(receiver));
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    pub(crate) fn submit(&self, job: impl FnOnce(&S) + Send + 'static) {
        let jobs = self.jobs.as_ref().expect("not shut down");
        jobs.try_send(Box::new(job)).expect("the thread is running");
    }

    pub(crate) fn spawn(&self, task: Task) {
        self.submit(|spawner| spawner.spawn_local(task).expect("the executor is running"));
    }

    pub(crate) fn shut_down(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl<S> Drop for LocalThread<S> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs jobs until all senders are dropped.
pub(crate) async fn run_jobs<S>(jobs: Receiver<Job<S>>, spawner: S) {
    while let Ok(job) = jobs.recv().await {
        job(&spawner);
    }
}

/// A transport that is not `Send`.
pub(crate) struct NotSend<T>(T, PhantomData<Rc<()>>);

impl<T> NotSend<T> {
    pub(crate) const fn new(transport: T) -> Self {
        Self(transport, PhantomData)
    }
}

impl<T: LocalTransport> LocalTransport for NotSend<T> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        self.0.send(batch).await
    }
}
