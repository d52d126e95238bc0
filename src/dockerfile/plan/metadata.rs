//! Instructions that change the image's configuration only.

use std::time::Duration;

use crosskit_llb::{Chown, Constraints, FileActionSpec, MkdirAction};

use crate::error::{DockerfileError, Lines, Result};
use crate::image::{Empty, HealthcheckConfig, History};
use crate::instruction::{CommandLine, Healthcheck, KeyValue};
use crate::lint::{Rule, rules};
use crate::plan::dispatch::At;
use crate::plan::{Plan, names, paths, signals};
use crate::text::quote::{go_duration, go_quote_list};

/// Who made an entry of the history.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

impl Plan {
    /// Adds to the history of a stage.
    pub(super) fn commit(&mut self, stage: usize, created_by: String, layer: bool) {
        let created = self.epoch.map(rfc3339).unwrap_or_default();
        self.stages[stage].history.push(History {
            created,
            created_by,
            comment: HISTORY_COMMENT.into(),
            empty_layer: !layer,
            ..History::default()
        });
    }

    pub(super) fn env(&mut self, at: &At<'_>, pairs: &[KeyValue]) -> Result<()> {
        let mut said = String::from("ENV");
        for KeyValue { key, value, no_delimiter } in &self.expand_pairs(at, pairs)? {
            if *no_delimiter {
                self.legacy_pair(at);
            }
            if rules::looks_secret(key) {
                let message = rules::secrets_used_in_arg_or_env("ENV", key);
                at.lint.warn(&rules::SECRETS_USED_IN_ARG_OR_ENV, at.lines(), message);
            }
            said.push_str(&format!(" {key}={value}"));
            self.stages[at.stage].fs.env.set(key, value);
            self.image_mut(at.stage).set_env(key, value);
        }
        self.commit(at.stage, said, false);
        Ok(())
    }

    fn expand_pairs(&self, at: &At<'_>, pairs: &[KeyValue]) -> Result<Vec<KeyValue>> {
        let expand = |pair: &KeyValue| {
            Ok(KeyValue {
                key: self.expand(at, &pair.key)?,
                value: self.expand(at, &pair.value)?,
                no_delimiter: pair.no_delimiter,
            })
        };
        pairs.iter().map(expand).collect()
    }

    fn legacy_pair(&self, at: &At<'_>) {
        let message = rules::legacy_key_value_format(&at.instruction.keyword);
        at.lint.warn(&rules::LEGACY_KEY_VALUE_FORMAT, at.lines(), message);
    }

    pub(super) fn label(&mut self, at: &At<'_>, pairs: &[KeyValue]) -> Result<()> {
        let mut said = String::from("LABEL");
        for KeyValue { key, value, no_delimiter } in self.expand_pairs(at, pairs)? {
            if no_delimiter {
                self.legacy_pair(at);
            }
            said.push_str(&format!(" {key}={value}"));
            self.image_mut(at.stage).config.labels.insert(key, value);
        }
        self.commit(at.stage, said, false);
        Ok(())
    }

    pub(super) fn maintainer(&mut self, at: &At<'_>, name: &str) {
        name.clone_into(&mut self.image_mut(at.stage).author);
        self.commit(at.stage, format!("MAINTAINER {name}"), false);
    }

    pub(super) fn user(&mut self, at: &At<'_>, user: String) {
        self.stages[at.stage].fs.user.clone_from(&user);
        let said = format!("USER {user}");
        self.image_mut(at.stage).config.user = user;
        self.commit(at.stage, said, false);
    }

    /// Changes the working directory without a step. Returns it with slashes.
    pub(super) fn set_workdir(&mut self, stage: usize, path: &str) -> Result<String> {
        let os = self.stages[stage].platform.as_ref().map_or_else(String::new, |p| p.os.clone());
        let workdir = paths::workdir(&self.stages[stage].image.config.working_dir, path, &os)?;
        let slashed = paths::to_slash(&workdir, &os).into_owned();
        if self.stages[stage].image.config.working_dir != workdir {
            self.image_mut(stage).config.working_dir = workdir;
        }
        self.stages[stage].fs.dir.clone_from(&slashed);
        Ok(slashed)
    }

    pub(super) fn workdir(&mut self, at: &At<'_>, path: &str) -> Result<()> {
        let platform = self.platform_of(at.stage);
        if !self.stages[at.stage].workdir_set && !paths::is_absolute(path, &platform.os) {
            let message = rules::workdir_relative_path(path);
            at.lint.warn(&rules::WORKDIR_RELATIVE_PATH, at.lines(), message);
        }
        self.stages[at.stage].workdir_set = true;
        let workdir = self.set_workdir(at.stage, path)?;
        let layer = workdir != "/";
        if layer {
            let env = self.stages[at.stage].fs.env.clone();
            let name = names::shown(self.lexer, &at.instruction.code, &env);
            let name = self.numbered(at.stage, &name, Some(&platform), Some(&env));
            let user = &self.stages[at.stage].image.config.user;
            let action = MkdirAction {
                path: workdir.clone(),
                mode: 0o755,
                make_parents: true,
                owner: (!user.is_empty()).then(|| Chown::parse(user)),
                timestamp: self.timestamp(),
            };
            let constraints = self.located(Constraints::default().named(name), at.lines());
            let base = self.stages[at.stage].fs.output;
            let output = self.builder.file(base, vec![FileActionSpec::Mkdir(action)], constraints);
            self.stages[at.stage].fs.output = Some(output);
        }
        self.commit(at.stage, format!("WORKDIR {workdir}"), layer);
        Ok(())
    }

