//! What instructions say.

pub(crate) mod device;
pub(crate) mod flags;
pub(crate) mod mount;
pub(crate) mod parse;

use std::time::Duration;

use crate::error::Lines;
use device::DeviceFlag;
use mount::MountFlag;

/// An instruction of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The keyword as written.
    pub keyword: String,
    /// The whole line after continuation, trimmed.
    pub code: String,
    /// Where it is.
    pub lines: Lines,
    /// The comments right above.
    pub comments: Vec<String>,
    /// What it does.
    pub kind: Kind,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named for the keywords")]
pub enum Kind {
    Add(Box<Copy>),
    Arg(Vec<ArgDefinition>),
    Cmd(CommandLine),
    Copy(Box<Copy>),
    Entrypoint(CommandLine),
    Env(Vec<KeyValue>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<KeyValue>),
    Maintainer(String),
    /// The trigger, with its here-documents.
    Onbuild(String),
    Run(Box<Run>),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// A pair of ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
    /// Whether it is written the old way, with a blank for the `=`.
    pub no_delimiter: bool,
}

/// A variable of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The name.
    pub key: String,
    /// The default.
    pub value: Option<String>,
    /// What the comment above says of it.
    pub doc: String,
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// Paths, patterns and, for ADD, addresses.
    pub sources: Vec<String>,
    /// Files written in the Dockerfile.
    pub contents: Vec<InlineFile>,
    /// Where to.
    pub dest: String,
    /// The stage or image that is copied from.
    pub from: String,
    /// Whose the files become.
    pub chown: String,
    /// The files' permissions.
    pub chmod: String,
    /// Whether the files become a layer of their own.
    pub link: bool,
    /// Whether folders of the sources are kept.
    pub parents: bool,
    /// What is left out.
    pub excludes: Vec<String>,
    /// What an address has to yield.
    pub checksum: String,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether archives are unpacked.
    pub unpack: Option<bool>,
}

/// A file written in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub data: String,
    /// Whether variables in it are replaced.
    pub expand: bool,
}

/// A command with its here-documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// The words: one for the shell, or those of the JSON array.
    pub words: Vec<String>,
    /// Whether it goes to a shell.
    pub shell: bool,
    /// Here-documents as written.
    pub heredocs: Vec<crate::text::heredoc::Heredoc>,
}

/// RUN.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What is run.
    pub command: CommandLine,
    /// Its `--mount` flags.
    pub mounts: Vec<MountFlag>,
    /// Its network.
    pub network: RunNetwork,
    /// Whether it runs without confinement.
    pub insecure: bool,
    /// Its `--device` flags.
    pub devices: Vec<DeviceFlag>,
}

/// The network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// That of the build.
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` or `CMD-SHELL` and the command.
    pub test: Vec<String>,
    /// Between checks; zero for the default, here and below.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// How long failures do not count at first.
    pub start_period: Duration,
    /// Between checks during that time.
    pub start_interval: Duration,
    /// How many failures make it unhealthy.
    pub retries: i32,
}

/// FROM and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The keyword as written.
    pub keyword: String,
    /// The image or stage, unexpanded.
    pub base: String,
    /// Its name in lower case; empty when it has none.
    pub name: String,
    /// The value of `--platform`, unexpanded.
    pub platform: String,
    /// The FROM line.
    pub code: String,
    /// Where it is.
    pub lines: Lines,
    /// The comments right above.
    pub comments: Vec<String>,
    /// What the comment above says of it.
    pub doc: String,
    /// Its instructions.
    pub instructions: Vec<std::sync::Arc<Instruction>>,
}

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The ARGs in front of the first FROM.
    pub global_args: Vec<Instruction>,
    /// In order.
    pub stages: Vec<Stage>,
    /// The character that escapes.
    pub escape: char,
}
