use super::*;
use crosskit_session::{DockerAuth, SecretSource, SessionServer, SshAgents, WAIT_FOR_SESSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Opens a session. Gives the daemon's end of it.
async fn open(manager: &SessionManager, server: SessionServer) -> Session {
    let id = server.id().to_string();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (at, headers) = (manager.clone(), server.headers());
    tokio::spawn(async move { at.handle(ours, &headers).await });
    tokio::spawn(server.serve(theirs));
    manager.get(&id, WAIT_FOR_SESSION).await.unwrap()
}

/// A client's session at an endpoint, and the endpoint's session at a worker behind it.
async fn behind(client: SessionServer) -> Session {
    let (endpoint, worker) = (SessionManager::new(), SessionManager::new());
    let client = open(&endpoint, client).await;
    let clients = Clients::new(endpoint, vec![client.id().to_string()]);
    let passing =
        SessionServer::new("").with_secrets(clients.clone()).with_ssh(clients.clone()).with_auth(clients);
    open(&worker, passing).await
}

#[tokio::test]
async fn a_secret_comes_from_the_client_and_so_does_its_absence() {
    let mut secrets = crosskit_session::Secrets::default();
    secrets.add("token", Some(SecretSource::Value(b"swordfish".to_vec()))).unwrap();
    let session = behind(SessionServer::new("").with_secrets(secrets)).await;
    assert_eq!(session.secret("token").await.unwrap(), b"swordfish");
    assert!(session.secret("other").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_agent_is_spoken_to_through_both_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let agent = UnixListener::bind(folder.path().join("agent")).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = agent.accept().await.unwrap();
            let mut asked = [0; 5];
            connection.read_exact(&mut asked).await.unwrap();
            connection.write_all(&asked).await.unwrap();
            connection.write_all(b" heard").await.unwrap();
        }
    });
    let mut agents = SshAgents::default();
    agents.add("key", &[folder.path().join("agent")], true).await.unwrap();
    let session = behind(SessionServer::new("").with_ssh(agents)).await;
    session.check_ssh("key").await.unwrap();
    session.check_ssh("other").await.unwrap_err();
    let socket = session.ssh_socket("key", folder.path(), (0, 0), 0o600).unwrap();
    let mut connection = UnixStream::connect(socket.path()).await.unwrap();
    connection.write_all(b"words").await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"words heard");
}

#[tokio::test]
async fn credentials_stay_those_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"auths":{"registry.example":{"auth":"bWU6d29yZA=="}}}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let auth = DockerAuth::new(Some(folder.path().to_path_buf()));
    let session = behind(SessionServer::new("").with_auth(auth)).await;
    let found = session.credentials("registry.example").await.unwrap().unwrap();
    assert_eq!((found.username.as_str(), found.secret.as_str()), ("me", "word"));
    let key = session.token_authority("registry.example").await.unwrap().unwrap();
    assert!(session.verify_token_authority("registry.example", &key).await.unwrap());
    assert!(!session.verify_token_authority("registry.example", &[7; 32]).await.unwrap());
}

#[tokio::test]
async fn a_client_without_credentials_has_none() {
    let session = behind(SessionServer::new("")).await;
    let found = session.credentials("registry.example").await.unwrap().unwrap();
    assert!(found.username.is_empty() && found.secret.is_empty());
    assert_eq!(session.token_authority("registry.example").await.unwrap(), None);
    assert!(session.secret("token").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn clients_of_other_builds_are_asked_only_while_they_wait_for_a_step() {
    let manager = SessionManager::new();
    let clients = Clients::new(manager.clone(), Vec::new());
    assert!(clients.ids().is_empty());
    let asking = clients.of_step(&JobGroup::default());
    let second = clients.of_step(&JobGroup::default());
    assert_eq!(clients.steps().len(), 2);
    drop(asking);
    assert_eq!(clients.steps().len(), 1);
    drop(second);
    assert!(clients.steps().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_there_is_not_one_without_credentials() {
    let clients = Clients::new(SessionManager::new(), vec!["lost".to_string()]);
    let request = CredentialsRequest { host: "registry.example".into() };
    let lost = clients.credentials(Request::new(request)).await.unwrap_err();
    assert!(lost.message().contains("no active session for lost"), "{lost}");
}
