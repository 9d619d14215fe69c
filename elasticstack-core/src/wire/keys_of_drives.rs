//! The keys of drives. Rows of [`super::keys::KEYS`], in the order of their patterns.

use super::form::Form;
use super::key::{Input, Key, Object, Takes, counter, key};

const DRIVE: &[Object] = &[Object::Drive];
const DOWNLOAD: &[Object] = &[Object::Download];
const SUM: &[Object] = &[Object::Sum];

/// The rows.
pub(super) const ROWS: &[Key] = &[
    key(
        "avoid",
        DRIVE,
        Input::Create,
        Takes::Uuids(4_000),
        "Drives of yours to share no array with.",
    ),
    key(
        "claim:type",
        DRIVE,
        Input::Always,
        Takes::OneOf(&["exclusive", "shared"]),
        "Whether one server or several may use the drive at a time; set while none does.",
    ),
    key("drive", DRIVE, Input::Never, Takes::Nothing, "The drive's UUID."),
    key(
        "encryption:cipher",
        DRIVE,
        Input::Create,
        Takes::Text(40),
        "none: drives are not encrypted.",
    )
    .refused_but(&["none"]),
    key(
        "erase",
        DRIVE,
        Input::Always,
        Takes::Text(40),
        "What becomes of its bytes when it is destroyed; unmap: they are given back and read by nobody, but are not overwritten.",
    )
    .refused_but(&["unmap"])
    .because(
        "overwriting promises nothing on storage that is thin, shares blocks, keeps journals or lies on SSDs; encrypt in the guest what nobody may ever read again",
    ),
    key(
        "format",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "gzip for a compressed image, to be imaged with gunzip.",
    ),
    key(
        "format",
        DOWNLOAD,
        Input::Create,
        Takes::OneOf(&["raw", "gzip"]),
        "raw for a file whose bytes the drive is to hold, gzip for one to be decompressed on the way; raw if unset.",
    ),
    key(
        "imaging",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "How far imaging, or summing up, is, or queued; absent if none goes on.",
    ),
    key(
        "licenses",
        DRIVE,
        Input::Create,
        Takes::Words(1_000),
        "Products on the drive that are charged for.",
    )
    .refused_but(&[]),
    key(
        "limit:bytes",
        DRIVE,
        Input::Always,
        Takes::Range(1_048_576, u32::MAX),
        "The most bytes a second that a server reads from it and writes to it together; also while one runs.",
    )
    .number_of("bytes"),
    key(
        "limit:requests",
        DRIVE,
        Input::Always,
        Takes::Range(100, 1_000_000),
        "The most requests a second that a server reads and writes with together; also while one runs.",
    )
    .number_of("requests"),
    key("media", DRIVE, Input::Never, Takes::Nothing, "disk or cdrom, for a standard drive."),
    key(
        "rawsize",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "The size of a compressed image after gunzip, in bytes.",
    )
    .number_of("bytes"),
    counter(
        "read:bytes",
        DRIVE,
        "bytes",
        "Bytes read from it by the servers that run with it now, in info/full.",
    ),
    counter("read:requests", DRIVE, "requests", "Requests that read them."),
    key(
        "readers",
        DRIVE,
        Input::Always,
        Takes::Uuids(4_000),
        "Accounts that may image from it; all-f for everybody.",
    ),
    key(
        "sha256",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "The SHA-256 of its first bytes, as it was asked for; gone once the drive may have changed.",
    ),
    key(
        "sha256",
        SUM,
        Input::Create,
        Takes::Form(Form::Sha256),
        "The SHA-256 that the bytes are to have; failed in the drive's info says so if they have another.",
    ),
    key(
        "sha256",
        DOWNLOAD,
        Input::Create,
        Takes::Form(Form::Sha256),
        "The SHA-256 of the file as it is sent; the drive is left empty if it has another.",
    ),
    key(
        "sha256:size",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "Of how many bytes from its beginning on sha256 is.",
    )
    .number_of("bytes"),
    key(
        "size",
        SUM,
        Input::Create,
        Takes::Size,
        "How many bytes from the drive's beginning on; all of the drive if unset.",
    ),
    key(
        "size",
        DRIVE,
        Input::Always,
        Takes::Size,
        "Its size in bytes, rounded up to a multiple of 4 MiB.",
    )
    .needed_by(DRIVE),
    key(
        "tier",
        DRIVE,
        Input::Create,
        Takes::OneOf(&["disk", "ssd"]),
        "The kind of array to lie on; disk if unset. Arrays do not tell their kind yet.",
    )
    .kept(),
    key(
        "url",
        DOWNLOAD,
        Input::Create,
        Takes::Form(Form::Url),
        "Where the file is, by HTTP or HTTPS, without a user; at most five redirects are followed.",
    )
    .secret()
    .needed_by(DOWNLOAD),
    counter(
        "write:bytes",
        DRIVE,
        "bytes",
        "Bytes written to it by the servers that run with it now, in info/full.",
    ),
    counter("write:requests", DRIVE, "requests", "Requests that wrote them."),
];
