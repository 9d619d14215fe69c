//! Packs what a drive's read answers, for whoever says that it takes gzip.
//!
//! A read is bounded and whole before it is answered, so it is packed whole, on a thread of its own.

use std::io::{self, Write as _};

use bytes::Bytes;
use elasticstack_core::error::{Error, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::response::{Packing, Reply};

/// The reply, packed if it is one that may be and the caller takes that.
///
/// # Errors
/// `Internal`.
pub(super) async fn packed(reply: Reply, headers: &HeaderMap) -> Result<Reply> {
    match reply {
        Reply::Drive(data, Packing::None) if takes_gzip(headers) => {
            let failed = || Error::internal("packing a drive's bytes");
            let packed = tokio::task::spawn_blocking(move || gzip(&data)).await;
            let packed = packed.map_err(|error| failed().source(error))?;
            let packed = packed.map_err(|error| failed().source(error))?;
            Ok(Reply::Drive(packed, Packing::Gzip))
        }
        reply => Ok(reply),
    }
}

fn gzip(data: &[u8]) -> io::Result<Bytes> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(data)?;
    packed.finish().map(Bytes::from)
}

/// Whether the caller names gzip, and not as what it does not take. `*` is no name: a client that
/// did not think of gzip is not given any.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter();
    let mut codings =
        codings.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut words = coding.split(';').map(str::trim);
        let name = words.next().unwrap_or_default();
        let is_gzip = name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
        is_gzip && !words.any(is_worth_nothing)
    })
}

fn is_worth_nothing(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        let is_zero = value.trim().bytes().all(|byte| matches!(byte, b'0' | b'.'));
        name.trim().eq_ignore_ascii_case("q") && is_zero
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_for_whoever_names_it_and_does_not_refuse_it() {
        for (accepted, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("x-gzip", true),
            ("gzip;q=0.001", true),
            ("gzip; Q = 1", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("identity", false),
            ("*", false),
            ("gzipped", false),
            ("", false),
        ] {
            let headers =
                HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepted))]);
            assert_eq!(takes_gzip(&headers), takes, "{accepted:?}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
