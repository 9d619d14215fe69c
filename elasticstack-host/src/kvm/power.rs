//! How a guest ends itself or starts anew: ACPI's sleep control and reset registers, of hardware-reduced
//! ACPI (ACPI 6.5, sections 4.8.3.6 and 4.8.3.7); and how it says that it crashed: QEMU's panic device
//! (docs/specs/pvpanic of QEMU), for which Linux has a driver.

use super::bus::Device;
use super::news::{Listener, News};

/// The sleep state of soft off, as `\_S5` in our tables tells it to the guest.
pub(super) const SOFT_OFF: u8 = 5;

/// What is written to the reset register.
pub(super) const RESET: u8 = 1;

const SLEEP_ENABLE: u8 = 1 << 5;

/// What a guest says on its panic device, and reads there as what it may say.
const PANICKED: u8 = 1;

/// The registers, at offsets 0 (sleep control), 1 (sleep status) and 2 (reset).
pub(super) struct Power(pub Listener);

impl Device for Power {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, [value]) if *value == SLEEP_ENABLE | SOFT_OFF << 2 => self.0.tell(News::Off),
            (2, [RESET]) => self.0.tell(News::Reset),
            _ => {}
        }
    }
}

/// The panic device, one register.
pub(super) struct Panic(pub Listener);

impl Device for Panic {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let [first, ..] = data {
            *first = PANICKED;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first().is_some_and(|said| said & PANICKED != 0) {
            self.0.tell(News::Panicked);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_soft_off_the_reset_value_and_a_panic_are_told() {
        let (tell, told) = channel();
        let listener = Listener::new(move |news| tell.send(news).unwrap());
        let (power, panic) = (Power(listener.clone()), Panic(listener));
        for value in 0..=u8::MAX {
            for offset in 0..3 {
                power.write(offset, &[value]);
                let expected = match (offset, value) {
                    (0, 0x34) => Some(News::Off),
                    (2, 1) => Some(News::Reset),
                    _ => None,
                };
                assert_eq!(told.try_recv().ok(), expected, "{value:#x} at {offset}");
            }
            panic.write(0, &[value]);
            assert_eq!(told.try_recv().is_ok(), value % 2 == 1, "{value:#x}");
        }
        let mut may_say = [0];
        panic.read(0, &mut may_say);
        assert_eq!(may_say, [1]);
    }
}
