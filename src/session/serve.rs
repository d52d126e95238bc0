//! The client's end: the services that it offers to the daemon.

mod agents;
mod auth;
mod callbacks;
mod content;
mod files;
mod keychain;
mod outputs;
mod secrets;
mod token_tls;
mod tokens;
mod uploads;

pub use agents::SshAgents;
pub use auth::DockerAuth;
pub use callbacks::{ExporterCallback, FinalizeCallback, PolicyCallback};
pub use content::ContentStores;
pub use files::{DirProgress, LocalDirs};
pub use outputs::{FileOutput, OpenFile, Output, Outputs};
pub use secrets::{SecretSource, Secrets};
pub use token_tls::TokenTls;
pub use uploads::Uploads;

use crate::connection;
use crate::headers::{SESSION_ID, SESSION_METHOD, SESSION_NAME, SESSION_SHARED_KEY};
use crate::{SessionError, tunnel};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::content::content_server::{self, ContentServer};
use crosskit_api::control::BytesMessage;
use crosskit_api::exporter::exporter_server::ExporterServer;
use crosskit_api::filesync::auth_server::{self, AuthServer};
use crosskit_api::filesync::file_sync_server::FileSyncServer;
use crosskit_api::health::health_server::HealthServer;
use crosskit_api::secrets::secrets_server::{self, SecretsServer};
use crosskit_api::sourcepolicy::policysession::policy_verifier_server::PolicyVerifierServer;
use crosskit_api::sshforward::ssh_server::{self, SshServer};
use crosskit_api::upload::upload_server::UploadServer;
use futures::Stream;
use std::future::Future;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::RoutesBuilder;

/// What a client lends, ready to be offered to a daemon.
pub struct SessionServer {
    id: String,
    name: String,
    shared_key: String,
    routes: RoutesBuilder,
    methods: Vec<String>,
}

impl SessionServer {
    /// A session that offers nothing yet, with a new id. A shared key that stays the same tells
    /// the daemon that folders of the same name are the same folders as the last time.
    pub fn new(shared_key: impl Into<String>) -> Self {
        let server = Self {
            id: new_id(),
            name: String::new(),
            shared_key: shared_key.into(),
            routes: RoutesBuilder::default(),
            methods: Vec::new(),
        };
        server.offer("grpc.health.v1.Health", &["Check", "Watch"], |routes| {
            routes.add_service(HealthServer::new(callbacks::Healthy));
        })
    }

    /// The id, by which builds name this session.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives the session a name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Offers folders.
    pub fn with_dirs(self, dirs: LocalDirs) -> Self {
        let service = FileSyncServer::new(files::Service::new(dirs)).max_decoding_message_size(MAX_MESSAGE);
        self.offer("moby.filesync.v1.FileSync", &["DiffCopy", "TarStream"], |routes| {
            routes.add_service(service);
        })
    }

    /// Offers places for results.
    pub fn with_outputs(self, outputs: Outputs) -> Self {
        self.offer("moby.filesync.v1.FileSend", &["DiffCopy"], |routes| {
            routes.add_service(outputs::Service::new(outputs));
        })
    }

    /// Offers secrets: [`Secrets`], or whatever finds them.
    pub fn with_secrets(self, secrets: impl secrets_server::Secrets) -> Self {
        self.offer("moby.buildkit.secrets.v1.Secrets", &["GetSecret"], |routes| {
            routes.add_service(SecretsServer::new(secrets));
        })
    }

    /// Offers ssh agents: [`SshAgents`], or whatever leads to some.
    pub fn with_ssh(self, agents: impl ssh_server::Ssh) -> Self {
        let service = SshServer::new(agents).max_decoding_message_size(MAX_MESSAGE);
        self.offer("moby.sshforward.v1.SSH", &["CheckAgent", "ForwardAgent"], |routes| {
            routes.add_service(service);
        })
    }

    /// Offers registry credentials, and tokens fetched with them.
    pub fn with_auth(self, auth: impl auth_server::Auth) -> Self {
        let methods = ["Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"];
        self.offer("moby.filesync.v1.Auth", &methods, |routes| {
            routes.add_service(AuthServer::new(auth));
        })
    }

