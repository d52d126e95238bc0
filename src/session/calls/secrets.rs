//! Asking the client for secrets.

use crate::{Session, SessionError};
use crosskit_api::secrets::GetSecretRequest;
use crosskit_api::secrets::secrets_client::SecretsClient;
use tonic::Code;

impl Session {
    /// The secret `id`. [`SessionError::NotFound`] where the client has none, or no secrets.
    pub async fn secret(&self, id: &str) -> Result<Vec<u8>, SessionError> {
        let mut client = SecretsClient::with_origin(self.channel(), self.origin());
        let request = GetSecretRequest { id: id.to_string(), ..GetSecretRequest::default() };
        match client.get_secret(request).await {
            Ok(answer) => Ok(answer.into_inner().data),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                Err(SessionError::NotFound(format!("secret {id}")))
            }
            Err(status) => Err(SessionError::call(format!("get secret {id}"))(status)),
        }
    }
}
