//! From statements to instructions and stages.

use crate::error::{DockerfileError, Result};
use crate::instruction::device::DeviceFlag;
use crate::instruction::flags::{Flags, Takes};
use crate::instruction::mount::MountFlag;
use crate::instruction::{
    ArgDefinition, CommandLine, Copy, Dockerfile, Healthcheck, InlineFile, Instruction, KeyValue, Kind, Run,
    RunNetwork, Stage,
};
use crate::lint::{Linter, rules};
use crate::text::lines::{Statement, Text};
use crate::text::{heredoc, quote, units};

/// All keywords.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(DockerfileError::user(message))
}

/// Groups the statements of a file into stages.
pub(crate) fn dockerfile(text: Text, lint: &Linter) -> Result<Dockerfile> {
    let mut file = Dockerfile { global_args: Vec::new(), stages: Vec::new(), escape: text.escape };
    for statement in text.statements {
        let lines = statement.lines;
        let on_line = |error: DockerfileError| {
            let line = lines.first;
            error.at(lines).while_doing(format!("dockerfile parse error on line {line}"))
        };
        let lint = lint.for_comments(&statement.comments);
        if statement.keyword.eq_ignore_ascii_case("from") {
            file.stages.push(stage(statement, &lint).map_err(on_line)?);
            continue;
        }
        let instruction = instruction(statement, &lint).map_err(on_line)?;
        match file.stages.last_mut() {
            Some(stage) => stage.instructions.push(std::sync::Arc::new(instruction)),
            None if matches!(instruction.kind, Kind::Arg(_)) => file.global_args.push(instruction),
            None => return Err(DockerfileError::user("no build stage in current context").at(lines)),
        }
    }
    Ok(file)
}

fn stage(statement: Statement, lint: &Linter) -> Result<Stage> {
    let words = &statement.arguments.words;
    if let [_, _, name] = words.as_slice()
        && *name != name.to_lowercase()
    {
        lint.warn(&rules::STAGE_NAME_CASING, statement.lines, rules::stage_name_casing(name));
    }
    if let [_, keyword, _, ..] = words.as_slice() {
        let from = &statement.keyword;
        let lower = *from == from.to_lowercase();
        let consistent = lower || *from == from.to_uppercase();
        let wanted = if lower { keyword.to_lowercase() } else { keyword.to_uppercase() };
        if consistent && *keyword != wanted {
            lint.warn(&rules::FROM_AS_CASING, statement.lines, rules::from_as_casing(from, keyword));
        }
    }
    let name = match words.as_slice() {
        [_] => String::new(),
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let mut chars = lower.chars();
            let first = chars.next().is_some_and(|c| c.is_ascii_lowercase());
            let rest = chars.all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'));
            if !first || !rest {
                return fail(format!(
                    "invalid name for build stage: {}, name can't start with a number or contain symbols",
                    quote::go_quote(name)
                ));
            }
            lower
        }
        _ => return fail("FROM requires either one or three arguments"),
    };
    let flags = Flags::read(&statement.flags, &[("platform", Takes::Value)])?;
    if !name.is_empty() {
        describe(&statement, "FROM", &[&name], lint);
    }
    Ok(Stage {
        base: words.first().cloned().unwrap_or_default(),
        platform: flags.value("platform"),
        doc: doc_comment(&statement.comments, &name),
        name,
        keyword: statement.keyword,
        code: statement.code,
        lines: statement.lines,
        comments: statement.comments,
        instructions: Vec::new(),
    })
}

/// What the comments say of a name: the rest of the line that starts with it.
fn doc_comment(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let found = comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_default().to_owned()
}

/// Warns of a comment that was perhaps meant to describe one of these names.
fn describe(statement: &Statement, keyword: &str, names: &[&str], lint: &Linter) {
    let Some(comment) = statement.comments.last() else {
        return;
    };
    let word = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&word) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { names[0] };
    let message = rules::invalid_definition_description(keyword, example);
    lint.warn(&rules::INVALID_DEFINITION_DESCRIPTION, statement.lines, message);
}

