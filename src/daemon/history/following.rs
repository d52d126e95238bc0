//! Following the history: what is known now, and what happens from now on.

use super::{History, HistoryError};
use crosskit_api::control::{BuildHistoryEvent, BuildHistoryRequest};
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Somebody who follows.
struct Follower {
    history: History,
    request: BuildHistoryRequest,
    /// What is to be told before anything new.
    known: VecDeque<BuildHistoryEvent>,
    news: Receiver<BuildHistoryEvent>,
    stop: CancellationToken,
}

impl History {
    /// What is known now, as events, and what happens from now on: until `stop`, or not at all where the request is for
    /// what is known. Who falls too far behind is told all that is known again.
    ///
    /// # Errors
    /// An unreadable database, and filters that are none.
    pub fn follow(
        &self,
        request: BuildHistoryRequest,
        stop: CancellationToken,
    ) -> Result<BoxStream<'static, Result<BuildHistoryEvent, HistoryError>>, HistoryError> {
        // Before looking: nothing happens in between.
        let news = self.0.events.subscribe();
        let known = self.known(&request)?.into();
        let follower = Follower { history: self.clone(), request, known, news, stop };
        Ok(stream::unfold(follower, |mut follower| async {
            let event = follower.next().await?;
            Some((event, follower))
        })
        .boxed())
    }
}

impl Follower {
    async fn next(&mut self) -> Option<Result<BuildHistoryEvent, HistoryError>> {
        loop {
            if let Some(known) = self.known.pop_front() {
                return Some(Ok(known));
            }
            if self.request.early_exit {
                return None;
            }
            let news = tokio::select! {
                () = self.stop.cancelled() => return None,
                news = self.news.recv() => news,
            };
            match news {
                Ok(event) if self.wants(&event) => return Some(Ok(event)),
                Ok(_) => {}
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(_)) => match self.history.known(&self.request) {
                    Ok(known) => self.known = known.into(),
                    Err(e) => return Some(Err(e)),
                },
            }
        }
    }

    fn wants(&self, event: &BuildHistoryEvent) -> bool {
        let wanted = &self.request.r#ref;
        wanted.is_empty() || event.record.as_ref().is_some_and(|record| record.r#ref == *wanted)
    }
}
