//! Whom files are to belong to.

use crate::root::Root;
use crate::{Error, Owner, Result};
use crosskit_api::pb::{self, user_opt};
use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::Read;

/// The largest file of names that is read.
const LIMIT: u64 = 10 << 20;

/// Looks an owner up. `users` and `groups` are the trees whose names count. A name that is not
/// there is the administrator, as for BuildKit.
pub(crate) fn owner(wanted: &pb::ChownOpt, users: Option<&Root>, groups: Option<&Root>) -> Result<Owner> {
    let mut owner = Owner { uid: 0, gid: 0 };
    match wanted.user.as_ref().and_then(|u| u.user.as_ref()) {
        Some(user_opt::User::ById(id)) => owner = Owner { uid: *id, gid: *id },
        Some(user_opt::User::ByName(named)) => {
            let users = users.ok_or_else(|| Error::Invalid("invalid missing user mount".into()))?;
            if let Some(fields) = find(users, "etc/passwd", &named.name)? {
                owner = Owner { uid: number(&fields, 2), gid: number(&fields, 3) };
            }
        }
        None => {}
    }
    match wanted.group.as_ref().and_then(|g| g.user.as_ref()) {
        Some(user_opt::User::ById(id)) => owner.gid = *id,
        Some(user_opt::User::ByName(named)) => {
            let groups = groups.ok_or_else(|| Error::Invalid("invalid missing group mount".into()))?;
            if let Some(fields) = find(groups, "etc/group", &named.name)? {
                owner.gid = number(&fields, 2);
            }
        }
        None => {}
    }
    Ok(owner)
}

fn number(fields: &[String], at: usize) -> u32 {
    fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The fields of the first line that begins with a name; none too if there is no such file.
fn find(root: &Root, path: &str, name: &str) -> Result<Option<Vec<String>>> {
    let wrong = |reason: String| Error::Names { path: format!("/{path}"), reason };
    let real = root.resolve(path.as_bytes(), true)?;
    match root.stat(&real)? {
        None => return Ok(None),
        Some(stat) if !FileType::from_raw_mode(stat.st_mode).is_file() => {
            return Err(wrong("is not a regular file".into()));
        }
        Some(_) => {}
    }
    let file =
        root.open_raw(&real, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|e| Error::path("open", &real, e))?;
    let mut text = Vec::new();
    File::from(file).take(LIMIT + 1).read_to_end(&mut text).map_err(|e| wrong(e.to_string()))?;
    if text.len() as u64 > LIMIT {
        return Err(wrong(format!("exceeds {LIMIT} bytes")));
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(|line| line.trim().split(':').map(str::to_string).collect::<Vec<_>>());
    Ok(lines.find(|fields| fields.first().is_some_and(|first| first == name)))
}
