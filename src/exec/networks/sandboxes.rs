//! Network namespaces that plugins have furnished, each with a note for whoever has to undo it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    Places, blocking,
    lists::NetworkList,
    namespaces,
    plugins::{self, Target},
    pool::Source,
};
use crate::{Result, bundle::new_id, error::file_error, resolv::replace, usage::Interfaces};

/// How many are undone at a time.
const AT_A_TIME: usize = 4;

/// Makes and undoes namespaces.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    pub(crate) list: NetworkList,
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) places: Places,
}

/// A namespace that is ready for use.
#[derive(Debug)]
pub(crate) struct Sandbox {
    id: String,
    note: Note,
    /// The counters of its interfaces, of one that was made by this daemon.
    interfaces: Option<Interfaces>,
}

impl Sandbox {
    /// The file that stands for it.
    pub(crate) fn path(&self) -> &Path {
        &self.note.namespace
    }

    /// The counters of its interfaces.
    pub(crate) fn interfaces(&self) -> Option<&Interfaces> {
        self.interfaces.as_ref()
    }
}

/// All that is needed to undo a namespace, whatever the configuration says by then.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) list: NetworkList,
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) namespace: PathBuf,
    pub(crate) arguments: String,
    /// What came of it; None if it never was complete.
    pub(crate) result: Option<Value>,
}

impl Note {
    /// The names of all namespaces that there are notes of.
    pub(crate) fn all(notes: &Path) -> Vec<String> {
        let found = fs::read_dir(notes).into_iter().flatten().flatten();
        let names = found.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| !name.contains('.')).collect()
    }

    /// Removes what was half written when an earlier daemon was killed.
    pub(crate) fn remove_unfinished(notes: &Path) {
        for entry in fs::read_dir(notes).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "new") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| file_error("writing", path)(error.into()))?;
        replace(path, &text)
    }

    fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

impl Sandboxes {
    /// Makes a namespace. Plugins that publish names are told the hostname.
    pub(crate) async fn attach(&self, hostname: Option<&str>) -> Result<Sandbox> {
        let id = new_id();
        // A name that Kubernetes has made known; those that do not know it are to pass it over.
        let arguments =
            hostname.map(|name| format!("K8S_POD_NAME={name};IgnoreUnknown=1")).unwrap_or_default();
        let note = Note {
            list: self.list.clone(),
            folders: self.folders.clone(),
            namespace: self.places.namespaces.join(&id),
            arguments,
            result: None,
        };
        let mut sandbox = Sandbox { id, note, interfaces: None };
        let path = self.places.notes.join(&sandbox.id);
        let made = {
            let (note, path) = (sandbox.note.clone(), path.clone());
            blocking(move || {
                note.write(&path)?;
                namespaces::make(&note.namespace).map_err(file_error("making the namespace", &note.namespace))
            })
            .await
        };
        let outcome = match made {
            Ok(interfaces) => {
                sandbox.interfaces = Some(Arc::new(interfaces));
                match plugins::add(&self.list, sandbox.target(true)).await {
                    Ok(result) => {
                        sandbox.note.result = Some(result);
                        let (note, path) = (sandbox.note.clone(), path.clone());
                        blocking(move || note.write(&path)).await
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                tracing::debug!(id = sandbox.id, "network namespace made");
                Ok(sandbox)
            }
            Err(error) => {
                // As the specification wants it after a failure too; what it says about that is nothing new.
                let _ = sandbox.undo(&path).await;
                Err(error)
            }
        }
    }
}

impl Sandbox {
    fn target(&self, alive: bool) -> Target<'_> {
        Target {
            id: &self.id,
            namespace: alive.then_some(&*self.note.namespace),
            arguments: &self.note.arguments,
            folders: &self.note.folders,
        }
    }

    /// Undoes all that was done for it.
    async fn undo(&self, path: &Path) -> Result<()> {
        let alive = namespaces::is_alive(&self.note.namespace);
        let told = plugins::delete(&self.note.list, self.target(alive), self.note.result.as_ref()).await;
        let (namespace, path) = (self.note.namespace.clone(), path.to_owned());
        let removed = blocking(move || {
            namespaces::remove(&namespace).map_err(file_error("removing the namespace", &namespace))?;
            fs::remove_file(&path).map_err(file_error("removing", &path))
        })
        .await;
        told.and(removed)
    }
}

impl Source for Sandboxes {
    type Item = Sandbox;

    async fn make(&self) -> Result<Sandbox> {
        self.attach(None).await
    }

    async fn release(&self, sandbox: Sandbox) {
        match sandbox.undo(&self.places.notes.join(&sandbox.id)).await {
            Ok(()) => tracing::debug!(id = sandbox.id, "network namespace removed"),
            Err(error) => tracing::warn!(id = sandbox.id, %error, "undoing a network namespace"),
        }
    }
}

/// Undoes what an earlier daemon has left.
pub(crate) async fn undo_all(left: Vec<String>, places: Places) {
    for some in left.chunks(AT_A_TIME) {
        let mut undoing = JoinSet::new();
        for id in some {
            let (id, path) = (id.clone(), places.notes.join(id));
            undoing.spawn(async move {
                tracing::info!(id, "removing a network namespace that an earlier daemon has left");
                let undone = match Note::read(&path) {
                    Ok(note) => Sandbox { id: id.clone(), note, interfaces: None }.undo(&path).await,
                    // Nothing of ours: notes are whole or not there.
                    Err(error) => Err(file_error("reading", &path)(error)),
                };
                if let Err(error) = undone {
                    tracing::warn!(id, %error, "removing a network namespace that an earlier daemon has left");
                }
            });
        }
        undoing.join_all().await;
    }
}
