//! `RUN --mount=…`.

use crosskit_api::pb::CacheSharingOpt;

use crate::error::{DockerfileError, Result};
use crate::text::{csv, units};

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named for the values of type=")]
pub enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];

const SHARING: [(&str, CacheSharingOpt); 3] = [
    ("shared", CacheSharingOpt::Shared),
    ("private", CacheSharingOpt::Private),
    ("locked", CacheSharingOpt::Locked),
];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountType {
    fn name(self) -> &'static str {
        TYPES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// The flag as written. Only `from` is known before variables have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    fields: Vec<String>,
    /// The stage or image that is mounted.
    pub from: String,
}

/// The flag with its variables replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named for the keys")]
pub struct Mount {
    pub kind: MountType,
    pub from: String,
    pub source: String,
    pub target: String,
    pub readonly: bool,
    pub size: i64,
    pub id: String,
    pub sharing: Option<CacheSharingOpt>,
    pub required: bool,
    pub env: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(DockerfileError::user(message))
}

fn cut(field: &str) -> (String, Option<&str>) {
    match field.split_once('=') {
        Some((key, value)) => (key.to_lowercase(), Some(value)),
        None => (field.to_lowercase(), None),
    }
}

impl MountFlag {
    /// Takes the value of the flag apart.
    pub fn parse(value: &str) -> Result<MountFlag> {
        let fields = csv::fields(value)
            .map_err(|error| DockerfileError::user(format!("failed to parse csv mounts: {error}")))?;
        let mut from = String::new();
        for field in &fields {
            let (key, value) = cut(field);
            if let ("from", Some(value)) = (key.as_str(), value) {
                if value.find('$').is_some_and(|at| at + 1 < value.len()) {
                    return fail(format!(
                        "'{key}' doesn't support variable expansion, define alias stage instead"
                    ));
                }
                value.clone_into(&mut from);
            }
        }
        Ok(MountFlag { fields, from })
    }

    /// Replaces variables and checks the whole.
    pub fn resolve(&self, mut expand: impl FnMut(&str) -> Result<String>) -> Result<Mount> {
        let mut mount = Mount::default();
        let mut readonly = None;
        for field in &self.fields {
            let (key, value) = cut(field);
            match value {
                None => match key.as_str() {
                    "readonly" | "ro" => readonly = Some(true),
                    "readwrite" | "rw" => readonly = Some(false),
                    "required" => mount.set("required", "true", field, &mut readonly)?,
                    _ => return fail(format!("invalid field '{field}' must be a key=value pair")),
                },
                Some(value) => mount.set(&key, &expand(value)?, field, &mut readonly)?,
            }
        }
        mount.readonly = readonly.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
        mount.check()?;
        Ok(mount)
    }
}

impl Mount {
    fn set(&mut self, key: &str, value: &str, field: &str, readonly: &mut Option<bool>) -> Result<()> {
        let switch = || match units::go_bool(value) {
            Some(on) => Ok(on),
            None => fail(format!("invalid value for {key}: {value}")),
        };
        let number = |radix| match u32::from_str_radix(value, radix) {
            Ok(number) if !value.starts_with('+') => Ok(Some(number)),
            _ => fail(format!("invalid value {value} for {key}")),
        };
        let unexpected =
            |kind: MountType| fail(format!("unexpected key '{key}' for mount type '{}'", kind.name()));
        match key {
            "type" => match TYPES.iter().find(|(name, _)| *name == value.to_lowercase()) {
                Some((_, kind)) => self.kind = *kind,
                None => {
                    let error = DockerfileError::user(format!(
                        "unsupported mount type {}",
                        crate::text::quote::go_quote(value)
                    ));
                    return Err(error.suggest(value, TYPES.iter().map(|(name, _)| *name)));
                }
            },
            "from" => value.clone_into(&mut self.from),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => *readonly = Some(switch()?),
            "readwrite" | "rw" => *readonly = Some(!switch()?),
            "required" => match self.kind {
                MountType::Secret | MountType::Ssh => self.required = switch()?,
                kind => return unexpected(kind),
            },
            "size" => match (self.kind, units::bytes(value)) {
                (MountType::Tmpfs, Some(size)) => self.size = size,
                (MountType::Tmpfs, None) => return fail(format!("invalid value for {key}: {value}")),
                (kind, _) => return unexpected(kind),
            },
            "id" => value.clone_into(&mut self.id),
            "sharing" => match SHARING.iter().find(|(name, _)| *name == value.to_lowercase()) {
                Some((_, sharing)) => self.sharing = Some(*sharing),
                None => {
                    let error = DockerfileError::user(format!(
                        "unsupported sharing value {}",
                        crate::text::quote::go_quote(value)
                    ));
                    return Err(error.suggest(value, SHARING.iter().map(|(name, _)| *name)));
                }
            },
            "mode" => self.mode = number(8)?,
            "uid" => self.uid = number(10)?,
            "gid" => self.gid = number(10)?,
            "env" => self.env = Some(value.to_owned()),
            _ => {
                let error = DockerfileError::user(format!("unexpected key '{key}' in '{field}'"));
                return Err(error.suggest(key, KEYS));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let kind = self.kind.name();
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            for (key, value) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if value.is_some() {
                    return fail(format!("{key} not allowed for \"{kind}\" type mounts"));
                }
            }
        }
        if self.kind == MountType::Secret {
            if !self.from.is_empty() {
                return fail("secret mount should not have a from");
            }
            if self.sharing.is_some() {
                return fail("secret mount should not define sharing");
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return fail("invalid secret mount. one of source, target required");
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return fail("both source and id can't be set");
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return fail(format!("invalid cache sharing set for {kind} mount"));
        }
        Ok(())
    }
}
