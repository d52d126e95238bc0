//! COPY and ADD.

use std::sync::Arc;

use crosskit_llb::paths::{base, clean};
use crosskit_llb::{Chown, Constraints, CopyAction, FileActionSpec, HttpSource, MkfileAction, Mode, Output};
use crosskit_patterns::Patterns;

use crate::error::{DockerfileError, Result};
use crate::git_url::{self, Parsed};
use crate::instruction::Copy;
use crate::lint::rules;
use crate::plan::dispatch::At;
use crate::plan::{Plan, names, paths};
use crate::reference;

/// What a copy reads from.
pub(super) struct CopyStep {
    /// A context or another stage.
    pub(super) source: Option<Output>,
    /// What is left out of the context.
    pub(super) ignore: Option<Arc<Patterns>>,
    /// Whether it is ADD.
    pub(super) add: bool,
}

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(DockerfileError::user(message))
}

/// Permissions as `chmod` takes them.
fn parse_mode(text: &str) -> Result<Option<Mode>> {
    if text.is_empty() {
        return Ok(None);
    }
    let octal = || {
        fail(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"))
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(Some(Mode::Bits(bits))),
            _ => octal(),
        };
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return octal();
    }
    let clause = |clause: &str| {
        let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let ops = rest.starts_with(['+', '-', '=']);
        let known =
            |c: char| matches!(c, '+' | '-' | '=' | 'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o');
        ops && rest.chars().all(known)
    };
    match text.split(',').all(clause) {
        true => Ok(Some(Mode::Symbolic(text.to_owned()))),
        false => fail("invalid syntax"),
    }
}

fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

impl Plan {
    pub(super) fn copy(&mut self, at: &At<'_>, copy: &Copy, step: CopyStep) -> Result<()> {
        let platform = self.platform_of(at.stage);
        let os = platform.os.clone();
        let dest = self.seen_from_workdir(at.stage, &copy.dest, &os)?;
        let common = CopyAction {
            dest,
            owner: (!copy.chown.is_empty()).then(|| Chown::parse(&copy.chown)),
            mode: parse_mode(&copy.chmod)?,
            create_dest_path: true,
            exclude_patterns: copy.excludes.clone(),
            ..CopyAction::default()
        };
        check_checksum(copy, step.add)?;
        let env = self.stages[at.stage].fs.env.clone();
        let shown = names::shown(self.lexer, &at.instruction.code, &env);
        let name = self.numbered(at.stage, &shown, Some(&platform), Some(&env));
        let mut said = history_start(copy, step.add);
        let mut actions = Vec::with_capacity(copy.sources.len() + copy.contents.len());
        // What an address says of itself holds for the sources behind it as well.
        let mut told = copy.clone();
        for source in &copy.sources {
            said.push(' ');
            said.push_str(source);
            let action = self.copy_source(at, &mut told, &step, source, &common, &name)?;
            actions.push(FileActionSpec::Copy(action));
        }
        for content in &copy.contents {
            said.push_str(" <<");
            said.push_str(&content.name);
            let path = paths::without_drive(&content.name, &os, false)
                .map_err(|error| error.while_doing("removing drive letter"))?;
            let from = self.inline_file(&path, 0o644, content.data.clone().into_bytes());
            let src = paths::to_slash(&path, &os).into_owned();
            actions.push(FileActionSpec::Copy(CopyAction { from: Some(from), src, ..common.clone() }));
        }
        said.push(' ');
        said.push_str(&copy.dest);
        let mut constraints = self.located(Constraints::default().named(&name), at.lines());
        constraints.metadata.ignore_cache = self.stages[at.stage].ignore_cache;
        let base = self.stages[at.stage].fs.output;
        let output = match copy.link && copy.chmod.is_empty() {
            false => Some(self.builder.file(base, actions, constraints)),
            true => self.linked(at, base, actions, constraints, &shown),
        };
        self.stages[at.stage].fs.output = output;
        said.push_str(" # buildkit");
        self.commit(at.stage, said, true);
        Ok(())
    }

    /// Files in a layer of their own, laid over the base.
    fn linked(
        &mut self,
        at: &At<'_>,
        base: Option<Output>,
        actions: Vec<FileActionSpec>,
        constraints: Constraints,
        shown: &str,
    ) -> Option<Output> {
        let platform = self.platform_of(at.stage);
        let env = self.stages[at.stage].fs.env.clone();
        // The three names count as one step.
        let again = |plan: &mut Plan, text: &str| {
            let stage = &mut plan.stages[at.stage];
            stage.step = stage.step.saturating_sub(1);
            plan.numbered(at.stage, text, Some(&platform), Some(&env))
        };
        let name = again(self, shown);
        let link_name = again(self, &format!("LINK {shown}"));
        let id = self.unique_id();
        let group = |weak| Some(crosskit_api::pb::ProgressGroup { id: id.clone(), name: name.clone(), weak });
        let mut merge = constraints.clone().named(link_name);
        merge.metadata.progress_group = group(false);
        let mut files = constraints;
        files.metadata.progress_group = group(true);
        let layer = self.builder.file(None, actions, files);
        self.builder.merge(&[base, Some(layer)], merge)
    }

    /// A file written in the Dockerfile, alone in a filesystem.
    pub(super) fn inline_file(&mut self, path: &str, mode: u32, data: Vec<u8>) -> Output {
        let file = MkfileAction { path: path.to_owned(), mode, data, ..MkfileAction::default() };
        let constraints = names::internal("preparing inline document");
        self.builder.file(None, vec![FileActionSpec::Mkfile(file)], constraints)
    }

