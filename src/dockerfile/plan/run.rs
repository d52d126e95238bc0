//! RUN.

use std::borrow::Cow;

use crosskit_api::pb;
use crosskit_llb::paths::{base, clean, join};
use crosskit_llb::{
    CacheMount, Chown, Constraints, Exec, ExecMount, FileActionSpec, MkdirAction, Owner, SecretMount,
    SshMount,
};

use crate::error::{DockerfileError, Result};
use crate::instruction::mount::{Mount, MountType};
use crate::instruction::{ArgDefinition, CommandLine, Run, RunNetwork};
use crate::plan::dispatch::At;
use crate::plan::names::{self, describe, to_pb};
use crate::plan::outline::Asked;
use crate::plan::{Env, Plan, SCRATCH};
use crate::text::expand::{Lexer, Variables};
use crate::text::heredoc;
use crate::text::quote::go_quote;

/// Where scripts of here-documents are mounted.
const SCRIPTS: &str = "/dev/pipes/";

/// Variables as a step's name shows them: values of secrets are not there to be shown.
struct Masked<'a> {
    env: &'a Env,
    secrets: Vec<&'a str>,
}

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.secrets.contains(&name) {
            true => Some("****".into()),
            false => self.env.get(name),
        }
    }
}

impl Plan {
    pub(super) fn run(&mut self, at: &At<'_>, run: &Run, sources: &[usize]) -> Result<()> {
        let stage = at.stage;
        let mut mounts = Vec::with_capacity(run.mounts.len());
        for flag in &run.mounts {
            mounts.push(flag.resolve(|text| self.expand(at, text))?);
        }
        let used = self.stages[stage].used;
        self.used_paths[used].insert("/".to_owned());
        let mut exec = Exec { default_path: true, ..Exec::default() };
        let mut name = at.instruction.code.clone();
        let words = self.script(stage, &run.command, &mut exec, &mut name)?;
        let words = if run.command.shell { self.with_shell(stage, &words) } else { words };
        for (mount, source) in mounts.iter().zip(sources) {
            self.mount(at, mount, *source, &mut exec)?;
        }
        let options = self.request.options.clone();
        if options.shm_size > 0 {
            let tmpfs = Some(options.shm_size);
            exec.mounts.push(ExecMount { target: "/dev/shm".to_owned(), tmpfs, ..ExecMount::default() });
        }
        let fs = self.stages[stage].fs.clone();
        let secrets = mounts.iter().filter(|mount| mount.kind == MountType::Secret);
        let masked = Masked { env: &fs.env, secrets: secrets.filter_map(|m| m.env.as_deref()).collect() };
        let lexer = Lexer { raw_quotes: true, skip_unset: true, ..self.lexer };
        let name = names::shown(lexer, &name, &masked);
        let name = self.numbered(stage, &name, fs.platform.as_ref(), Some(&fs.env));
        let platform = fs.platform.as_ref().unwrap_or(&self.target_platform);
        let mut constraints = Constraints::on(to_pb(platform)).named(name);
        describe(&mut constraints, &at.instruction.code);
        constraints.metadata.ignore_cache = self.stages[stage].ignore_cache;
        constraints.metadata.linux_resources = options.resources.clone();
        let constraints = self.located(constraints, at.lines());
        let said = history(&words, &self.stages[stage].build_args, &fs.env);
        let exec = Exec {
            root: fs.output,
            args: words,
            env: fs.env.pairs(),
            cwd: fs.dir,
            user: fs.user,
            hostname: options.hostname.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            extra_hosts: options.extra_hosts.clone(),
            ulimits: options.ulimits.clone(),
            devices: run
                .devices
                .iter()
                .map(|device| pb::CdiDevice { name: device.name.clone(), optional: !device.required })
                .collect(),
            proxy: self.proxy.clone(),
            network: match run.network {
                RunNetwork::Default => options.network,
                RunNetwork::None => pb::NetMode::None,
                RunNetwork::Host => pb::NetMode::Host,
            },
            security: match run.insecure {
                true => pb::SecurityMode::Insecure,
                false => pb::SecurityMode::Sandbox,
            },
            ..exec
        };
        if exec.args.is_empty() {
            // What else is wrong is told first.
            let error = DockerfileError::user("failed to marshal LLB definition: arguments are required");
            self.refused.get_or_insert(error.at(at.lines()));
            return Ok(());
        }
        self.stages[stage].fs.output = self.builder.exec(exec, constraints).root;
        self.commit(stage, format!("RUN {said} # buildkit"), true);
        Ok(())
    }

    /// The words of a command; here-documents become a script, or text for the shell.
    fn script(
        &mut self,
        stage: usize,
        command: &CommandLine,
        exec: &mut Exec,
        name: &mut String,
    ) -> Result<Vec<String>> {
        let [first, ..] = command.heredocs.as_slice() else {
            return Ok(command.words.clone());
        };
        let ([line], true) = (command.words.as_slice(), command.shell) else {
            let words = command.words.join(" ");
            return Err(DockerfileError::user(format!("parsing produced an invalid run command: [{words}]")));
        };
        if heredoc::parse(line).ok().flatten().is_none() {
            let mut whole = line.clone();
            for heredoc in &command.heredocs {
                whole.push('\n');
                whole.push_str(&heredoc.content);
                whole.push_str(&heredoc.name);
            }
            return Ok(vec![whole]);
        }
        let text = first.text();
        name.push_str(&format!(" ({})", summary(&first.content)));
        if self.stages[stage].image.platform.os == "windows" || !text.starts_with("#!") {
            return Ok(vec![text]);
        }
        let file = self.inline_file(&first.name, 0o755, text.into_bytes());
        exec.mounts.push(ExecMount {
            target: SCRIPTS.to_owned(),
            source: Some(file),
            selector: "/".to_owned(),
            readonly: true,
            ..ExecMount::default()
        });
        Ok(vec![join(&[SCRIPTS, &first.name])])
    }

