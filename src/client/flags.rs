//! Command lines in the form that `buildctl` users type: `--flag value`, `--flag=value`, one dash
//! or two, flags of the whole program also behind a command, and BuildKit's texts on mistakes.

mod help;

pub(crate) use help::help;

use crate::error::ClientError;
use crate::times;
use std::collections::{HashMap, HashSet};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Bool,
    /// A text; empty for no default.
    Text(&'static str),
    /// May be repeated.
    List,
    Int(i64),
    /// Megabytes.
    Float,
    Duration,
}

/// A flag.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<&'static str>,
    pub(crate) kind: Kind,
    pub(crate) about: &'static str,
    /// A variable whose value is the default.
    pub(crate) variable: Option<&'static str>,
}

/// A flag without a short form.
pub(crate) const fn flag(name: &'static str, kind: Kind, about: &'static str) -> Flag {
    Flag { name, short: None, kind, about, variable: None }
}

impl Flag {
    /// The same with a short form.
    pub(crate) const fn short(self, short: &'static str) -> Flag {
        Flag { short: Some(short), ..self }
    }

    /// The same with a variable for its default.
    pub(crate) const fn variable(self, variable: &'static str) -> Flag {
        Flag { variable: Some(variable), ..self }
    }

    /// What it is if it isn't given.
    fn default(&self) -> String {
        let set = self.variable.and_then(|name| std::env::var(name).ok()).filter(|value| !value.is_empty());
        match (set, self.kind) {
            (Some(value), _) => value,
            (None, Kind::Text(value)) => value.to_owned(),
            (None, Kind::Int(value)) => value.to_string(),
            _ => String::new(),
        }
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let why = match self.kind {
            Kind::Bool if parse_bool(value).is_none() => "parse error".to_owned(),
            Kind::Int(_) if value.parse::<i64>().is_err() => {
                format!("strconv.ParseInt: parsing {value:?}: invalid syntax")
            }
            Kind::Float if value.parse::<f64>().is_err() => {
                format!("strconv.ParseFloat: parsing {value:?}: invalid syntax")
            }
            Kind::Duration if times::parse_duration(value).is_none() => {
                format!("time: invalid duration {value:?}")
            }
            _ => return Ok(()),
        };
        Err(format!("invalid value {value:?} for flag -{}: {why}", self.name))
    }
}

/// A truth value as Go's `strconv.ParseBool` reads it.
pub(crate) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A command, or the program itself.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) about: &'static str,
    /// What stands behind the flags, as in `<llbfile>`.
    pub(crate) arguments: &'static str,
    /// Longer words on its use.
    pub(crate) usage: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) commands: &'static [Command],
    pub(crate) hidden: bool,
}

impl Command {
    /// A command with nothing but a name.
    pub(crate) const fn new(name: &'static str, about: &'static str) -> Command {
        Command {
            name,
            aliases: &[],
            about,
            arguments: "",
            usage: "",
            flags: &[],
            commands: &[],
            hidden: false,
        }
    }

    fn find(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|c| c.name == name || c.aliases.contains(&name))
    }
}

/// A command line that was understood.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The commands' names, without the program's.
    pub(crate) command: Vec<&'static str>,
    values: HashMap<&'static str, Vec<String>>,
    /// What is neither a flag nor a command.
    pub(crate) arguments: Vec<String>,
    given: HashSet<&'static str>,
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// To run a command.
    Run(Parsed),
    /// To be told about a command.
    Help(String),
    /// To be told the version.
    Version,
    /// Something that cannot be: the sentence, and the program's help if it was its flag.
    Mistake(String, Option<String>),
    /// A command that there isn't.
    NoCommand(String),
}

impl Parsed {
    /// Whether a flag stands on the command line, or in its variable.
    pub(crate) fn given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// Whether a switch is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        self.values.get(name).and_then(|v| v.last()).and_then(|v| parse_bool(v)).unwrap_or(false)
    }

    /// The text of a flag; empty if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.values.get(name).and_then(|v| v.last()).map_or("", String::as_str)
    }

    /// All texts of a flag that may be repeated.
    pub(crate) fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// A whole number.
    pub(crate) fn int(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// Megabytes as bytes.
    pub(crate) fn megabytes(&self, name: &str) -> i64 {
        (self.text(name).parse::<f64>().unwrap_or(0.0) * 1e6) as i64
    }

    /// Nanoseconds.
    pub(crate) fn duration(&self, name: &str) -> i64 {
        times::parse_duration(self.text(name)).unwrap_or(0)
    }

    /// The first argument.
    ///
    /// # Errors
    /// There is none: then `missing` is the message.
    pub(crate) fn first(&self, missing: &str) -> Result<&str, ClientError> {
        self.arguments.first().map(String::as_str).ok_or_else(|| ClientError::invalid(missing))
    }
}

/// Understands a command line, without the program's own name in front.
pub(crate) fn parse(program: &'static Command, arguments: &[String]) -> Wish {
    let mut path = vec![program];
    let mut values: HashMap<&'static str, Vec<String>> = HashMap::new();
    let mut rest = Vec::new();
    let mut help_wanted = false;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let command = *path.last().unwrap_or(&program);
        let Some(dashed) = word.strip_prefix('-').filter(|d| !d.is_empty()) else {
            if word == "help" || word == "h" {
                help_wanted = true;
                continue;
            }
            match command.find(word) {
                Some(found) => path.push(found),
                // The program and groups of commands take no arguments of their own.
                None if !command.commands.is_empty() => return Wish::NoCommand(word.clone()),
                None => rest.push(word.clone()),
            }
            continue;
        };
        if word == "--" {
            rest.extend(words.by_ref().cloned());
            break;
        }
        let name = dashed.strip_prefix('-').unwrap_or(dashed);
        let (name, attached) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let mistake = |message: String| {
            // Only the program's own mistakes come with its help.
            Wish::Mistake(message, (path.len() == 1).then(|| help(&path)))
        };
        let known = path.iter().rev().flat_map(|c| c.flags).find(|f| f.name == name || f.short == Some(name));
        let Some(flag) = known else {
            match name {
                "help" | "h" => return Wish::Help(help(&path)),
                "version" | "v" if path.len() == 1 => return Wish::Version,
                _ => return mistake(format!("flag provided but not defined: -{name}")),
            }
        };
        let value = match (attached, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => match words.next() {
                Some(value) => value.clone(),
                None => return mistake(format!("flag needs an argument: {word}")),
            },
        };
        if let Err(message) = flag.check(&value) {
            return mistake(message);
        }
        values.entry(flag.name).or_default().push(value);
    }
    let last = *path.last().unwrap_or(&program);
    if help_wanted || !last.commands.is_empty() {
        return Wish::Help(help(&path));
    }
    let mut given: HashSet<&'static str> = values.keys().copied().collect();
    for flag in path.iter().flat_map(|c| c.flags) {
        if flag.variable.is_some_and(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty())) {
            given.insert(flag.name);
        }
        let default = flag.default();
        if flag.kind != Kind::List && !default.is_empty() {
            values.entry(flag.name).or_insert_with(|| vec![default]);
        }
    }
    Wish::Run(Parsed { command: path[1..].iter().map(|c| c.name).collect(), values, arguments: rest, given })
}

#[cfg(test)]
#[path = "flags/flags_tests.rs"]
mod tests;
