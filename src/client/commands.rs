//! The commands, as tables: what `buildctl` and `crosskit` understand.

pub(crate) mod build;
mod cache;
mod debug;
mod farm;
pub(crate) mod friendly;
mod histories;

use crate::connection::{Target, control};
use crate::error::ClientError;
use crate::flags::{Command, Flag, Kind, Parsed, flag};
use crate::templates::Template;
use crate::values::Value;
use std::io::{self, Write};
use tonic::transport::Channel;

const FORMAT: Flag =
    flag("format", Kind::Text(""), "Print through this Go template, for example '{{json .}}'");
const VERBOSE: Flag = flag("verbose", Kind::Bool, "Print all that is known").short("v");
const FILTER: Flag = flag("filter", Kind::List, "Only records that match").short("f");
const DESTINATION: &str =
    "Where a result goes, for example --output type=image,name=docker.io/username/image,push=true";

static GLOBAL: [Flag; 10] = [
    flag("debug", Kind::Bool, "print more in logs, and where errors come from"),
    flag("addr", Kind::Text(crate::connection::DEFAULT_ADDRESS), "address of the daemon")
        .variable("BUILDKIT_HOST"),
    flag("log-format", Kind::Text("text"), "form of logs: json or text"),
    flag("tlsservername", Kind::Text(""), "name that the daemon's certificate has to bear"),
    flag(
        "tlscacert",
        Kind::Text(""),
        "certificate of the authority that the daemon's certificate comes from",
    ),
    flag("tlscert", Kind::Text(""), "certificate of this client"),
    flag("tlskey", Kind::Text(""), "key of this client"),
    flag(
        "tlsdir",
        Kind::Text(""),
        "folder with all three: ca.pem, cert.pem, key.pem, or ca.crt, tls.crt, tls.key",
    ),
    flag("timeout", Kind::Int(5), "seconds after which connecting is given up"),
    flag("wait", Kind::Bool, "wait until the daemon answers"),
];

static DU: Command = Command { flags: &[FILTER, VERBOSE, FORMAT], ..Command::new("du", "disk usage") };
static PRUNE: Command = Command {
    flags: &[
        flag("keep-duration", Kind::Duration, "Keep what was used within this time"),
        flag("keep-storage", Kind::Float, "Remove until at most this is used (in MB)"),
        flag("keep-storage-min", Kind::Float, "Keep at least this much (in MB)"),
        flag("free-storage", Kind::Float, "Remove until this is free on the disk (in MB)"),
        FILTER,
        flag("all", Kind::Bool, "Also remove what the daemon keeps for itself and for frontends"),
        VERBOSE,
        FORMAT,
    ],
    ..Command::new("prune", "clean up build cache")
};
static PRUNE_HISTORIES: Command =
    Command { flags: &[FORMAT], ..Command::new("prune-histories", "clean up build histories") };
