//! Takes in request bodies: whole or not at all, within a limit, and unpacked.
//!
//! Nothing is acted on before its body is complete, so a connection that breaks in the middle
//! changes nothing.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use elasticstack_core::error::{Error, ErrorKind, Result};
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

/// How long a client may pause within a body.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The least that a client sends each second, on the whole. Slower ones would hold a place and
/// memory for hours.
const SLOWEST: usize = 4 << 10;

/// How much past a limit is still read and thrown away, so that a client that first sends all
/// and then listens hears why it is refused.
const PATIENCE: usize = 64 << 20;

/// The most that is set aside for a body before any of it has come.
const MAX_AHEAD: usize = 4 << 20;

/// Reads a body to its end.
///
/// # Errors
/// `MalformedBody` if it is longer than `limit`, ends early or stalls.
pub(super) async fn collect(mut body: Body, limit: usize) -> Result<Bytes> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut data = BytesMut::with_capacity(announced.min(limit).min(MAX_AHEAD));
    let mut excess = 0_usize;
    let begun = Instant::now();
    while let Some(chunk) = next(&mut body).await? {
        fast_enough(begun, data.len() + excess + chunk.len())?;
        if data.len() + chunk.len() <= limit && excess == 0 {
            data.extend_from_slice(&chunk);
        } else {
            excess += chunk.len();
            if excess > PATIENCE {
                break;
            }
        }
    }
    if excess > 0 { Err(too_long(limit)) } else { Ok(data.freeze()) }
}

/// Reads and ignores the body of a call that has none.
///
/// # Errors
/// `MalformedBody` if it is absurdly long, ends early or stalls.
pub(super) async fn ignore(mut body: Body) -> Result<()> {
    let mut length = 0_usize;
    let begun = Instant::now();
    while let Some(chunk) = next(&mut body).await? {
        length += chunk.len();
        fast_enough(begun, length)?;
        if length > PATIENCE {
            return Err(too_long(PATIENCE));
        }
    }
    Ok(())
}

/// Unpacks a body by its `Content-Encoding`. It never unpacks past `limit`.
///
/// # Errors
/// `MalformedBody` for an encoding that is not offered, for broken gzip, and for what is longer
/// than `limit` when unpacked.
pub(super) async fn decode(headers: &HeaderMap, data: Bytes, limit: usize) -> Result<Bytes> {
    let encoding = headers.get(CONTENT_ENCODING).map_or("identity", |value| {
        value.to_str().map_or("something that is not ASCII", str::trim)
    });
    match encoding.to_ascii_lowercase().as_str() {
        "identity" | "" => Ok(data),
        "gzip" | "x-gzip" => tokio::task::spawn_blocking(move || gunzip(&data, limit))
            .await
            .map_err(|error| Error::internal("unpacking a body").source(error))?,
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(malformed(format!(
                "the content encoding {shown:?} is not offered: send gzip or none"
            )))
        }
    }
}

fn gunzip(data: &[u8], limit: usize) -> Result<Bytes> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut plain = Vec::new();
    MultiGzDecoder::new(data).take(most).read_to_end(&mut plain).map_err(|error| {
        malformed("the body is not whole gzip, though its content encoding says so").source(error)
    })?;
    if plain.len() > limit {
        let limit = limit >> 20;
        return Err(malformed(format!(
            "the body is too long: at most {limit} MiB after decompression"
        )));
    }
    Ok(plain.into())
}

async fn next(body: &mut Body) -> Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(MAX_PAUSE, body.frame()).await.map_err(|_| {
            let seconds = MAX_PAUSE.as_secs();
            malformed(format!("the body stopped coming for {seconds} seconds: send it again"))
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(malformed("the body ended early: send it again").source(error));
            }
            // Trailers say nothing that we ask.
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    return Ok(Some(chunk));
                }
            }
        }
    }
}

/// Refuses a body of which so little has come since it began.
fn fast_enough(begun: Instant, length: usize) -> Result<()> {
    if is_too_slow(begun.elapsed(), length) {
        let least = SLOWEST >> 10;
        return Err(malformed(format!(
            "the body comes too slowly: send at least {least} KiB a second"
        )));
    }
    Ok(())
}

fn is_too_slow(elapsed: Duration, length: usize) -> bool {
    let seconds = u64::try_from(length / SLOWEST).unwrap_or(u64::MAX);
    elapsed > MAX_PAUSE.saturating_add(Duration::from_secs(seconds))
}

fn too_long(limit: usize) -> Error {
    let limit = limit >> 20;
    malformed(format!("the body is too long: at most {limit} MiB"))
}

