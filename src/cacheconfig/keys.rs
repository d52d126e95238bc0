//! From a document to keys.

use crate::Invalid;
use crate::document::{CacheConfig, place};
use crosskit_cache::{Alternative, Cache, KeyDigest, KeyId};

#[derive(Clone, Copy)]
enum State {
    Unknown,
    /// Its inputs are being looked at.
    Open,
    /// None for one that can never be met again.
    Known(Option<KeyId>),
}

/// Makes keys of a document's records in a cache; gives that of each record, none for one that can
/// never be met again.
///
/// # Errors
/// Records that need themselves or are not there, and names that are none.
pub fn read_keys<R: 'static>(cache: &Cache<R>, config: &CacheConfig) -> Result<Vec<Option<KeyId>>, Invalid> {
    let mut keys = Keys { cache, config, states: vec![State::Unknown; config.records.len()] };
    (0..config.records.len()).map(|at| keys.key(at)).collect()
}

fn invalid<T>(text: String) -> Result<T, Invalid> {
    Err(Invalid(text))
}

struct Keys<'a, R> {
    cache: &'a Cache<R>,
    config: &'a CacheConfig,
    states: Vec<State>,
}

impl<R: 'static> Keys<'_, R> {
    /// The key of a record, after those of its inputs.
    fn key(&mut self, start: usize) -> Result<Option<KeyId>, Invalid> {
        let mut stack = vec![start];
        while let Some(at) = stack.last().copied() {
            match self.states[at] {
                State::Known(_) => {
                    stack.pop();
                }
                State::Unknown => {
                    self.states[at] = State::Open;
                    let below = self.below(at)?;
                    stack.extend(below);
                }
                State::Open => {
                    stack.pop();
                    self.states[at] = State::Known(self.make(at)?);
                }
            }
        }
        match self.states[start] {
            State::Known(key) => Ok(key),
            _ => Ok(None),
        }
    }

    /// The records that a record's inputs are, as far as they were not looked at.
    fn below(&self, at: usize) -> Result<Vec<usize>, Invalid> {
        let mut below = Vec::new();
        for input in &self.config.records[at].inputs {
            if input.is_empty() {
                return invalid(format!("invalid empty input for record {at}"));
            }
            for known in input {
                let Some(link) = place(known.link, self.states.len()) else {
                    return invalid(format!("invalid record ID: {}", known.link));
                };
                match self.states[link] {
                    State::Known(_) => {}
                    State::Open => return invalid("invalid looping record".to_string()),
                    State::Unknown => below.push(link),
                }
            }
        }
        Ok(below)
    }

    fn make(&self, at: usize) -> Result<Option<KeyId>, Invalid> {
        let record = &self.config.records[at];
        let name = digest(&record.digest, at)?;
        if name.is_random() {
            return Ok(None);
        }
        if record.inputs.is_empty() {
            return Ok(Some(self.cache.ensure_root(name)));
        }
        let mut inputs: Vec<Vec<Alternative>> = Vec::with_capacity(record.inputs.len());
        for input in &record.inputs {
            let mut known = Vec::with_capacity(input.len());
            for alternative in input {
                let link = place(alternative.link, self.states.len());
                let Some(State::Known(Some(key))) = link.map(|link| self.states[link]) else { continue };
                let selector = match alternative.selector.as_str() {
                    "" => None,
                    text => Some(digest(text, at)?),
                };
                known.push((key, selector));
            }
            if known.is_empty() {
                return Ok(None);
            }
            inputs.push(known);
        }
        Ok(Some(self.cache.ensure(&inputs, name)))
    }
}

fn digest(text: &str, record: usize) -> Result<KeyDigest, Invalid> {
    match text.parse() {
        Ok(digest) => Ok(digest),
        Err(why) => invalid(format!("record {record}: {why}")),
    }
}