static BUILD: Command = Command {
    aliases: &["b"],
    usage: "\n  To build and push an image from a Dockerfile:\n    $ buildctl build --frontend dockerfile.v0 --opt target=foo --opt build-arg:foo=bar --local context=. --local dockerfile=. --output type=image,name=docker.io/username/image,push=true\n  ",
    flags: &[
        flag("output", Kind::List, DESTINATION).short("o"),
        flag("progress", Kind::Text("auto"), "How progress is shown (auto, plain, tty, rawjson, quiet)"),
        flag("trace", Kind::Text(""), "File to which all progress is appended as JSON"),
        flag("local", Kind::List, "Lend the build a local folder, as name=path"),
        flag("oci-layout", Kind::List, "Lend the build a local OCI layout, as name=path"),
        flag("frontend", Kind::Text(""), "Frontend that makes the build graph"),
        flag(
            "opt",
            Kind::List,
            "Option for the frontend, for example --opt target=foo --opt build-arg:foo=bar",
        ),
        flag("no-cache", Kind::Bool, "Run every step again"),
        flag(
            "export-cache",
            Kind::List,
            "Write the build cache, for example to type=registry,ref=example.com/foo/bar or type=local,dest=path/to/dir",
        ),
        flag(
            "import-cache",
            Kind::List,
            "Read a build cache, for example from type=registry,ref=example.com/foo/bar or type=local,src=path/to/dir",
        ),
        flag("secret", Kind::List, "Lend the build a secret, as id=name,src=path or id=name,env=variable"),
        flag("allow", Kind::List, "Allow the build a privilege: network.host, security.insecure, device"),
        flag(
            "ssh",
            Kind::List,
            "Lend the build an ssh agent, keys or a raw socket, as default|<id>[=<socket>[,raw=false]|<key>[,<key>]]",
        ),
        flag("metadata-file", Kind::Text(""), "File for what the result is, such as its digest, as JSON"),
        flag("source-policy-file", Kind::Text(""), "File with a source policy in JSON"),
        flag("proxy-network", Kind::Bool, "Let steps reach the network only through the daemon's proxy"),
        flag("ref-file", Kind::Text(""), "File for the build's reference"),
        flag(
            "registry-auth-tlscontext",
            Kind::List,
            "TLS settings for signing in at a registry, for example host=https://myserver:2376,insecure=false,ca=/path/to/my/ca.crt,cert=/path/to/my/cert.crt,key=/path/to/my/key.crt",
        ),
        flag(
            "debug-json-cache-metrics",
            Kind::Text(""),
            "File for numbers on cache use as JSON; 'stdout' and 'stderr' are the standard ones",
        ),
    ],
    ..Command::new("build", "build")
};
static DEBUG: Command = Command {
    commands: &[
        Command {
            arguments: "<llbfile>",
            flags: &[flag("dot", Kind::Bool, "Print for Graphviz")],
            ..Command::new("dump-llb", "show a build graph, from a file or standard input; needs no daemon")
        },
        Command {
            flags: &[flag("root", Kind::Text("/var/lib/buildkit"), "the daemon's folder")],
            ..Command::new("dump-metadata", "show the metadata of a daemon that is stopped")
        },
        Command { flags: &[FILTER, VERBOSE, FORMAT], ..Command::new("workers", "list workers") },
        Command { flags: &[FORMAT], ..Command::new("info", "show what the daemon is") },
        Command {
            flags: &[
                flag("completed", Kind::Bool, "also show builds that are over"),
                flag("ref", Kind::Text(""), "show one build only"),
            ],
            ..Command::new("monitor", "show builds as they come and go")
        },
        Command {
            flags: &[
                flag("progress", Kind::Text("auto"), "how progress is shown"),
                flag("trace", Kind::Bool, "show the OpenTelemetry trace"),
            ],
            ..Command::new("logs", "show the log of a build")
        },
        Command {
            flags: &[
                flag("pin", Kind::Bool, "Keep the record for good"),
                flag("unpin", Kind::Bool, "Keep the record no longer than others"),
                flag("delete", Kind::Bool, "Delete the record"),
            ],
            ..Command::new("ctl", "keep or delete build records")
        },
        Command::new("get", "print a blob of the daemon's content store"),
        Command { flags: &[FORMAT], ..Command::new("histories", "list build records") },
    ],
    ..Command::new("debug", "debug utilities")
};
static FARM: Command = Command {
    commands: &[
        Command { flags: &[FORMAT], ..Command::new("ls", "list workers, and what they have done") },
        Command {
            arguments: "NAME",
            ..Command::new("drain", "let a worker finish what it has and take nothing new")
        },
        Command { arguments: "NAME", ..Command::new("undrain", "let a worker take work again") },
        Command {
            arguments: "BUILD",
            ..Command::new("explain", "show which worker ran which step of a build, and why")
        },
    ],
    ..Command::new("farm", "the workers behind the daemon")
};
static DIAL: Command =
    Command { hidden: true, ..Command::new("dial-stdio", "carry standard input and output to the daemon") };

