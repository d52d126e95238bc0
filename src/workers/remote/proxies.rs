//! What a step elsewhere asks of the client is passed on to the client's own session, each time
//! it is asked; nothing of it is kept here.

use crosskit_api::filesync::auth_client::AuthClient;
use crosskit_api::filesync::auth_server::Auth;
use crosskit_api::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use crosskit_api::secrets::secrets_server::Secrets;
use crosskit_api::secrets::{GetSecretRequest, GetSecretResponse};
use crosskit_api::sshforward::ssh_client::SshClient;
use crosskit_api::sshforward::ssh_server::Ssh;
use crosskit_api::sshforward::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use crosskit_session::{SSH_ID, Session, SessionError, SessionManager, WAIT_FOR_SESSION};
use crosskit_solver::JobGroup;
use futures::Stream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};

/// The clients whose steps run in a session: those of its build, and those of other builds that
/// wait for the same steps.
#[derive(Clone)]
pub(super) struct Clients {
    sessions: SessionManager,
    own: Arc<Vec<String>>,
    steps: Arc<Mutex<Vec<(u64, JobGroup)>>>,
}

/// Lets the clients of a step be asked until this is dropped.
pub(super) struct Asking {
    clients: Clients,
    number: u64,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.clients.steps().retain(|(number, _)| *number != self.number);
    }
}

impl Clients {
    /// Those of one build.
    pub(super) fn new(sessions: SessionManager, own: Vec<String>) -> Self {
        Clients { sessions, own: Arc::new(own), steps: Arc::default() }
    }

    /// Adds those who wait for a step.
    pub(super) fn of_step(&self, jobs: &JobGroup) -> Asking {
        let mut steps = self.steps();
        let number = steps.last().map_or(0, |(last, _)| last + 1);
        steps.push((number, jobs.clone()));
        drop(steps);
        Asking { clients: self.clone(), number }
    }

    fn steps(&self) -> MutexGuard<'_, Vec<(u64, JobGroup)>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Vec<String> {
        let mut ids = self.own.to_vec();
        let groups: Vec<JobGroup> = self.steps().iter().map(|(_, jobs)| jobs.clone()).collect();
        for id in groups.iter().flat_map(JobGroup::sessions) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// The first good answer of a client.
    async fn ask<T, F, Fut>(&self, with: F) -> Result<T, Status>
    where
        F: FnMut(Session) -> Fut,
        Fut: Future<Output = Result<T, SessionError>>,
    {
        self.sessions.any(&self.ids(), with).await.map_err(|error| error.to_status())
    }

    /// The same for credentials, with the client's own words where it has none.
    async fn ask_for_credentials<T, F, Fut>(&self, with: F) -> Result<Response<T>, Status>
    where
        F: Fn(AuthClient<crosskit_session::Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = Status::unimplemented("no client offers credentials");
        let ids = self.ids();
        let (open, away): (Vec<_>, Vec<_>) = ids.iter().partition(|id| self.sessions.get_now(id).is_some());
        // One that is not there has not said that it has none.
        for id in if open.is_empty() { away } else { open } {
            let session = match self.sessions.get(id, WAIT_FOR_SESSION).await {
                Ok(session) => session,
                Err(error) => {
                    last = error.to_status();
                    continue;
                }
            };
            match with(AuthClient::with_origin(session.channel(), session.origin())).await {
                Ok(answer) => return Ok(Response::new(answer.into_inner())),
                Err(status) => last = Status::new(status.code(), status.message()),
            }
        }
        Err(last)
    }
}

#[tonic::async_trait]
impl Secrets for Clients {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let id = &id;
        let data = self.ask(|session| async move { session.secret(id).await }).await?;
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[tonic::async_trait]
impl Ssh for Clients {
    type ForwardAgentStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        let id = request.into_inner().id;
        let id = &id;
        self.ask(|session| async move { session.check_ssh(id).await }).await?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let (metadata, _, messages) = request.into_parts();
        let named = metadata.get(SSH_ID).cloned();
        let id = named.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        let session = self
            .ask(|session| async move {
                session.check_ssh(id).await?;
                Ok(session)
            })
            .await?;
        // A stream that breaks off ends, and with it the connection to the agent.
        let messages = messages.map_while(Result::ok);
        let mut call = Request::new(messages);
        if let Some(id) = &named {
            call.metadata_mut().insert(SSH_ID, id.clone());
        }
        let answers = SshClient::with_origin(session.channel(), session.origin()).forward_agent(call).await?;
        Ok(Response::new(Box::pin(answers.into_inner())))
    }
}

#[tonic::async_trait]
impl Auth for Clients {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let message = request.into_inner();
        let ask = |mut client: AuthClient<_>| {
            let message = message.clone();
            async move { client.credentials(message).await }
        };
        match self.ask_for_credentials(ask).await {
            // Nobody has any: then there are none.
            Err(status) if status.code() == Code::Unimplemented => {
                Ok(Response::new(CredentialsResponse::default()))
            }
            answer => answer,
        }
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let message = request.into_inner();
        self.ask_for_credentials(|mut client| {
            let message = message.clone();
            async move { client.fetch_token(message).await }
        })
        .await
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let message = request.into_inner();
        self.ask_for_credentials(|mut client| {
            let message = message.clone();
            async move { client.get_token_authority(message).await }
        })
        .await
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let message = request.into_inner();
        self.ask_for_credentials(|mut client| {
            let message = message.clone();
            async move { client.verify_token_authority(message).await }
        })
        .await
    }
}

#[cfg(test)]
#[path = "proxies_tests.rs"]
mod tests;
