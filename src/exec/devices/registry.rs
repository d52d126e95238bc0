//! Which devices there are, and which of them a name means.

use super::edits::Edits;
use super::spec_file::SpecFile;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Devices with this annotation are also known by its value (BuildKit `cdidevices`).
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Devices with this annotation set to true are for every build (BuildKit `cdidevices`).
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// Why a step doesn't get a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The config says that there are none.
    #[error("CDI devices are disabled on this daemon; remove disabled = true from [cdi] in its config")]
    Disabled,
    /// Nothing is known by that name.
    #[error("required device {0:?} is not registered")]
    Unknown(String),
}

/// What a step asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `vendor/class=name`, `vendor/class` for the first one, `vendor/class=*` for all, or a class by annotation.
    pub name: String,
    /// Whether the step also runs without it.
    pub optional: bool,
}

/// One device.
#[derive(Clone, Debug)]
pub struct Device {
    /// `vendor/class=name`.
    pub name: String,
    /// Whether every build may have it.
    pub auto_allow: bool,
    /// Of the device, over those of its file.
    pub annotations: BTreeMap<String, String>,
    spec: Arc<SpecFile>,
    at: usize,
}

/// The devices of some folders, as they were when they were read.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    devices: BTreeMap<String, Device>,
    problems: Vec<String>,
}

impl Registry {
    /// Reads all files; a folder that isn't there has none.
    pub(super) fn read(folders: &[PathBuf], auto_allowed: &[String]) -> Self {
        let mut registry = Self::default();
        for folder in folders {
            registry.folder(folder, auto_allowed);
        }
        registry
    }

    /// Adds the devices of a folder, which win over those that are there.
    fn folder(&mut self, folder: &Path, auto_allowed: &[String]) {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => return self.problems.push(format!("listing {}: {e}", folder.display())),
        };
        files.retain(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml") && !path.is_dir());
        files.sort();
        let mut here: BTreeMap<String, (Device, PathBuf)> = BTreeMap::new();
        let mut twice = BTreeSet::new();
        for path in files {
            let spec = match SpecFile::read(&path) {
                Ok(spec) => Arc::new(spec),
                Err(why) => {
                    self.problems.push(format!("failed to load CDI Spec {}: {why}", path.display()));
                    continue;
                }
            };
            for at in 0..spec.devices.len() {
                let device = Device::of(Arc::clone(&spec), at, auto_allowed);
                let name = device.name.clone();
                if let Some((_, other)) = here.insert(name.clone(), (device, path.clone())) {
                    let (path, other) = (path.display(), other.display());
                    self.problems
                        .push(format!("conflicting device {name:?} (specs \"{other}\", \"{path}\")"));
                    twice.insert(name);
                }
            }
        }
        for (name, (device, _)) in here {
            match twice.contains(&name) {
                // Nobody can tell which of them is meant, nor that an older one is.
                true => drop(self.devices.remove(&name)),
                false => drop(self.devices.insert(name, device)),
            }
        }
    }

    /// What is wrong with files that don't count.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// All devices, by name.
    pub fn list(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The device of a full name.
    pub fn get(&self, name: &str) -> Option<&Device> {
        self.devices.get(name)
    }

    /// The full names of what is wanted, each once.
    ///
    /// # Errors
    /// The first that isn't there and isn't optional.
    pub fn find(&self, wanted: &[Wanted]) -> Result<Vec<String>, DeviceError> {
        let mut found: Vec<String> = Vec::new();
        for one in wanted {
            let names = self.named(&one.name);
            if names.is_empty() && !one.optional {
                return Err(DeviceError::Unknown(one.name.clone()));
            }
            if names.is_empty() {
                tracing::warn!(device = one.name, "an optional device is not registered");
            }
            for name in names {
                if !found.iter().any(|known| known == name) {
                    found.push(name.to_owned());
                }
            }
        }
        Ok(found)
    }

    fn named(&self, wanted: &str) -> Vec<&str> {
        let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
        let mut found: Vec<&str> = Vec::new();
        if kind.split_once('/').is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty()) {
            let of_kind =
                self.devices.values().filter(|device| device.kind() == kind).map(|d| d.name.as_str());
            found = match name {
                "" => of_kind.take(1).collect(),
                "*" => of_kind.collect(),
                _ => of_kind.filter(|name| *name == wanted).collect(),
            };
        }
        if found.is_empty() {
            let classed =
                |device: &&Device| device.annotations.get(CLASS).is_some_and(|class| class == wanted);
            found = self.devices.values().filter(classed).map(|d| d.name.as_str()).collect();
        }
        found
    }

    /// What has to be changed in a container for devices by their full names: what their files say of all, once, and
    /// what they say of each.
    ///
    /// # Errors
    /// The first that isn't there any more.
    pub fn edits(&self, names: &[String]) -> Result<Edits, DeviceError> {
        let mut edits = Edits::default();
        let mut seen: Vec<&Arc<SpecFile>> = Vec::new();
        for name in names {
            let device = self.get(name).ok_or_else(|| DeviceError::Unknown(name.clone()))?;
            if !seen.iter().any(|spec| Arc::ptr_eq(spec, &device.spec)) {
                seen.push(&device.spec);
                edits.add(&device.spec.container_edits);
            }
            edits.add(&device.spec.devices[device.at].container_edits);
        }
        Ok(edits)
    }
}

impl Device {
    fn of(spec: Arc<SpecFile>, at: usize, auto_allowed: &[String]) -> Self {
        let entry = &spec.devices[at];
        let name = format!("{}={}", spec.kind, entry.name);
        let mut annotations = spec.annotations.clone();
        annotations.extend(entry.annotations.clone());
        // What Go's strconv takes for true.
        let annotated = annotations
            .get(AUTO_ALLOW)
            .is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
        let auto_allow = annotated || auto_allowed.iter().any(|one| *one == name || *one == spec.kind);
        Self { name, auto_allow, annotations, spec, at }
    }

    /// `vendor/class`.
    fn kind(&self) -> &str {
        &self.spec.kind
    }
}
