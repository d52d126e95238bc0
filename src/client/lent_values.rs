//! Secrets, ssh agents and registry TLS settings, as flags describe them.

use crate::csv;
use crate::error::{ClientError, errno};
use crate::flags::parse_bool;
use crosskit_session::TokenTls;
use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

/// The largest secret, in bytes (BuildKit `session/secrets/secretsprovider`).
const MAX_SECRET: u64 = 500 << 10;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretFrom {
    File(PathBuf),
    Variable(String),
}

/// Reads `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`.
///
/// # Errors
/// A form that can't be read, or a file that can't be.
pub(crate) fn secret(text: &str) -> Result<(String, SecretFrom), ClientError> {
    let (mut id, mut file, mut variable, mut kind) =
        (String::new(), String::new(), String::new(), String::new());
    for field in csv::split(text, ',').map_err(crate::attrs::about("failed to parse csv secret"))? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(ClientError::invalid(format!("invalid field '{field}' must be a key=value pair")));
        };
        match key.to_lowercase().as_str() {
            "type" if value != "file" && value != "env" => {
                return Err(ClientError::invalid(format!("unsupported secret type {value:?}")));
            }
            "type" => kind = value.to_owned(),
            "id" => id = value.to_owned(),
            "source" | "src" => file = value.to_owned(),
            "env" => variable = value.to_owned(),
            key => return Err(ClientError::invalid(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    if id.is_empty() {
        return Err(ClientError::invalid("secret missing ID"));
    }
    if kind == "env" && variable.is_empty() {
        variable = std::mem::take(&mut file);
    }
    if variable.is_empty() && file.is_empty() {
        // The id alone names a variable, or else a file.
        *(if env::var_os(&id).is_some() { &mut variable } else { &mut file }) = id.clone();
    }
    if !variable.is_empty() {
        return Ok((id, SecretFrom::Variable(variable)));
    }
    let found = std::fs::metadata(&file)
        .map_err(|e| ClientError::invalid(format!("failed to stat {file}: stat {file}: {}", errno(&e))))?;
    if found.len() > MAX_SECRET {
        return Err(ClientError::invalid(format!("secret {id} too big. max size 500KiB")));
    }
    Ok((id, SecretFrom::File(file.into())))
}

/// An agent or keys that are lent under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) id: String,
    /// A socket, or keys; the socket of the environment if there is none.
    pub(crate) paths: Vec<PathBuf>,
    /// The socket speaks something else than the agent's protocol.
    pub(crate) raw: bool,
}

/// Reads `ID[=SOCKET[,raw=true]|=KEY[,KEY]]`.
///
/// # Errors
/// A raw socket that isn't exactly one, or no agent at all.
pub(crate) fn agent(text: &str) -> Result<Agent, ClientError> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let mut agent = Agent { id: id.to_owned(), paths: Vec::new(), raw: false };
    for part in paths.split(',').filter(|p| !p.is_empty()) {
        match part.strip_prefix("raw=") {
            Some(raw) => {
                agent.raw = parse_bool(raw).ok_or_else(|| {
                    ClientError::invalid(format!("invalid value for 'raw': {raw}: use true or false"))
                })?;
            }
            None => agent.paths.push(part.into()),
        }
    }
    if agent.raw && agent.paths.len() != 1 {
        return Err(ClientError::invalid(format!(
            "raw mode must supply exactly one socket path for {:?}",
            agent.id
        )));
    }
    if agent.paths.is_empty() {
        match env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty()) {
            Some(socket) => agent.paths.push(socket.into()),
            None => {
                return Err(ClientError::invalid(format!(
                    "failed to convert agent config {{{} [] false}}: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set",
                    agent.id
                )));
            }
        }
    }
    Ok(agent)
}

/// Reads `--registry-auth-tlscontext` values, by host.
///
/// # Errors
/// A context without host, or with half a certificate.
pub(crate) fn registry_tls(list: &[String]) -> Result<BTreeMap<String, TokenTls>, ClientError> {
    let mut all: BTreeMap<String, TokenTls> = BTreeMap::new();
    for text in list {
        let (_, attrs) = csv::typed(text)?;
        let of = |key: &str| attrs.get(key).filter(|v| !v.is_empty());
        let Some(host) = of("host") else {
            return Err(ClientError::invalid("--registry-auth-tlscontext requires host=<host>"));
        };
        let insecure = of("insecure").and_then(|v| parse_bool(v)).unwrap_or(false);
        match (of("ca"), of("cert"), of("key")) {
            (None, None, _) | (None, _, None) if !insecure => {
                return Err(ClientError::invalid(
                    "--registry-auth-tlscontext requires ca=<ca> or cert=<cert>,key=<key> or insecure=true",
                ));
            }
            (Some(_), Some(_), None) | (Some(_), None, Some(_)) => {
                return Err(ClientError::invalid(
                    "--registry-auth-tlscontext requires cert=<cert>,key=<key>",
                ));
            }
            (ca, cert, key) => {
                let context = all.entry(host.clone()).or_default();
                context.insecure |= insecure;
                context.authorities.extend(ca.map(PathBuf::from));
                context.identities.extend(cert.zip(key).map(|(cert, key)| (cert.into(), key.into())));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_variables() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(secret(&format!("id=a,src={path}")).unwrap(), ("a".into(), SecretFrom::File(path.into())));
        assert_eq!(
            secret("id=a,type=env,src=PATH").unwrap(),
            ("a".into(), SecretFrom::Variable("PATH".into()))
        );
        assert_eq!(secret("id=PATH").unwrap(), ("PATH".into(), SecretFrom::Variable("PATH".into())));
        let told = |text: &str| secret(text).unwrap_err().to_string();
        assert_eq!(told("id=x,src=/nope"), "failed to stat /nope: stat /nope: no such file or directory");
        assert_eq!(told("x"), "invalid field 'x' must be a key=value pair");
        assert_eq!(told("id=x,type=y"), r#"unsupported secret type "y""#);
        assert_eq!(told("id=x,foo=y"), "unexpected key 'foo' in 'foo=y'");
        assert_eq!(told("src=y"), "secret missing ID");
    }

    #[test]
    fn agents_have_paths() {
        assert_eq!(
            agent("k=a,b").unwrap(),
            Agent { id: "k".into(), paths: vec!["a".into(), "b".into()], raw: false }
        );
        assert!(agent("k=s,raw=true").unwrap().raw);
        assert_eq!(
            agent("k=a,b,raw=1").unwrap_err().to_string(),
            r#"raw mode must supply exactly one socket path for "k""#
        );
    }

    #[test]
    fn registry_contexts_are_joined_by_host() {
        let list: Vec<String> =
            ["host=h,ca=a", "host=h,insecure=true", "host=g,cert=c,key=k"].map(String::from).into();
        let all = registry_tls(&list).unwrap();
        assert_eq!(all["h"], TokenTls { insecure: true, authorities: vec!["a".into()], identities: vec![] });
        assert_eq!(all["g"].identities, [("c".into(), "k".into())]);
        for bad in ["ca=a", "host=h", "host=h,cert=c", "host=h,ca=a,cert=c"] {
            assert!(registry_tls(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
