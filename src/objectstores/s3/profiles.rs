//! AWS's files `config` and `credentials`.

use super::credentials::Credentials;
use crate::environment::Environment;
use crate::error::{Result, StoreError};
use std::collections::BTreeMap;
use std::path::Path;

/// All profiles of both files.
pub(super) struct Profiles {
    all: BTreeMap<String, Profile>,
}

/// A profile's settings.
#[derive(Clone, Default)]
pub(super) struct Profile {
    pub name: String,
    settings: BTreeMap<String, String>,
}

/// What a profile's credentials stand on.
pub(super) enum Base {
    Nothing,
    Keys(Credentials),
    Environment,
    Instance,
    Container,
    Process(String),
    WebIdentity { file: String, role: String, session: Option<String> },
    Profile(String),
}

/// A role that is taken on.
pub(super) struct Role<'a> {
    pub arn: &'a str,
    pub session: Option<&'a str>,
    pub external_id: Option<&'a str>,
}

impl Profiles {
    /// Reads the files that are there.
    pub async fn read(environment: &Environment) -> Result<Self> {
        let config = environment.file("AWS_CONFIG_FILE", ".aws/config");
        let credentials = environment.file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        let mut profiles = Profiles { all: BTreeMap::new() };
        for (path, named) in [(config, true), (credentials, false)] {
            let Some(path) = path else { continue };
            profiles.add(&text(&path).await?, named);
        }
        Ok(profiles)
    }

    /// Takes a file in; what it says counts more than what was said before. In `config`, profiles are `named` so.
    fn add(&mut self, text: &str, named: bool) {
        let mut name = None;
        for line in text.lines() {
            if let Some(section) = line.trim_end().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                let section = section.trim();
                name = match section.strip_prefix("profile ") {
                    Some(profile) => Some(profile.trim()),
                    None => Some(section).filter(|section| !named || *section == "default"),
                };
                continue;
            }
            // What is set in is a part of the setting before it.
            let comment = line.starts_with(['#', ';', ' ', '\t']);
            let (Some(name), Some((key, value))) = (name, line.split_once('=').filter(|_| !comment)) else {
                continue;
            };
            let profile = self.all.entry(name.to_owned()).or_default();
            name.clone_into(&mut profile.name);
            let value = value.split(" #").next().unwrap_or_default().trim();
            profile.settings.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }

    /// The profile that the environment names, or the usual one if it is there.
    pub fn chosen(&self, environment: &Environment) -> Result<Option<Profile>> {
        let Some(name) = environment.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]) else {
            return Ok(self.get("default").cloned());
        };
        match self.get(&name) {
            Some(profile) => Ok(Some(profile.clone())),
            None => Err(StoreError::Credentials(format!(
                "the AWS profile {name:?} is in no file of the daemon's"
            ))),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.all.get(name)
    }
}

async fn text(path: &Path) -> Result<String> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => {
            Err(StoreError::File { doing: format!("read {} for AWS credentials", path.display()), source })
        }
    }
}

impl Profile {
    fn get(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The keys in it.
    pub fn keys(&self) -> Option<Credentials> {
        Some(Credentials {
            access_key_id: self.get("aws_access_key_id")?.to_owned(),
            secret_access_key: self.get("aws_secret_access_key")?.to_owned(),
            session_token: self.get("aws_session_token").map(str::to_owned),
            expires: None,
        })
    }

    /// The role that is to be taken on.
    pub fn role(&self) -> Option<Role<'_>> {
        let arn = self.get("role_arn")?;
        Some(Role { arn, session: self.get("role_session_name"), external_id: self.get("external_id") })
    }

    /// What the credentials stand on, in the order of AWS's tools; or what can't be used here.
    pub fn base(&self) -> Result<Base, String> {
        if let Some(name) = self.get("source_profile").filter(|_| self.get("role_arn").is_some()) {
            return Ok(Base::Profile(name.to_owned()));
        }
        if let Some(keys) = self.keys() {
            return Ok(Base::Keys(keys));
        }
        match self.get("credential_source") {
            Some("Environment") => return Ok(Base::Environment),
            Some("Ec2InstanceMetadata") => return Ok(Base::Instance),
            Some("EcsContainer") => return Ok(Base::Container),
            Some(other) => return Err(format!("there is no credential_source {other:?}")),
            None => {}
        }
        if let (Some(file), Some(role)) = (self.get("web_identity_token_file"), self.get("role_arn")) {
            let session = self.get("role_session_name").map(str::to_owned);
            return Ok(Base::WebIdentity { file: file.to_owned(), role: role.to_owned(), session });
        }
        if self.settings.keys().any(|key| key.starts_with("sso_")) {
            return Err("SSO needs a person to log in; give the daemon keys or a role".to_owned());
        }
        match self.get("credential_process") {
            Some(command) => Ok(Base::Process(command.to_owned())),
            None => Ok(Base::Nothing),
        }
    }
}
