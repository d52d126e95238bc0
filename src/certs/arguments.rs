//! What is asked for.

use crate::error::CertsError;
use crate::hosts::Host;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;

/// Where the files go if nobody says otherwise.
const FOLDER: &str = "certs";
/// For how long certificates are valid if nobody says otherwise.
const DAYS: &str = "365";
/// The most that can be asked for: the years of a century. Dates in certificates end with the year 9999.
const MOST_DAYS: i64 = 36_500;
/// The authority's own folder.
pub(crate) const AUTHORITY: &str = "ca";
/// Characters of a name: those of a label in DNS, as Kubernetes wants them.
const LONGEST_NAME: usize = 63;

/// The name of a daemon or a client, which is its folder's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    fn parse(flag: &str, text: &str) -> Result<Name, CertsError> {
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text == AUTHORITY {
            return Err(CertsError::Argument(format!(
                "--{flag} {text:?}: this folder is the authority's; choose another name"
            )));
        }
        if !(1..=LONGEST_NAME).contains(&text.len())
            || !text.chars().all(letter)
            || text.starts_with(['.', '-'])
        {
            return Err(CertsError::Argument(format!(
                "--{flag} {text:?}: a name has at most {LONGEST_NAME} letters, digits, points, dashes and underscores, and \
                 begins with neither a point nor a dash"
            )));
        }
        Ok(Name(text.to_string()))
    }

    /// The usual client.
    pub(crate) fn client() -> Name {
        Name("client".into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// All that is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) hosts: Vec<Host>,
    pub(crate) into: PathBuf,
    pub(crate) days: u32,
    pub(crate) daemon: Name,
    pub(crate) clients: Vec<Name>,
    pub(crate) force: bool,
    pub(crate) secrets: bool,
}

/// The command line.
pub(crate) fn command() -> Command {
    Command::new("crosskit certs")
        .no_binary_name(true)
        .about("Make certificates for a daemon and its clients, by an authority of your own")
        .override_usage("crosskit certs --for HOST[,HOST…] [--into FOLDER] [--client NAME]…")
        .after_help(
            "FOLDER/ca is the authority, FOLDER/daemon and FOLDER/client are for use, each with ca.pem, cert.pem and key.pem. \
             In a folder that has an authority already that one is used again: --client NAME makes one more client, --daemon \
             NAME --for HOST one more daemon. Whoever has FOLDER/ca/key.pem can let anybody in.",
        )
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("HOST")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .help("name or IP address that clients reach the daemon by; may be given several times"),
        )
        .arg(
            Arg::new("into")
                .long("into")
                .value_name("FOLDER")
                .default_value(FOLDER)
                .value_parser(value_parser!(PathBuf))
                .help("where the files go"),
        )
        .arg(
            Arg::new("days")
                .long("days")
                .value_name("N")
                .default_value(DAYS)
                .value_parser(value_parser!(u32).range(1..=MOST_DAYS))
                .help("for how long the certificates are valid"),
        )
        .arg(
            Arg::new("daemon")
                .long("daemon")
                .value_name("NAME")
                .default_value("daemon")
                .help("folder of the daemon's files"),
        )
        .arg(
            Arg::new("client")
                .long("client")
                .value_name("NAME")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .help("name and folder of a client; may be given several times [default: client]"),
        )
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("make new certificates in the place of those that are there; the authority stays"),
        )
        .arg(
            Arg::new("kubernetes")
                .long("kubernetes")
                .action(ArgAction::SetTrue)
                .help("print a Secret called crosskit-NAME-tls for each daemon and client of FOLDER, new or not"),
        )
}

impl Asked {
    /// Understands what was given.
    pub(crate) fn read(given: &ArgMatches) -> Result<Asked, CertsError> {
        let all = |name: &str| given.get_many::<String>(name).into_iter().flatten();
        let mut hosts: Vec<Host> = Vec::new();
        for host in all("for").map(|host| Host::parse(host.trim())) {
            let host = host?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        let daemon = all("daemon").next_back().map_or("daemon", String::as_str);
        let daemon = Name::parse("daemon", daemon)?;
        let mut clients: Vec<Name> = Vec::new();
        for name in all("client").map(|name| Name::parse("client", name.trim())) {
            let name = name?;
            if !clients.contains(&name) {
                clients.push(name);
            }
        }
        let taken = clients.contains(&daemon) || (clients.is_empty() && daemon == Name::client());
        if taken && !hosts.is_empty() {
            let name = daemon.as_str();
            return Err(CertsError::Argument(format!("{name:?} can't be both the daemon and a client")));
        }
        let asked = Asked {
            hosts,
            into: given.get_one::<PathBuf>("into").cloned().unwrap_or_else(|| FOLDER.into()),
            days: given.get_one("days").copied().unwrap_or(1),
            daemon,
            clients,
            force: given.get_flag("force"),
            secrets: given.get_flag("kubernetes"),
        };
        if !asked.makes_something() && !asked.secrets {
            return Err(CertsError::Argument(
                "--for HOST says what clients reach the daemon by; see crosskit certs --help".into(),
            ));
        }
        Ok(asked)
    }

    /// Whether there is something to make, rather than only to print.
    pub(crate) fn makes_something(&self) -> bool {
        !self.hosts.is_empty() || !self.clients.is_empty()
    }
}