/// The program `buildctl`.
pub(crate) static BUILDCTL: Command = Command {
    flags: &GLOBAL,
    commands: &[copy(&DU), copy(&PRUNE), copy(&PRUNE_HISTORIES), copy(&BUILD), copy(&DEBUG), copy(&DIAL)],
    ..Command::new("buildctl", "build utility")
};

/// The program `crosskit`, as far as it is a client.
pub(crate) static CROSSKIT: Command = Command {
    flags: &GLOBAL,
    commands: &[
        Command {
            aliases: &["b"],
            arguments: "PATH",
            flags: &friendly::FLAGS,
            ..Command::new("build", "build an image from a Dockerfile, for as many platforms as you like")
        },
        copy(&DU),
        copy(&PRUNE),
        copy(&PRUNE_HISTORIES),
        Command::new("doctor", "say whether this machine has what a builder needs"),
        Command::new("certs", "make certificates for a daemon and its clients"),
        copy(&DEBUG),
        copy(&FARM),
        copy(&DIAL),
    ],
    ..Command::new("crosskit", "multi-platform container builds")
};

/// The same command again, as tables hold them by value.
const fn copy(c: &Command) -> Command {
    Command {
        name: c.name,
        aliases: c.aliases,
        about: c.about,
        arguments: c.arguments,
        usage: c.usage,
        flags: c.flags,
        commands: c.commands,
        hidden: c.hidden,
    }
}

/// Runs any command but a build.
pub(crate) async fn run(flags: &Parsed) -> Result<(), ClientError> {
    match flags.command.as_slice() {
        ["du"] => cache::disk_usage(flags).await,
        ["prune"] => cache::prune(flags).await,
        ["prune-histories"] => histories::prune(flags).await,
        ["dial-stdio"] => debug::dial_stdio(flags).await,
        ["farm", "ls"] => farm::list(flags).await,
        ["farm", "drain"] => farm::set_draining(flags, true).await,
        ["farm", "undrain"] => farm::set_draining(flags, false).await,
        ["farm", "explain"] => farm::explain(flags).await,
        ["debug", "dump-llb"] => debug::dump_llb(flags),
        ["debug", "workers"] => debug::workers(flags).await,
        ["debug", "info"] => debug::info(flags).await,
        ["debug", "monitor"] => histories::monitor(flags).await,
        ["debug", "logs"] => histories::logs(flags).await,
        ["debug", "ctl"] => histories::update(flags).await,
        ["debug", "get"] => debug::get(flags).await,
        ["debug", "histories"] => histories::list(flags).await,
        ["debug", "dump-metadata"] => debug::dump_metadata(flags),
        // The program itself has done it where it is the first word.
        [name @ ("doctor" | "certs")] => Err(ClientError::invalid(format!(
            "{name} asks no daemon and comes first: crosskit {name} --help"
        ))),
        other => Err(ClientError::invalid(format!("{} can't be run", other.join(" ")))),
    }
}

/// A channel to the daemon that the flags name.
async fn connect(flags: &Parsed, action: &str) -> Result<Channel, ClientError> {
    Target::from_flags(flags)?.connect(action).await
}

/// The template of `--format`, if there is one.
fn template(flags: &Parsed) -> Result<Option<Template>, ClientError> {
    match flags.text("format") {
        "" => Ok(None),
        text => Template::parse(text).map(Some),
    }
}

/// Prints a value through a template, on a line of its own.
fn print_formatted(template: &Template, value: &Value) -> Result<(), ClientError> {
    print(&format!("{}\n", template.apply(value)?))
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), ClientError> {
    print_bytes(text.as_bytes())
}

/// Writes to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|source| ClientError::File {
        doing: "write to".into(),
        path: "standard output".into(),
        source,
    })
}
