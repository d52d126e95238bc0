//! What refers to a manifest: signatures of it, and whatever else has it as its subject (OCI distribution-spec 1.1
//! §listing referrers).

use super::client::Client;
use super::errors::RegistryError;
use super::reference::Reference;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::errors::{Error, Result};
use crate::manifest::Index;

/// What a list of referrers is.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json";

impl Client {
    /// The manifests that refer to one in this repository. Of a registry that cannot tell, those that are listed under
    /// the tag that is made of the digest; none where there is no such tag.
    pub async fn referrers(&self, name: &Reference, digest: &Digest) -> Result<Vec<Descriptor>> {
        let by_tag = digest.to_string().replace(':', "-");
        let paths =
            [format!("/{}/referrers/{digest}", name.path()), format!("/{}/manifests/{by_tag}", name.path())];
        let paths = paths.as_slice();
        let found = self.at_any(name, |endpoint| async move {
            let mut result = Err(Error::invalid("list of referrers", "it was not asked for"));
            for path in paths {
                result = self.get_document(&endpoint, name, path, ACCEPT).await;
                match &result {
                    Ok(_) => break,
                    Err(error) => tracing::debug!("{path} from {}: {error}", endpoint.base()),
                }
            }
            result
        });
        match found.await {
            Ok((bytes, _)) => Ok(Index::parse(&bytes)?.manifests),
            Err(Error::Registry(RegistryError::NotFound { .. })) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