    /// Offers content stores: [`ContentStores`], or whatever has blobs.
    pub fn with_content(self, stores: impl content_server::Content) -> Self {
        let service = ContentServer::new(stores).max_decoding_message_size(MAX_MESSAGE);
        let methods =
            ["Info", "Update", "List", "Delete", "Read", "Status", "ListStatuses", "Write", "Abort"];
        self.offer("containerd.services.content.v1.Content", &methods, |routes| {
            routes.add_service(service);
        })
    }

    /// Offers uploads.
    pub fn with_uploads(self, uploads: Uploads) -> Self {
        self.offer("moby.upload.v1.Upload", &["Pull"], |routes| {
            routes.add_service(UploadServer::new(uploads));
        })
    }

    /// Wants to be asked which exporters to run.
    pub fn with_exporter(self, find: ExporterCallback, finalize: Option<FinalizeCallback>) -> Self {
        let service = ExporterServer::new(callbacks::Exporters { find, finalize });
        self.offer("moby.exporter.v1.Exporter", &["FindExporters", "FinalizeExport"], |routes| {
            routes.add_service(service);
        })
    }

    /// Wants to be asked whether sources may be used.
    pub fn with_policy(self, check: PolicyCallback) -> Self {
        let service =
            PolicyVerifierServer::new(callbacks::Policy { check }).max_decoding_message_size(MAX_MESSAGE);
        self.offer("moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier", &["CheckPolicy"], |routes| {
            routes.add_service(service);
        })
    }

    fn offer(mut self, name: &str, methods: &[&str], add: impl FnOnce(&mut RoutesBuilder)) -> Self {
        add(&mut self.routes);
        self.methods.extend(methods.iter().map(|method| format!("/{name}/{method}")));
        self
    }

    /// The headers that introduce the session to the daemon.
    pub fn headers(&self) -> http::HeaderMap {
        let mut headers = http::HeaderMap::new();
        let value = |text: &str| http::HeaderValue::from_str(text).ok();
        for (key, text) in
            [(SESSION_ID, &self.id), (SESSION_NAME, &self.name), (SESSION_SHARED_KEY, &self.shared_key)]
        {
            headers.extend(
                value(text).filter(|v| !v.is_empty()).map(|v| (http::HeaderName::from_static(key), v)),
            );
        }
        for method in &self.methods {
            if let Some(value) = value(method) {
                headers.append(SESSION_METHOD, value);
            }
        }
        headers
    }

    /// Serves over a connection to the daemon until it ends.
    pub async fn serve<T>(self, io: T) -> Result<(), SessionError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::serve(io, self.routes.routes()).await
    }

    /// Serves over a gRPC stream until it ends. `open` makes the call (`Control.Session`) with the
    /// request that it is given, which carries the headers.
    pub async fn serve_over<F, Fut, S>(self, open: F) -> Result<(), SessionError>
    where
        F: FnOnce(tonic::Request<ReceiverStream<BytesMessage>>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<S>, tonic::Status>>,
        S: Stream<Item = Result<BytesMessage, tonic::Status>> + Send + 'static,
    {
        // The answer's stream exists only after the call, which needs the request's stream first.
        let (incoming, later) = tunnel::later();
        let (io, outgoing) = tunnel::tunnel(incoming);
        let mut request = tonic::Request::new(outgoing);
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(self.headers());
        let serving = self.serve(io);
        tokio::pin!(serving);
        let calling = open(request);
        tokio::pin!(calling);
        let answer = tokio::select! {
            answer = &mut calling => answer.map_err(SessionError::call("open session"))?,
            ended = &mut serving => return ended,
        };
        let _ = later.send(Box::pin(answer.into_inner()));
        serving.await
    }
}

/// An id that nobody else has: 25 digits and letters.
fn new_id() -> String {
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..25).map(|_| digits[rand::random_range(0..digits.len())] as char).collect()
}
