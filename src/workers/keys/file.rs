//! Keys of file operations.

use super::{InputKey, InvalidOp, Selector, without_nested};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_api::pb::{self, file_action::Action};
use crosskit_cache::KeyDigest;
use crosskit_llb::json;
use std::collections::{BTreeMap, BTreeSet};

/// The digest of file operations: what they do, but not where in an input a copy comes from, as
/// the content of that is a key of its own.
pub fn file_digest(op: &pb::FileOp, inputs: usize) -> KeyDigest {
    let mut actions = Vec::with_capacity(op.actions.len());
    for action in &op.actions {
        let text = match &action.action {
            Some(Action::Copy(copy)) => {
                let mut copy = copy.clone();
                if input_index(action.secondary_input, inputs).is_some() {
                    copy.src = crosskit_llb::paths::base(&copy.src).to_string();
                }
                json::to_string(&copy)
            }
            Some(Action::Mkfile(mkfile)) => json::to_string(mkfile),
            Some(Action::Mkdir(mkdir)) => json::to_string(mkdir),
            Some(Action::Rm(rm)) => json::to_string(rm),
            Some(Action::Symlink(symlink)) => json::to_string(symlink),
            None => String::new(),
        };
        actions.push(STANDARD.encode(text));
    }
    let mut text = format!("{{\"Type\":\"buildkit.file.v0\",\"Actions\":{}", json::strings(&actions));
    if !is_usual_chain(&op.actions) {
        let indexes: Vec<String> =
            op.actions.iter().map(|a| format!("[{},{},{}]", a.input, a.secondary_input, a.output)).collect();
        text.push_str(&format!(",\"indexes\":[{}]", indexes.join(",")));
    }
    text.push('}');
    KeyDigest::of(text.as_bytes())
}

/// Each action works on the one before, the first on input 0, copies come from input 1, and the
/// last one's result is the output. Indexes of such a chain are not written: older versions
/// wrote none.
fn is_usual_chain(actions: &[pb::FileAction]) -> bool {
    let count = actions.len();
    !actions.is_empty()
        && actions.iter().enumerate().all(|(at, a)| {
            let follows = if at == 0 { a.input == 0 } else { usize::try_from(a.input) == Ok(count + at - 1) };
            let output = if at == count - 1 { a.output == 0 } else { a.output == -1 };
            follows && output && (a.secondary_input == -1 || a.secondary_input == 1)
        })
}

/// How the inputs of file operations take part: one that is only copied from is known by the
/// content of what is copied, one that is changed only by its own keys.
///
/// # Errors
/// An owner looked up in an input that isn't there.
pub fn file_inputs(op: &pb::FileOp, inputs: usize) -> Result<Vec<InputKey>, InvalidOp> {
    let mut selectors: BTreeMap<usize, Vec<Selector>> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    for action in &op.actions {
        changed.insert(action.input);
        let owner = match &action.action {
            Some(Action::Copy(copy)) => {
                if let Some(input) = input_index(action.secondary_input, inputs) {
                    selectors.entry(input).or_default().push(copied(copy));
                }
                copy.owner.as_ref()
            }
            Some(Action::Mkfile(mkfile)) => mkfile.owner.as_ref(),
            Some(Action::Mkdir(mkdir)) => mkdir.owner.as_ref(),
            Some(Action::Rm(_) | Action::Symlink(_)) | None => None,
        };
        if let Some(owner) = owner {
            for (user, file) in [(&owner.user, "/etc/passwd"), (&owner.group, "/etc/group")] {
                if let Some(pb::UserOpt { user: Some(pb::user_opt::User::ByName(named)) }) = user {
                    let input = usize::try_from(named.input)
                        .ok()
                        .filter(|i| *i < inputs)
                        .ok_or_else(|| InvalidOp(format!("invalid user index {}", named.input)))?;
                    let passwd =
                        Selector { path: file.to_string(), follow_links: true, ..Selector::default() };
                    selectors.entry(input).or_default().push(passwd);
                }
            }
        }
    }
    let mut keys = vec![InputKey::default(); inputs];
    for (input, found) in selectors {
        if i64::try_from(input).is_ok_and(|i| changed.contains(&i)) {
            continue;
        }
        let mut paths: Vec<&str> = found.iter().map(|s| s.path.as_str()).collect();
        // In falling order, for reasons of history.
        paths.sort_unstable_by(|a, b| b.cmp(a));
        keys[input] = InputKey {
            selector: Some(KeyDigest::of(paths.join("\0").as_bytes())),
            content: Some(deduplicated(found)),
        };
    }
    Ok(keys)
}

fn input_index(index: i64, inputs: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|i| *i < inputs)
}

fn copied(copy: &pb::FileActionCopy) -> Selector {
    Selector {
        path: copy.src.clone(),
        wildcard: copy.allow_wildcard && has_wildcard(&copy.src),
        follow_links: copy.follow_symlink,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        required: copy.required_paths.clone(),
    }
}

fn has_wildcard(path: &str) -> bool {
    let mut escaped = false;
    path.chars().any(|c| {
        let was_escaped = escaped;
        escaped = !was_escaped && c == '\\';
        !was_escaped && matches!(c, '*' | '?' | '[')
    })
}

/// Plain paths below other plain paths say nothing new.
fn deduplicated(selectors: Vec<Selector>) -> Vec<Selector> {
    let plain = |follow_links: bool| {
        let paths = selectors.iter().filter(|s| !s.is_filtered() && s.follow_links == follow_links);
        without_nested(paths.map(|s| s.path.clone()).collect()).into_iter().map(move |path| Selector {
            path,
            follow_links,
            ..Selector::default()
        })
    };
    let mut all: Vec<Selector> = plain(false).chain(plain(true)).collect();
    all.extend(selectors.iter().filter(|s| s.is_filtered()).cloned());
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}
