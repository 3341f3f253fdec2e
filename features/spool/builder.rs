//! The builder: what a spool is made of.

use super::error::SpoolError;
use super::folder::Directory;
use super::format::Destination;
use super::forwarder::{Forwarder, Timing};
use super::host::{Host, ThisMachine};
use super::inner::{Block, Inner, Runtime as Waits};
use super::keeper::Keeper;
use super::state::Shared;
use super::std_disk::StdDisk;
use super::writer::{Settings, Sync, Writer};
use super::{Spool, SpoolForwarder};
use crate::clock::Clock;
use crate::session::switch::Switch;
use crate::spawner::{Runtime, SpawnError, WouldDeadlock};
use crate::sys::entropy::{Entropy, Random};
use crate::sys::fork::Fork;
use crate::transport::Transport;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::future::{Future as _, poll_fn};
use core::pin::pin;
use core::sync::atomic::AtomicU64;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Mutex;

/// Builds a [`Spool`]; see [`Spool::builder`].
#[must_use]
pub struct SpoolBuilder<T = (), C = ()> {
    path: PathBuf,
    transport: T,
    clock: C,
    bound: Result<(), SpawnError>,
    destination: Option<String>,
    max_bytes: u64,
    max_age: Duration,
    sync: Sync,
    timing: Timing,
    enabled: Option<bool>,
    host: Arc<dyn Host>,
}

impl SpoolBuilder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            transport: (),
            clock: (),
            bound: Ok(()),
            destination: None,
            max_bytes: 256 << 20,
            max_age: Duration::from_secs(14 * 86_400),
            sync: Sync::default(),
            timing: Timing {
                http_timeout: Duration::from_secs(30),
                retry_base_delay: Duration::from_secs(1),
                retry_max_delay: Duration::from_secs(60),
            },
            enabled: None,
            host: Arc::new(ThisMachine(Arc::new(StdDisk))),
        }
    }
}

impl<T, C> SpoolBuilder<T, C> {
    /// Sets the transport that sends what is on disk.
    pub fn transport<U: Transport>(self, transport: U) -> SpoolBuilder<U, C> {
        self.with(|_, clock| (transport, clock))
    }

    /// Sets the runtime: the clock, and where the forwarder runs.
    pub fn runtime<R: Runtime>(self, mut runtime: R) -> SpoolBuilder<T, R> {
        let bound = runtime.bind();
        let mut builder = self.with(|transport, _| (transport, runtime));
        builder.bound = bound;
        builder
    }

    /// Sets the clock alone, for [`build`](Self::build).
    pub fn clock<D: Clock>(self, clock: D) -> SpoolBuilder<T, D> {
        self.with(|transport, _| (transport, clock))
    }

    /// Names where the events go, for a [`Transport`] that does not name its [destination](Transport::destination)
    /// itself. Events of another destination in the same directory are left alone. Only a hash of it is stored.
    pub fn destination(mut self, name: impl Into<String>) -> Self {
        self.destination = Some(name.into());
        self
    }

    /// Sets how many bytes the spool may have on disk, at least 64 KiB. Beyond that the oldest events are dropped and
    /// counted as [`evicted`](super::SpoolStats::evicted). A quarter as much again may be in `rejected`. Default
    /// 256 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how long events may wait on disk before they are dropped and counted as
    /// [`evicted`](super::SpoolStats::evicted). Default 14 days. A process looks for them each hour, or each quarter of
    /// `age` if that is shorter, and not before it has tried to deliver them for that long.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets when what is written is made durable against a power cut. Default [`Sync::OnStop`].
    pub fn sync(mut self, sync: Sync) -> Self {
        self.sync = sync;
        self
    }

    /// Sets how long the forwarder waits for the answer to a request. Default 30 s.
    pub fn http_timeout(mut self, timeout: Duration) -> Self {
        self.timing.http_timeout = timeout;
        self
    }

    /// Sets the delay after a first failure, which doubles with each further one. Default 1 s.
    pub fn retry_base_delay(mut self, delay: Duration) -> Self {
        self.timing.retry_base_delay = delay;
        self
    }

    /// Sets the longest delay between attempts. Default 60 s.
    pub fn retry_max_delay(mut self, delay: Duration) -> Self {
        self.timing.retry_max_delay = delay;
        self
    }

    /// Switches the spool on or off, whatever the environment says. One that is off touches no disk and no network.
    /// Default: on, unless `TINKER_TELEMETRY` or `DO_NOT_TRACK` switches telemetry off.
    pub fn enabled(mut self, is_on: bool) -> Self {
        self.enabled = Some(is_on);
        self
    }

    /// Sets the disk.
    #[cfg(test)]
    pub(super) fn disk(mut self, disk: Arc<dyn super::disk::Disk>) -> Self {
        self.host = Arc::new(ThisMachine(disk));
        self
    }

    /// Sets the machine.
    #[cfg(feature = "sim")]
    pub(super) fn host(mut self, host: Arc<dyn Host>) -> Self {
        self.host = host;
        self
    }

    fn with<U, D>(self, change: impl FnOnce(T, C) -> (U, D)) -> SpoolBuilder<U, D> {
        let (transport, clock) = change(self.transport, self.clock);
        SpoolBuilder {
            path: self.path,
            transport,
            clock,
            bound: self.bound,
            destination: self.destination,
            max_bytes: self.max_bytes,
            max_age: self.max_age,
            sync: self.sync,
            timing: self.timing,
            enabled: self.enabled,
            host: self.host,
        }
    }

    fn is_on(&self) -> bool {
        self.enabled
            .unwrap_or_else(|| Switch::in_environment() == Switch::On)
    }
}

