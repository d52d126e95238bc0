//! `oci-layout+blob://NAME@DIGEST` and `docker-image+blob://NAME@DIGEST`: one blob, as a file.

use crate::manifests::Provider;
use crate::oci_layout::{InLayout, pinned};
use crate::single_file::{Form, safe_name, write};
use crate::{Attrs, Material, Shared, Source, SourceContext, SourceError, SourceKey};
use bytes::Bytes;
use crosskit_images::registry::Reference;
use crosskit_images::{Digest, gojson};
use crosskit_snapshots::{About, Ref};
use futures::future::BoxFuture;
use serde::Serialize;
use std::sync::Arc;

/// The scheme of blobs in a client's layout; the other one is that of registries.
const LAYOUT: &str = "oci-layout+blob";

/// Bytes read at once from the content store.
const PIECE: usize = 256 << 10;

/// One blob as an input.
pub(crate) struct BlobSource {
    shared: Arc<Shared>,
    scheme: String,
    name: String,
    digest: Digest,
    session: String,
    store: String,
    filename: String,
    form: Form,
}

/// What the key is made of (BuildKit `source/containerblob`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyParts<'a> {
    digest: String,
    filename: &'a str,
    perm: i64,
    #[serde(rename = "UID")]
    uid: i64,
    #[serde(rename = "GID")]
    gid: i64,
}

impl BlobSource {
    pub(crate) fn new(
        shared: Arc<Shared>,
        scheme: &str,
        name: &str,
        attrs: &Attrs,
    ) -> Result<Self, SourceError> {
        let store = attrs.get("oci.store").cloned().unwrap_or_default();
        if scheme == LAYOUT && store.is_empty() {
            return Err(SourceError::Invalid("oci-layout blob source requires store id".into()));
        }
        Ok(Self {
            shared,
            scheme: scheme.to_string(),
            name: name.to_string(),
            digest: pinned(name)?,
            session: attrs.get("oci.session").cloned().unwrap_or_default(),
            store,
            filename: attrs.get("http.filename").map(|name| safe_name(name)).unwrap_or_default(),
            form: Form::new(attrs)?,
        })
    }
}

/// Brings a blob into the content store, from a client's layout or from a registry.
pub(crate) async fn fetch_blob(
    shared: &Arc<Shared>,
    cx: &Arc<dyn SourceContext>,
    scheme: &str,
    name: &str,
    digest: Digest,
    session: &str,
    store: &str,
) -> Result<(), SourceError> {
    let content = shared.parts.snapshots.content();
    if scheme == LAYOUT {
        let sessions = if session.is_empty() { cx.sessions() } else { vec![session.to_string()] };
        let (shared, store, name) = (shared.clone(), store.to_string(), name.to_string());
        return InLayout { shared, sessions, store, digest, name }.fetch(digest, None, content, None).await;
    }
    let failed = || SourceError::image(format!("pull {name}"));
    let reference = Reference::parse(name).map_err(|err| failed()(err.into()))?;
    let client = shared.clients.for_sessions(cx.sessions());
    let desc = client.describe_blob(&reference, &digest).await.map_err(failed())?;
    client.fetch_blob(&reference, &desc, content, Provider::new(cx)).await.map_err(failed())
}

impl Source for BlobSource {
    fn key<'a>(
        &'a self,
        _: &'a Arc<dyn SourceContext>,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<SourceKey>, SourceError>> {
        Box::pin(async move {
            if index > 0 {
                return Ok(None);
            }
            let parts = KeyParts {
                digest: self.digest.to_string(),
                filename: &self.filename,
                perm: self.form.permissions,
                uid: self.form.uid,
                gid: self.form.gid,
            };
            let json = gojson::to_vec(&parts).map_err(SourceError::image("write key of blob"))?;
            Ok(Some(SourceKey { key: Digest::of(json).to_string(), pin: self.digest.to_string() }))
        })
    }

    fn snapshot<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
    ) -> BoxFuture<'a, Result<Option<Ref>, SourceError>> {
        Box::pin(async move {
            let (scheme, session, store) = (&self.scheme, &self.session, &self.store);
            fetch_blob(&self.shared, cx, scheme, &self.name, self.digest, session, store).await?;
            let content = self.shared.parts.snapshots.content();
            let name = match self.filename.is_empty() {
                true => self.digest.hex(),
                false => self.filename.clone(),
            };
            let digest = self.digest;
            let failed = SourceError::image(format!("read {digest}"));
            let reader = content.off_runtime(move |content| content.reader(&digest)).await.map_err(failed)?;
            let file = tokio::fs::File::from_std(reader.into_file());
            let pieces = futures::stream::try_unfold(file, |mut file| async move {
                let mut piece = vec![0; PIECE];
                let read = tokio::io::AsyncReadExt::read(&mut file, &mut piece).await;
                let len = read.map_err(SourceError::io("read blob"))?;
                piece.truncate(len);
                Ok((len > 0).then(|| (Bytes::from(piece), file)))
            });
            let about = About::new(format!("blob {}", self.name));
            let (file, _) = write(&self.shared, about, &name, &self.form, 0, Box::pin(pieces)).await?;
            Ok(Some(file))
        })
    }

    fn material(&self, pin: &str) -> Material {
        Material::ImageBlob {
            reference: self.name.clone(),
            digest: pin.to_string(),
            local: self.scheme == LAYOUT,
        }
    }
}
