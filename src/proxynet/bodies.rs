//! Answers on their way to a step.

use crate::record::{Asked, Record};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use ring::digest::{Context, SHA256};
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

/// What the proxy answers: its own words, or what came from outside.
pub(crate) type Answer = Either<Full<Bytes>, Passed>;

/// What came from outside, passed on as it comes.
pub(crate) struct Passed {
    inner: Incoming,
    watch: Option<Watch>,
}

/// Looks at a file as it passes.
struct Watch {
    hash: Context,
    record: Arc<Record>,
    asked: Asked,
}

impl Watch {
    fn done(self) {
        let mut digest = "sha256:".to_owned();
        for byte in self.hash.finish().as_ref() {
            let _ = write!(digest, "{byte:02x}");
        }
        self.record.got(&self.asked, digest);
    }
}

impl Passed {
    /// The body of an answer with this status. What it says about materials goes into the record.
    pub(crate) fn new(inner: Incoming, record: &Arc<Record>, asked: Asked, status: StatusCode) -> Self {
        let reason = match status {
            _ if asked.method != Method::GET => Some("method_not_materializable"),
            StatusCode::PARTIAL_CONTENT => Some("partial_response"),
            status if status.is_client_error() || status.is_server_error() => Some("unsuccessful_response"),
            _ => None,
        };
        if let Some(reason) = reason {
            record.lacks(&asked, reason);
        }
        let watched = reason.is_none() && status.is_success();
        let watch = watched.then(|| Watch { hash: Context::new(&SHA256), record: Arc::clone(record), asked });
        let mut passed = Passed { inner, watch };
        passed.look();
        passed
    }

    /// Tells the record once everything has come. The last piece is told of before it is passed on, as the step may be
    /// over as soon as it has that.
    fn look(&mut self) {
        if self.inner.is_end_stream() {
            self.watch.take().into_iter().for_each(Watch::done);
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(watch)) = (frame.data_ref(), &mut self.watch) {
                    watch.hash.update(data);
                }
                self.look();
            }
            None => self.watch.take().into_iter().for_each(Watch::done),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.record.lacks(&watch.asked, "body_read_failed");
        }
    }
}
