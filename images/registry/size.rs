//! How large a blob is, where only its digest is known.

use http::{Method, StatusCode, header};

use super::client::{Client, Purpose, refused};
use super::reference::Reference;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::errors::{Error, Result};

impl Client {
    /// A descriptor of a blob, without a type. What it says of the size is what the registry says.
    pub async fn describe_blob(&self, name: &Reference, digest: &Digest) -> Result<Descriptor> {
        let path = format!("/{}/blobs/{digest}", name.path());
        let scopes = vec![format!("repository:{}:pull", name.path())];
        let (path, scopes) = (path.as_str(), scopes.as_slice());
        self.at_any(name, |endpoint| async move {
            let purpose = Purpose { endpoint: &endpoint, scopes };
            let answer = self.send(purpose, Method::HEAD, path, |request| request).await?;
            if answer.status() != StatusCode::OK {
                let what = format!("{}@{digest}", name.repository());
                return Err(refused(answer, &Method::HEAD, "pull", &what).await.into());
            }
            let size =
                answer.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
            let size =
                size.ok_or_else(|| Error::invalid(format!("answer for {digest}"), "it has no length"))?;
            Ok(Descriptor::new("", *digest, size))
        })
        .await
    }
}
