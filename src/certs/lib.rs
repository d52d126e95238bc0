//! Certificates for a daemon and its clients, by an authority of one's own: `crosskit certs`.
//!
//! A folder holds the authority (`ca`), and beside it a folder for each daemon and each client, with the three files
//! under the names that `buildctl --tlsdir` looks for.

mod arguments;
mod authority;
mod error;
mod folders;
mod hosts;
mod secrets;

#[cfg(test)]
mod certs_tests;

pub use error::{CertsError, Kind};

use arguments::{AUTHORITY, Asked, Name};
use authority::{Authority, Bearer, Pair, day};
use folders::{Folder, Staged};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

/// Runs the program with these arguments, without its name. Returns the exit code: 1 if something could not be done, 2 for
/// wrong arguments.
pub fn run(args: &[String], stdout: &mut dyn Write, stderr: &mut dyn Write) -> u8 {
    let asked = match arguments::command().try_get_matches_from(args) {
        Ok(given) => Asked::read(&given),
        Err(shown) => {
            let text = shown.render();
            let _ = if shown.use_stderr() { write!(stderr, "{text}") } else { write!(stdout, "{text}") };
            return u8::try_from(shown.exit_code()).unwrap_or(2);
        }
    };
    let done = asked.and_then(|asked| make(&asked, SystemTime::now()));
    match done {
        Ok(Done { told, secrets: None }) => {
            let _ = write!(stdout, "{told}");
            0
        }
        Ok(Done { told, secrets: Some(secrets) }) => {
            let _ = write!(stderr, "{told}");
            let _ = write!(stdout, "{secrets}");
            0
        }
        Err(error) => {
            let _ = writeln!(stderr, "error: {error}");
            if matches!(error, CertsError::Argument(_)) { 2 } else { 1 }
        }
    }
}

/// What came of it.
struct Done {
    /// For a person.
    told: String,
    /// For Kubernetes, where that was asked for.
    secrets: Option<String>,
}

fn make(asked: &Asked, now: SystemTime) -> Result<Done, CertsError> {
    if asked.hosts.is_empty() && !asked.clients.is_empty() && !asked.into.exists() {
        return Err(CertsError::NoAuthority(asked.into.clone()));
    }
    let folder = Folder::open(&asked.into, !asked.hosts.is_empty())?;
    let mut told = String::new();
    if asked.makes_something() {
        // All that can be refused is refused before the first file is written.
        let kept = Authority::load(&folder, now)?;
        let clients = clients(asked, &folder);
        let daemon = (!asked.hosts.is_empty()).then_some(&asked.daemon);
        for name in daemon.into_iter().chain(&clients) {
            if let Some(file) = folder.has(name).filter(|_| !asked.force) {
                return Err(CertsError::Exists(file));
            }
            if asked.secrets {
                secrets::check(name.as_str())?;
            }
        }
        let authority = match &kept {
            Some(kept) => kept,
            None if asked.hosts.is_empty() => return Err(CertsError::NoAuthority(asked.into.clone())),
            None => &Authority::new(now, asked.days)?,
        };
        let mut pairs: Vec<(&Name, Pair, String)> = Vec::new();
        if let Some(name) = daemon {
            let hosts: Vec<String> = asked.hosts.iter().map(ToString::to_string).collect();
            let pair = authority.issue(&Bearer::Daemon(&asked.hosts), now, asked.days)?;
            pairs.push((name, pair, format!("of the daemon at {}", hosts.join(", "))));
        }
        for name in &clients {
            let pair = authority.issue(&Bearer::Client(name.as_str()), now, asked.days)?;
            pairs.push((name, pair, "of a client".to_string()));
        }
        let mut staged = Staged::default();
        if kept.is_none() {
            folder.stage_authority(authority, &mut staged)?;
            let (path, until) = (folder.path(AUTHORITY), day(authority.until));
            let _ = writeln!(told, "{}: a new authority, until {until}", path.display());
        }
        for (name, pair, whose) in &pairs {
            folder.stage_pair(name, authority, pair, &mut staged)?;
            let path = folder.path(name.as_str());
            let _ = writeln!(told, "{}: {whose}, until {}", path.display(), day(pair.until));
        }
        staged.place()?;
        told.push('\n');
        told.push_str(&advice(asked, &clients, &folder));
    }
    let secrets = asked.secrets.then(|| secrets::manifests(&folder)).transpose()?;
    Ok(Done { told, secrets })
}

/// The clients that were asked for; without any the usual one, unless it is there.
fn clients(asked: &Asked, folder: &Folder) -> Vec<Name> {
    let usual = Name::client();
    match asked.clients.is_empty() && folder.has(&usual).is_none() {
        true => vec![usual],
        false => asked.clients.clone(),
    }
}

/// How they are used.
fn advice(asked: &Asked, clients: &[Name], folder: &Folder) -> String {
    let mut told = String::new();
    let files = |name: &Name| {
        let own = folder.path(name.as_str());
        ["ca.pem", "cert.pem", "key.pem"]
            .map(|file| std::path::absolute(own.join(file)).unwrap_or_default().display().to_string())
    };
    let at = asked.hosts.iter().find(|host| !host.is_wildcard()).map(ToString::to_string);
    let at = at.as_deref().unwrap_or("HOST");
    let at = if at.contains(':') { format!("[{at}]") } else { at.to_string() };
    if !asked.hosts.is_empty() {
        let [ca, cert, key] = files(&asked.daemon);
        let _ = writeln!(
            told,
            "buildkitd --addr tcp://0.0.0.0:1234 --tlscacert {ca} --tlscert {cert} --tlskey {key}"
        );
    }
    if let Some(client) = clients.first() {
        let [ca, cert, key] = files(client);
        let own = Path::new(&ca).parent().unwrap_or(Path::new("")).display().to_string();
        let _ = writeln!(told, "buildctl --addr tcp://{at}:1234 --tlsdir {own} debug workers");
        let _ = writeln!(
            told,
            "docker buildx create --driver remote --driver-opt cacert={ca},cert={cert},key={key} tcp://{at}:1234"
        );
    }
    told
}
