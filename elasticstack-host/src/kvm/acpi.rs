//! The ACPI tables by which a guest finds its processors, its interrupt controllers, its devices and its
//! buttons (ACPI 6.5, hardware-reduced: section 3.11.1). Pure.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::layout::{
    BUTTON_LINE, IO_APIC, LOCAL_APIC, PANIC, POWER, SERIAL, SERIAL_LINE, TABLES, VIRTIO_SIZE,
    virtio, virtio_line,
};
use super::power::{RESET, SOFT_OFF};

const OEM: [u8; 6] = *b"ESTACK";
const TABLE: [u8; 8] = *b"ESTACKVM";

/// What there is neither of: a VGA, a real-time clock of CMOS (section 5.2.9.3).
const ABSENT: u16 = 1 << 2 | 1 << 5;

/// The tables of a machine, as they are to lie from the start of [`TABLES`] on; the first is the root
/// pointer.
pub(super) fn tables(processors: u8, devices: u32) -> Vec<u8> {
    let differentiated = differentiated(devices);
    let apic = bytes(&apic(processors));
    let fixed = |dsdt| bytes(&fixed(dsdt));
    let root = |entries: [u64; 2]| {
        let mut root = XSDT::new(OEM, TABLE, 1);
        entries.into_iter().for_each(|entry| root.add_entry(entry));
        bytes(&root)
    };
    // Sizes do not depend on addresses.
    let mut next = TABLES.start;
    let mut place = |length: usize| {
        let at = next;
        next += u64::try_from(length.next_multiple_of(16)).unwrap_or(0);
        at
    };
    let _pointer = place(Rsdp::len());
    let at_root = place(root([0; 2]).len());
    let at_fixed = place(fixed(0).len());
    let at_apic = place(apic.len());
    let at_differentiated = place(differentiated.len());
    let mut all = Vec::new();
    for table in [
        bytes(&Rsdp::new(OEM, at_root)),
        root([at_fixed, at_apic]),
        fixed(at_differentiated),
        apic,
        differentiated,
    ] {
        all.extend(table);
        all.resize(all.len().next_multiple_of(16), 0);
    }
    all
}

/// FADT: what of ACPI's hardware there is.
fn fixed(dsdt: u64) -> acpi_tables::fadt::FADT {
    let register = |offset: u64| {
        GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, POWER.start + offset)
    };
    let mut table = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    table.iapc_boot_arch = ABSENT.into();
    table.sleep_control_reg = register(0);
    table.sleep_status_reg = register(1);
    table.reset_reg = register(2);
    table.reset_value = RESET;
    table.finalize()
}

/// MADT: processors and interrupt controllers.
fn apic(processors: u8) -> MADT {
    let mut table = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(LOCAL_APIC));
    for number in 0..processors {
        table.add_structure(ProcessorLocalApic::new(number, number, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, IO_APIC, 0));
    table
}

/// DSDT: the devices, the power button, and the sleep state that is off.
fn differentiated(devices: u32) -> Vec<u8> {
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, 1);
    let serial = bytes(&Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &IO::new(port(SERIAL.start), port(SERIAL.start), 1, 8),
                    &Interrupt::new(true, true, false, false, SERIAL_LINE),
                ]),
            ),
        ],
    ));
    let button = bytes(&Device::new(
        Path::new("PWRB"),
        vec![&Name::new(Path::new("_HID"), &EISAName::new("PNP0C0C"))],
    ));
    // By this name Linux finds it.
    let panic = bytes(&Device::new(
        Path::new("PEVT"),
        vec![
            &Name::new(Path::new("_HID"), &"QEMU0001"),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&IO::new(port(PANIC.start), port(PANIC.start), 1, 1)]),
            ),
        ],
    ));
    // The only event there is: the button was pressed.
    let pressed = Path::new("\\_SB_.PWRB");
    let events = bytes(&Device::new(
        Path::new("GED_"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&Interrupt::new(
                    true,
                    true,
                    false,
                    false,
                    BUTTON_LINE,
                )]),
            ),
            &Method::new(Path::new("_EVT"), 1, true, vec![&Notify::new(&pressed, &0x80_u8)]),
        ],
    ));
    let mut inside = [serial, panic, button, events].concat();
    for number in 0..devices {
        inside.extend(virtio_device(number));
    }
    table.append_slice(&Scope::raw(Path::new("\\_SB_"), inside));
    table.append_slice(&bytes(&Name::new(Path::new("_S5_"), &Package::new(vec![&SOFT_OFF]))));
    table.as_slice().to_vec()
}

/// Linux finds virtio over MMIO by this name.
fn virtio_device(number: u32) -> Vec<u8> {
    let [at, size] = [virtio(number), VIRTIO_SIZE].map(|of| u32::try_from(of).unwrap_or(0));
    bytes(&Device::new(
        Path::new(&format!("V{number:03}")),
        vec![
            &Name::new(Path::new("_HID"), &"LNRO0005"),
            &Name::new(Path::new("_UID"), &number),
            &Name::new(Path::new("_CCA"), &1_u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, at, size),
                    &Interrupt::new(true, true, false, false, virtio_line(number)),
                ]),
            ),
        ],
    ))
}

fn port(port: u64) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn sums_to_nothing(bytes: &[u8]) -> bool {
        bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    #[test]
    fn every_table_is_found_from_the_root_pointer_and_adds_up() {
        for (processors, devices) in [(1, 0), (2, 3), (64, 16)] {
            let all = tables(processors, devices);
            assert!(all.len() as u64 <= TABLES.end - TABLES.start);
            let at = |address: u64| &all[usize::try_from(address - TABLES.start).unwrap()..];
            let table = |address: u64| {
                let length = usize::try_from(number(&at(address)[4..8])).unwrap();
                let table = &at(address)[..length];
                assert!(sums_to_nothing(table), "{:?}", &table[..4]);
                table
            };
            assert_eq!(&all[..8], b"RSD PTR ");
            assert!(sums_to_nothing(&all[..20]) && sums_to_nothing(&all[..36]));
            let root = table(number(&all[24..32]));
            assert_eq!(&root[..4], b"XSDT");
            let fixed = table(number(&root[36..44]));
            assert_eq!(&fixed[..4], b"FACP");
            let apic = table(number(&root[44..52]));
            assert_eq!(&apic[..4], b"APIC");
            assert_eq!(apic.len(), 44 + usize::from(processors) * 8 + 12);
            let differentiated = table(number(&fixed[140..148]));
            assert_eq!(&differentiated[..4], b"DSDT");
            let found = differentiated.windows(8).filter(|bytes| bytes == b"LNRO0005").count();
            assert_eq!(found, usize::try_from(devices).unwrap());
        }
    }
}
