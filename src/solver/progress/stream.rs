use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crosskit_api::control::StatusResponse;
use futures::Stream;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::event::Event;
use super::job_log::{JobLog, Read};

/// How much later a message may be than the one before it, so that a chatty build does not
/// drown its clients. Never waited for at the end.
const PACE: Duration = Duration::from_millis(100);

/// Bytes of one message, well below the 16 MiB that clients accept.
const MESSAGE: usize = 1 << 20;

/// What a build tells, from its beginning to its end.
pub struct StatusStream {
    next: Option<BoxFuture<'static, Option<(StatusResponse, Reader)>>>,
}

struct Reader {
    log: Arc<JobLog>,
    position: usize,
    last: Option<Instant>,
}

impl StatusStream {
    pub(crate) fn new(log: Arc<JobLog>) -> Self {
        let reader = Reader { log, position: 0, last: None };
        StatusStream { next: Some(Box::pin(reader.message())) }
    }
}

impl Stream for StatusStream {
    type Item = StatusResponse;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StatusResponse>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let Poll::Ready(message) = next.as_mut().poll(cx) else { return Poll::Pending };
        let Some((message, reader)) = message else {
            self.next = None;
            return Poll::Ready(None);
        };
        self.next = Some(Box::pin(reader.message()));
        Poll::Ready(Some(message))
    }
}

impl Reader {
    async fn message(mut self) -> Option<(StatusResponse, Reader)> {
        self.log.changed(self.position).await;
        if let Some(last) = self.last {
            tokio::select! {
                biased;
                () = self.log.closed() => {}
                () = tokio::time::sleep_until(last + PACE) => {}
            }
        }
        let mut events = match self.log.read(self.position, MESSAGE) {
            Read::Events(events) => events,
            // `changed` has seen something, so that this is the end.
            Read::Nothing => return None,
        };
        let again = begins_again(&events);
        events.truncate(again.unwrap_or(events.len()));
        self.position += events.len();
        let mut message = StatusResponse::default();
        for event in &events {
            event.encode(&mut message);
        }
        // A message that is full or was cut is followed at once by the rest.
        let full = again.is_some() || events.iter().map(Event::size).sum::<usize>() >= MESSAGE / 2;
        self.last = (!full).then(Instant::now);
        Some((message, self))
    }
}

/// Where a step begins again that has said something before. In one message clients read the states of steps first and
/// would take the words for some of the new beginning, from before it.
fn begins_again(events: &[Event]) -> Option<usize> {
    let mut said = HashSet::new();
    events.iter().position(|event| match event {
        Event::Log(log) => {
            said.insert(log.vertex.as_str());
            false
        }
        Event::Vertex(state) if state.started.is_some() && state.completed.is_none() && !said.is_empty() => {
            said.contains(state.info.digest.to_string().as_str())
        }
        _ => false,
    })
}
