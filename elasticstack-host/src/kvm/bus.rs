//! Which device answers at which address, in one of a machine's two address spaces: memory and ports.
//!
//! What the guest asks for is not to be trusted: an access that no device takes whole reads as ones and
//! writes nothing, as on a real bus.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What answers at a range of addresses. Several processors of the guest may ask at once.
pub(super) trait Device: Send + Sync {
    /// Fills `data` from `offset` of its range on.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data` at `offset` of its range.
    fn write(&self, offset: u64, data: &[u8]);
}

/// The devices of an address space.
#[derive(Default)]
pub(super) struct Bus {
    /// By their first addresses, each with the one past its last.
    devices: BTreeMap<u64, (u64, Arc<dyn Device>)>,
}

impl Bus {
    /// Has a device answer at `range`.
    ///
    /// # Panics
    /// If another one answers there: a machine's map is its builder's, not the guest's.
    pub(super) fn plug(&mut self, range: Range<u64>, device: Arc<dyn Device>) {
        let before = self.devices.range(..range.end).next_back();
        let is_free = before.is_none_or(|(_, (end, _))| *end <= range.start);
        assert!(is_free && !range.is_empty(), "two devices at {range:#x?}");
        self.devices.insert(range.start, (range.end, device));
    }

    pub(super) fn read(&self, address: u64, data: &mut [u8]) {
        match self.at(address, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    pub(super) fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.at(address, data.len()) {
            device.write(offset, data);
        }
    }

    fn at(&self, address: u64, length: usize) -> Option<(u64, &dyn Device)> {
        let (start, (end, device)) = self.devices.range(..=address).next_back()?;
        let last = address.checked_add(u64::try_from(length).ok()?)?;
        (last <= *end).then(|| (address - start, &**device))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.devices.iter().map(|(start, (end, _))| *start..*end)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Remembers the last access; reads as its number.
    struct Probe(u8, Mutex<Option<(u64, usize)>>);

    impl Device for Probe {
        fn read(&self, offset: u64, data: &mut [u8]) {
            *self.1.lock().unwrap() = Some((offset, data.len()));
            data.fill(self.0);
        }

        fn write(&self, offset: u64, data: &[u8]) {
            *self.1.lock().unwrap() = Some((offset, data.len()));
        }
    }

    fn bus() -> (Bus, [Arc<Probe>; 2]) {
        let probes = [1, 2].map(|number| Arc::new(Probe(number, Mutex::default())));
        let mut bus = Bus::default();
        bus.plug(0x1000..0x1008, probes[0].clone());
        bus.plug(0x1008..0x2000, probes[1].clone());
        (bus, probes)
    }

    proptest! {
        #[test]
        fn an_access_reaches_the_device_that_takes_it_whole_or_none(
            address in prop_oneof![0xff0_u64..0x2010, any::<u64>()],
            length in 0_usize..9,
        ) {
            let (bus, probes) = bus();
            let mut data = vec![0; length];
            bus.read(address, &mut data);
            let end = u128::from(address) + length as u128;
            let within = |range: Range<u64>| {
                range.contains(&address) && end <= u128::from(range.end)
            };
            let expected = if within(0x1000..0x1008) { 1 } else if within(0x1008..0x2000) { 2 } else { 0xff };
            prop_assert_eq!(&data, &vec![expected; length]);
            for (probe, start) in probes.iter().zip([0x1000_u64, 0x1008]) {
                let asked = *probe.1.lock().unwrap();
                let is_its = probe.0 == expected && within_any(address, start);
                prop_assert_eq!(asked, is_its.then(|| (address - start, length)));
            }
        }
    }

    fn within_any(address: u64, start: u64) -> bool {
        address >= start
    }

    #[test]
    #[should_panic(expected = "two devices at")]
    fn two_devices_at_one_address_are_a_mistake_of_the_machines_builder() {
        let (mut bus, [probe, _]) = bus();
        bus.plug(0x1fff..0x2001, probe);
    }
}
