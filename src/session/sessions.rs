//! The sessions that are open now.

use crate::headers::Introduction;
use crate::session::Session;
use crate::{SessionError, connection, health, tunnel};
use crosskit_api::control::BytesMessage;
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a call waits for a session that is about to be opened: clients send the build and open
/// the session at the same time.
pub const WAIT_FOR_SESSION: Duration = Duration::from_secs(5);

/// All open sessions of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct SessionManager {
    shared: Arc<Shared>,
}

struct Shared {
    open: Mutex<HashMap<String, Session>>,
    /// Counts openings, for those who wait for one.
    opened: watch::Sender<u64>,
}

impl Default for SessionManager {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a session off the list when its connection is over, however it ends.
struct Listed {
    shared: Arc<Shared>,
    session: Session,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.session.close();
        self.shared.locked().remove(self.session.id());
        // Here, for a client that leaves takes away the stream, and with it whoever waits for it.
        tracing::debug!(session = self.session.id(), "session ended");
    }
}

impl Shared {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl SessionManager {
    /// No sessions yet.
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared { open: Mutex::default(), opened: watch::Sender::new(0) }) }
    }

    /// Registers the session at the other end of `io` under what `headers` say, and keeps it until
    /// the connection ends, the client stops answering, or the future is dropped.
    pub async fn handle<T>(&self, io: T, headers: &http::HeaderMap) -> Result<(), SessionError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let introduction = Introduction::from_headers(headers)?;
        let health_timeout = introduction.health_timeout;
        let closed = CancellationToken::new();
        let (channel, connection) = connection::connect(io, closed.clone()).await?;
        let session = Session::new(introduction, channel, closed);
        {
            let mut open = self.shared.locked();
            if open.contains_key(session.id()) {
                return Err(SessionError::Registration(format!("session {} already exists", session.id())));
            }
            open.insert(session.id().to_string(), session.clone());
        }
        let _listed = Listed { shared: self.shared.clone(), session: session.clone() };
        self.shared.opened.send_modify(|n| *n += 1);
        tracing::debug!(session = session.id(), name = session.name(), "session opened");
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(session = session.id(), %error, "the connection of a session broke");
                }
                Ok(())
            }
            failed = health::watch(&session, health_timeout) => Err(failed),
            () = session.closed() => Ok(()),
        }
    }

    /// Opens a session over the two directions of a gRPC stream (`Control.Session`). What is
    /// returned has to be sent to the client, in order; the session lives as long as it.
    pub fn open<S>(
        &self,
        headers: &http::HeaderMap,
        incoming: S,
    ) -> impl Stream<Item = Result<BytesMessage, tonic::Status>> + Send + use<S>
    where
        S: Stream<Item = Result<BytesMessage, tonic::Status>> + Unpin + Send + 'static,
    {
        let (io, outgoing) = tunnel::tunnel(incoming);
        let (sessions, headers) = (self.clone(), headers.clone());
        let task = Aborting(tokio::spawn(async move { sessions.handle(io, &headers).await }));
        outgoing
            .map(Ok)
            .chain(futures::stream::once(task.result()).filter_map(|r| async { r.err().map(Err) }))
    }

    /// The session `id`, waiting up to `wait` for it to be opened. A prefix that ends in a colon
    /// is not part of the id.
    pub async fn get(&self, id: &str, wait: Duration) -> Result<Session, SessionError> {
        let id = match id.split_once(':') {
            Some((_, rest)) if !rest.is_empty() => rest,
            _ => id,
        };
        let find = async {
            let mut opened = self.shared.opened.subscribe();
            loop {
                if let Some(session) = self.get_now(id) {
                    return session;
                }
                // The sender is in `self`, so it is there.
                let _ = opened.changed().await;
            }
        };
        match tokio::time::timeout(wait, find).await {
            Ok(session) => Ok(session),
            Err(_) => Err(SessionError::NoSession { id: id.to_string() }),
        }
    }

    /// The session `id`, if it is open.
    pub fn get_now(&self, id: &str) -> Option<Session> {
        self.shared.locked().get(id).filter(|s| !s.is_closed()).cloned()
    }

    /// Tries `with` on the sessions `ids` one after the other until one succeeds. Returns the last
    /// failure if none does.
    pub async fn any<T, F, Fut>(&self, ids: &[String], mut with: F) -> Result<T, SessionError>
    where
        F: FnMut(Session) -> Fut,
        Fut: Future<Output = Result<T, SessionError>>,
    {
        let mut last = SessionError::NoSessions;
        for id in ids {
            match self.get(id, WAIT_FOR_SESSION).await {
                Ok(session) => match with(session).await {
                    Ok(value) => return Ok(value),
                    Err(err) => last = err,
                },
                Err(err) => last = err,
            }
        }
        Err(last)
    }

    /// Ids of the sessions that are open.
    pub fn ids(&self) -> Vec<String> {
        self.shared.locked().keys().cloned().collect()
    }
}

/// A task that ends when nobody waits for it any more.
struct Aborting(tokio::task::JoinHandle<Result<(), SessionError>>);

impl Aborting {
    async fn result(mut self) -> Result<(), tonic::Status> {
        match (&mut self.0).await {
            Ok(result) => result.map_err(|err| err.to_status()),
            Err(err) => Err(tonic::Status::internal(format!("session task failed: {err}"))),
        }
    }
}

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
