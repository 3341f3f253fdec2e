//! A thread with a single-threaded executor of its own, which is told from outside what to do.

use crate::worlds::Task;
use alloc::rc::Rc;
use core::marker::PhantomData;
use smol::channel::{Receiver, Sender, unbounded};
use std::thread::{self, JoinHandle};
use tinkex_telemetry::local::{LocalSpawner, LocalTransport};
use tinkex_telemetry::{Batch, Receipt, SendError};

pub(crate) type Job<S> = Box<dyn FnOnce(&S) + Send>;

/// Ends its executor, with all tasks, when it is dropped.
pub(crate) struct LocalThread<S> {
    jobs: Option<Sender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: LocalSpawner + 'static> LocalThread<S> {
    /// `run` makes the executor and runs [`obey`] on it.
    pub(crate) fn start(run: impl FnOnce(Receiver<Job<S>>) + Send + 'static) -> Self {
        let (jobs, receiver) = unbounded();
        let thread = thread::spawn(move || run(receiver));
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    pub(crate) fn tell(&self, job: impl FnOnce(&S) + Send + 'static) {
        let jobs = self.jobs.as_ref().expect("it is not shut down");
        jobs.try_send(Box::new(job)).expect("the thread lives");
    }

    pub(crate) fn spawn(&self, task: Task) {
        self.tell(|spawner| spawner.spawn_local(task).expect("it runs"));
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

/// Does what it is told until nobody is left to tell.
pub(crate) async fn obey<S>(jobs: Receiver<Job<S>>, spawner: S) {
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
