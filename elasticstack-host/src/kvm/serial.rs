//! A guest's first serial port, a 16550A; what the guest writes goes where the builder says.

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial as Uart, Trigger};

use super::bus::Device;

/// The port.
pub(super) struct Serial<W: Write>(Mutex<Uart<Raise, NoEvents, W>>);

/// Raises the port's interrupt.
struct Raise(Box<dyn Fn() + Send + Sync>);

impl Trigger for Raise {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        (self.0)();
        Ok(())
    }
}

impl<W: Write> Serial<W> {
    pub(super) fn new(log: W, raise: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Mutex::new(Uart::new(Raise(Box::new(raise)), log)))
    }
}

impl<W: Write + Send> Device for Serial<W> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let mut uart = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            *byte = uart.read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut uart = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            // What the log can't take is lost, as on a line that nobody listens to.
            let _ = uart.write(offset, *byte);
        }
    }
}
