//! `local://NAME`: a folder of the client.

use crate::checksums::Checksums;
use crate::context::Transfer;
use crate::{Attrs, Material, Shared, Source, SourceContext, SourceError, SourceKey};
use crosskit_images::{Digest, gojson};
use crosskit_patterns::Patterns;
use crosskit_session::transfer::{Differ, Pick, Receive, Select};
use crosskit_session::{Session, SyncDir, WAIT_FOR_SESSION};
use crosskit_snapshots::{About, RecordType, Ref};
use futures::future::BoxFuture;
use serde::Serialize;
use std::sync::Arc;

/// A folder of the client.
pub(crate) struct LocalSource {
    shared: Arc<Shared>,
    name: String,
    session: String,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    follow: Option<Vec<String>>,
    shared_key_hint: String,
    differ: Differ,
    metadata_only: bool,
    metadata_exceptions: Option<Vec<String>>,
}

/// What the key is made of (BuildKit `source/local`).
#[derive(Serialize)]
struct KeyParts<'a> {
    #[serde(rename = "SessionID")]
    session: &'a str,
    #[serde(rename = "IncludePatterns")]
    include: &'a Option<Vec<String>>,
    #[serde(rename = "ExcludePatterns")]
    exclude: &'a Option<Vec<String>>,
    #[serde(rename = "FollowPaths")]
    follow: &'a Option<Vec<String>>,
    #[serde(rename = "MetadataTransfer", skip_serializing_if = "std::ops::Not::not")]
    metadata_only: bool,
    #[serde(rename = "MetadataExceptions", skip_serializing_if = "Option::is_none")]
    metadata_exceptions: &'a Option<Vec<String>>,
}

impl LocalSource {
    pub(crate) fn new(shared: Arc<Shared>, name: &str, attrs: &Attrs) -> Result<Self, SourceError> {
        let list = |key: &str| match attrs.get(key) {
            None => Ok(None),
            Some(text) => serde_json::from_str::<Option<Vec<String>>>(text)
                .map_err(|err| SourceError::Invalid(format!("invalid value for {key} {text:?}: {err}"))),
        };
        let mut name = name.to_string();
        let mut session = attrs.get("local.session").cloned().unwrap_or_default();
        if let Some((prefix, id)) = session.split_once(':') {
            (name, session) = (format!("{prefix}-{name}"), id.to_string());
        }
        let metadata_only = match attrs.get("local.metadatatransfer").map(String::as_str) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some(other) => {
                return Err(SourceError::Invalid(format!(
                    "invalid value for local.metadatatransfer {other:?}"
                )));
            }
        };
        Ok(Self {
            shared,
            name,
            session,
            include: list("local.includepattern")?,
            exclude: list("local.excludepatterns")?,
            follow: list("local.followpaths")?,
            shared_key_hint: attrs.get("local.sharedkeyhint").cloned().unwrap_or_default(),
            differ: match attrs.get("local.differ").map(String::as_str) {
                Some("none") => Differ::None,
                _ => Differ::Metadata,
            },
            metadata_only,
            metadata_exceptions: list("local.metadatatransferexclude")?,
        })
    }

    /// Which paths are received although only metadata is wanted.
    fn only(&self) -> Result<Option<Pick>, SourceError> {
        if !self.metadata_only {
            return Ok(None);
        }
        let exceptions = self.metadata_exceptions.iter().flatten();
        let patterns = Patterns::new(exceptions).map_err(|err| {
            SourceError::Invalid(format!("invalid value for local.metadatatransferexclude: {err}"))
        })?;
        Ok(Some(Arc::new(move |path, _| patterns.matches(path))))
    }

    async fn receive(&self, cx: &Arc<dyn SourceContext>, session: &Session) -> Result<Ref, SourceError> {
        let suffix = if self.metadata_only { ":metadata" } else { "" };
        let key = format!("{}:{}:{}{suffix}", self.name, self.shared_key_hint, session.shared_key());
        let about = About::new(format!("local source for {}", self.name)).of_type(RecordType::LocalSource);
        let snapshot = self.shared.parts.snapshots.mutable_by_key(&format!("local:{key}"), about)?;
        let mounted = snapshot.mount().await?;
        let checksums = Arc::new(Checksums(snapshot.checksums()));
        let transfer = Transfer::new(cx, format!("transferring {}:", self.name), "transferring");
        transfer.at(0, 0, false);
        let request = SyncDir {
            name: self.name.clone(),
            select: Select {
                include: self.include.clone().unwrap_or_default(),
                exclude: self.exclude.clone().unwrap_or_default(),
                follow: self.follow.clone().unwrap_or_default(),
            },
            receive: Receive {
                differ: self.differ,
                changes: Some(checksums.clone()),
                progress: Some(Arc::new(move |bytes, done| transfer.at(bytes, 0, done))),
                only: self.only()?,
                ..Receive::default()
            },
        };
        let received = session.sync_dir(request, mounted.path()).await;
        received.map_err(SourceError::session(format!("failed to transfer {}", self.name)))?;
        drop(mounted);
        let Ok(checksums) = Arc::try_unwrap(checksums) else {
            return Err(SourceError::Mismatch(format!("the transfer of {} did not end", self.name)));
        };
        Ok(snapshot.commit_with(checksums.0).await?)
    }
}

impl Source for LocalSource {
    fn key<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<SourceKey>, SourceError>> {
        Box::pin(async move {
            if index > 0 {
                return Ok(None);
            }
            let session = match self.session.is_empty() {
                false => self.session.clone(),
                true => cx.sessions().into_iter().next().ok_or_else(|| {
                    SourceError::Invalid("could not access local files without session".into())
                })?,
            };
            let parts = KeyParts {
                session: &session,
                include: &self.include,
                exclude: &self.exclude,
                follow: &self.follow,
                metadata_only: self.metadata_only,
                metadata_exceptions: &self.metadata_exceptions,
            };
            let json = gojson::to_vec(&parts).map_err(SourceError::image("write key of local source"))?;
            let pin = Digest::of(json).to_string();
            Ok(Some(SourceKey { key: format!("session:{}:{pin}", self.name), pin }))
        })
    }

    fn snapshot<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
    ) -> BoxFuture<'a, Result<Option<Ref>, SourceError>> {
        Box::pin(async move {
            let sessions = &self.shared.parts.sessions;
            if !self.session.is_empty()
                && let Ok(session) = sessions.get(&self.session, WAIT_FOR_SESSION).await
            {
                match self.receive(cx, &session).await {
                    // It may have been another client's folder all along.
                    Err(SourceError::Session { source, .. }) if source.is_not_found() => {}
                    done => return done.map(Some),
                }
            }
            let mut last = None;
            for id in cx.sessions() {
                let session = sessions.get(&id, WAIT_FOR_SESSION).await;
                let received = match session {
                    Ok(session) => self.receive(cx, &session).await,
                    Err(err) => Err(SourceError::session(format!("failed to transfer {}", self.name))(err)),
                };
                match received {
                    Ok(reference) => return Ok(Some(reference)),
                    Err(err) => last = Some(err),
                }
            }
            Err(last.unwrap_or_else(|| SourceError::Invalid("no active sessions".into())))
        })
    }

    fn material(&self, _: &str) -> Material {
        Material::Local { name: self.name.clone() }
    }
}