impl<T: Transport, R: Runtime> SpoolBuilder<T, R> {
    /// Starts the spool, and its forwarder on the runtime. Two more threads work for it: one writes, and one reads.
    ///
    /// # Errors
    /// When the directory cannot be used or is not safe, an option is invalid or a thread cannot be started.
    pub fn start(mut self) -> Result<Spool, SpoolError> {
        let bound = core::mem::replace(&mut self.bound, Ok(()));
        bound.map_err(SpoolError::Spawn)?;
        let runtime = self.clock.clone();
        let blocking = self.clock.clone();
        let (spool, forwarder) = self.assemble(Box::new(move |is_here, wait| {
            blocking.block_in_place(is_here, wait)
        }))?;
        if spool.inner.is_on {
            runtime.spawn(forwarder).map_err(SpoolError::Spawn)?;
        }
        Ok(spool)
    }
}

impl<T: Transport, C: Clock> SpoolBuilder<T, C> {
    /// Builds the spool, and hands out its forwarder as a future to run on any executor. Nothing is sent unless it runs.
    ///
    /// # Errors
    /// As those of [`start`](Self::start).
    pub fn build(self) -> Result<(Spool, SpoolForwarder), SpoolError> {
        self.assemble(Box::new(|is_here, wait| {
            if is_here {
                return Err(WouldDeadlock);
            }
            wait();
            Ok(())
        }))
    }

    fn assemble(self, block: Block) -> Result<(Spool, SpoolForwarder), SpoolError> {
        let is_on = self.is_on();
        let destination = match (self.transport.destination(), self.destination) {
            (_, Some(name)) => Some(name),
            (Some(name), None) => Some(name.into()),
            (None, None) if !is_on => None,
            (None, None) => return Err(SpoolError::NoDestination),
        };
        if self.max_bytes < 64 << 10 {
            return Err(SpoolError::Option(
                "max_bytes must be at least 64 KiB (65536)",
            ));
        }
        let host = self.host;
        let shared = Arc::new(Shared::new(host.time()));
        shared.lock().users = 1;
        let clock = Arc::new(self.clock);
        let sleeper = Arc::clone(&clock);
        let reader = Arc::clone(&clock);
        let forwarder_thread = Arc::new(Mutex::new(None));
        let mut inner = Inner {
            shared: Arc::clone(&shared),
            queue: Arc::default(),
            keeper: None,
            path: self.path,
            warning: self.transport.warning(),
            destination,
            fork: Fork::here(),
            is_on,
            runtime: Waits {
                now: Box::new(move || reader.now()),
                sleep: Box::new(move |at| {
                    let clock = Arc::clone(&sleeper);
                    Box::pin(async move { clock.deadline(at).await })
                }),
                block,
            },
            transports: AtomicU64::new(0),
            witness: None,
            is_simulated: host.is_simulated(),
            forwarder: Arc::clone(&forwarder_thread),
        };
        if !is_on {
            let forwarder = SpoolForwarder(Box::pin(async {}));
            return Ok((Spool::new(inner), forwarder));
        }
        self.transport.check().map_err(SpoolError::Transport)?;
        let failed = |error| SpoolError::disk(&inner.path, error);
        let mut random = host.random().map_err(failed)?;
        let disk = host.disk();
        let path = disk.absolute(&inner.path).map_err(failed)?;
        let directory = Directory::open(&*disk, &path, &mut random)?;
        inner.path.clone_from(&directory.path);
        let destination = inner.destination.as_deref().unwrap_or_default();
        let to = Destination::of(destination);
        inner.witness = host.witness(self.sync, destination);
        let folders = Arc::default();
        let mut keeper = Keeper::new(
            Arc::clone(&disk),
            directory.clone(),
            Arc::clone(&shared),
            to,
            self.max_bytes,
            self.max_age,
            seeded(&mut random),
            Arc::clone(&folders),
        );
        keeper.refused.must_sync = self.sync != Sync::Never;
        let settings = Settings {
            to,
            sync: self.sync,
            max_bytes: self.max_bytes,
        };
        let writer = Writer::new(
            disk,
            directory,
            Arc::clone(&shared),
            settings,
            seeded(&mut random),
            folders,
        );
        host.start_writer(writer, &inner.queue)?;
        let keeper = host.start_keeper(keeper)?;
        inner.keeper = Some(keeper.teller());
        let forwarder = Forwarder::new(
            self.transport,
            SharedClock(clock),
            keeper,
            shared,
            self.timing,
            random,
        );
        let forwarder = async move {
            let mut forwarder = pin!(forwarder.run());
            poll_fn(|context| {
                if let Ok(mut thread) = forwarder_thread.lock() {
                    *thread = Some(std::thread::current().id());
                }
                forwarder.as_mut().poll(context)
            })
            .await;
        };
        let spool = Spool::new(inner);
        host.begin(&spool.inner);
        Ok((spool, SpoolForwarder(Box::pin(forwarder))))
    }
}

/// Another generator, from this one.
fn seeded(random: &mut Random) -> Random {
    let (one, two) = (random.uuid().into_bytes(), random.uuid().into_bytes());
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&one);
    seed[16..].copy_from_slice(&two);
    Random::new(Entropy::new(seed))
}

/// A clock that the forwarder and the waits share.
struct SharedClock<C>(Arc<C>);

impl<C: Clock> Clock for SharedClock<C> {
    fn now(&self) -> crate::time::Instant {
        self.0.now()
    }

    fn utc(&self) -> crate::time::Timestamp {
        self.0.utc()
    }

    fn sleep_until(&self, at: crate::time::Instant) -> impl Future<Output = ()> + Send {
        self.0.sleep_until(at)
    }
}

impl<T, C> fmt::Debug for SpoolBuilder<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolBuilder")
            .field("path", &self.path)
            .field("max_bytes", &self.max_bytes)
            .field("max_age", &self.max_age)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}
