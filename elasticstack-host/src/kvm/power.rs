//! How a guest ends itself or starts anew: ACPI's sleep control and reset registers, of hardware-reduced
//! ACPI (ACPI 6.5, sections 4.8.3.6 and 4.8.3.7).

use std::sync::mpsc::Sender;

use super::bus::Device;

/// What a guest has made of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is off.
    Off,
    /// It starts anew.
    Reset,
    /// KVM can't go on with it, for this reason.
    Failed(String),
}

/// The sleep state of soft off, as `\_S5` in our tables tells it to the guest.
pub(super) const SOFT_OFF: u8 = 5;

/// What is written to the reset register.
pub(super) const RESET: u8 = 1;

const SLEEP_ENABLE: u8 = 1 << 5;

/// The registers, at offsets 0 (sleep control), 1 (sleep status) and 2 (reset).
pub(super) struct Power(pub Sender<Ending>);

impl Device for Power {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let ending = match (offset, data) {
            (0, [value]) if *value == SLEEP_ENABLE | SOFT_OFF << 2 => Ending::Off,
            (2, [RESET]) => Ending::Reset,
            _ => return,
        };
        // Nobody listens any more to a machine that is being taken apart.
        let _ = self.0.send(ending);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_soft_off_and_the_reset_value_end_a_run() {
        let (said, heard) = channel();
        let power = Power(said);
        for offset in 0..3 {
            for value in 0..=u8::MAX {
                power.write(offset, &[value]);
                let expected = match (offset, value) {
                    (0, 0x34) => Some(Ending::Off),
                    (2, 1) => Some(Ending::Reset),
                    _ => None,
                };
                assert_eq!(heard.try_recv().ok(), expected, "{value:#x} at {offset}");
            }
        }
    }
}
