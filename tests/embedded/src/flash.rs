//! Flash in memory, and what the page's queue must do with it: keep requests through a reset, and send each once.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use embedded_storage_async::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use std::cell::RefCell;
use std::rc::Rc;
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::session::Uuid;
use tinkex_telemetry::{Receipt, Reporter, SendError, wire};

/// Flash of some pages that outlives a reset.
#[derive(Clone)]
pub struct Flash(Rc<RefCell<Vec<u8>>>);

/// An access that flash does not allow.
#[derive(Debug)]
pub struct Misuse;

impl NorFlashError for Misuse {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ErrorType for Flash {
    type Error = Misuse;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, at: u32, out: &mut [u8]) -> Result<(), Misuse> {
        let bytes = self.0.borrow();
        let range = at as usize..at as usize + out.len();
        out.copy_from_slice(bytes.get(range).ok_or(Misuse)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Misuse> {
        let mut bytes = self.0.borrow_mut();
        let range = from as usize..to as usize;
        bytes.get_mut(range).ok_or(Misuse)?.fill(0xff);
        Ok(())
    }

    async fn write(&mut self, at: u32, new: &[u8]) -> Result<(), Misuse> {
        let mut bytes = self.0.borrow_mut();
        let range = at as usize..at as usize + new.len();
        let old = bytes.get_mut(range).ok_or(Misuse)?;
        // A write only clears bits.
        old.iter_mut().zip(new).for_each(|(old, new)| *old &= new);
        Ok(())
    }
}

impl MultiwriteNorFlash for Flash {}

/// The post that is given to the page's code.
type Sent<'a> = &'a mut dyn FnMut(Uuid, &[u8]) -> Result<Receipt, SendError>;

/// Has a session store events, resets the device, and sends what is stored.
pub fn stores_and_sends<const ITEM: usize, Q, T: LocalTransport>(
    open: impl Fn(Flash) -> (Q, T),
    mut send_oldest: impl AsyncFnMut(&Q, &mut [u8; ITEM], Sent<'_>) -> bool,
) {
    let flash = Flash(Rc::new(RefCell::new(vec![0xff; 4 * 4096])));
    let (_, transport) = open(flash.clone());
    let (reporter, driver) = Reporter::builder("device-17-boot-1")
        .transport(transport)
        .clock(crate::Still)
        .enabled(true)
        .build()
        .expect("it builds");
    let mut driver = pin!(driver.run_local());
    let mut context = Context::from_waker(Waker::noop());
    for n in 0..3_u32 {
        assert!(reporter.log("measured", n));
        reporter.flush();
        assert!(driver.as_mut().poll(&mut context).is_pending());
    }
    let stats = reporter.stats();
    assert!(stats.handed_over == 4 && stats.queued == 0, "{stats:?}");

    // A reset: only the flash is left.
    let (queue, _) = open(flash);
    let (mut item, mut sent) = ([0; ITEM], Vec::new());
    let mut next = |answer: fn() -> Result<Receipt, SendError>| {
        let mut post = |key: Uuid, body: &[u8]| {
            let checked = wire::check(body, wire::Mode::Strict).expect("a valid request");
            sent.push((key, checked.events().len()));
            answer()
        };
        now(send_oldest(&queue, &mut item, &mut post))
    };
    let away = || Err(SendError::retryable("away"));
    let accepts = || Ok(Receipt::delivered());
    assert!(!next(away), "it is kept");
    while next(accepts) {}
    let [(first, _), rest @ ..] = &sent[..] else {
        panic!("nothing was sent");
    };
    assert_eq!(*first, rest[0].0, "the same request with the same key");
    assert_eq!(rest.iter().map(|(_, events)| events).sum::<usize>(), 4);
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}