/// Reads one instruction other than FROM.
pub(crate) fn instruction(statement: Statement, lint: &Linter) -> Result<Instruction> {
    let kind = match statement.keyword.to_ascii_lowercase().as_str() {
        "add" => Kind::Add(Box::new(copy(&statement, true)?)),
        "arg" => arg(&statement, lint)?,
        "cmd" => {
            Flags::none(&statement.flags)?;
            Kind::Cmd(command_line(&statement))
        }
        "copy" => Kind::Copy(Box::new(copy(&statement, false)?)),
        "entrypoint" => {
            Flags::none(&statement.flags)?;
            Kind::Entrypoint(command_line(&statement))
        }
        "env" => Kind::Env(pairs(&statement, "ENV")?),
        "expose" => {
            let mut ports = at_least_one(&statement, "EXPOSE")?;
            Flags::none(&statement.flags)?;
            ports.sort();
            Kind::Expose(ports)
        }
        "healthcheck" => Kind::Healthcheck(healthcheck(&statement)?),
        "label" => Kind::Label(pairs(&statement, "LABEL")?),
        "maintainer" => {
            lint.warn(&rules::MAINTAINER_DEPRECATED, statement.lines, rules::maintainer_deprecated());
            Kind::Maintainer(exactly_one(&statement, "MAINTAINER")?)
        }
        "onbuild" => onbuild(&statement)?,
        "run" => Kind::Run(Box::new(run(&statement)?)),
        "shell" => shell(&statement)?,
        "stopsignal" => match statement.arguments.words.as_slice() {
            [signal] => Kind::StopSignal(signal.clone()),
            _ => return fail("STOPSIGNAL requires exactly one argument"),
        },
        "user" => Kind::User(exactly_one(&statement, "USER")?),
        "volume" => volume(&statement)?,
        "workdir" => Kind::Workdir(exactly_one(&statement, "WORKDIR")?),
        _ => {
            let mut message = format!("unknown instruction: {}", statement.keyword);
            if let Some(guess) = crate::suggest::nearest_ignoring_case(&statement.keyword, KEYWORDS) {
                message.push_str(&format!(" (did you mean {guess}?)"));
            }
            return fail(message);
        }
    };
    let Statement { keyword, code, lines, comments, .. } = statement;
    Ok(Instruction { keyword, code, lines, comments, kind })
}

fn at_least_one(statement: &Statement, keyword: &str) -> Result<Vec<String>> {
    match statement.arguments.words.as_slice() {
        [] => fail(format!("{keyword} requires at least one argument")),
        words => Ok(words.to_vec()),
    }
}

fn exactly_one(statement: &Statement, keyword: &str) -> Result<String> {
    let [word] = statement.arguments.words.as_slice() else {
        return fail(format!("{keyword} requires exactly one argument"));
    };
    Flags::none(&statement.flags)?;
    Ok(word.clone())
}

fn pairs(statement: &Statement, keyword: &str) -> Result<Vec<KeyValue>> {
    Flags::none(&statement.flags)?;
    let words = at_least_one(statement, keyword)?;
    let mut all = Vec::with_capacity(words.len() / 3);
    for triple in words.chunks_exact(3) {
        if triple[0].is_empty() {
            return fail(format!("{keyword} names can not be blank"));
        }
        let (key, value) = (triple[0].clone(), triple[1].clone());
        all.push(KeyValue { key, value, no_delimiter: triple[2].is_empty() });
    }
    Ok(all)
}

fn arg(statement: &Statement, lint: &Linter) -> Result<Kind> {
    let mut all = Vec::new();
    for word in at_least_one(statement, "ARG")? {
        let (key, value) = match word.split_once('=') {
            Some(("", _)) => return fail("ARG names can not be blank"),
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let doc = doc_comment(&statement.comments, &key);
        all.push(ArgDefinition { key, value, doc });
    }
    let names: Vec<&str> = all.iter().map(|arg| arg.key.as_str()).collect();
    describe(statement, "ARG", &names, lint);
    Ok(Kind::Arg(all))
}

fn command_line(statement: &Statement) -> CommandLine {
    let Statement { arguments, heredocs, .. } = statement;
    CommandLine { words: arguments.words.clone(), shell: !arguments.json, heredocs: heredocs.clone() }
}

fn shell(statement: &Statement) -> Result<Kind> {
    Flags::none(&statement.flags)?;
    let words = at_least_one(statement, "SHELL")?;
    if !statement.arguments.json {
        return fail(not_json("SHELL", &statement.code));
    }
    Ok(Kind::Shell(words))
}

fn not_json(keyword: &str, _code: &str) -> String {
    format!("{keyword} requires the arguments to be in JSON form")
}

fn volume(statement: &Statement) -> Result<Kind> {
    let words = at_least_one(statement, "VOLUME")?;
    Flags::none(&statement.flags)?;
    let volumes: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) {
        return fail("VOLUME specified can not be an empty string");
    }
    Ok(Kind::Volume(volumes))
}

