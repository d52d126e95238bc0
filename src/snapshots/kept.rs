//! Mutable snapshots that are kept under a key: what clients sent, and caches of steps.
//!
//! What was made of one by a commit is a *view*: it lasts until the snapshot is written to again.
//! Which view is current is written beside the files, in a place of the filesystem's, so that it
//! and the files cannot disagree after a crash as the database could.

use crate::mutable::make_folders;
use crate::node::{Node, Parents};
use crate::record::{KEYS, Origin, RECORDS, Record};
use crate::store::{Inner, Snapshots};
use crate::{About, Error, MutableRef, Ref, Result, ids};
use crosskit_metadata::Change;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

impl Snapshots {
    /// The snapshot that is kept under `key`, to be written to; a new one if there is none or all
    /// are in use. It is kept, in whatever state it is, when the handle goes.
    pub fn mutable_by_key(&self, key: &str, about: About) -> Result<MutableRef> {
        match self.free_by_key(key)? {
            Found::Free(mutable) => Ok(*mutable),
            Found::InUse | Found::Nothing => self.new_by_key(key, None, about),
        }
    }

    /// Looks for one that is free.
    pub(crate) fn free_by_key(&self, key: &str) -> Result<Found> {
        let prefix = key_entry(key, "");
        let mut found = Found::Nothing;
        for (entry, _) in self.0.db.scan(KEYS, &prefix)? {
            let id = String::from_utf8_lossy(&entry[prefix.len()..]).into_owned();
            if !self.0.lock().claim(&id) {
                found = Found::InUse;
                continue;
            }
            match self.claimed(&id) {
                Ok(Some(mutable)) => return Ok(Found::Free(Box::new(mutable))),
                Ok(None) => self.0.db.write(vec![Change::delete(KEYS, entry)])?,
                Err(why) => {
                    self.0.lock().release(&id);
                    return Err(why);
                }
            }
            self.0.lock().release(&id);
        }
        Ok(found)
    }

    /// Opens a snapshot that was claimed; none if there is nothing of it that may be written to.
    fn claimed(&self, id: &str) -> Result<Option<MutableRef>> {
        let Some(bytes) = self.0.db.get(RECORDS, id.as_bytes())? else { return Ok(None) };
        let record = Record::decode(id, &bytes)?;
        if record.built_upon {
            return Ok(None);
        }
        if !self.0.is_whole(id, &record) {
            self.0.forget(id, &record)?;
            return Ok(None);
        }
        let parent = match &record.origin {
            Origin::Layer { parent: Some(parent) } => match self.get(parent)? {
                Some(parent) => Some(parent),
                None => {
                    self.0.forget(id, &record)?;
                    return Ok(None);
                }
            },
            _ => None,
        };
        let before = current_view(&self.0, id);
        end_view(&self.0, id)?;
        self.0.put(id, Record { size: None, ..record.clone() }.encode())?;
        Ok(Some(MutableRef::kept(self, id.to_string(), parent, record.about, Past::Of(before))))
    }

    pub(crate) fn new_by_key(&self, key: &str, parent: Option<&Ref>, about: About) -> Result<MutableRef> {
        let id = ids::new_id();
        self.0.lock().claim(&id);
        let mutable = MutableRef::kept(self, id.clone(), parent.cloned(), about.clone(), Past::None);
        make_folders(self, &id)?;
        let origin = Origin::Layer { parent: parent.map(|p| p.id().to_string()) };
        let record = Record { files: true, key: Some(key.to_string()), ..Record::new(origin, about) };
        self.0.db.write(vec![
            Change::put(RECORDS, id.as_bytes(), record.encode()),
            Change::put(KEYS, key_entry(key, &id), []),
        ])?;
        Ok(mutable)
    }
}

/// What a kept snapshot was before it was claimed.
pub(crate) enum Past {
    /// Nothing: it is new.
    None,
    /// It has files; those of a view if nothing was written to them since.
    Of(Option<String>),
}

/// What there is under a key.
pub(crate) enum Found {
    Free(Box<MutableRef>),
    InUse,
    Nothing,
}

/// The entry of a snapshot in the table of keys.
pub(crate) fn key_entry(key: &str, id: &str) -> Vec<u8> {
    [key.as_bytes(), b"\0", id.as_bytes()].concat()
}

/// Makes a view of a kept snapshot that the caller has claimed.
pub(crate) fn view(snapshots: &Snapshots, of: &str, id: &str, about: &About) -> Result<Arc<Node>> {
    let store = &snapshots.0;
    let node = store.node(of)?.ok_or_else(|| Error::Gone { id: of.to_string() })?;
    node.update(|record| record.about = about.clone())?;
    let marker = marker(store, of);
    std::fs::write(&marker, id).map_err(|e| Error::file("writing", &marker, e))?;
    let record = Record { files: true, ..Record::new(Origin::View { of: of.to_string() }, about.clone()) };
    store.enter(id.to_string(), Parents::View(node), record)
}

/// The id of the view of a kept snapshot that still holds.
pub(crate) fn current_view(store: &Inner, of: &str) -> Option<String> {
    std::fs::read_to_string(marker(store, of)).ok().filter(|id| ids::is_id(id))
}

/// Before a kept snapshot is written to.
pub(crate) fn end_view(store: &Inner, of: &str) -> Result<()> {
    let Some(view) = current_view(store, of) else { return Ok(()) };
    let marker = marker(store, of);
    match std::fs::remove_file(&marker) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::file("removing", &marker, e)),
        _ => {}
    }
    Ok(store.db.write(vec![Change::delete(RECORDS, view)])?)
}

fn marker(store: &Inner, of: &str) -> PathBuf {
    store.snapshot_dir(of).join("view")
}
