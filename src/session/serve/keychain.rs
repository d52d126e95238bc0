//! The person's registry credentials: Docker's configuration and its helpers.

use crate::{Credentials, SessionError};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where images of Docker Hub really are.
const HUB_REGISTRY: &str = "registry-1.docker.io";

/// Under which name Docker keeps its credentials for the Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is looked at in the configuration besides what the credential library reads itself.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    /// A bearer token that is always used.
    #[serde(default)]
    registrytoken: String,
}

/// What is known for a registry.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) credentials: Credentials,
    pub(crate) registry_token: String,
}

/// The folder of Docker's configuration.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let set = std::env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    set.or_else(|| std::env::home_dir().map(|home| home.join(".docker")))
}

/// What the configuration in `dir` has for registry `host`; may run a credential helper.
pub(crate) fn look_up(dir: &Path, host: &str) -> Result<Known, SessionError> {
    let key = if host == HUB_REGISTRY { HUB_KEY } else { host };
    let path = dir.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Known::default()),
        Err(err) => return Err(SessionError::io(format!("read {}", path.display()))(err)),
    };
    let config: Config = serde_json::from_slice(&text).map_err(|err| {
        SessionError::Invalid(format!("{} is not a Docker configuration: {err}", path.display()))
    })?;
    let exact = config.auths.get_key_value(key);
    let entry = exact.or_else(|| config.auths.iter().find(|(name, _)| hostname(name) == hostname(key)));
    let registry_token = entry.map(|(_, entry)| entry.registrytoken.clone()).unwrap_or_default();
    let key = entry.map_or(key, |(name, _)| name.as_str());
    let credentials = match docker_credential::get_credential_from_reader(&text[..], key) {
        Ok(DockerCredential::IdentityToken(secret)) => Credentials { username: String::new(), secret },
        Ok(DockerCredential::UsernamePassword(username, secret)) => Credentials { username, secret },
        Err(CredentialRetrievalError::NoCredentialConfigured) => Credentials::default(),
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if [&stdout, &stderr].iter().any(|text| text.contains("credentials not found")) =>
        {
            Credentials::default()
        }
        // An entry without anything in it, as logging out leaves behind.
        Err(CredentialRetrievalError::CredentialDecodingError) if !registry_token.is_empty() => {
            Credentials::default()
        }
        Err(err) => return Err(SessionError::Invalid(format!("get credentials for {host}: {err}"))),
    };
    Ok(Known { credentials, registry_token })
}

/// The host in a name under which credentials are kept.
fn hostname(name: &str) -> &str {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    name.split('/').next().unwrap_or(name)
}
