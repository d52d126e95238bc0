//! What the client lends to get at a repository.

use super::Wanted;
use super::command::{Access, KnownHosts};
use super::url::host;
use crate::{Shared, SourceContext, SourceError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Gathers it: a secret for the web, an agent and the hosts' keys for ssh.
pub(super) async fn access(
    shared: &Shared,
    wanted: &Wanted,
    cx: &Arc<dyn SourceContext>,
) -> Result<Access, SourceError> {
    if wanted.bundle.is_some() {
        return Ok(Access::default());
    }
    let mut access = Access { arguments: header(shared, wanted, cx).await, ..Access::default() };
    if !wanted.ssh.is_empty() {
        let sessions = cx.sessions();
        let asked = shared
            .parts
            .sessions
            .any(&sessions, async |session| session.check_ssh(&wanted.ssh).await.map(|()| session));
        let no_key =
            || SourceError::Invalid(format!("no SSH key {:?} forwarded from the client", wanted.ssh));
        let session = match asked.await {
            Ok(session) => session,
            Err(err) if err.is_unimplemented() => return Err(no_key()),
            Err(err) => return Err(SourceError::session(format!("ssh agent {:?}", wanted.ssh))(err)),
        };
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let socket = session.ssh_socket(&wanted.ssh, &shared.parts.scratch, owner, 0o700);
        access.ssh = Some(socket.map_err(SourceError::session(format!("ssh agent {:?}", wanted.ssh)))?);
    }
    if !wanted.known_hosts.is_empty() {
        let path = shared.parts.scratch.join(format!("known-hosts-{:016x}", rand::random::<u64>()));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(wanted.known_hosts.as_bytes()));
        access.known_hosts = Some(KnownHosts(path));
        written.map_err(SourceError::io("write known hosts"))?;
    }
    Ok(access)
}

/// The header that lets git into a web server, from the first secret that there is. A client need
/// not have one.
async fn header(shared: &Shared, wanted: &Wanted, cx: &Arc<dyn SourceContext>) -> Vec<String> {
    let host = host(&wanted.remote);
    let mut names = Vec::new();
    for suffix in [format!(".{host}"), String::new()] {
        for (name, token) in [(&wanted.header_secret, false), (&wanted.token_secret, true)] {
            if !name.is_empty() {
                names.push((format!("{name}{suffix}"), token));
            }
        }
    }
    if names.is_empty() {
        return Vec::new();
    }
    let sessions = cx.sessions();
    let found = OnceCell::new();
    let asked = shared.parts.sessions.any(&sessions, async |session| {
        for (name, token) in &names {
            match session.secret(name).await {
                Ok(secret) => {
                    let value = match token {
                        false => String::from_utf8_lossy(&secret).into_owned(),
                        true => {
                            let login = [b"x-access-token:", secret.as_slice()].concat();
                            format!("basic {}", STANDARD.encode(login))
                        }
                    };
                    let _ = found.set(value);
                    return Ok(());
                }
                Err(err) if err.is_not_found() => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    });
    if let Err(err) = asked.await {
        tracing::debug!(error = %err, "no secret for a git repository");
    }
    match found.into_inner() {
        Some(value) => {
            let setting = format!("http.{}.extraheader=Authorization: {value}", scope(&wanted.remote));
            vec!["-c".into(), setting]
        }
        None => Vec::new(),
    }
}

/// What the header is for: the repository, but at GitHub all repositories, because submodules are
/// there as well.
fn scope(remote: &str) -> &str {
    let all = ["https://github.com/", "https://www.github.com/"];
    all.into_iter().find(|all| remote.starts_with(all)).unwrap_or(remote)
}