fn onbuild(statement: &Statement) -> Result<Kind> {
    let words = at_least_one(statement, "ONBUILD")?;
    Flags::none(&statement.flags)?;
    match words[0].trim().to_uppercase().as_str() {
        "ONBUILD" => return fail("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        keyword @ ("MAINTAINER" | "FROM") => {
            return fail(format!("{keyword} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let mut trigger = statement.code[statement.keyword.len()..].trim_start().to_owned();
    trigger.push_str(&statement.blanks);
    for heredoc in &statement.heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.content);
        trigger.push_str(&heredoc.name);
    }
    Ok(Kind::Onbuild(trigger))
}

fn copy(statement: &Statement, add: bool) -> Result<Copy> {
    let keyword = if add { "ADD" } else { "COPY" };
    let Some((dest, sources)) = statement.arguments.words.split_last().filter(|(_, rest)| !rest.is_empty())
    else {
        return fail(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be \
             determined"
        ));
    };
    let common =
        [("chown", Takes::Value), ("chmod", Takes::Value), ("link", Takes::Bool), ("exclude", Takes::Values)];
    let mut known = common.to_vec();
    if add {
        let more = [("keep-git-dir", Takes::Bool), ("checksum", Takes::Value), ("unpack", Takes::Bool)];
        known.extend(more);
    } else {
        known.extend([("from", Takes::Value), ("parents", Takes::Bool)]);
    }
    let flags = Flags::read(&statement.flags, &known)?;
    if heredoc::parse(dest).ok().flatten().is_some() {
        return fail(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let mut copy = Copy {
        dest: dest.clone(),
        from: flags.value("from"),
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.switch("link") == Some(true),
        parents: flags.switch("parents") == Some(true),
        excludes: flags.values("exclude").collect(),
        checksum: flags.value("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        ..Copy::default()
    };
    for source in sources {
        let Some(found) = heredoc::parse(source).ok().flatten() else {
            copy.sources.push(source.clone());
            continue;
        };
        let body = statement.heredocs.iter().rev().find(|heredoc| heredoc.name == found.name);
        let data = body
            .map_or_else(String::new, |body| heredoc::Heredoc { chomp: found.chomp, ..body.clone() }.text());
        copy.contents.push(InlineFile { name: found.name, data, expand: found.expand });
    }
    Ok(copy)
}

fn run(statement: &Statement) -> Result<Run> {
    let known = [
        ("mount", Takes::Values),
        ("network", Takes::Value),
        ("security", Takes::Value),
        ("device", Takes::Values),
    ];
    let flags = Flags::read(&statement.flags, &known)?;
    let devices = flags.values("device").map(|value| DeviceFlag::parse(&value)).collect::<Result<_>>()?;
    let mut mounts = Vec::new();
    for value in flags.values("mount") {
        mounts.push(MountFlag::parse(&value)?);
    }
    let network = match flags.values("network").last().as_deref() {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => return fail(format!("invalid network mode {}", quote::go_quote(other))),
    };
    let insecure = match flags.values("security").last().as_deref() {
        None | Some("sandbox") => false,
        Some("insecure") => true,
        Some(other) => return fail(format!("security {} is not valid", quote::go_quote(other))),
    };
    Ok(Run { command: command_line(statement), mounts, network, insecure, devices })
}

fn healthcheck(statement: &Statement) -> Result<Healthcheck> {
    let words = at_least_one(statement, "HEALTHCHECK")?;
    let kind = words[0].to_uppercase();
    let command = &words[1..];
    if kind == "NONE" {
        if !command.is_empty() {
            return fail("HEALTHCHECK NONE takes no arguments");
        }
        return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() });
    }
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::read(&statement.flags, &known.map(|name| (name, Takes::Value)))?;
    if kind != "CMD" {
        return fail(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote::go_quote(&kind)));
    }
    if command.is_empty() {
        return fail("Missing command after HEALTHCHECK CMD");
    }
    let form = if statement.arguments.json { "CMD" } else { "CMD-SHELL" };
    let mut test = vec![form.to_owned()];
    test.extend_from_slice(command);
    let interval = |name: &str| {
        let value = flags.value(name);
        if value.is_empty() {
            return Ok(std::time::Duration::ZERO);
        }
        let duration = match value.strip_prefix('-').map(units::duration) {
            Some(Ok(duration)) if !duration.is_zero() => std::time::Duration::from_nanos(1),
            _ => units::duration(&value).map_err(DockerfileError::user)?,
        };
        if !duration.is_zero() && duration.as_nanos() < 1_000_000 {
            let name = quote::go_quote(name);
            return fail(format!("Interval {name} cannot be less than 1ms"));
        }
        Ok(duration)
    };
    let health = Healthcheck {
        test,
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries: 0,
    };
    let retries = match flags.value("retries").as_str() {
        "" => 0,
        value => match value.parse::<i32>() {
            Ok(retries) if retries < 0 => {
                return fail(format!("--retries cannot be negative ({retries})"));
            }
            Ok(retries) => retries,
            Err(error) => return fail(go_parse_int_error(value, &error)),
        },
    };
    Ok(Healthcheck { retries, ..health })
}

/// The text that Go has for a number that is none.
pub(crate) fn go_parse_int_error(value: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.ParseInt: parsing {}: {why}", quote::go_quote(value))
}
