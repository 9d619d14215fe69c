//! The mode pages of a logical unit, none of which can be changed: MODE SENSE (SPC-4, section 7.5;
//! SBC-3, section 6.5).

use elasticstack_core::block::Writing;

use super::cdb::Form;
use super::inquiry::{Geometry, LOGICAL_BLOCK};
use super::sense::Sense;

/// The page code that asks for every page.
const ALL_PAGES: u8 = 0x3f;

/// The page control that asks for what may be changed, which is nothing.
const CHANGEABLE: u8 = 1;

/// The page control that asks for what is kept, which we keep none of.
const SAVED: u8 = 3;

/// The answer to MODE SENSE.
pub(super) fn sense(
    form: Form,
    with_descriptor: bool,
    control: u8,
    (page, subpage): (u8, u8),
    geometry: Geometry,
    writing: Writing,
) -> Result<Vec<u8>, Sense> {
    /// DPO and FUA are taken.
    const DPOFUA: u8 = 0x10;
    /// The medium is write-protected.
    const WP: u8 = 0x80;
    let protection = if writing == Writing::Refused { WP } else { 0 };
    if control == SAVED {
        return Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED);
    }
    let mut pages = Vec::new();
    for known in MODE_PAGES {
        let is_asked = page == ALL_PAGES || known.first() == Some(&page);
        if is_asked && matches!(subpage, 0 | 0xff) {
            let mask = if control == CHANGEABLE { 0 } else { 0xff };
            let (head, body) = known.split_at_checked(2).unwrap_or_default();
            pages.extend(head.iter().copied().chain(body.iter().map(|byte| byte & mask)));
        }
    }
    if pages.is_empty() {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let mut descriptor = Vec::new();
    if with_descriptor {
        descriptor.extend(u32::try_from(geometry.blocks).unwrap_or(u32::MAX).to_be_bytes());
        descriptor.extend(LOGICAL_BLOCK.to_be_bytes());
    }
    let length = descriptor.len().saturating_add(pages.len());
    let descriptors = u8::try_from(descriptor.len()).unwrap_or(0);
    let mut answer = match form {
        Form::Six => {
            let length = u8::try_from(length.saturating_add(3)).unwrap_or(u8::MAX);
            vec![length, 0, protection | DPOFUA, descriptors]
        }
        Form::Ten => {
            let length = u16::try_from(length.saturating_add(6)).unwrap_or(u16::MAX);
            let [high, low] = length.to_be_bytes();
            vec![high, low, 0, protection | DPOFUA, 0, 0, 0, descriptors]
        }
    };
    answer.extend(descriptor);
    answer.extend(pages);
    Ok(answer)
}

/// Caching with WCE=0, because every write is durable before its status; control, with unrestricted
/// reordering; informational exceptions, of which there are none.
const MODE_PAGES: [&[u8]; 3] = [
    &[0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x0a, 0x0a, 0x02, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0],
    &[0x1c, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];

#[cfg(test)]
mod tests {
    use super::super::field::{u16_at, u32_at};
    use super::*;

    const GEOMETRY: Geometry = Geometry { blocks: 2048, per_physical: 8 };

    #[test]
    fn mode_pages_come_one_by_one_or_all_and_nothing_can_be_changed() {
        let sense = |page, control| {
            super::sense(Form::Six, true, control, (page, 0), GEOMETRY, Writing::Allowed)
        };
        let caching = sense(8, 0).unwrap();
        assert_eq!(caching[..4], [31, 0, 0x10, 8]);
        assert_eq!((u32_at(&caching, 4), u32_at(&caching, 8)), (2048, 512));
        assert_eq!((caching[12], caching[14] & 4), (8, 0), "WCE is set");
        assert!(sense(0x0a, CHANGEABLE).unwrap()[14..].iter().all(|byte| *byte == 0));
        assert_eq!(sense(ALL_PAGES, 0).unwrap().len(), 12 + 20 + 12 + 12);
        assert_eq!(sense(0x05, 0), Err(Sense::INVALID_FIELD_IN_CDB));
        assert_eq!(sense(8, SAVED), Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED));
        let ten = |writing| super::sense(Form::Ten, false, 0, (8, 0), GEOMETRY, writing).unwrap();
        let allowed = ten(Writing::Allowed);
        assert_eq!((u16_at(&allowed, 0), allowed.len(), allowed[7]), (26, 28, 0));
        assert_eq!((allowed[3], ten(Writing::Refused)[3]), (0x10, 0x90));
    }
}
