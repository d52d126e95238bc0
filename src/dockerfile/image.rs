//! The configuration of an image, with the bytes that BuildKit writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crosskit_llb::json::{GoJson, Object};
use crosskit_platforms::Platform;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

/// What an image says of itself: OCI image-spec 1.1 §config with Docker's additions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Image {
    /// When it was made, in RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub created: String,
    /// Who made it.
    #[serde(deserialize_with = "or_default")]
    pub author: String,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// How it runs.
    #[serde(deserialize_with = "or_default")]
    pub config: Config,
    /// Its layers.
    #[serde(deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// What was done.
    #[serde(deserialize_with = "or_default")]
    pub history: Vec<History>,
}

/// How an image runs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "named by the specification")]
pub struct Config {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "keys")]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    #[serde(deserialize_with = "or_default")]
    pub args_escaped: bool,
    #[serde(deserialize_with = "or_default")]
    pub healthcheck: Option<HealthcheckConfig>,
    #[serde(deserialize_with = "or_default")]
    pub on_build: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub shell: Vec<String>,
}

/// How its health is checked; times in nanoseconds, 0 for the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "named by the specification")]
pub struct HealthcheckConfig {
    #[serde(deserialize_with = "or_default")]
    pub test: Vec<String>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Digests of the unpacked layers; none where the list itself is missing.
    pub diff_ids: Option<Vec<String>>,
}

/// One thing that was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named by the specification")]
pub struct History {
    #[serde(deserialize_with = "or_default")]
    pub created: String,
    #[serde(deserialize_with = "or_default")]
    pub created_by: String,
    #[serde(deserialize_with = "or_default")]
    pub author: String,
    #[serde(deserialize_with = "or_default")]
    pub comment: Cow<'static, str>,
    #[serde(deserialize_with = "or_default")]
    pub empty_layer: bool,
}

/// The value of a set's member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Empty;

impl GoJson for Empty {
    fn fields(&self, _: &mut Object<'_>) {}
}

/// Go programs write `null` for what is not there.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Empty>, D::Error> {
    let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(from)?.unwrap_or_default();
    Ok(map.into_keys().map(|key| (key, Empty)).collect())
}

/// A time as Go writes it: a fraction without zeros at its end.
fn go_time(time: &str) -> String {
    let Some((head, tail)) = time.split_once('.') else {
        return time.to_owned();
    };
    let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
    match tail[..digits].trim_end_matches('0') {
        "" => format!("{head}{}", &tail[digits..]),
        fraction => format!("{head}.{fraction}{}", &tail[digits..]),
    }
}

impl Image {
    /// That of an empty filesystem.
    pub fn empty(platform: &Platform) -> Image {
        let mut image = Image { platform: platform.clone(), ..Image::default() };
        image.rootfs.kind = "layers".to_owned();
        image.config.working_dir = "/".to_owned();
        if platform.os != "windows" {
            image.config.env = vec![format!("PATH={}", default_path(&platform.os))];
        }
        image
    }

    /// The bytes of the configuration.
    pub fn to_json(&self) -> Vec<u8> {
        crosskit_llb::json::to_string(self).into_bytes()
    }

    /// Sets a variable where it is, or behind the others.
    pub fn set_env(&mut self, key: &str, value: &str) {
        let pair = format!("{key}={value}");
        let env = &mut self.config.env;
        match env.iter_mut().find(|old| old.split('=').next() == Some(key)) {
            Some(old) => *old = pair,
            None => env.push(pair),
        }
    }
}

/// Where programs are looked for when an image does not say.
pub fn default_path(os: &str) -> &'static str {
    match os {
        "windows" => "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0",
        _ => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
}

impl HealthcheckConfig {
    /// Of an instruction.
    pub(crate) fn new(health: &crate::instruction::Healthcheck) -> Self {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        HealthcheckConfig {
            test: health.test.clone(),
            interval: nanos(health.interval),
            timeout: nanos(health.timeout),
            start_period: nanos(health.start_period),
            start_interval: nanos(health.start_interval),
            retries: i64::from(health.retries),
        }
    }
}

impl GoJson for Image {
    fn fields(&self, o: &mut Object<'_>) {
        o.string("created", &go_time(&self.created));
        o.string("author", &self.author);
        o.string_always("architecture", &self.platform.architecture);
        o.string_always("os", &self.platform.os);
        o.string("os.version", &self.platform.os_version);
        o.strings("os.features", &self.platform.os_features);
        o.string("variant", &self.platform.variant);
        o.object("rootfs", Some(&self.rootfs));
        o.objects("history", &self.history);
        o.object("config", Some(&self.config));
    }
}

impl GoJson for RootFs {
    fn fields(&self, o: &mut Object<'_>) {
        o.string_always("type", &self.kind);
        o.strings_or_null("diff_ids", self.diff_ids.as_deref());
    }
}

impl GoJson for History {
    fn fields(&self, o: &mut Object<'_>) {
        o.string("created", &go_time(&self.created));
        o.string("created_by", &self.created_by);
        o.string("author", &self.author);
        o.string("comment", &self.comment);
        o.flag("empty_layer", self.empty_layer);
    }
}

impl GoJson for Config {
    fn fields(&self, o: &mut Object<'_>) {
        o.string("User", &self.user);
        o.object_map("ExposedPorts", &self.exposed_ports);
        o.strings("Env", &self.env);
        o.strings("Entrypoint", &self.entrypoint);
        o.strings("Cmd", &self.cmd);
        o.object_map("Volumes", &self.volumes);
        o.string("WorkingDir", &self.working_dir);
        o.string_map("Labels", &self.labels);
        o.string("StopSignal", &self.stop_signal);
        o.flag("ArgsEscaped", self.args_escaped);
        o.object("Healthcheck", self.healthcheck.as_ref());
        o.strings("OnBuild", &self.on_build);
        o.strings("Shell", &self.shell);
    }
}

impl GoJson for HealthcheckConfig {
    fn fields(&self, o: &mut Object<'_>) {
        o.strings("Test", &self.test);
        o.number("Interval", self.interval);
        o.number("Timeout", self.timeout);
        o.number("StartPeriod", self.start_period);
        o.number("StartInterval", self.start_interval);
        o.number("Retries", self.retries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_survives() {
        let json = r#"{"created":"2024-01-02T03:04:05.5Z","architecture":"arm","os":"linux","variant":"v7","rootfs":{"type":"layers","diff_ids":["sha256:aa"]},"history":[{"created_by":"x \u0026","empty_layer":true}],"config":{"ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Healthcheck":{"Test":["NONE"],"Interval":5},"Shell":["sh"]}}"#;
        let image: Image = serde_json::from_str(json).unwrap();
        assert_eq!(String::from_utf8(image.to_json()).unwrap(), json);
    }

    #[test]
    fn nulls_and_unknown_fields_are_fine() {
        let json = r#"{"docker_version":"1","created":"2024-01-02T03:04:05.000Z","config":{"Env":null,"Volumes":null},"container_config":{},"rootfs":{"type":"layers"}}"#;
        let image: Image = serde_json::from_str(json).unwrap();
        let want = r#"{"created":"2024-01-02T03:04:05Z","architecture":"","os":"","rootfs":{"type":"layers","diff_ids":null},"config":{}}"#;
        assert_eq!(String::from_utf8(image.to_json()).unwrap(), want);
    }
}