    /// The time that files get, in nanoseconds.
    fn timestamp(&self) -> Option<i64> {
        self.epoch.map(|seconds| seconds.saturating_mul(1_000_000_000))
    }

    pub(super) fn platform_of(&self, stage: usize) -> crosskit_platforms::Platform {
        self.stages[stage].platform.clone().unwrap_or_else(|| self.target_platform.clone())
    }

    pub(super) fn volume(&mut self, at: &At<'_>, volumes: &[String]) -> Result<()> {
        let mut expanded = Vec::with_capacity(volumes.len());
        for volume in volumes {
            expanded.push(self.expand(at, volume)?);
        }
        if expanded.iter().any(String::is_empty) {
            return Err(DockerfileError::user("VOLUME specified can not be an empty string"));
        }
        let said = format!("VOLUME [{}]", expanded.join(" "));
        let volumes = expanded.into_iter().map(|volume| (volume, Empty));
        self.image_mut(at.stage).config.volumes.extend(volumes);
        self.commit(at.stage, said, false);
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, at: &At<'_>, signal: String) -> Result<()> {
        if !signals::is_signal(&signal) {
            return Err(DockerfileError::user(format!("invalid signal: {signal}")));
        }
        let said = format!("STOPSIGNAL {signal}");
        self.image_mut(at.stage).config.stop_signal = signal;
        self.commit(at.stage, said, false);
        Ok(())
    }

    pub(super) fn shell(&mut self, at: &At<'_>, words: &[String]) {
        self.image_mut(at.stage).config.shell = words.to_vec();
        self.commit(at.stage, format!("SHELL [{}]", words.join(" ")), false);
    }

    /// The words with the shell in front.
    pub(super) fn with_shell(&self, stage: usize, words: &[String]) -> Vec<String> {
        let image = &self.stages[stage].image;
        let mut all = match image.config.shell.as_slice() {
            [] if image.platform.os == "windows" => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
            [] => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
            shell => shell.to_vec(),
        };
        all.push(words.join(" "));
        all
    }

    fn command_words(&self, at: &At<'_>, line: &CommandLine) -> Vec<String> {
        if !line.shell {
            return line.words.clone();
        }
        if self.stages[at.stage].image.config.shell.is_empty() {
            let message = rules::json_args_recommended(&at.instruction.keyword);
            at.lint.warn(&rules::JSON_ARGS_RECOMMENDED, at.lines(), message);
        }
        self.with_shell(at.stage, &line.words)
    }

    pub(super) fn cmd(&mut self, at: &At<'_>, line: &CommandLine) {
        let before = self.stages[at.stage].cmd_at.replace(at.lines());
        warn_twice(at, before);
        let words = self.command_words(at, line);
        let said = format!("CMD {}", go_quote_list(&words));
        let config = &mut self.image_mut(at.stage).config;
        config.cmd = words;
        config.args_escaped = true;
        self.commit(at.stage, said, false);
    }

    pub(super) fn entrypoint(&mut self, at: &At<'_>, line: &CommandLine) {
        let before = self.stages[at.stage].entrypoint_at.replace(at.lines());
        warn_twice(at, before);
        let words = self.command_words(at, line);
        let said = format!("ENTRYPOINT {}", go_quote_list(&words));
        let keep_cmd = self.stages[at.stage].cmd_at.is_some();
        let config = &mut self.image_mut(at.stage).config;
        config.entrypoint = words;
        if !keep_cmd {
            config.cmd.clear();
        }
        self.commit(at.stage, said, false);
    }

    pub(super) fn healthcheck(&mut self, at: &At<'_>, health: &Healthcheck) {
        let before = self.stages[at.stage].healthcheck_at.replace(at.lines());
        warn_twice(at, before);
        let time = |duration: Duration| go_duration(duration);
        let said = format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            health.test.join(" "),
            time(health.interval),
            time(health.timeout),
            time(health.start_period),
            time(health.start_interval),
            health.retries
        );
        self.image_mut(at.stage).config.healthcheck = Some(HealthcheckConfig::new(health));
        self.commit(at.stage, said, false);
    }
}

/// Warns at the one before, which does not count.
fn warn_twice(at: &At<'_>, before: Option<Lines>) {
    static RULE: &Rule = &rules::MULTIPLE_INSTRUCTIONS_DISALLOWED;
    if let Some(before) = before {
        at.lint.warn(RULE, before, rules::multiple_instructions_disallowed(&at.instruction.keyword));
    }
}

/// Seconds since 1970 as text.
pub(super) fn rfc3339(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
