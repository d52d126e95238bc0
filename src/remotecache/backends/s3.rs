//! A cache in a bucket of Amazon S3, or of what speaks its protocol.

use super::keyed::Keyed;
use super::{Backend, Way};
use crate::error::{RemoteCacheError, Result};
use crate::objects::OnShelf;
use crate::{CacheOptions, RemoteCaches};
use crosskit_objectstores::Environment;
use crosskit_objectstores::http::{Retries, TRIES};
use crosskit_objectstores::s3::{Bucket, CredentialSource, Credentials, Place};
use std::sync::Arc;
use std::time::Duration;

/// Blobs that were written longer ago are written again, unless `touch_refresh` says otherwise.
const REFRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Layers that are given at once, unless `upload_parallelism` says otherwise.
const AT_ONCE: u32 = 4;

/// `type=s3`.
pub(super) fn resolve(
    caches: &RemoteCaches,
    _: Way,
    options: &CacheOptions,
    _: &[String],
) -> Result<Box<dyn Backend>> {
    let environment = Environment::of_process();
    let needed = |key: &str, variable: &str| {
        let told = options.get(key).map(str::to_owned).or_else(|| environment.get(variable));
        told.ok_or_else(|| RemoteCacheError::Options(format!("{key} (${variable}) not set for s3 cache")))
    };
    let place = Place {
        bucket: needed("bucket", "AWS_BUCKET")?,
        region: needed("region", "AWS_REGION")?,
        endpoint: options.get("endpoint_url").map(str::to_owned),
        path_style: options.flag("use_path_style")?.unwrap_or(false),
    };
    let credentials = match (options.get("access_key_id"), options.get("secret_access_key")) {
        (Some(id), Some(secret)) => CredentialSource::told(Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: options.get("session_token").map(str::to_owned),
            expires: None,
        }),
        (None, None) => CredentialSource::found(environment.clone(), &place.region),
        _ => {
            let text = "access_key_id and secret_access_key go together: give both or neither";
            return Err(RemoteCacheError::Options(text.to_owned()));
        }
    };
    let together = match options.get("retry_mode") {
        None | Some("standard") => false,
        Some("adaptive") => true,
        Some(other) => {
            let text = format!("retry_mode must be \"standard\" or \"adaptive\", not {other:?}");
            return Err(RemoteCacheError::Options(text));
        }
    };
    // Signatures here never cover what this was made for.
    options.flag("disable_accept_encoding")?;
    let tries = options.count("retry_max_attempts")?.unwrap_or(TRIES);
    let retries = Retries { tries, together, ..Retries::default() };
    let at_once = options.count("upload_parallelism")?.unwrap_or(AT_ONCE);
    let prefix = |key: &str, usual: &str| {
        let own = options.attrs.get(key).map_or(usual, String::as_str);
        let all = format!("{}{own}", options.attrs.get("prefix").map_or("", String::as_str));
        // Such parts are lost on the way.
        match all.split('/').any(|part| matches!(part, "." | "..")) {
            true => Err(RemoteCacheError::Options(format!("{all:?} must not have . or .. between slashes"))),
            false => Ok(all),
        }
    };
    let bucket = Bucket::new(&place, &environment, credentials, retries);
    let shelf = Keyed {
        objects: bucket.map_err(RemoteCacheError::store("s3 cache"))?,
        manifests: prefix("manifests_prefix", "manifests/")?,
        blobs: prefix("blobs_prefix", "blobs/")?,
        names: options.names()?,
        refresh: Some(options.duration("touch_refresh")?.unwrap_or(REFRESH)),
    };
    Ok(Box::new(OnShelf {
        name: "exporting cache to Amazon S3",
        at_once: usize::try_from(at_once).unwrap_or(usize::MAX),
        merging: options.merging()?,
        shelf: Arc::new(shelf),
        content: caches.snapshots.content().clone(),
    }))
}
