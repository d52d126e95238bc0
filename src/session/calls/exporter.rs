//! Asking the client which exporters to run, once a result is there.

use crate::{Session, SessionError};
use crosskit_api::exporter::exporter_client::ExporterClient;
use crosskit_api::exporter::{FinalizeExportRequest, FindExportersRequest};
use std::collections::BTreeMap;
use tonic::Code;

/// The method that names exporters.
const FIND: &str = "/moby.exporter.v1.Exporter/FindExporters";

/// The method that is told about the end.
const FINALIZE: &str = "/moby.exporter.v1.Exporter/FinalizeExport";

/// An exporter that the client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedExporter {
    /// Its type: `image`, `local` and so on.
    pub kind: String,
    /// Its options.
    pub attrs: BTreeMap<String, String>,
}

impl Session {
    fn exporter(&self) -> ExporterClient<crate::Channel> {
        ExporterClient::with_origin(self.channel(), self.origin())
    }

    /// Whether the client wants to be asked for exporters.
    pub fn finds_exporters(&self) -> bool {
        self.supports(FIND)
    }

    /// The exporters that the client wants for a result with this metadata and these platforms.
    pub async fn find_exporters(
        &self,
        metadata: BTreeMap<String, Vec<u8>>,
        refs: Vec<String>,
    ) -> Result<Vec<RequestedExporter>, SessionError> {
        let request = FindExportersRequest { metadata, refs };
        let answer =
            self.exporter().find_exporters(request).await.map_err(SessionError::call("find exporters"))?;
        let exporters = answer.into_inner().exporters.into_iter();
        Ok(exporters.map(|e| RequestedExporter { kind: e.r#type, attrs: e.attrs }).collect())
    }

    /// Tells the client what came of the export, if it wants to know.
    pub async fn finalize_export(&self, response: BTreeMap<String, String>) -> Result<(), SessionError> {
        if !self.supports(FINALIZE) {
            return Ok(());
        }
        let request = FinalizeExportRequest { exporter_response: response };
        match self.exporter().finalize_export(request).await {
            Err(status) if status.code() != Code::Unimplemented => {
                Err(SessionError::call("finalize export")(status))
            }
            _ => Ok(()),
        }
    }
}