fn malformed(public: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedBody, public)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::{StreamExt as _, stream};
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn encoded(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encoding))])
    }

    fn chunks(chunks: Vec<Result<&'static str, &'static str>>) -> Body {
        let chunks = chunks.into_iter().map(|chunk| chunk.map_err(std::io::Error::other));
        Body::from_stream(stream::iter(chunks.collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn a_body_is_taken_whole_or_not_at_all() {
        let whole = collect(chunks(vec![Ok("ab"), Ok(""), Ok("cd")]), MIB).await.unwrap();
        assert_eq!(whole, "abcd");
        let cut = collect(chunks(vec![Ok("ab"), Err("cut")]), MIB).await.unwrap_err();
        assert!(cut.public_message().contains("ended early"), "{cut}");
        assert!(ignore(chunks(vec![Ok("ab"), Err("cut")])).await.is_err());
        assert!(ignore(chunks(vec![Ok("junk")])).await.is_ok());
    }

    #[tokio::test]
    async fn the_limit_is_the_last_length_that_is_taken() {
        let body = |length| Body::from(vec![7_u8; length]);
        assert_eq!(collect(body(MIB), MIB).await.unwrap().len(), MIB);
        let refused = collect(body(MIB + 1), MIB).await.unwrap_err();
        assert_eq!(refused.public_message(), "the body is too long: at most 1 MiB");
        let late = chunks(vec![Ok("abc"), Ok("defgh"), Ok("i")]);
        assert!(collect(late, 4).await.is_err(), "a short chunk after a long one is not taken");
    }

    /// A body of so many chunks, each after a pause.
    fn dripping(chunks: usize, size: usize, pause: Duration) -> Body {
        let drops = stream::iter(0..chunks).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(vec![7_u8; size])
        });
        Body::from_stream(drops)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_too_slow() {
        let seconds = Duration::from_secs;
        let refused = collect(dripping(1_000, 1, seconds(1)), MIB).await.unwrap_err();
        assert!(refused.public_message().contains("comes too slowly"), "{refused}");
        let refused = ignore(dripping(1_000, 1, seconds(1))).await.unwrap_err();
        assert!(refused.public_message().contains("comes too slowly"), "{refused}");
        let refused = collect(dripping(2, MIB / 4, seconds(61)), MIB).await.unwrap_err();
        assert!(refused.public_message().contains("stopped coming"), "{refused}");
        let slow = collect(dripping(250, SLOWEST, seconds(1)), MIB).await.unwrap();
        assert_eq!(slow.len(), 250 * SLOWEST, "slow enough is taken, however long it takes");
        ignore(dripping(250, SLOWEST, seconds(1))).await.unwrap();
    }

    #[test]
    fn how_slow_is_too_slow_depends_on_how_much_has_come() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        for (elapsed, length, is_slow) in [
            (minutes(1), 1, false),
            (minutes(2), 1, true),
            (minutes(2), SLOWEST * 60, false),
            (minutes(60), 3_600, true),
            (minutes(60), 64 * MIB, false),
        ] {
            assert_eq!(is_too_slow(elapsed, length), is_slow, "{length} in {elapsed:?}");
        }
    }

    #[tokio::test]
    async fn gzip_is_unpacked_up_to_the_limit_and_no_further() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        for (encoding, body) in [("gzip", two.clone()), ("X-GZIP", two), ("", b"one two".to_vec())]
        {
            let plain = decode(&encoded(encoding), body.into(), MIB).await.unwrap();
            assert_eq!(plain, "one two", "{encoding}");
        }
        let full = gzip(&vec![0; MIB]);
        assert_eq!(decode(&encoded("gzip"), full.into(), MIB).await.unwrap().len(), MIB);
        let bomb = gzip(&vec![0; 8 * MIB]);
        let refused = decode(&encoded("gzip"), bomb.into(), MIB).await.unwrap_err();
        assert!(refused.public_message().contains("at most 1 MiB after"), "{refused}");
    }

    #[tokio::test]
    async fn what_is_not_whole_gzip_is_refused() {
        let good = gzip(b"data that is long enough to be cut");
        let mut wrong_sum = good.clone();
        let sum = wrong_sum.len() - 6;
        wrong_sum[sum] ^= 1;
        let trailing = [good.as_slice(), b"junk"].concat();
        for body in [&good[..good.len() - 1], &wrong_sum, &trailing, b"plain", b""] {
            let refused = decode(&encoded("gzip"), body.to_vec().into(), MIB).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::MalformedBody, "{body:?}");
        }
        let refused = decode(&encoded("br"), good.into(), MIB).await.unwrap_err();
        assert!(refused.public_message().contains("\"br\" is not offered"), "{refused}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_outgrow_the_unpacking(body: Vec<u8>, flip in 0_usize..40) {
            let _ = gunzip(&body, 10);
            let mut packed = gzip(&body);
            if let Some(byte) = packed.get_mut(flip) {
                *byte ^= 1;
            }
            prop_assert!(gunzip(&packed, 10).map_or(0, |plain| plain.len()) <= 10);
        }
    }
}
