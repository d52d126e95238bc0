//! The bridge that steps are put on where no network is described.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{lists::NetworkList, namespaces, setup};
use crate::{Result, error::file_error, runtime};

/// Name of the network.
const NETWORK: &str = "buildkit";
/// Version of its description.
const VERSION: &str = "1.0.0";
/// The plugins that it takes.
const PLUGINS: [&str; 3] = ["bridge", "host-local", "firewall"];
/// What begins their names in BuildKit's own distribution, where they are on PATH.
const PREFIX: &str = "buildkit-cni-";
/// The note that says that a bridge was made by a daemon with this root. Names of sandboxes have no dot.
const NOTE: &str = "bridge.name";

/// The network of a bridge, and the folders with its plugins: BuildKit's own on PATH, else those of the folder.
pub(crate) fn list(name: &str, subnet: &str, folder: &Path) -> Result<(NetworkList, Vec<PathBuf>)> {
    let own: Option<Vec<PathBuf>> =
        PLUGINS.iter().map(|plugin| runtime::find(Path::new(&format!("{PREFIX}{plugin}")))).collect();
    let (prefix, mut folders) = match own {
        Some(own) => (PREFIX, own.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect()),
        None => ("", vec![folder.to_owned()]),
    };
    folders.dedup();
    if prefix.is_empty() && !folder.join(PLUGINS[0]).is_file() {
        let why = "it is not there, nor is buildkit-cni-bridge on PATH; install the CNI plugins or name their \
                   folder";
        return Err(setup("finding the CNI plugin", &folder.join(PLUGINS[0]), why.to_owned()));
    }
    // Behind RootlessKit firewalld, which is the machine's, is of no use.
    let backend = if std::env::var_os("ROOTLESSKIT_STATE_DIR").is_some() { "iptables" } else { "" };
    let [bridge, addresses, firewall] = PLUGINS.map(|plugin| format!("{prefix}{plugin}"));
    let plugins = [
        json!({
            "type": bridge, "bridge": name, "isDefaultGateway": true, "ipMasq": true,
            "ipam": { "type": addresses, "ranges": [[{ "subnet": subnet }]] },
        }),
        json!({ "type": firewall, "backend": backend, "ingressPolicy": "same-bridge" }),
    ];
    let plugins = plugins.into_iter().map(|plugin| match plugin {
        Value::Object(plugin) => plugin,
        _ => Map::new(),
    });
    let list =
        NetworkList { name: NETWORK.to_owned(), version: VERSION.to_owned(), plugins: plugins.collect() };
    Ok((list, folders))
}

/// A bridge, which goes with the daemon if it was made for it.
#[derive(Debug)]
pub(crate) struct Bridge {
    name: String,
    note: PathBuf,
}

impl Bridge {
    pub(crate) fn new(name: &str, notes: &Path) -> Self {
        Self { name: name.to_owned(), note: notes.join(NOTE) }
    }

    /// Notes that it is ours, if it is not there yet: the first sandbox makes it.
    pub(crate) fn claim(&self) -> Result<()> {
        if namespaces::has_interface(&self.name) {
            return Ok(());
        }
        fs::write(&self.note, &self.name).map_err(file_error("writing", &self.note))
    }

    /// Removes it if it is ours. One that somebody else is on as well is theirs from now on.
    pub(crate) fn remove(&self) {
        if namespaces::has_ports(&self.name) {
            tracing::info!(bridge = self.name, "the bridge stays: somebody else is on it");
            let _ = fs::remove_file(&self.note);
            return;
        }
        if fs::read_to_string(&self.note).is_ok_and(|name| name == self.name) {
            remove(&self.name, &self.note);
        }
    }
}

/// Removes the bridge that an earlier daemon made and that is wanted no more.
pub(crate) fn remove_other(notes: &Path, wanted: Option<&Bridge>) {
    let note = notes.join(NOTE);
    if let Ok(name) = fs::read_to_string(&note)
        && wanted.is_none_or(|bridge| bridge.name != name)
    {
        remove(&name, &note);
    }
}

fn remove(name: &str, note: &Path) {
    match namespaces::remove_bridge(name) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => tracing::warn!(name, %error, "a bridge could not be removed"),
    }
    match fs::remove_file(note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %note.display(), %error, "a note could not be removed");
        }
        _ => {}
    }
}
