//! Whoever asks must also listen: a connection whose other end takes too little of what it is sent
//! is cut, whether it holds up all of it or, in HTTP/2, one answer of many.
//!
//! Invariant: what one answer keeps in memory is gone after a time that its length alone bounds.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How little a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long it may take nothing.
    pub(super) pause: Duration,
    /// The bytes that it takes each second, on the whole.
    pub(super) slowest: u32,
}

/// As slow as a body may come, so slowly may an answer go.
pub(super) const PACE: Pace = Pace { pause: Duration::from_secs(60), slowest: 4 << 10 };

/// The most of an answer that is handed over at a time.
const PIECE: usize = 16 << 10;

impl Pace {
    fn worth(self, length: usize) -> Duration {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Duration::from_secs_f64(f64::from(length) / f64::from(self.slowest.max(1)))
    }
}

/// A stream that fails when its other end does not take what is written.
pub(super) struct Paced<S> {
    stream: S,
    pace: Pace,
    /// How much longer it may take nothing.
    left: Duration,
    /// Since when a write waits, and until when it may.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Pace) -> Self {
        Self { stream, pace, left: pace.pause, waiting: None }
    }

    fn paced(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => {
                if let Some((since, _)) = self.waiting.take() {
                    self.left = self.left.saturating_sub(since.elapsed());
                }
                let gained = self.pace.worth(*written.as_ref().unwrap_or(&0));
                self.left = self.left.saturating_add(gained).min(self.pace.pause);
                Poll::Ready(written)
            }
            Poll::Pending => {
                let left = self.left;
                let (_, end) =
                    self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
                ready!(end.as_mut().poll(context));
                let slow = "the client does not take what it asked for";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, data);
        this.paced(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, data);
        this.paced(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// An answer that must be taken in the time that its length is worth, else `cut` is told. What
/// is kept while it lasts goes with it. One whose length nobody knows takes as long as it takes.
pub(super) fn timed<K: Send + Unpin + 'static>(
    response: Response,
    cut: &CancellationToken,
    pace: Pace,
    kept: K,
) -> Response {
    let (parts, body) = response.into_parts();
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    if length == Some(0) {
        return Response::from_parts(parts, body);
    }
    let timer = length.filter(|length| *length > PIECE).map(|length| {
        let (cut, time) = (cut.clone(), pace.pause.saturating_add(pace.worth(length)));
        AbortOnDropHandle::new(tokio::spawn(async move {
            sleep(time).await;
            cut.cancel();
        }))
    });
    let timed = Timed { body, piece: Bytes::new(), _timer: timer, _kept: kept };
    Response::from_parts(parts, Body::new(timed))
}

/// A body in pieces. That it ends is told only when asked once more: by then all pieces have gone
/// out, so that it lives as long as any of it is in memory.
struct Timed<K> {
    body: Body,
    piece: Bytes,
    _timer: Option<AbortOnDropHandle<()>>,
    _kept: K,
}

impl<K: Unpin> http_body::Body for Timed<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.piece.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.piece = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = this.piece.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(this.piece.split_to(length)))))
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = u64::try_from(self.piece.len()).unwrap_or(u64::MAX);
        let (rest, mut hint) = (self.body.size_hint(), SizeHint::new());
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(rest.lower().saturating_add(ahead));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const FAST: Pace = Pace { pause: Duration::from_millis(200), slowest: 1 << 20 };

    #[tokio::test]
    async fn a_stream_whose_other_end_takes_nothing_fails_and_one_that_takes_its_time_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut stream = Paced::new(ours, FAST);
        let data = vec![7; 600 << 10];
        let taking = async {
            let mut taken = 0;
            let mut buffer = vec![0; 1024];
            while taken < data.len() {
                taken += theirs.read(&mut buffer).await.unwrap();
            }
            theirs
        };
        let (written, theirs) = tokio::join!(stream.write_all(&data), taking);
        written.unwrap();
        let failed = stream.write_all(&data).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }

    #[tokio::test]
    async fn drops_that_are_taken_now_and_then_do_not_keep_a_stream() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = Paced::new(ours, FAST);
        let dripping = async {
            let mut drop = [0; 1];
            while theirs.read_exact(&mut drop).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let writing = async {
            let data = vec![7; 64 << 10];
            let failed = stream.write_all(&data).await.unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
            drop(stream);
        };
        tokio::join!(writing, dripping);
    }

    #[tokio::test]
    async fn an_answer_is_whole_and_one_that_is_not_taken_in_its_time_is_cut() {
        let kept = Arc::new(());
        let answer = |length: usize| {
            let response = Response::new(Body::from(vec![7_u8; length]));
            let cut = CancellationToken::new();
            (timed(response, &cut, FAST, Arc::clone(&kept)).into_body(), cut)
        };
        for length in [0, 1, PIECE, 3 * PIECE + 1] {
            let (body, cut) = answer(length);
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let whole = body.collect().await.unwrap().to_bytes();
            assert!(whole == vec![7; length], "{length}");
            assert_eq!(Arc::strong_count(&kept), 1, "what was kept is free");
            assert!(!cut.is_cancelled());
        }
        let (mut body, cut) = answer(3 * PIECE);
        assert!(body.frame().await.unwrap().unwrap().into_data().unwrap().len() <= PIECE);
        cut.cancelled().await;
        assert_eq!(Arc::strong_count(&kept), 2, "it is kept until the body goes");
    }
}