    fn mount(&mut self, at: &At<'_>, mount: &Mount, source: usize, exec: &mut Exec) -> Result<()> {
        let no_from = mount.from.is_empty() && mount.kind != MountType::Cache;
        let from = if mount.from.is_empty() { SCRATCH } else { &mount.from };
        let mut output = self.context;
        if !no_from {
            if !self.stages[source].dispatched {
                return Err(DockerfileError::user(format!(
                    "cannot mount from stage {} to {}, stage needs to be defined before current command",
                    go_quote(from),
                    go_quote(&mount.target)
                )));
            }
            output = self.stages[source].fs.output;
        }
        let mut into = ExecMount { readonly: mount.readonly, ..ExecMount::default() };
        match mount.kind {
            MountType::Secret => return self.secret(at, mount, exec),
            MountType::Ssh => return self.ssh(at, mount, exec),
            MountType::Tmpfs => {
                output = None;
                into.tmpfs = Some(mount.size);
            }
            MountType::Bind => into.no_output = !mount.readonly,
            MountType::Cache => {
                let id = if mount.id.is_empty() { clean(&mount.target) } else { mount.id.clone() };
                into.cache = Some(CacheMount {
                    id: format!("{}/{id}", self.request.options.cache_namespace),
                    sharing: mount.sharing.unwrap_or_default(),
                });
            }
        }
        into.target = match mount.target.starts_with('/') {
            true => mount.target.clone(),
            false => join(&["/", &self.stages[at.stage].fs.dir, &mount.target]),
        };
        if into.target == "/" {
            return Err(DockerfileError::user("invalid mount target \"/\""));
        }
        let read = join(&["/", &mount.source]);
        if read != "/" {
            into.selector.clone_from(&read);
        } else if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
            let owner = |id: Option<u32>| Some(Owner::Id(id.unwrap_or_default()));
            let folder = MkdirAction {
                path: "/cache".to_owned(),
                mode: mount.mode.unwrap_or(0o755),
                owner: Some(Chown { user: owner(mount.uid), group: owner(mount.gid) }),
                ..MkdirAction::default()
            };
            let constraints = names::internal("setting cache mount permissions");
            output = Some(self.builder.file(output, vec![FileActionSpec::Mkdir(folder)], constraints));
            into.selector = "/cache".to_owned();
        }
        into.source = output;
        exec.mounts.push(into);
        if no_from {
            self.stages[at.stage].context_paths.insert(read);
        } else {
            let used = self.stages[source].used;
            self.used_paths[used].insert(read);
        }
        Ok(())
    }

    fn secret(&mut self, at: &At<'_>, mount: &Mount, exec: &mut Exec) -> Result<()> {
        let id = match (mount.source.as_str(), mount.id.as_str()) {
            ("", "") if mount.target.is_empty() => {
                return Err(DockerfileError::user("one of source, target required"));
            }
            ("", "") => base(&mount.target).to_owned(),
            ("", id) => id.to_owned(),
            (source, _) => source.to_owned(),
        };
        let mut target = (!mount.target.is_empty()).then(|| mount.target.clone());
        if mount.env.is_none() && target.is_none() {
            target = Some(format!("/run/secrets/{}", base(&id)));
        }
        let asked = Asked { required: mount.required, lines: at.lines() };
        self.stages[at.stage].outlined.secrets.entry(id.clone()).or_insert(asked);
        exec.secrets.push(SecretMount {
            id,
            target,
            env: mount.env.clone(),
            uid: mount.uid.unwrap_or_default(),
            gid: mount.gid.unwrap_or_default(),
            mode: mount.mode.unwrap_or(0o400),
            optional: !mount.required,
        });
        Ok(())
    }

    fn ssh(&mut self, at: &At<'_>, mount: &Mount, exec: &mut Exec) -> Result<()> {
        if !mount.source.is_empty() {
            return Err(DockerfileError::user("ssh does not support source"));
        }
        let id = if mount.id.is_empty() { "default" } else { &mount.id };
        let asked = Asked { required: mount.required, lines: at.lines() };
        self.stages[at.stage].outlined.ssh.entry(id.to_owned()).or_insert(asked);
        exec.ssh.push(SshMount {
            id: mount.id.clone(),
            target: (!mount.target.is_empty()).then(|| mount.target.clone()),
            uid: mount.uid.unwrap_or_default(),
            gid: mount.gid.unwrap_or_default(),
            mode: mount.mode.unwrap_or(0o600),
            optional: !mount.required,
        });
        Ok(())
    }
}

/// The first line of a here-document.
fn summary(text: &str) -> String {
    let text = text.trim();
    match text.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => text.to_owned(),
    }
}

/// The words of a RUN with the arguments that were in effect: `|1 A=b /bin/sh -c …`.
fn history(words: &[String], args: &[ArgDefinition], env: &Env) -> String {
    let mut values: Vec<String> = Vec::with_capacity(args.len());
    let mut known: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for arg in args {
        let value = env.value(&arg.key).or(arg.value.as_deref()).unwrap_or_default();
        let pair = format!("{}={value}", arg.key);
        match known.get(arg.key.as_str()) {
            Some(position) => values[*position] = pair,
            None => {
                known.insert(&arg.key, values.len());
                values.push(pair);
            }
        }
    }
    let mut all = Vec::with_capacity(values.len() + words.len() + 1);
    if !values.is_empty() {
        all.push(format!("|{}", values.len()));
        all.append(&mut values);
    }
    all.extend_from_slice(words);
    all.join(" ")
}
