//! `http://…` and `https://…`: a file from the web.

mod answers;
mod gunzip;
mod request;
mod signed;

use crate::single_file::{Form, write};
use crate::{Attrs, Material, Shared, Source, SourceContext, SourceError, SourceKey};
use answers::Answer;
use crosskit_images::{Digest, gojson};
use crosskit_snapshots::{About, Ref};
use futures::future::BoxFuture;
use request::{Got, file_name, http_time};
use reqwest::Method;
use serde::Serialize;
use signed::Demand;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Seconds since 1970 of a time as [`Resolved::modified`] has it.
pub(crate) fn seconds_of(time: &str) -> Option<i64> {
    http_time(time).map(|(seconds, _)| seconds)
}

/// A header that the build sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Header {
    name: String,
    value: String,
}

/// A file from the web.
pub(crate) struct HttpSource {
    shared: Arc<Shared>,
    url: String,
    checksum: Option<Digest>,
    filename: String,
    form: Form,
    auth_secret: String,
    headers: Vec<Header>,
    /// It has to be signed.
    signed: Option<Demand>,
    resolved: Mutex<Option<Resolved>>,
}

/// What was found.
#[derive(Clone)]
pub(crate) struct Resolved {
    pub(crate) digest: Digest,
    pub(crate) filename: String,
    /// As in the header `Last-Modified`.
    pub(crate) modified: Option<String>,
    /// The file, unless only its promised digest is known.
    pub(crate) file: Option<Ref>,
}

/// What the key is made of (BuildKit `source/http`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyParts<'a> {
    filename: &'a str,
    perm: i64,
    #[serde(rename = "UID")]
    uid: i64,
    #[serde(rename = "GID")]
    gid: i64,
    checksum: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_mod_time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    auth_header_secret: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    header: &'a [Header],
}

