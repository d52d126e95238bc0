//! The arguments in front of the first FROM.

use std::collections::{BTreeMap, BTreeSet};

use crosskit_platforms::Platform;
use indexmap::IndexMap;

use crate::error::{DockerfileError, Result};
use crate::instruction::{Dockerfile, Kind, Stage};
use crate::lint::{Linter, casing, rules};
use crate::plan::Request;
use crate::plan::env::{Env, automatic_args};
use crate::plan::outline::ArgInfo;
use crate::reference::Reference;
use crate::text::expand::Lexer;

/// They, with their values.
#[derive(Debug, Clone)]
pub(crate) struct Globals {
    pub(crate) args: Env,
    pub(crate) declared: IndexMap<String, ArgInfo>,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) build_platform: Platform,
    pub(crate) target_platform: Platform,
    pub(crate) epoch: Option<i64>,
}

/// The argument that says which time all files and the image get.
pub(crate) const EPOCH_ARG: &str = "SOURCE_DATE_EPOCH";

impl Globals {
    pub(crate) fn new(request: &Request) -> Result<Globals> {
        let Request { options, file, linter, .. } = request;
        let Some(last) = file.stages.last() else {
            return Err(DockerfileError::user("dockerfile contains no stages to build"));
        };
        casing::stage_names(&file.stages, linter);
        casing::keywords(&file.stages, linter);
        let build_platform = options.environment.build_platform.clone();
        let target_platform = request.target_platform.clone().unwrap_or_else(|| build_platform.clone());
        let target = if options.target.is_empty() { &last.name } else { &options.target };
        let lexer = Lexer::new(file.escape);
        let automatic = automatic_args(&build_platform, &target_platform, target, &options.build_args);
        if linter.listens() {
            check_defaults(&file.stages, file, &automatic, lexer, linter);
        }
        let (args, declared) = evaluate(file, automatic, lexer, &options.build_args)?;
        let build_args = options.build_args.clone();
        Ok(Globals { args, declared, build_args, build_platform, target_platform, epoch: None })
    }

    /// What the build or the file says about the time of files.
    pub(crate) fn epoch_value(&self) -> Option<&str> {
        let given = self.build_args.get(EPOCH_ARG).map(String::as_str);
        given.or_else(|| self.args.value(EPOCH_ARG).filter(|value| !value.is_empty()))
    }

    /// Fixes the time, once it is known what it was said to be.
    pub(crate) fn set_epoch(&mut self, epoch: Option<i64>) {
        if self.epoch_value().is_none() {
            return;
        }
        self.epoch = epoch;
        match epoch {
            Some(seconds) => {
                if let Some(value) = self.build_args.get_mut(EPOCH_ARG) {
                    *value = seconds.to_string();
                }
                if self.args.value(EPOCH_ARG).is_some() {
                    self.args.set(EPOCH_ARG, &seconds.to_string());
                }
            }
            None => {
                self.build_args.remove(EPOCH_ARG);
                self.args.remove(EPOCH_ARG);
            }
        }
    }
}

fn evaluate(
    file: &Dockerfile,
    mut args: Env,
    lexer: Lexer,
    build_args: &BTreeMap<String, String>,
) -> Result<(Env, IndexMap<String, ArgInfo>)> {
    let mut declared: IndexMap<String, ArgInfo> = IndexMap::new();
    for instruction in &file.global_args {
        let Kind::Arg(definitions) = &instruction.kind else {
            continue;
        };
        for definition in definitions {
            let mut deps = BTreeSet::new();
            let value = match (build_args.get(&definition.key), &definition.value) {
                (Some(value), _) => Some(value.clone()),
                (None, None) => None,
                (None, Some(default)) => {
                    let expanded =
                        lexer.expand(default, &args).map_err(|error| error.at(instruction.lines))?;
                    deps = expanded.matched;
                    if deps.remove(&definition.key)
                        && let Some(old) = declared.get(&definition.key)
                    {
                        deps.extend(old.deps.iter().cloned());
                    }
                    Some(expanded.text)
                }
            };
            if let Some(value) = &value {
                args.set(&definition.key, value);
            }
            let info = ArgInfo {
                value: value.unwrap_or_default(),
                doc: definition.doc.clone(),
                deps,
                lines: instruction.lines,
            };
            declared.insert(definition.key.clone(), info);
        }
    }
    Ok((args, declared))
}

/// Warns of bases that are none when no argument is given.
fn check_defaults(stages: &[Stage], file: &Dockerfile, automatic: &Env, lexer: Lexer, linter: &Linter) {
    let Ok((args, _)) = evaluate(file, automatic.clone(), lexer, &BTreeMap::new()) else {
        return;
    };
    for stage in stages {
        let Ok(expanded) = lexer.expand(&stage.base, &args) else {
            return;
        };
        if Reference::parse(&expanded.text).is_err() {
            let message = rules::invalid_default_arg_in_from(&stage.base);
            linter.warn(&rules::INVALID_DEFAULT_ARG_IN_FROM, stage.lines, message);
        }
    }
}
