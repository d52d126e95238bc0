//! Lending registry credentials.

use super::keychain::{Known, config_dir, look_up};
use super::token_tls::TokenTls;
use super::tokens;
use crate::SessionError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crosskit_api::filesync::auth_server::Auth;
use crosskit_api::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use tonic::{Request, Response, Status};

/// How long credentials are kept. Some helpers hand out secrets that are good for five minutes.
const KEEP: Duration = Duration::from_secs(290);

/// Registry credentials from Docker's configuration, and tokens fetched with them, so that the
/// secrets themselves need not leave the client.
#[derive(Clone)]
pub struct DockerAuth {
    shared: Arc<Shared>,
    /// By registry, with what is made of it when it is needed.
    tls: Arc<HashMap<String, (TokenTls, OnceCell<reqwest::Client>)>>,
}

struct Shared {
    dir: Option<PathBuf>,
    /// Made when the first token is fetched: reading the system's certificates takes longer than
    /// a build of which everything is cached.
    http: OnceLock<reqwest::Client>,
    known: Mutex<HashMap<String, (Instant, Known)>>,
    /// Only one helper at a time: some ask the person for a password.
    looking: tokio::sync::Mutex<()>,
}

impl Default for DockerAuth {
    fn default() -> Self {
        Self::new(config_dir())
    }
}

impl DockerAuth {
    /// With the configuration in `dir`, a folder that has Docker's `config.json`.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self::with(dir, OnceLock::new())
    }

    /// The same with an HTTP client of the caller's, with its own trust in certificates.
    pub fn with_client(dir: Option<PathBuf>, http: reqwest::Client) -> Self {
        Self::with(dir, OnceLock::from(http))
    }

    fn with(dir: Option<PathBuf>, http: OnceLock<reqwest::Client>) -> Self {
        let shared = Shared { dir, http, known: Mutex::default(), looking: tokio::sync::Mutex::new(()) };
        Self { shared: Arc::new(shared), tls: Arc::default() }
    }

    /// The same with its own TLS for the tokens of these registries, named as in references, with `https://` or without.
    #[must_use]
    pub fn with_tls(mut self, tls: impl IntoIterator<Item = (String, TokenTls)>) -> Self {
        let one = |(host, tls): (String, TokenTls)| (plain(&host).to_string(), (tls, OnceCell::new()));
        self.tls = Arc::new(tls.into_iter().map(one).collect());
        self
    }

    async fn http(&self, host: &str) -> Result<reqwest::Client, SessionError> {
        if let Some((tls, client)) = self.tls.get(plain(host)) {
            let make = || async {
                let tls = tls.clone();
                tokio::task::spawn_blocking(move || tls.client())
                    .await
                    .map_err(|err| SessionError::Internal(err.to_string()))?
            };
            return client.get_or_try_init(make).await.cloned();
        }
        let client = self.shared.http.get_or_init(|| {
            // An error would say that the program has chosen a provider already; that one stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
            reqwest::Client::new()
        });
        Ok(client.clone())
    }

    async fn known(&self, host: &str) -> Result<Known, SessionError> {
        let _looking = self.shared.looking.lock().await;
        let locked = || self.shared.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, known)) = locked().get(host).filter(|(when, _)| when.elapsed() < KEEP) {
            return Ok(known.clone());
        }
        let Some(dir) = self.shared.dir.clone() else { return Ok(Known::default()) };
        let name = host.to_string();
        let known = tokio::task::spawn_blocking(move || look_up(&dir, &name))
            .await
            .map_err(|err| SessionError::Internal(err.to_string()))??;
        locked().insert(host.to_string(), (Instant::now(), known.clone()));
        Ok(known)
    }

    /// The key that stands for our credentials for `host`. It says nothing about them, and with
    /// another salt it is another one.
    async fn authority(&self, host: &str, salt: &[u8]) -> Result<Ed25519KeyPair, Status> {
        let off = std::env::var("BUILDKIT_NO_CLIENT_TOKEN").unwrap_or_default();
        if matches!(off.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE") {
            return Err(Status::unavailable("client side tokens disabled"));
        }
        let known = self.known(host).await.map_err(|err| err.to_status())?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, salt));
        if !known.credentials.secret.is_empty() {
            let (dir, name) = (self.shared.dir.clone(), host.to_string());
            let seed = tokio::task::spawn_blocking(move || seed(dir.as_deref(), &name)).await;
            context.update(&seed.map_err(|err| Status::internal(err.to_string()))??);
        }
        Ed25519KeyPair::from_seed_unchecked(context.sign().as_ref())
            .map_err(|err| Status::internal(format!("make key: {err}")))
    }
}

/// A registry's name without a protocol.
fn plain(host: &str) -> &str {
    let host = host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).unwrap_or(host);
    host.trim_end_matches('/')
}

#[derive(Serialize, Deserialize)]
struct Seed {
    #[serde(rename = "Seed")]
    seed: String,
}

/// Our own randomness for a host, which stays the same between runs: a daemon that chooses the
/// salts learns nothing from the keys.
fn seed(dir: Option<&Path>, host: &str) -> Result<Vec<u8>, Status> {
    let failed = |err: std::io::Error| Status::unknown(format!("read token seed: {err}"));
    let fresh = || rand::random::<[u8; 16]>();
    let Some(dir) = dir else { return Ok(fresh().to_vec()) };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let lock = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(".token_seed.lock"));
    // Where the folder cannot be written, every run has its own.
    let Ok(lock) = lock else { return Ok(fresh().to_vec()) };
    lock.lock().map_err(failed)?;
    let path = dir.join(".token_seed");
    let text = std::fs::read(&path).unwrap_or_default();
    let mut seeds: BTreeMap<String, Seed> = serde_json::from_slice(&text).unwrap_or_default();
    if let Some(seed) = seeds.get(host).and_then(|s| STANDARD.decode(&s.seed).ok()) {
        return Ok(seed);
    }
    let seed = fresh();
    seeds.insert(host.to_string(), Seed { seed: STANDARD.encode(seed) });
    let text = serde_json::to_vec_pretty(&seeds).map_err(|err| Status::internal(err.to_string()))?;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(&text)).map_err(failed)?;
    Ok(seed.to_vec())
}

#[tonic::async_trait]
impl Auth for DockerAuth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let known = self.known(&request.into_inner().host).await.map_err(|err| err.to_status())?;
        let (username, secret) = (known.credentials.username, known.credentials.secret);
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let request = request.into_inner();
        let known = self.known(&request.host).await.map_err(|err| err.to_status())?;
        let http = self.http(&request.host).await.map_err(|err| err.to_status())?;
        tokens::fetch(&http, &request, &known).await.map(Response::new).map_err(|err| err.to_status())
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.authority(&request.host, &request.salt).await?;
        Ok(Response::new(GetTokenAuthorityResponse { public_key: key.public_key().as_ref().to_vec() }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.authority(&request.host, &request.salt).await?;
        // The signature, then what was signed (NaCl's crypto_sign).
        let mut signed = key.sign(&request.payload).as_ref().to_vec();
        signed.extend_from_slice(&request.payload);
        Ok(Response::new(VerifyTokenAuthorityResponse { signed }))
    }
}
