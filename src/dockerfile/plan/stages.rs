//! The stages and what they need of each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crosskit_llb::Builder;
use crosskit_platforms::Platform;
use indexmap::IndexSet;

use crate::contexts::{self, NamedContext};
use crate::error::{DockerfileError, Lines, Result};
use crate::image::Image;
use crate::instruction::{self, Instruction, Kind};
use crate::lint::{Linter, rules};
use crate::plan::{Command, Env, Filesystem, Globals, Outlined, Plan, Request, SCRATCH, Stage};
use crate::suggest::nearest;
use crate::text::expand::{Expanded, Lexer, NoVariables};
use crate::text::{lines, quote};

impl Stage {
    fn new(base_name: String, lines: Lines, used: usize) -> Stage {
        Stage {
            base_name,
            name: String::new(),
            shown: String::new(),
            code: String::new(),
            lines,
            doc: String::new(),
            base: None,
            platform: None,
            named: None,
            deps: Vec::new(),
            commands: Vec::new(),
            fs: Filesystem { dir: "/".to_owned(), ..Filesystem::default() },
            image: Arc::default(),
            history: Vec::new(),
            base_image: None,
            used,
            context_paths: BTreeSet::new(),
            build_args: Vec::new(),
            resolved: false,
            dispatched: false,
            unregistered: false,
            triggers_taken: false,
            ignore_cache: false,
            step: 0,
            steps: 0,
            in_trigger: false,
            workdir_set: false,
            cmd_at: None,
            entrypoint_at: None,
            healthcheck_at: None,
            scan_context: false,
            scan_stage: false,
            outlined: Outlined::default(),
        }
    }
}

impl Plan {
    pub(crate) fn new(request: Request, globals: Globals) -> Result<Plan> {
        let Globals { args, declared, build_args, build_platform, target_platform, epoch } = globals;
        let mut plan = Plan {
            implicit_target: request.target_platform.is_none(),
            lexer: Lexer::new(request.file.escape),
            proxy: request.options.proxy(),
            request,
            build_platform,
            target_platform,
            globals: args,
            build_args,
            epoch,
            stages: Vec::new(),
            by_name: HashMap::new(),
            target: 0,
            used_paths: Vec::new(),
            builder: Builder::new(),
            locals: Vec::new(),
            context: None,
            ignore: None,
            next_id: 0,
            refused: None,
            expanded: Default::default(),
        };
        let base = Outlined { args: declared, ..Outlined::default() };
        let file = plan.request.file.clone();
        for (position, stage) in file.stages.iter().enumerate() {
            plan.add_stage(position, stage, &base)?;
        }
        plan.target = plan.find_target()?;
        for (position, stage) in file.stages.iter().enumerate() {
            let mut commands = Vec::with_capacity(stage.instructions.len());
            for instruction in &stage.instructions {
                commands.push(plan.command(position, instruction, false)?);
            }
            plan.stages[position].commands = commands;
        }
        plan.refuse_cycles()?;
        if let [only] = plan.stages.as_mut_slice() {
            only.shown.clear();
        }
        Ok(plan)
    }

    fn find_target(&self) -> Result<usize> {
        let wanted = &self.request.options.target;
        if wanted.is_empty() {
            return Ok(self.stages.len() - 1);
        }
        self.by_name.get(&wanted.to_lowercase()).copied().ok_or_else(|| {
            let message = format!("target stage {} could not be found", quote::go_quote(wanted));
            DockerfileError::user(message).suggest(wanted, self.stage_names())
        })
    }

