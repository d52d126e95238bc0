//! One open session, from the daemon's side.

use crate::connection::Channel;
use crate::headers::Introduction;
use crate::{SessionError, connection};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What one client lends. Cheap to clone; calls fail once the client is gone. What can be called
/// is grouped as on the wire: files, credentials, secrets and so on.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    introduction: Introduction,
    channel: Channel,
    closed: CancellationToken,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Session").field(&self.id()).finish()
    }
}

impl Session {
    /// `closed` ends the channel's connection.
    pub(crate) fn new(introduction: Introduction, channel: Channel, closed: CancellationToken) -> Self {
        Self { shared: Arc::new(Shared { introduction, channel, closed }) }
    }

    /// The id that builds name it by.
    pub fn id(&self) -> &str {
        &self.shared.introduction.id
    }

    /// The client's name for it; often empty.
    pub fn name(&self) -> &str {
        &self.shared.introduction.name
    }

    /// A key that stays the same when the same client comes again with the same folders.
    pub fn shared_key(&self) -> &str {
        &self.shared.introduction.shared_key
    }

    /// Whether the client serves `method`, a path such as `/moby.filesync.v1.FileSync/DiffCopy`.
    pub fn supports(&self, method: &str) -> bool {
        self.shared.introduction.methods.contains(&method.to_lowercase())
    }

    /// An error if the client does not serve `method`.
    pub fn require(&self, method: &str) -> Result<(), SessionError> {
        match self.supports(method) {
            true => Ok(()),
            false => Err(SessionError::Unsupported { method: method.to_string() }),
        }
    }

    /// The way to the client's services, for generated clients' `with_origin`.
    pub fn channel(&self) -> Channel {
        self.shared.channel.clone()
    }

    /// The origin that belongs to [`Session::channel`].
    pub fn origin(&self) -> http::Uri {
        connection::origin()
    }

    /// Waits until the session is over.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// Ends it from our side.
    pub fn close(&self) {
        self.shared.closed.cancel();
    }
}
