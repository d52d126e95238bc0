//! What steps are called.

use std::fmt::Write;

use crosskit_api::pb;
use crosskit_llb::Constraints;
use crosskit_platforms::Platform;

use crate::error::Lines;
use crate::plan::{Env, Plan};
use crate::text::expand::{Lexer, Variables};

/// The description that holds the instruction as written.
const COMMAND: &str = "com.docker.dockerfile.v1.command";

/// A platform as the wire has it.
pub(crate) fn to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// Adds the instruction as written.
pub(crate) fn describe(constraints: &mut Constraints, code: &str) {
    constraints.metadata.description.insert(COMMAND.to_owned(), code.to_owned());
}

/// The name of what the frontend does on its own.
pub(crate) fn internal(name: &str) -> Constraints {
    Constraints::default().named(format!("[internal] {name}"))
}

/// An instruction with its variables replaced and its keyword in capitals.
pub(crate) fn shown(lexer: Lexer, code: &str, variables: &dyn Variables) -> String {
    let text = lexer.expand(code, variables).map_or_else(|_| code.to_owned(), |expanded| expanded.text);
    let keyword = text.split(' ').next().unwrap_or_default();
    if keyword.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return text;
    }
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

impl Plan {
    /// Counts a step of a stage: `[linux/arm64 build 2/5] …`.
    pub(super) fn numbered(
        &mut self,
        stage: usize,
        text: &str,
        platform: Option<&Platform>,
        env: Option<&Env>,
    ) -> String {
        let prefix = self.request.options.multi_platform.then_some(platform).flatten();
        let stage = &mut self.stages[stage];
        if stage.steps == 0 {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len() + stage.shown.len() + 48);
        out.push('[');
        if let Some(platform) = prefix {
            out.push_str(&platform.format_all());
            if let Some(target) = env.and_then(|env| target_of(platform, env)) {
                out.push_str(&arrow(platform, target));
            }
            out.push(' ');
        }
        if !stage.shown.is_empty() {
            out.push_str(&stage.shown);
            out.push(' ');
        }
        stage.step += 1;
        let width = stage.steps.ilog10() as usize + 1;
        write!(out, "{:>width$}/{}] ", stage.step, stage.steps).unwrap_or_default();
        if stage.in_trigger {
            out.push_str("ONBUILD ");
        }
        out.push_str(text);
        out
    }

    /// With the place in the Dockerfile.
    pub(super) fn located(&self, mut constraints: Constraints, lines: Lines) -> Constraints {
        constraints.locations.push(crosskit_llb::SourceLocation {
            file: self.request.source.clone(),
            ranges: if lines.first == 0 { Vec::new() } else { lines.to_ranges() },
        });
        constraints
    }

    /// An id that nothing else has.
    pub(super) fn unique_id(&mut self) -> String {
        self.next_id += 1;
        let Plan { next_id, target_platform, request, .. } = self;
        let seed = format!("{}/{target_platform}/{next_id}", request.options.environment.unique);
        let digest = crosskit_llb::Digest::of(seed.as_bytes()).to_string();
        digest["sha256:".len()..][..25].to_owned()
    }
}

/// The platform that variables tell a compiler to build for, where it is another than that of the step.
fn target_of(own: &Platform, env: &Env) -> Option<Platform> {
    let same = |name: &str, own: &str| env.value(name).is_none_or(|value| value == own);
    if env.value("TARGETPLATFORM").is_none()
        && same("TARGETOS", &own.os)
        && same("TARGETARCH", &own.architecture)
    {
        return None;
    }
    let mut platform = Platform::default();
    let mut any = false;
    for key in env.keys() {
        let value = || env.value(key).unwrap_or_default().to_owned();
        match key {
            "TARGETPLATFORM" => match Platform::parse(&value()) {
                Ok(platform) => return Some(platform),
                Err(_) => continue,
            },
            "TARGETOS" => platform.os = value(),
            "TARGETARCH" => platform.architecture = value(),
            "TARGETVARIANT" => platform.variant = value(),
            _ => continue,
        }
        any = true;
    }
    any.then_some(platform)
}

/// `->arm64` behind the platform of a step that builds for another one.
fn arrow(base: &Platform, mut target: Platform) -> String {
    if target.os.is_empty() {
        target.os.clone_from(&base.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&base.architecture);
    }
    let target = target.normalize();
    if target.os != base.os {
        return format!("->{}", target.format_all());
    }
    match (target.architecture == base.architecture, target.variant.as_str()) {
        (true, _) => String::new(),
        (false, "") => format!("->{}", target.architecture),
        (false, variant) => format!("->{}/{variant}", target.architecture),
    }
}