impl HttpSource {
    pub(crate) fn new(shared: Arc<Shared>, url: &str, attrs: &Attrs) -> Result<Self, SourceError> {
        let checksum = attrs.get("http.checksum").map(|text| {
            text.parse::<Digest>()
                .map_err(|err| SourceError::Invalid(format!("invalid checksum {text}: {err}")))
        });
        let mut headers: Vec<Header> = Vec::new();
        for (key, value) in attrs {
            // Other headers are not for builds to set.
            let name = match key.strip_prefix("http.header.").map(str::to_ascii_lowercase).as_deref() {
                Some("accept") => "Accept",
                Some("user-agent") => "User-Agent",
                _ => continue,
            };
            headers.push(Header { name: name.into(), value: value.clone() });
        }
        headers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            shared,
            url: url.to_string(),
            checksum: checksum.transpose()?,
            filename: attrs.get("http.filename").cloned().unwrap_or_default(),
            form: Form::new(attrs)?,
            auth_secret: attrs.get("http.authheadersecret").cloned().unwrap_or_default(),
            headers,
            signed: Demand::new(url, attrs)?,
            resolved: Mutex::default(),
        })
    }

    /// What the URL stands for now, signed as demanded. With a promised digest and no signature, the server is not even
    /// asked.
    pub(crate) async fn resolve(&self, cx: &Arc<dyn SourceContext>) -> Result<Resolved, SourceError> {
        let mut resolved = self.resolved.lock().await;
        if let Some(resolved) = &*resolved {
            return Ok(resolved.clone());
        }
        let found = match self.checksum {
            Some(digest) if self.signed.is_none() => {
                let filename = file_name(&self.url, &self.filename, None);
                Resolved { digest, filename, modified: None, file: None }
            }
            _ => self.promised(cx).await?,
        };
        self.verify(&found).await?;
        *resolved = Some(found.clone());
        Ok(found)
    }

    /// The file itself.
    pub(crate) async fn file(&self, cx: &Arc<dyn SourceContext>) -> Result<(Resolved, Ref), SourceError> {
        let known = self.resolve(cx).await?;
        if let Some(file) = &known.file {
            return Ok((known.clone(), file.clone()));
        }
        let found = self.promised(cx).await?;
        let file =
            found.file.clone().ok_or_else(|| SourceError::Mismatch(format!("{}: no file", self.url)))?;
        *self.resolved.lock().await = Some(found.clone());
        Ok((found, file))
    }

    /// What the server has, if that is what was promised.
    async fn promised(&self, cx: &Arc<dyn SourceContext>) -> Result<Resolved, SourceError> {
        let found = self.ask_once(cx).await?;
        match self.checksum.filter(|digest| *digest != found.digest) {
            None => Ok(found),
            Some(digest) => Err(SourceError::Mismatch(format!(
                "digest mismatch for {}: {} (expected: {digest})",
                self.url, found.digest
            ))),
        }
    }

    /// Asks, unless the build has asked before.
    async fn ask_once(&self, cx: &Arc<dyn SourceContext>) -> Result<Resolved, SourceError> {
        let Some(memory) = cx.memory() else { return self.ask(cx).await };
        let mut known = memory.lock(&format!("http {}", self.request_hash())).await;
        let fits = |found: &Arc<Resolved>| self.checksum.is_none_or(|digest| digest == found.digest);
        if let Some(found) = known.values::<Resolved>().find(fits) {
            return Ok((*found).clone());
        }
        let found = self.ask(cx).await?;
        known.add(found.clone());
        Ok(found)
    }

    /// Asks the server, which may say that what is here is still right.
    async fn ask(&self, cx: &Arc<dyn SourceContext>) -> Result<Resolved, SourceError> {
        let kept = self.kept()?;
        if !kept.is_empty() {
            // Not all servers that give tags compare them; their tag can be compared here.
            let head = self.send(cx, Method::HEAD, &kept).await;
            if let Ok(Got::Answer(head)) = head
                && let Some(answer) = answers::matching(&kept, head.headers(), head.status().as_u16() == 304)
                && matches!(head.status().as_u16(), 200 | 304)
            {
                return Ok(self.still_right(answer, Some(head.headers())));
            }
        }
        let answer = match self.send(cx, Method::GET, &kept).await? {
            Got::Upload(pieces) => {
                let filename = file_name(&self.url, &self.filename, None);
                let about = About::new(format!("http url {}", self.url));
                let (file, digest) = write(&self.shared, about, &filename, &self.form, 0, pieces).await?;
                return Ok(Resolved { digest, filename, modified: None, file: Some(file) });
            }
            Got::Answer(answer) => answer,
        };
        let status = answer.status().as_u16();
        if status == 304 {
            let kept = answers::matching(&kept, answer.headers(), true)
                .ok_or_else(|| SourceError::Mismatch(format!("{}: invalid not-modified ETag", self.url)))?;
            return Ok(self.still_right(kept, Some(answer.headers())));
        }
        if !(200..400).contains(&status) {
            return Err(SourceError::HttpStatus { status });
        }
        let filename = file_name(&self.url, &self.filename, Some(answer.headers()));
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(String::from);
        let (etag, modified) = (header("etag"), header("last-modified").and_then(|text| http_time(&text)));
        let seconds = modified.as_ref().map_or(0, |(seconds, _)| *seconds);
        let modified = modified.map(|(_, text)| text);
        let about = About::new(format!("http url {}", self.url));
        let (file, digest) =
            write(&self.shared, about, &filename, &self.form, seconds, self.body(answer)).await?;
        if let Some(etag) = etag {
            self.keep(&file, Answer { etag, digest, modified: modified.clone() })?;
        }
        Ok(Resolved { digest, filename, modified, file: Some(file) })
    }

    fn still_right(&self, kept: &(Ref, Answer), headers: Option<&reqwest::header::HeaderMap>) -> Resolved {
        let (file, answer) = kept;
        Resolved {
            digest: answer.digest,
            filename: file_name(&self.url, &self.filename, headers),
            modified: answer.modified.clone(),
            file: Some(file.clone()),
        }
    }
}

impl Source for HttpSource {
    fn key<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<SourceKey>, SourceError>> {
        Box::pin(async move {
            if index > 0 {
                return Ok(None);
            }
            let resolved = self.resolve(cx).await?;
            let parts = KeyParts {
                filename: &resolved.filename,
                perm: self.form.permissions,
                uid: self.form.uid,
                gid: self.form.gid,
                checksum: resolved.digest.to_string(),
                last_mod_time: resolved.modified.clone().unwrap_or_default(),
                auth_header_secret: &self.auth_secret,
                header: &self.headers,
            };
            let json = gojson::to_vec(&parts).map_err(SourceError::image("write key of web source"))?;
            Ok(Some(SourceKey { key: Digest::of(json).to_string(), pin: resolved.digest.to_string() }))
        })
    }

    fn snapshot<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
    ) -> BoxFuture<'a, Result<Option<Ref>, SourceError>> {
        Box::pin(async move { self.file(cx).await.map(|(_, file)| Some(file)) })
    }

    fn material(&self, pin: &str) -> Material {
        Material::Http { url: self.url.clone(), digest: pin.to_string() }
    }
}
