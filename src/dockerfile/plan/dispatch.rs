//! Walks the instructions of the stages that are needed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use indexmap::IndexSet;

use crate::error::{DockerfileError, Lines, Result};
use crate::image::default_path;
use crate::instruction::{ArgDefinition, Copy, Instruction, Kind};
use crate::lint::{Linter, rules};
use crate::plan::copy::CopyStep;
use crate::plan::env::split_pair;
use crate::plan::{Command, Plan};
use crate::suggest::nearest;
use crate::text::expand::Lexer;
use crate::text::units;

/// Arguments that steps do not see.
const SBOM_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Bytes that all instructions together may have with their variables replaced: more than any image's configuration.
const MAX_EXPANDED: usize = 64 << 20;

pub(super) fn is_sbom_arg(name: &str) -> bool {
    SBOM_ARGS.contains(&name)
}

/// A command with the place and the rules that hold there.
pub(super) struct At<'a> {
    pub(super) stage: usize,
    pub(super) instruction: &'a Instruction,
    pub(super) lint: Linter,
}

impl At<'_> {
    pub(super) fn lines(&self) -> Lines {
        self.instruction.lines
    }
}

impl Plan {
    /// Converts all stages that are needed.
    pub(super) fn dispatch_stages(&mut self) -> Result<()> {
        let mut wanted = vec![self.request.all_stages; self.stages.len()];
        for stage in self.reachable_order() {
            wanted[stage] = !self.stages[stage].dispatched || self.request.all_stages;
        }
        for (stage, wanted) in wanted.into_iter().enumerate() {
            if wanted {
                self.dispatch_stage(stage)?;
            }
        }
        let used = self.stages[self.target].used;
        self.used_paths[used].insert("/".to_owned());
        Ok(())
    }

    fn dispatch_stage(&mut self, position: usize) -> Result<()> {
        self.inherit(position);
        let target = self.target_platform.clone();
        let stage = &mut self.stages[position];
        stage.dispatched = true;
        let os = stage.platform.get_or_insert(target).os.clone();
        let has_path = stage.image.config.env.iter().any(|pair| split_pair(pair).0 == "PATH");
        if !has_path && os != "windows" {
            let path = format!("PATH={}", default_path(&os));
            self.image_mut(position).config.env.push(path);
        }
        let stage = &mut self.stages[position];
        let image = stage.image.clone();
        for pair in &image.config.env {
            let (key, value) = split_pair(pair);
            stage.fs.env.set(key, value);
        }
        let lines = stage.lines;
        if !image.config.working_dir.is_empty() {
            self.set_workdir(position, &image.config.working_dir).map_err(|error| error.at(lines))?;
        }
        if !image.config.user.is_empty() {
            self.stages[position].fs.user.clone_from(&image.config.user);
        }
        let commands = std::mem::take(&mut self.stages[position].commands);
        for command in &commands {
            self.dispatch(position, command).map_err(|error| error.at(command.instruction.lines))?;
        }
        self.note_scans(position);
        Ok(())
    }

    fn note_scans(&mut self, position: usize) {
        for name in SBOM_ARGS {
            let name_shown = &self.stages[position].shown;
            let holds = |value: &str| match units::go_bool(value) {
                Some(on) => on,
                None => value.split(',').any(|stage| stage == name_shown),
            };
            let mut on = self.globals.value(name).is_some_and(holds);
            for arg in self.stages[position].build_args.iter().filter(|arg| arg.key == name) {
                on = arg.value.as_deref().map_or(on, holds);
            }
            let stage = &mut self.stages[position];
            match name == SBOM_ARGS[0] {
                true => stage.scan_context |= on,
                false => stage.scan_stage |= on,
            }
        }
    }

    /// Replaces variables; warns of those that are not set.
    pub(super) fn expand(&self, at: &At<'_>, text: &str) -> Result<String> {
        self.expand_with(self.lexer, at, text)
    }

    fn expand_with(&self, lexer: Lexer, at: &At<'_>, text: &str) -> Result<String> {
        let stage = &self.stages[at.stage];
        let (text, expanded) = lexer.attempt(text, &stage.fs.env);
        self.report_unset(at, &expanded.unmatched);
        let text = text?;
        let before = self.expanded.fetch_add(text.len(), Ordering::Relaxed);
        if before + text.len() > MAX_EXPANDED {
            return Err(DockerfileError::user(format!(
                "with variables replaced, the instructions have more than {MAX_EXPANDED} bytes"
            )));
        }
        Ok(text)
    }

    /// Warns of variables that nothing sets.
    fn report_unset(&self, at: &At<'_>, names: &IndexSet<String>) {
        if names.is_empty() || !at.lint.listens() {
            return;
        }
        let stage = &self.stages[at.stage];
        let declared = |name: &str| stage.build_args.iter().any(|arg| arg.key == name);
        for name in names.iter().filter(|name| !declared(name) && !is_sbom_arg(name)) {
            let near = nearest(name, stage.fs.env.keys());
            at.lint.warn(&rules::UNDEFINED_VAR, at.lines(), rules::undefined_var(name, near));
        }
    }