    pub(super) fn stage_names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|stage| stage.shown.as_str()).filter(|name| !name.is_empty())
    }

    fn register(&mut self, mut stage: Stage) -> usize {
        let position = self.stages.len();
        if let Some(base) = self.by_name.get(&stage.base_name).copied() {
            stage.base = Some(base);
            stage.outlined = self.stages[base].outlined.clone();
        }
        if !stage.name.is_empty() {
            self.by_name.insert(stage.name.to_lowercase(), position);
        }
        self.stages.push(stage);
        position
    }

    fn new_stage(&mut self, base_name: String, lines: Lines) -> Stage {
        self.used_paths.push(BTreeSet::new());
        Stage::new(base_name, lines, self.used_paths.len() - 1)
    }

    fn add_stage(&mut self, position: usize, from: &instruction::Stage, outlined: &Outlined) -> Result<()> {
        let lint = self.request.linter.for_comments(&from.comments);
        let at = |error: DockerfileError| error.at(from.lines);
        let (text, mut base) = self.lexer.attempt(&from.base, &self.globals);
        report_undeclared(&base.unmatched, &self.globals, outlined, from.lines, &lint);
        base.text = text.map_err(at)?;
        if base.text.is_empty() {
            let message = format!("base name ({}) should not be blank", from.base);
            return Err(at(DockerfileError::user(message)));
        }
        let mut used = base.matched;
        let mut stage = self.new_stage(base.text, from.lines);
        stage.name.clone_from(&from.name);
        stage.shown.clone_from(&from.name);
        stage.code.clone_from(&from.code);
        stage.doc.clone_from(&from.doc);
        stage.outlined = outlined.clone();
        if !from.platform.is_empty() {
            let (platform, matched) = self.stage_platform(from, outlined, &lint)?;
            stage.platform = Some(platform);
            used.extend(matched);
        }
        if !from.name.is_empty() {
            stage.named = self.named_context(&from.name, stage.platform.as_ref())?;
        }
        if stage.named.is_some() {
            let position = self.register(stage);
            self.stages[position].base = None;
            return Ok(());
        }
        if from.name.is_empty() {
            stage.shown = format!("stage-{position}");
        }
        stage.ignore_cache = self.request.options.ignores_cache(&from.name);
        let position = self.register(stage);
        let stage = &mut self.stages[position];
        stage.outlined.used.extend(used);
        let counted = |instruction: &&Arc<Instruction>| {
            matches!(instruction.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
        };
        let pulled = usize::from(stage.base_name != SCRATCH && stage.base.is_none());
        stage.steps = pulled + from.instructions.iter().filter(counted).count();
        Ok(())
    }

    fn stage_platform(
        &self,
        from: &instruction::Stage,
        outlined: &Outlined,
        lint: &Linter,
    ) -> Result<(Platform, BTreeSet<String>)> {
        let at = |error: DockerfileError| error.at(from.lines);
        let written = &from.platform;
        let (text, mut found) = self.lexer.attempt(written, &self.globals);
        report_undeclared(&found.unmatched, &self.globals, outlined, from.lines, lint);
        found.text =
            text.map_err(|error| at(error.while_doing("failed to process arguments for platform ")))?;
        report_platform(from, &found, &self.globals, lint);
        let guess = |mut error: DockerfileError| {
            for name in &found.unmatched {
                if nearest(name, self.globals.keys()).is_some() {
                    error = error.suggest(name, self.globals.keys());
                    break;
                }
            }
            error
        };
        if found.text.is_empty() {
            let message = format!("empty platform value from expression {written}");
            return Err(at(guess(DockerfileError::user(message))));
        }
        match Platform::parse(&found.text) {
            Ok(platform) => Ok((platform, found.matched)),
            Err(error) => {
                let error = at(guess(DockerfileError::user(error.to_string())));
                Err(at(error.while_doing(format!("failed to parse platform {written}"))))
            }
        }
    }

    /// The context that the request puts in the place of a stage or image.
    pub(super) fn named_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let platform = platform.or(self.request.target_platform.as_ref());
        contexts::find(&self.request.options, name, platform)
    }

    /// The stage of this name, or one that stands for the image of this name.
    fn source_stage(&mut self, name: &str, lines: Lines) -> usize {
        if let Some(known) = self.by_name.get(&name.to_lowercase()) {
            return *known;
        }
        let mut stage = self.new_stage(name.to_owned(), lines);
        stage.unregistered = true;
        self.register(stage)
    }

    fn command(&mut self, stage: usize, instruction: &Arc<Instruction>, trigger: bool) -> Result<Command> {
        let mut sources = Vec::new();
        match &instruction.kind {
            Kind::Copy(copy) if !copy.from.is_empty() => {
                if self.lexer.expand(&copy.from, &NoVariables)?.text != copy.from {
                    return Err(DockerfileError::user(
                        "variable expansion is not supported for --from, define a new stage with FROM using ARG \
                         from global scope as a workaround",
                    ));
                }
                sources.push(match copy.from.parse::<i64>() {
                    Ok(index) => match usize::try_from(index).ok().filter(|i| *i < self.stages.len()) {
                        Some(index) => index,
                        None => return Err(DockerfileError::user(format!("invalid stage index {index}"))),
                    },
                    Err(_) => self.source_stage(&copy.from, instruction.lines),
                });
            }
            Kind::Run(run) => {
                for mount in &run.mounts {
                    let from = if mount.from.is_empty() { SCRATCH } else { &mount.from };
                    sources.push(self.source_stage(from, Lines::NOWHERE));
                }
            }
            _ => {}
        }
        for source in &sources {
            self.stages[stage].deps.push((*source, instruction.lines));
        }
        Ok(Command { instruction: instruction.clone(), sources, trigger })
    }

    /// Takes the triggers of the base over. True when they need stages that nothing needed before.
    pub(super) fn take_triggers(&mut self, stage: usize) -> Result<bool> {
        let mut triggers: Vec<String> = Vec::new();
        if !self.stages[stage].image.config.on_build.is_empty() {
            let image = Arc::make_mut(&mut self.stages[stage].image);
            triggers.append(&mut image.config.on_build);
        }
        if let (Some(base), false) = (self.stages[stage].base, self.stages[stage].triggers_taken) {
            for command in &self.stages[base].commands {
                if let Kind::Onbuild(trigger) = &command.instruction.kind {
                    triggers.push(trigger.clone());
                }
            }
            self.stages[stage].triggers_taken = true;
        }
        let at = self.stages[stage].lines;
        let mut commands = Vec::with_capacity(triggers.len());
        let mut needs_more = false;
        for trigger in triggers {
            let command = self.trigger(stage, &trigger, at).map_err(|error| error.only_at(at))?;
            needs_more |= !command.sources.is_empty();
            commands.push(command);
        }
        let stage = &mut self.stages[stage];
        stage.steps += commands.len();
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(needs_more)
    }

    fn trigger(&mut self, stage: usize, trigger: &str, at: Lines) -> Result<Command> {
        let mut statement = lines::read_trigger(trigger)?;
        statement.lines = at;
        if statement.keyword.eq_ignore_ascii_case("from") {
            return Err(DockerfileError::user("FROM isn't allowed as an ONBUILD trigger"));
        }
        let instruction = instruction::parse::instruction(statement, &Linter::silent())?;
        self.command(stage, &Arc::new(instruction), true)
    }

    /// The target and all that it needs, each once: bases and sources of a stage behind it. What takes the place of a
    /// stage needs nothing of the file.
    pub(super) fn reachable_order(&self) -> Vec<usize> {
        let mut seen = vec![false; self.stages.len()];
        let mut order = Vec::new();
        let mut open = vec![self.target];
        while let Some(stage) = open.pop() {
            if std::mem::replace(&mut seen[stage], true) {
                continue;
            }
            order.push(stage);
            let Stage { base, deps, named, .. } = &self.stages[stage];
            if named.is_some() && !self.request.all_stages {
                continue;
            }
            open.extend(deps.iter().rev().map(|(dep, _)| *dep));
            open.extend(*base);
        }
        order
    }

    fn refuse_cycles(&self) -> Result<()> {
        const UNSEEN: u8 = 0;
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut state = vec![UNSEEN; self.stages.len()];
        for start in 0..self.stages.len() {
            if state[start] != UNSEEN {
                continue;
            }
            state[start] = OPEN;
            // A stage and its next dependency.
            let mut path = vec![(start, 0)];
            while let Some((stage, next)) = path.last_mut() {
                let stage = *stage;
                let Some((dep, _)) = self.stages[stage].deps.get(*next).copied() else {
                    state[stage] = DONE;
                    path.pop();
                    continue;
                };
                *next += 1;
                match state[dep] {
                    UNSEEN => {
                        state[dep] = OPEN;
                        path.push((dep, 0));
                    }
                    OPEN => {
                        let name = &self.stages[start].shown;
                        let message = format!("circular dependency detected on stage: {name}");
                        let mut error = DockerfileError::user(message);
                        let wanted = path.iter().skip(1).map(|(stage, _)| *stage).chain([dep]);
                        for ((stage, _), wanted) in path.iter().zip(wanted) {
                            // Of several places that want the same, the last is told.
                            let found = self.stages[*stage].deps.iter().rfind(|(dep, _)| *dep == wanted);
                            error = found.into_iter().fold(error, |error, (_, lines)| error.at(*lines));
                        }
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Takes over what the base has.
    pub(super) fn inherit(&mut self, stage: usize) {
        let Some(base) = self.stages[stage].base else {
            return;
        };
        let from = &self.stages[base];
        let fs = from.fs.clone();
        let platform = from.platform.clone();
        let mut image = from.image.clone();
        if !image.config.on_build.is_empty() {
            Arc::make_mut(&mut image).config.on_build.clear();
        }
        let base_image = from.base_image.clone();
        let (used, workdir_set) = (from.used, from.workdir_set);
        let build_args = from.build_args.clone();
        let into = &mut self.stages[stage];
        into.fs = fs;
        into.platform = platform;
        into.image = image;
        into.base_image = base_image;
        into.used = used;
        into.workdir_set = workdir_set;
        into.build_args.extend(build_args);
    }

    pub(super) fn image_mut(&mut self, stage: usize) -> &mut Image {
        Arc::make_mut(&mut self.stages[stage].image)
    }
}

/// Warns of variables in FROM that nobody declares.
fn report_undeclared(
    unmatched: &IndexSet<String>,
    globals: &Env,
    outlined: &Outlined,
    lines: Lines,
    lint: &Linter,
) {
    let known = || outlined.args.keys().map(String::as_str).chain(globals.keys());
    for name in unmatched {
        if !known().any(|known| known == name) {
            let message = rules::undefined_arg_in_from(name, nearest(name, known()));
            lint.warn(&rules::UNDEFINED_ARG_IN_FROM, lines, message);
        }
    }
}

/// Warns of platforms that say nothing or too much.
fn report_platform(from: &instruction::Stage, found: &Expanded, globals: &Env, lint: &Linter) {
    const TARGET: &str = "TARGETPLATFORM";
    let only_target =
        found.matched.len() == 1 && found.matched.contains(TARGET) && found.unmatched.is_empty();
    if only_target && globals.value(TARGET) == Some(&found.text) {
        let message = rules::redundant_target_platform(&from.platform);
        lint.warn(&rules::REDUNDANT_TARGET_PLATFORM, from.lines, message);
    }
    if !found.matched.is_empty() || !found.unmatched.is_empty() {
        return;
    }
    if let Ok(platform) = Platform::parse(&found.text)
        && !from.name.contains(&platform.os)
        && !from.name.contains(&platform.architecture)
    {
        let message = rules::from_platform_flag_const_disallowed(&found.text);
        lint.warn(&rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, from.lines, message);
    }
}
