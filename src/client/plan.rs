//! Everything that is known about a build before it begins.

use crate::caches;
use crate::error::ClientError;
use crate::lent_values::{Agent, SecretFrom};
use crate::outputs::Export;
use crosskit_api::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest};
use crosskit_api::pb;
use crosskit_api::sourcepolicy::Policy;
use crosskit_session::TokenTls;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A build to be asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The build's own name, by which its progress is asked for.
    pub(crate) reference: String,
    pub(crate) frontend: String,
    pub(crate) options: BTreeMap<String, String>,
    /// The graph, where no frontend makes one.
    pub(crate) graph: Option<pb::Definition>,
    pub(crate) exports: Vec<Export>,
    pub(crate) cache_exports: Vec<CacheOptionsEntry>,
    pub(crate) cache_imports: Vec<CacheOptionsEntry>,
    pub(crate) entitlements: Vec<String>,
    pub(crate) policy: Option<Policy>,
    pub(crate) proxy_network: bool,
    /// Folders, by the names that the build knows them by.
    pub(crate) folders: BTreeMap<String, PathBuf>,
    /// OCI layouts, by name.
    pub(crate) layouts: BTreeMap<String, PathBuf>,
    pub(crate) secrets: Vec<(String, SecretFrom)>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) registry_tls: BTreeMap<String, TokenTls>,
    /// Stays the same for the same folders, so that only changes travel.
    pub(crate) shared_key: String,
    /// An image archive goes to `docker load` instead of a file.
    pub(crate) load: bool,
}

impl Plan {
    /// A plan with a new name.
    pub(crate) fn new() -> Plan {
        Plan { reference: new_reference(), ..Plan::default() }
    }

    /// Whether the frontend is asked a question rather than for a build.
    pub(crate) fn is_question(&self) -> bool {
        self.options.contains_key("requestid")
    }

    /// The frontend's options with what it has to know besides.
    pub(crate) fn frontend_options(&self) -> BTreeMap<String, String> {
        let mut options = self.options.clone();
        if !self.cache_imports.is_empty() && !self.frontend.is_empty() {
            options.insert("cache-imports".into(), caches::as_frontend_option(&self.cache_imports));
        }
        if self.is_question() {
            options
                .entry("frontend.caps".into())
                .or_insert_with(|| "moby.buildkit.frontend.subrequests".into());
        }
        options
    }

    /// The request, for a session with this id.
    pub(crate) fn request(&self, session: &str) -> SolveRequest {
        let exporter = |e: &Export| Exporter { r#type: e.kind.clone(), attrs: e.attrs.clone() };
        let first = self.exports.first();
        // A question travels through the gateway; what is solved then is what that returns.
        let (frontend, options) = match self.is_question() {
            true => (String::new(), BTreeMap::new()),
            false => (self.frontend.clone(), self.frontend_options()),
        };
        SolveRequest {
            r#ref: self.reference.clone(),
            session: session.to_owned(),
            definition: self.graph.clone(),
            frontend,
            frontend_attrs: options,
            exporters: self.exports.iter().map(exporter).collect(),
            // Daemons from before there were several results read the first one here.
            exporter_deprecated: first.map(|e| e.kind.clone()).unwrap_or_default(),
            exporter_attrs_deprecated: first.map(|e| e.attrs.clone()).unwrap_or_default(),
            cache: Some(CacheOptions {
                exports: self.cache_exports.clone(),
                imports: self.cache_imports.clone(),
                ..Default::default()
            }),
            entitlements: self.entitlements.clone(),
            source_policy: self.policy.clone(),
            proxy_network: self.proxy_network,
            ..Default::default()
        }
    }

    /// Checks that folders are there, before a daemon is troubled.
    pub(crate) fn check_folders(&self) -> Result<(), ClientError> {
        for path in self.folders.values() {
            if let Err(error) = std::fs::metadata(path) {
                let why = crate::error::errno(&error);
                return Err(ClientError::invalid(format!(
                    "invalid local: resolve : lstat {}: {why}",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// 25 digits and letters that nobody else has.
fn new_reference() -> String {
    let letters = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..25).map(|_| char::from(letters[rand::random_range(0..letters.len())])).collect()
}
