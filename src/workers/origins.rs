//! Where inputs come from, for those who would bring them elsewhere: a worker can pull an image
//! itself, and needs of a client's folder only what has changed.

use crosskit_api::pb;
use crosskit_llb::Digest;
use indexmap::IndexMap;
use sha2::Digest as _;
use std::sync::{Arc, Mutex, PoisonError};

/// How many are remembered. One that is not is only brought by a longer way.
const REMEMBERED: usize = 4096;

/// What a source stood for when a build last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An image of a registry.
    Image {
        /// Its name.
        name: String,
        /// The digest that the name stood for.
        digest: String,
        /// The digest as a part of the name.
        pinned: String,
    },
    /// A folder of a client.
    Folder {
        /// Stays the same from build to build, other than the folder's content.
        key: String,
    },
}

/// The origins of sources, by their vertices. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<Mutex<IndexMap<Digest, Origin>>>);

impl Origins {
    /// What a vertex stood for when it was last looked at.
    pub fn of(&self, vertex: &Digest) -> Option<Origin> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(vertex).cloned()
    }

    /// Notes what a vertex stands for.
    pub fn note(&self, vertex: Digest, origin: Origin) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED && !known.contains_key(&vertex) {
            known.shift_remove_index(0);
        }
        known.insert(vertex, origin);
    }
}

impl Origin {
    /// Of a source that was found to stand for `pin`. `client` is the key that the client's
    /// sessions have in common. None for sources that are best brought as they are.
    pub fn of(op: &pb::SourceOp, pin: &str, client: &str) -> Option<Origin> {
        let (scheme, name) = op.identifier.split_once("://")?;
        match scheme {
            // Without a part of its layers it is no longer what the name stands for.
            "docker-image" if !op.attrs.contains_key("image.layerlimit") => {
                let pinned = match name.contains('@') {
                    true => name.to_string(),
                    false => format!("{name}@{pin}"),
                };
                Some(Origin::Image { name: name.to_string(), digest: pin.to_string(), pinned })
            }
            "local" => {
                let mut hash = sha2::Sha256::new();
                let mut add = |text: &str| hash.update(format!("{}:{text}", text.len()));
                add(client);
                add(name);
                for (key, value) in &op.attrs {
                    // The others are different in every build.
                    if !matches!(key.as_str(), "local.session" | "local.unique") {
                        add(key);
                        add(value);
                    }
                }
                Some(Origin::Folder { key: hex::encode(&hash.finalize()[..16]) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str, attrs: &[(&str, &str)]) -> pb::SourceOp {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        pb::SourceOp { identifier: identifier.into(), attrs }
    }

    #[test]
    fn an_image_is_pinned_to_what_its_name_stood_for() {
        let of = |name: &str, attrs: &[(&str, &str)]| Origin::of(&source(name, attrs), "sha256:ab", "");
        let Some(Origin::Image { pinned, .. }) = of("docker-image://docker.io/library/alpine:3", &[]) else {
            panic!("no image")
        };
        assert_eq!(pinned, "docker.io/library/alpine:3@sha256:ab");
        assert_eq!(of("docker-image://alpine:3", &[("image.layerlimit", "1")]), None);
        assert_eq!(of("git://example/repo", &[]), None);
    }

    #[test]
    fn a_folder_is_the_same_in_the_next_build_unless_something_else_of_it_is_wanted() {
        let of =
            |attrs: &[(&str, &str)], client: &str| Origin::of(&source("local://context", attrs), "", client);
        let first = of(&[("local.session", "a"), ("local.unique", "x")], "client");
        assert_eq!(of(&[("local.session", "b"), ("local.unique", "y")], "client"), first);
        assert_ne!(of(&[("local.includepattern", "[\"a\"]")], "client"), first);
        assert_ne!(of(&[], "another"), first);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_many() {
        let origins = Origins::default();
        let vertex = |number: usize| Digest::of(&number.to_le_bytes());
        for number in 0..=REMEMBERED {
            origins.note(vertex(number), Origin::Folder { key: number.to_string() });
        }
        assert_eq!(origins.of(&vertex(0)), None);
        assert!(origins.of(&vertex(REMEMBERED)).is_some());
    }
}
