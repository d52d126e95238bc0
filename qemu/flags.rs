//! The `binfmt` program's command line, in the manner of Go's flag package: one or two dashes, `=` or a space.

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) mount: String,
    pub(crate) install: Vec<String>,
    pub(crate) uninstall: Vec<String>,
    pub(crate) version: bool,
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Help,
    Wrong(String),
}

pub(crate) const USAGE: &str = "\
Usage of binfmt:
  -install string
    \tarchitectures to install
  -mount string
    \tbinfmt_misc mount point (default \"/proc/sys/fs/binfmt_misc\")
  -uninstall string
    \tarchitectures to uninstall
  -version
    \tdisplay version
";

pub(crate) fn parse(args: &[String]) -> Result<Flags, Stop> {
    let mut flags = Flags {
        mount: crate::entries::DEFAULT_MOUNT.to_owned(),
        install: Vec::new(),
        uninstall: Vec::new(),
        version: false,
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
            "version" => {
                flags.version = match given.as_deref() {
                    None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                    Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                    Some(other) => {
                        return Err(Stop::Wrong(format!("invalid boolean value {other:?} for -version")));
                    }
                };
            }
            "h" | "help" => return Err(Stop::Help),
            _ => return Err(Stop::Wrong(format!("flag provided but not defined: -{name}"))),
        }
    }
    Ok(flags)
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
