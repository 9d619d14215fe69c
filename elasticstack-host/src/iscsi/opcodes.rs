//! What REPORT SUPPORTED OPERATION CODES tells (SPC-4, section 6.27): the commands of `cdb`, each
//! with the bits of its CDB that we read.

use super::field::{put, u8_at};
use super::sense::Sense;

/// A command: its operation code is the first byte of the usage, its service action, if it has one,
/// the low five bits of the second.
struct Offered {
    has_action: bool,
    usage: &'static [u8],
}

const fn plain(usage: &'static [u8]) -> Offered {
    Offered { has_action: false, usage }
}

const fn with_action(usage: &'static [u8]) -> Offered {
    Offered { has_action: true, usage }
}

const OFFERED: &[Offered] = &[
    plain(&[0x00, 0, 0, 0, 0, 0]),
    plain(&[0x03, 0x01, 0, 0, 0xff, 0]),
    plain(&[0x08, 0x1f, 0xff, 0xff, 0xff, 0]),
    plain(&[0x0a, 0x1f, 0xff, 0xff, 0xff, 0]),
    plain(&[0x12, 0x01, 0xff, 0xff, 0xff, 0]),
    plain(&[0x16, 0, 0, 0, 0, 0]),
    plain(&[0x17, 0, 0, 0, 0, 0]),
    plain(&[0x1a, 0x08, 0xff, 0xff, 0xff, 0]),
    plain(&[0x1b, 0x01, 0, 0x0f, 0xf7, 0]),
    plain(&[0x1e, 0, 0, 0, 0x03, 0]),
    plain(&[0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0]),
    plain(&[0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[0x2a, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[0x2e, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[0x2f, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[0x35, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[0x41, 0x08, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[0x42, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    plain(&[0x5a, 0x08, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0]),
    with_action(&[0x5e, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    with_action(&[0x5e, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    with_action(&[0x5e, 0x02, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    with_action(&[0x5e, 0x03, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    with_action(&[0x5f, 0x00, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    with_action(&[0x5f, 0x01, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    with_action(&[0x5f, 0x02, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    with_action(&[0x5f, 0x03, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    with_action(&[0x5f, 0x04, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    with_action(&[0x5f, 0x05, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    with_action(&[0x5f, 0x06, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    plain(&[0x88, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0x89, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 255, 0, 0]),
    plain(&[0x8a, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0x8b, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0x8e, 0x16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0x8f, 0x16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0x90, 0x02, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0x91, 0x02, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0x93, 0x09, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    with_action(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0]),
    with_action(&[0x9e, 0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0xa0, 0, 0xff, 0, 0, 0, 255, 255, 255, 255, 0, 0]),
    with_action(&[0xa3, 0x0c, 0x87, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0xa8, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0xaa, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0xae, 0x16, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
    plain(&[0xaf, 0x16, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]),
];

/// A timeouts descriptor that says nothing.
const TIMEOUTS: [u8; 12] = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Offered {
    fn operation(&self) -> u8 {
        u8_at(self.usage, 0)
    }

    fn action(&self) -> u16 {
        if self.has_action { u16::from(u8_at(self.usage, 1) & 0x1f) } else { 0 }
    }

    fn length(&self) -> [u8; 2] {
        u16::try_from(self.usage.len()).unwrap_or(u16::MAX).to_be_bytes()
    }
}

/// The answer to a request with these REPORTING OPTIONS.
pub(super) fn report(
    options: u8,
    operation: u8,
    action: u16,
    with_timeouts: bool,
) -> Result<Vec<u8>, Sense> {
    if options == 0 {
        return Ok(all(with_timeouts));
    }
    let mut of_operation = OFFERED.iter().filter(|offered| offered.operation() == operation);
    let has_actions = of_operation.clone().any(|offered| offered.has_action);
    let found = match (options, has_actions) {
        (1, false) => of_operation.next(),
        (2, true) | (3, _) => of_operation.find(|offered| offered.action() == action),
        // An operation that is not offered has no service actions to get wrong.
        (2, false) if of_operation.next().is_none() => None,
        _ => return Err(Sense::INVALID_FIELD_IN_CDB),
    };
    Ok(one(found, with_timeouts))
}

fn all(with_timeouts: bool) -> Vec<u8> {
    let mut report = vec![0; 4];
    for offered in OFFERED {
        let mut descriptor = [0; 8];
        put(&mut descriptor, 0, [offered.operation()]);
        put(&mut descriptor, 2, offered.action().to_be_bytes());
        let flags = u8::from(with_timeouts) << 1 | u8::from(offered.has_action);
        put(&mut descriptor, 5, [flags]);
        put(&mut descriptor, 6, offered.length());
        report.extend(descriptor);
        if with_timeouts {
            report.extend(TIMEOUTS);
        }
    }
    let length = u32::try_from(report.len().saturating_sub(4)).unwrap_or(u32::MAX);
    put(&mut report, 0, length.to_be_bytes());
    report
}

fn one(offered: Option<&Offered>, with_timeouts: bool) -> Vec<u8> {
    const NOT_SUPPORTED: u8 = 1;
    const AS_THE_STANDARD_SAYS: u8 = 3;
    let Some(offered) = offered else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let timeouts = if with_timeouts { 0x80 } else { 0 };
    let mut report = vec![0, AS_THE_STANDARD_SAYS | timeouts, 0, 0];
    put(&mut report, 2, offered.length());
    report.extend(offered.usage);
    if with_timeouts {
        report.extend(TIMEOUTS);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::super::cdb::{CDB_LENGTH, CdbError, Command};
    use super::*;

    fn cdb(operation: u8, action: u8) -> [u8; CDB_LENGTH] {
        let mut cdb = [0; CDB_LENGTH];
        cdb[..2].copy_from_slice(&[operation, action]);
        cdb
    }

    #[test]
    fn what_is_reported_is_what_is_parsed() {
        for operation in 0..=u8::MAX {
            let offered = OFFERED.iter().any(|offered| offered.operation() == operation);
            let parsed = Command::parse(&cdb(operation, 0));
            assert_eq!(parsed != Err(CdbError::InvalidOperationCode), offered, "{operation:#x}");
        }
        for offered in OFFERED.iter().filter(|offered| offered.has_action) {
            let cdb = cdb(offered.operation(), u8::try_from(offered.action()).unwrap());
            assert!(Command::parse(&cdb).is_ok(), "{cdb:x?}");
        }
    }

    #[test]
    fn one_command_is_told_with_its_usage_and_an_unknown_one_as_not_supported() {
        let turn = report(1, 0x00, 0, false).unwrap();
        assert_eq!(turn, [0, 3, 0, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(report(1, 0x04, 0, false).unwrap(), [0, 1, 0, 0]);
        assert_eq!(report(2, 0x9e, 0x11, false).unwrap(), [0, 1, 0, 0]);
        assert_eq!(report(1, 0x9e, 0x10, false), Err(Sense::INVALID_FIELD_IN_CDB));
        assert_eq!(report(2, 0x28, 0, false), Err(Sense::INVALID_FIELD_IN_CDB));
        let with = report(2, 0x9e, 0x10, true).unwrap();
        assert_eq!((with[1], with.len()), (0x83, 4 + 16 + 12));
        let all = report(0, 0, 0, false).unwrap();
        assert_eq!(all.len(), 4 + 8 * OFFERED.len());
    }
}
