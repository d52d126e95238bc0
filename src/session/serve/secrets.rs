//! Lending secrets.

use crate::SessionError;
use crosskit_api::secrets::secrets_server::Secrets as Service;
use crosskit_api::secrets::{GetSecretRequest, GetSecretResponse};
use std::collections::HashMap;
use std::path::PathBuf;
use tonic::{Request, Response, Status};

/// The largest secret, in bytes.
const LARGEST: usize = 500 << 10;

/// Where a secret comes from, each time it is asked for.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// From memory.
    Value(Vec<u8>),
}

/// The secrets that a client lends, by id.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    secrets: HashMap<String, SecretSource>,
}

impl Secrets {
    /// Lends a secret. Without a source, a variable with the id's name is used if there is one,
    /// else a file. An error if the file is not there or too big.
    pub fn add(&mut self, id: &str, source: Option<SecretSource>) -> Result<(), SessionError> {
        if id.is_empty() {
            return Err(SessionError::Invalid("secret missing ID".into()));
        }
        let source = source.unwrap_or_else(|| match std::env::var_os(id) {
            Some(_) => SecretSource::Env(id.to_string()),
            None => SecretSource::File(id.into()),
        });
        if let SecretSource::File(path) = &source {
            let doing = || format!("failed to stat {}", path.display());
            let there = std::fs::metadata(path).map_err(SessionError::io(doing()))?;
            if there.len() > LARGEST as u64 {
                return Err(SessionError::Invalid(format!("secret {id} too big. max size {LARGEST}B")));
            }
        }
        self.secrets.insert(id.to_string(), source);
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }
}

#[tonic::async_trait]
impl Service for Secrets {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let data = match self.secrets.get(&id) {
            None => return Err(Status::not_found(format!("secret {id}: not found"))),
            Some(SecretSource::Value(value)) => value.clone(),
            Some(SecretSource::Env(name)) => {
                use std::os::unix::ffi::OsStringExt;
                std::env::var_os(name).map(OsStringExt::into_vec).unwrap_or_default()
            }
            Some(SecretSource::File(path)) => tokio::fs::read(path)
                .await
                .map_err(|err| Status::unknown(format!("open {}: {err}", path.display())))?,
        };
        if data.len() > LARGEST {
            return Err(Status::unknown(format!("invalid secret size {}", data.len())));
        }
        Ok(Response::new(GetSecretResponse { data }))
    }
}