    fn seen_from_workdir(&self, stage: usize, path: &str, os: &str) -> Result<String> {
        let path = paths::without_drive(path, os, true)
            .map_err(|error| error.while_doing("removing drive letter"))?;
        if paths::is_absolute(&path, os) {
            return paths::normalize("/", &path, os, true);
        }
        let path = if path == "." || path.is_empty() { "./" } else { &path };
        paths::normalize(&self.stages[stage].fs.dir, path, os, true)
    }

    fn copy_source(
        &mut self,
        at: &At<'_>,
        copy: &mut Copy,
        step: &CopyStep,
        source: &str,
        common: &CopyAction,
        name: &str,
    ) -> Result<CopyAction> {
        if let Parsed::Git(git) = git_url::parse(source)?
            && !git.like_local_path
        {
            if !step.add {
                return fail("source can't be a git ref for COPY");
            }
            let keep_git_dir = git.keep_git_dir.or(copy.keep_git_dir);
            let git = git.added(copy.keep_git_dir, &copy.checksum)?;
            copy.keep_git_dir = keep_git_dir;
            copy.checksum.clone_from(&git.checksum);
            let from = self.builder.git(&git, Constraints::default().named(name));
            return Ok(CopyAction { from: Some(from), src: "/".to_owned(), ..common.clone() });
        }
        if git_url::is_http(source) {
            if !step.add {
                return fail("source can't be a URL for COPY");
            }
            let filename = http_filename(source);
            if !copy.checksum.is_empty() {
                reference::check_digest(&copy.checksum)?;
            }
            let mut constraints = Constraints::default().named(name);
            names::describe(&mut constraints, "");
            let http = HttpSource {
                url: source.to_owned(),
                checksum: copy.checksum.clone(),
                filename: filename.clone(),
                ..HttpSource::default()
            };
            let from = self.builder.http(&http, constraints);
            return Ok(CopyAction {
                from: Some(from),
                src: filename,
                attempt_unpack: copy.unpack == Some(true),
                ..common.clone()
            });
        }
        self.local_source(at, copy, step, source, common)
    }

    fn local_source(
        &mut self,
        at: &At<'_>,
        copy: &Copy,
        step: &CopyStep,
        source: &str,
        common: &CopyAction,
    ) -> Result<CopyAction> {
        warn_ignored(at, step, source);
        let os = self.platform_of(at.stage).os;
        let doing = |error: DockerfileError| error.while_doing("removing drive letter");
        let mut src = source.to_owned();
        let mut include_patterns = Vec::new();
        let mut required_paths = Vec::new();
        if copy.parents {
            let (pivot, pattern) = source.split_once("/./").unwrap_or(("/", source));
            let pattern = paths::normalize("/", pattern, &os, false).map_err(doing)?;
            include_patterns.push(pattern.strip_prefix('/').unwrap_or(&pattern).to_owned());
            if !has_wildcards(pivot) && !has_wildcards(&pattern) {
                let path = crosskit_llb::paths::join(&[pivot, &pattern]);
                required_paths.push(paths::normalize("/", &path, &os, false).map_err(doing)?);
            }
            pivot.clone_into(&mut src);
        }
        Ok(CopyAction {
            from: step.source,
            src: paths::normalize("/", &src, &os, false).map_err(doing)?,
            follow_symlinks: true,
            dir_contents_only: true,
            include_patterns,
            required_paths,
            attempt_unpack: copy.unpack.unwrap_or(step.add),
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..common.clone()
        })
    }
}

/// Warns of what the context does not have because it is ignored.
fn warn_ignored(at: &At<'_>, step: &CopyStep, source: &str) {
    let Some(ignore) = step.ignore.as_ref().filter(|ignore| at.lint.listens() && !ignore.has_exceptions())
    else {
        return;
    };
    let path = clean(source);
    let everything = |text: &str| matches!(text, "*" | "**" | "**/*");
    let root = path == "." || path == "/";
    if root && !ignore.iter().any(|pattern| !pattern.is_exception() && everything(pattern.text())) {
        return;
    }
    if ignore.matches(&path) {
        let verb = if step.add { "Add" } else { "Copy" };
        let message = rules::copy_ignored_file(verb, &path);
        at.lint.warn(&rules::COPY_IGNORED_FILE, at.lines(), message);
    }
}

fn history_start(copy: &Copy, add: bool) -> String {
    let mut said = String::from(if add { "ADD" } else { "COPY" });
    if copy.parents {
        said.push_str(" --parents");
    }
    for (flag, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if !value.is_empty() {
            said.push_str(&format!(" --{flag}={value}"));
        }
    }
    said
}

fn check_checksum(copy: &Copy, add: bool) -> Result<()> {
    if copy.checksum.is_empty() {
        return Ok(());
    }
    if !add {
        return fail("checksum can't be specified for COPY");
    }
    let [source] = copy.sources.as_slice() else {
        return fail("checksum can't be specified for multiple sources");
    };
    if !git_url::is_http(source) && !git_url::is_git(source) {
        return fail("checksum requires HTTP(S) or Git sources");
    }
    Ok(())
}

/// The name of a downloaded file whose address tells none, or is no address.
const UNNAMED: &str = "__unnamed__";

/// The name that a downloaded file gets.
pub(crate) fn http_filename(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let wrong_host = host.contains(['{', '}', '^', '`', '|', '\\', ' '])
        || host.contains(['[', ']']) && !(host.starts_with('[') && host.contains(']'));
    let escape_ok = |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if wrong_host || !path.split('%').skip(1).all(escape_ok) {
        return UNNAMED.to_owned();
    }
    match base(&String::from_utf8_lossy(&percent_decoded(path))) {
        "." | "/" => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

/// The bytes of a path of an address.
pub(crate) fn percent_decoded(path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
