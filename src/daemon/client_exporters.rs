//! Exporters that the client names when the result is there, and what it is told when all are done.

use crate::exporting::export_error;
use crosskit_exporters::{Export, Exporter, Exporters};
use crosskit_gateway::GatewayError;
use crosskit_session::{Session, SessionError, SessionManager, WAIT_FOR_SESSION};
use std::collections::BTreeMap;
use tonic::Code;

/// The client of a build that chooses exporters.
pub struct Chooser(Session);

impl Chooser {
    /// Waits for the client's session.
    ///
    /// # Errors
    /// It doesn't come up.
    pub async fn find(sessions: &SessionManager, id: &str) -> Result<Self, GatewayError> {
        sessions.get(id, WAIT_FOR_SESSION).await.map(Chooser).map_err(refused)
    }

    /// The exporters that the client wants for a result, whose parts it can look into by `refs`. `first` is the place
    /// of the first of them among all exporters.
    ///
    /// # Errors
    /// The client doesn't want the result, or wants an exporter that there isn't.
    pub async fn exporters(
        &self,
        exporters: &Exporters,
        export: &Export,
        refs: Vec<String>,
        first: usize,
    ) -> Result<Vec<Box<dyn Exporter>>, GatewayError> {
        let wanted = match self.0.find_exporters(export.metadata.clone(), refs).await {
            Ok(wanted) => wanted,
            Err(e) if has_no_say(&e) => return Ok(Vec::new()),
            Err(e) => return Err(refused(e)),
        };
        let resolve = |(at, wanted): (usize, crosskit_session::RequestedExporter)| {
            exporters.resolve(&wanted.kind, first + at, &wanted.attrs).map_err(export_error)
        };
        wanted.into_iter().enumerate().map(resolve).collect()
    }

    /// Tells the client what the exporters said.
    ///
    /// # Errors
    /// The client isn't content.
    pub async fn tell(&self, response: &BTreeMap<String, String>) -> Result<(), GatewayError> {
        match self.0.finalize_export(response.clone()).await {
            Err(e) if !has_no_say(&e) => Err(refused(e)),
            _ => Ok(()),
        }
    }
}

/// A client that doesn't serve the call, or can't now, leaves it to the daemon.
fn has_no_say(error: &SessionError) -> bool {
    error.is_unimplemented() || error.code() == Some(Code::Unavailable)
}

fn refused(error: SessionError) -> GatewayError {
    GatewayError::new(error.code().unwrap_or(Code::Unknown), error.to_string())
}
