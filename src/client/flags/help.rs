//! The texts behind `--help`, laid out as BuildKit's programs do.

use super::{Command, Flag, Kind};

const HELP: (&str, &str) = ("--help, -h", "show help");
const VERSION: (&str, &str) = ("--version, -v", "print the version");

/// The help of the last command of a path that begins with the program.
pub(crate) fn help(path: &[&Command]) -> String {
    let names: Vec<&str> = path.iter().map(|c| c.name).collect();
    let Some((command, above)) = path.split_last() else { return String::new() };
    let mut out = format!("NAME:\n   {} - {}\n\nUSAGE:\n", names.join(" "), command.about);
    if !command.usage.is_empty() {
        out += &format!("   {}\n", command.usage.replace('\n', "\n   "));
    } else {
        let options = match (above.is_empty(), command.commands.is_empty()) {
            (true, true) => " [global options]",
            (true, false) => " [global options] [command [command options]]",
            (false, false) => " [command [command options]]",
            (false, true) => " [options]",
        };
        let arguments =
            if command.arguments.is_empty() { String::new() } else { format!(" {}", command.arguments) };
        out += &format!("   {}{options}{arguments}\n", names.join(" "));
    }
    if above.is_empty() {
        out += &format!("\nVERSION:\n   {}\n", crosskit_api::version::VERSION);
    }
    if !command.commands.is_empty() {
        let mut rows: Vec<(String, String)> = command
            .commands
            .iter()
            .filter(|c| !c.hidden)
            .map(|c| ([&[c.name], c.aliases].concat().join(", "), c.about.to_owned()))
            .collect();
        if above.is_empty() {
            rows.push(("help, h".into(), "Shows a list of commands or help for one command".into()));
        }
        out += &section("COMMANDS", &rows);
    }
    let own: Vec<(String, String)> = command.flags.iter().map(row).collect();
    let pair = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
    if above.is_empty() {
        out += &section("GLOBAL OPTIONS", &[own, vec![pair(HELP), pair(VERSION)]].concat());
        return out;
    }
    out += &section("OPTIONS", &[own, vec![pair(HELP)]].concat());
    if command.commands.is_empty() {
        let global: Vec<(String, String)> = above.iter().flat_map(|c| c.flags).map(row).collect();
        if !global.is_empty() {
            out += &section("GLOBAL OPTIONS", &global);
        }
    }
    out
}

fn section(title: &str, rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(left, right)| format!("   {left:<width$}  {right}")).collect();
    format!("\n{title}:\n{}\n", lines.join("\n"))
}

fn row(flag: &Flag) -> (String, String) {
    let kind = match flag.kind {
        Kind::Bool => "",
        Kind::Text(_) | Kind::List => " string",
        Kind::Int(_) => " int",
        Kind::Float => " float",
        Kind::Duration => " duration",
    };
    let mut left = format!("--{}{kind}", flag.name);
    if let Some(short) = flag.short {
        left += &format!(", -{short}{kind}");
    }
    if flag.kind == Kind::List {
        left = format!("{left} [ {left} ]");
    }
    let default = match flag.kind {
        Kind::Bool | Kind::List => String::new(),
        Kind::Text(_) if flag.default().is_empty() => String::new(),
        Kind::Text(_) => format!(" (default: {:?})", flag.default()),
        Kind::Int(n) => format!(" (default: {n})"),
        Kind::Float => " (default: 0)".into(),
        Kind::Duration => " (default: 0s)".into(),
    };
    (left, format!("{}{default}", flag.about))
}
