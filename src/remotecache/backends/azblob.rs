//! A cache in a container of Azure's blobs.

use super::keyed::Keyed;
use super::{Backend, Way};
use crate::error::{RemoteCacheError, Result};
use crate::objects::OnShelf;
use crate::{CacheOptions, RemoteCaches};
use crosskit_objectstores::Environment;
use crosskit_objectstores::azure::{Address, Container, Identity, Permission, SharedKey};
use std::sync::Arc;

/// Layers that are given at once.
const AT_ONCE: usize = 4;

/// `type=azblob`.
pub(super) fn resolve(
    caches: &RemoteCaches,
    _: Way,
    options: &CacheOptions,
    _: &[String],
) -> Result<Box<dyn Backend>> {
    let environment = Environment::of_process();
    let told =
        |key: &str, variable: &str| options.get(key).map(str::to_owned).or_else(|| environment.get(variable));
    let url = told("account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL").ok_or_else(|| {
        let text = "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache";
        RemoteCacheError::Options(text.to_owned())
    })?;
    let failed = || RemoteCacheError::store("azblob cache");
    let account = Address::parse(&url).map_err(failed())?;
    let permission = match options.get("secret_access_key") {
        Some(key) => {
            let name = told("account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME");
            let name = name.unwrap_or_else(|| account.account().to_owned());
            Permission::Key(SharedKey::new(&name, key).map_err(failed())?)
        }
        None => Permission::Identity(Identity::of(environment.clone())),
    };
    let container = told("container", "BUILDKIT_AZURE_STORAGE_CONTAINER");
    let container = container.unwrap_or_else(|| "buildkit-cache".to_owned());
    let prefix = match options.attrs.get("prefix") {
        Some(prefix) => prefix.clone(),
        None => environment.get("BUILDKIT_AZURE_STORAGE_PREFIX").unwrap_or_default(),
    };
    let below = |key: &str, usual: &str| {
        let own = options.attrs.get(key).map_or(usual, String::as_str);
        let parts = prefix.split('/').chain(own.split('/'));
        let parts: Vec<&str> = parts.filter(|part| !matches!(*part, "" | ".")).collect();
        match parts.contains(&"..") {
            true => {
                Err(RemoteCacheError::Options(format!("{key} and prefix must not have .. between slashes")))
            }
            false => Ok(parts.iter().map(|part| format!("{part}/")).collect::<String>()),
        }
    };
    let container = Container::new(&account, &container, permission);
    let shelf = Keyed {
        objects: container.map_err(failed())?,
        manifests: below("manifests_prefix", "manifests")?,
        blobs: below("blobs_prefix", "blobs")?,
        names: options.names()?,
        refresh: None,
    };
    Ok(Box::new(OnShelf {
        name: "exporting cache to Azure Blob Storage",
        at_once: AT_ONCE,
        merging: options.merging()?,
        shelf: Arc::new(shelf),
        content: caches.snapshots.content().clone(),
    }))
}
