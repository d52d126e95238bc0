//! What went into a result.

use crate::request::{Lent, LocalName, Parameters};
use crate::{AttestError, Measured, redacted};
use crosskit_images::registry::Reference;
use crosskit_platforms::Platform;
use crosskit_sources::Material;
use serde::Serialize;
use std::collections::BTreeMap;

/// What went into a result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capture {
    /// What was asked for.
    pub request: Parameters,
    /// Images.
    pub images: Vec<Image>,
    /// Single blobs of images.
    pub blobs: Vec<Image>,
    /// Repositories.
    pub git: Vec<Git>,
    /// Files from the web.
    pub http: Vec<File>,
    /// Folders of the client.
    pub locals: Vec<LocalName>,
    /// Whether a step could reach a network.
    pub network: bool,
    /// Whether something went into it that nobody knows.
    pub incomplete: bool,
    /// Whether steps reached the network through a proxy only.
    pub proxied: bool,
    /// Requests through it of which it is not known what they have brought.
    pub unknown: Vec<Request>,
    /// What steps have used, by their digests, as far as it is known.
    pub used: BTreeMap<String, Measured>,
}

/// A request of a step of which it is not known what it has brought, as provenance tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Request {
    /// The step.
    pub op: String,
    /// The address that was asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// How it was asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// In a word, why it is not known.
    pub reason: String,
    /// What the step runs.
    pub name: String,
}

/// An image, or a blob of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its full name.
    pub reference: String,
    /// The platform that was asked for.
    pub platform: Option<Platform>,
    /// Its digest; empty if it is not known.
    pub digest: String,
    /// Whether it came from a layout of the client.
    pub local: bool,
}

/// A repository.
#[derive(Debug, Clone, PartialEq)]
pub struct Git {
    /// Its address, with `#ref` where one was asked for.
    pub url: String,
    /// The commit.
    pub commit: String,
    /// The bundle that it was taken from: `scheme://name@digest`.
    pub bundle: Option<String>,
}

/// A file from the web.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Its address.
    pub url: String,
    /// Its digest.
    pub digest: String,
}

fn same_platform(one: Option<&Platform>, other: Option<&Platform>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            (&one.os, &one.architecture, &one.variant, &one.os_version)
                == (&other.os, &other.architecture, &other.variant, &other.os_version)
        }
        _ => false,
    }
}

/// Adds one that nobody has named before; one that is needed is needed even if somebody else could do without.
fn add_lent(all: &mut Vec<Lent>, lent: Lent) {
    match all.iter_mut().find(|known| known.id == lent.id) {
        Some(known) => known.optional &= lent.optional,
        None => all.push(lent),
    }
}

impl Capture {
    /// Adds a source.
    pub fn add(&mut self, material: Material) {
        match material {
            Material::Image { reference, platform, digest, local } => {
                self.add_image(Image { reference, platform, digest, local });
            }
            Material::ImageBlob { reference, digest, local } => {
                self.add_blob(Image { reference, platform: None, digest, local });
            }
            Material::Git { url, commit, bundle, secrets, ssh } => {
                self.add_git(Git { url: redacted(&url), commit, bundle });
                for id in secrets {
                    self.add_secret(&id, true);
                }
                if let Some(id) = ssh {
                    self.add_ssh(&id, true);
                }
            }
            Material::Http { url, digest } => self.add_http(File { url: redacted(&url), digest }),
            Material::Local { name } => self.add_local(LocalName { name }),
        }
    }

    /// Adds an image.
    pub fn add_image(&mut self, image: Image) {
        let same = |known: &Image| {
            known.reference == image.reference
                && known.local == image.local
                && same_platform(known.platform.as_ref(), image.platform.as_ref())
        };
        if !self.images.iter().any(same) {
            self.images.push(image);
        }
    }

    fn add_blob(&mut self, blob: Image) {
        let same = |known: &Image| known.reference == blob.reference && known.local == blob.local;
        if !self.blobs.iter().any(same) {
            self.blobs.push(blob);
        }
    }

    fn add_git(&mut self, git: Git) {
        let same = |known: &Git| known.url == git.url && known.bundle == git.bundle;
        if !self.git.iter().any(same) {
            self.git.push(git);
        }
    }

    fn add_http(&mut self, file: File) {
        if !self.http.iter().any(|known| known.url == file.url) {
            self.http.push(file);
        }
    }

    fn add_local(&mut self, local: LocalName) {
        if !self.locals.contains(&local) {
            self.locals.push(local);
        }
    }

    /// Adds a secret that a step could see.
    pub fn add_secret(&mut self, id: &str, optional: bool) {
        add_lent(&mut self.request.secrets, Lent { id: id.to_string(), optional });
    }

    /// Adds an agent that a step could use.
    pub fn add_ssh(&mut self, id: &str, optional: bool) {
        let id = if id.is_empty() { "default" } else { id };
        add_lent(&mut self.request.ssh, Lent { id: id.to_string(), optional });
    }

    /// Adds what went into something that took part. What its steps have used is not told, as they are not.
    pub fn merge(&mut self, other: Capture) {
        other.images.into_iter().for_each(|image| self.add_image(image));
        other.blobs.into_iter().for_each(|blob| self.add_blob(blob));
        other.git.into_iter().for_each(|git| self.add_git(git));
        other.http.into_iter().for_each(|file| self.add_http(file));
        other.locals.into_iter().for_each(|local| self.add_local(local));
        other.request.secrets.into_iter().for_each(|lent| add_lent(&mut self.request.secrets, lent));
        other.request.ssh.into_iter().for_each(|lent| add_lent(&mut self.request.ssh, lent));
        self.network |= other.network;
        self.incomplete |= other.incomplete;
        self.proxied |= other.proxied;
        self.unknown.extend(other.unknown);
    }

    /// Puts everything in order, and leaves out images by digest that are there by name as well.
    ///
    /// # Errors
    /// A name that is none.
    pub fn settle(&mut self) -> Result<(), AttestError> {
        let mut names = Vec::with_capacity(self.images.len());
        for image in &self.images {
            let parsed = Reference::parse(&image.reference).map_err(|e| AttestError::Reference {
                name: image.reference.clone(),
                reason: e.to_string(),
            })?;
            let tag = parsed.tag().unwrap_or("latest").to_string();
            names.push((format!("{}:{tag}", parsed.repository()), parsed.digest().is_some()));
        }
        let by_name = |name: &str| names.iter().any(|(other, pinned)| other == name && !pinned);
        let keep: Vec<bool> = names.iter().map(|(name, pinned)| !pinned || !by_name(name)).collect();
        let mut keep = keep.into_iter();
        self.images.retain(|_| keep.next().unwrap_or(true));
        self.images.sort_by(|a, b| a.reference.cmp(&b.reference));
        self.blobs.sort_by(|a, b| a.reference.cmp(&b.reference));
        self.git.sort_by(|a, b| a.url.cmp(&b.url));
        self.http.sort_by(|a, b| a.url.cmp(&b.url));
        self.locals.sort_by(|a, b| a.name.cmp(&b.name));
        self.request.secrets.sort_by(|a, b| a.id.cmp(&b.id));
        self.unknown.sort();
        self.unknown.dedup();
        self.request.ssh.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }

    /// Whether everything that went into it is known exactly.
    pub fn is_complete(&self) -> bool {
        !self.incomplete && self.unknown.is_empty() && self.locals.is_empty()
    }
}
