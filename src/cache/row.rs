//! A key as it is stored: the key, where it is linked from, what it leads to.

use std::sync::Arc;

use crate::index::{Key, Parent};
use crate::{KeyDigest, Record};

const ROOT: u8 = 1;
const SELECTOR: u8 = 1;

/// Writes a key. Parents that are not `lasting` are left out.
pub(crate) fn encode(key: &Key, lasting: impl Fn(u64) -> bool) -> Vec<u8> {
    let mut row = Vec::with_capacity(64 + key.parents.len() * 48 + key.records.len() * 48);
    row.push(if key.root { ROOT } else { 0 });
    row.extend_from_slice(key.name.as_bytes());
    let parents: Vec<_> = key.parents.iter().filter(|parent| lasting(parent.key)).collect();
    row.extend_from_slice(&(parents.len() as u32).to_le_bytes());
    for parent in parents {
        row.extend_from_slice(&parent.key.to_le_bytes());
        row.extend_from_slice(&parent.input.to_le_bytes());
        match parent.selector {
            Some(selector) => {
                row.push(SELECTOR);
                row.extend_from_slice(selector.as_bytes());
            }
            None => row.push(0),
        }
    }
    row.extend_from_slice(&(key.records.len() as u32).to_le_bytes());
    for record in &key.records {
        row.extend_from_slice(&record.created_ns.to_le_bytes());
        row.extend_from_slice(&(record.id.len() as u32).to_le_bytes());
        row.extend_from_slice(record.id.as_bytes());
    }
    row
}

/// Reads a key; none when the bytes are no key.
pub(crate) fn decode(row: &[u8]) -> Option<Key> {
    let mut rest = row;
    let root = take::<1>(&mut rest)?[0] & ROOT != 0;
    let name = KeyDigest::sha256(*take(&mut rest)?);
    let mut key = Key::new(name, root);
    for _ in 0..u32::from_le_bytes(*take(&mut rest)?) {
        let parent = u64::from_le_bytes(*take(&mut rest)?);
        let input = u32::from_le_bytes(*take(&mut rest)?);
        let selector = match take::<1>(&mut rest)?[0] {
            SELECTOR => Some(KeyDigest::sha256(*take(&mut rest)?)),
            _ => None,
        };
        key.parents.push(Parent { key: parent, input, selector });
    }
    for _ in 0..u32::from_le_bytes(*take(&mut rest)?) {
        let created_ns = u64::from_le_bytes(*take(&mut rest)?);
        let length = u32::from_le_bytes(*take(&mut rest)?) as usize;
        let (id, after) = rest.split_at_checked(length)?;
        rest = after;
        let id: Arc<str> = std::str::from_utf8(id).ok()?.into();
        key.records.push(Record { id, created_ns });
    }
    rest.is_empty().then_some(key)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
}