    fn expand_copy(&self, at: &At<'_>, copy: &Copy) -> Result<Copy> {
        let all = |texts: &[String]| texts.iter().map(|text| self.expand(at, text)).collect::<Result<_>>();
        let lexer = Lexer { no_quotes: true, ..Lexer::new('\\') };
        let mut expanded = Copy {
            chown: self.expand(at, &copy.chown)?,
            chmod: self.expand(at, &copy.chmod)?,
            checksum: self.expand(at, &copy.checksum)?,
            sources: all(&copy.sources)?,
            dest: self.expand(at, &copy.dest)?,
            contents: copy.contents.clone(),
            from: copy.from.clone(),
            excludes: copy.excludes.clone(),
            ..*copy
        };
        for content in expanded.contents.iter_mut().filter(|content| content.expand) {
            content.data = self.expand_with(lexer, at, &content.data)?;
        }
        Ok(expanded)
    }

    fn dispatch(&mut self, stage: usize, command: &Command) -> Result<()> {
        let instruction = &command.instruction;
        let lint = self.request.linter.for_comments(&instruction.comments);
        let at = At { stage, instruction, lint };
        self.stages[stage].in_trigger = command.trigger;
        match &instruction.kind {
            Kind::Add(copy) => {
                let copy = self.expand_copy(&at, copy)?;
                let source = self.context;
                let ignore = self.ignore.clone();
                self.copy(&at, &copy, CopyStep { source, ignore, add: true })?;
                let remote =
                    |source: &&String| source.starts_with("http://") || source.starts_with("https://");
                for source in copy.sources.iter().filter(|source| !remote(source)) {
                    let path = crosskit_llb::paths::join(&["/", source]);
                    self.stages[stage].context_paths.insert(path);
                }
                Ok(())
            }
            Kind::Copy(copy) => self.dispatch_copy(&at, command, copy),
            Kind::Run(run) => self.run(&at, run, &command.sources),
            Kind::Workdir(path) => {
                let path = self.expand(&at, path)?;
                self.workdir(&at, &path)
            }
            Kind::Arg(definitions) => self.arg(&at, definitions),
            Kind::Env(pairs) => self.env(&at, pairs),
            Kind::Label(pairs) => self.label(&at, pairs),
            Kind::User(user) => {
                let user = self.expand(&at, user)?;
                self.user(&at, user);
                Ok(())
            }
            Kind::Expose(ports) => self.expose(&at, ports),
            Kind::Volume(volumes) => self.volume(&at, volumes),
            Kind::StopSignal(signal) => {
                let signal = self.expand(&at, signal)?;
                self.stop_signal(&at, signal)
            }
            Kind::Cmd(line) => {
                self.cmd(&at, line);
                Ok(())
            }
            Kind::Entrypoint(line) => {
                self.entrypoint(&at, line);
                Ok(())
            }
            Kind::Healthcheck(health) => {
                self.healthcheck(&at, health);
                Ok(())
            }
            Kind::Shell(words) => {
                self.shell(&at, words);
                Ok(())
            }
            Kind::Maintainer(name) => {
                self.maintainer(&at, name);
                Ok(())
            }
            Kind::Onbuild(trigger) => {
                self.image_mut(stage).config.on_build.push(trigger.clone());
                Ok(())
            }
        }
    }

    fn dispatch_copy(&mut self, at: &At<'_>, command: &Command, copy: &Copy) -> Result<()> {
        let copy = self.expand_copy(at, copy)?;
        let joined = |source: &String| crosskit_llb::paths::join(&["/", source]);
        let Some(from) = command.sources.first().copied() else {
            let (source, ignore) = (self.context, self.ignore.clone());
            self.copy(at, &copy, CopyStep { source, ignore, add: false })?;
            self.stages[at.stage].context_paths.extend(copy.sources.iter().map(joined));
            return Ok(());
        };
        if !self.stages[from].dispatched {
            return Err(DockerfileError::user(format!(
                "cannot copy from stage {}, it needs to be defined before current stage {}",
                crate::text::quote::go_quote(&copy.from),
                crate::text::quote::go_quote(&self.stages[at.stage].shown)
            )));
        }
        let source = self.stages[from].fs.output;
        self.copy(at, &copy, CopyStep { source, ignore: None, add: false })?;
        let used = self.stages[from].used;
        self.used_paths[used].extend(copy.sources.iter().map(joined));
        Ok(())
    }

    fn arg(&mut self, at: &At<'_>, definitions: &[ArgDefinition]) -> Result<()> {
        let mut said = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let key = &definition.key;
            if rules::looks_secret(key) {
                let message = rules::secrets_used_in_arg_or_env("ARG", key);
                at.lint.warn(&rules::SECRETS_USED_IN_ARG_OR_ENV, at.lines(), message);
            }
            let mut inherited = false;
            let value = match (self.build_args.get(key), &definition.value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.expand(at, default)?),
                (None, None) => {
                    let value = self.globals.value(key).map(str::to_owned);
                    inherited = value.is_some();
                    value
                }
            };
            let stage = &mut self.stages[at.stage];
            if let Some(value) = value.as_deref().filter(|_| !is_sbom_arg(key)) {
                stage.fs.env.set(key, value);
            }
            if !inherited {
                let info = super::outline::ArgInfo {
                    value: value.clone().unwrap_or_default(),
                    doc: definition.doc.clone(),
                    lines: at.lines(),
                    ..Default::default()
                };
                stage.outlined.args.insert(key.clone(), info);
            }
            stage.outlined.used.insert(key.clone());
            said.push(match &value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            });
            stage.build_args.push(ArgDefinition { value, ..definition.clone() });
        }
        self.commit(at.stage, format!("ARG {}", said.join(" ")), false);
        Ok(())
    }

    /// What ignore patterns leave out, for advice.
    pub(crate) fn set_ignore(&mut self, ignore: Option<Arc<crosskit_patterns::Patterns>>) {
        self.ignore = ignore;
    }
}
