//! The `binfmt` program's command line, in the manner of Go's flag package: one or two dashes, `=` or a space.

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) mount: String,
    pub(crate) install: Vec<String>,
    pub(crate) uninstall: Vec<String>,
    pub(crate) version: bool,
    pub(crate) verify: Vec<String>,
    pub(crate) repair: Vec<String>,
    pub(crate) force: bool,
    pub(crate) status: bool,
    pub(crate) json: bool,
    pub(crate) restore: bool,
    pub(crate) persist: bool,
}

impl Flags {
    /// Whether entries may be other ones afterwards.
    pub(crate) fn changes(&self) -> bool {
        [&self.install, &self.uninstall, &self.repair].iter().any(|names| !names.is_empty())
    }
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Help,
    Wrong(String),
}

pub(crate) const USAGE: &str = "\
Usage of binfmt:
  -force
    \twith -repair: also where entries are not QEMU's
  -format string
    \twith -status: table or json (default \"table\")
  -install string
    \tarchitectures to install
  -mount string
    \tbinfmt_misc mount point (default \"/proc/sys/fs/binfmt_misc\")
  -persist
    \tlet the machine register its emulators at every start (systemd's binfmt.d)
  -repair string
    \tarchitectures, or all that have an entry, whose entries are to be put right
  -restore
    \tbring back what was there before the first change since the machine was started
  -status
    \tshow what holds for each architecture
  -uninstall string
    \tarchitectures to uninstall
  -verify string
    \tarchitectures, or all that have an entry, to be tried: alone, among other files, by name, in scripts
  -version
    \tdisplay version
";

pub(crate) fn parse(args: &[String]) -> Result<Flags, Stop> {
    let mut flags = Flags {
        mount: crate::entries::DEFAULT_MOUNT.to_owned(),
        install: Vec::new(),
        uninstall: Vec::new(),
        version: false,
        verify: Vec::new(),
        repair: Vec::new(),
        force: false,
        status: false,
        json: false,
        restore: false,
        persist: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(name) =
            arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|name| !name.is_empty())
        else {
            let wrong =
                format!("unexpected argument {arg:?}: what to do is said by --install and --uninstall");
            return Err(Stop::Wrong(wrong));
        };
        let (name, given) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let mut value = || {
            let next = given.clone().or_else(|| args.next().cloned());
            next.ok_or_else(|| Stop::Wrong(format!("flag needs an argument: -{name}")))
        };
        match name {
            "mount" => flags.mount = value()?,
            "install" => flags.install = list(&value()?),
            "uninstall" => flags.uninstall = list(&value()?),
            "verify" => flags.verify = list(&value()?),
            "repair" => flags.repair = list(&value()?),
            "format" => {
                flags.json = match value()?.as_str() {
                    "json" => true,
                    "table" => false,
                    other => return Err(Stop::Wrong(format!("-format is table or json, not {other:?}"))),
                }
            }
            "version" => flags.version = on(name, given.as_deref())?,
            "force" => flags.force = on(name, given.as_deref())?,
            "status" => flags.status = on(name, given.as_deref())?,
            "restore" => flags.restore = on(name, given.as_deref())?,
            "persist" => flags.persist = on(name, given.as_deref())?,
            "h" | "help" => return Err(Stop::Help),
            _ => return Err(Stop::Wrong(format!("flag provided but not defined: -{name}"))),
        }
    }
    if flags.force && flags.repair.is_empty() {
        return Err(Stop::Wrong("-force says how to -repair, which is not asked for".to_owned()));
    }
    if flags.json && !flags.status {
        return Err(Stop::Wrong("-format says how to show -status, which is not asked for".to_owned()));
    }
    if flags.restore && flags.changes() {
        return Err(Stop::Wrong("-restore goes with neither -install, -uninstall nor -repair".to_owned()));
    }
    Ok(flags)
}

fn on(name: &str, given: Option<&str>) -> Result<bool, Stop> {
    match given {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(Stop::Wrong(format!("invalid boolean value {other:?} for -{name}"))),
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
