//! From what a build is known by to a cache elsewhere.

use crate::backends::{self, Backend, Way};
use crate::chains::{Chains, Made};
use crate::error::{RemoteCacheError, Result};
use crate::options::Mounts;
use crate::{CacheOptions, RemoteCaches, ResultRef, mounts};
use crosskit_cache::LoadContext;
use crosskit_llb::Vertex;
use crosskit_snapshots::{LayerForm, Ref, Snapshots};
use crosskit_solver::{JobContext, Known};
use futures::StreamExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// Results whose layers are made at once.
const AT_ONCE: usize = 4;

/// How much of a build is given away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The layers of the result, and whatever else has layers already.
    #[default]
    Min,
    /// The layers of every step.
    Max,
}

/// A place that a build's cache goes to.
pub struct CacheExport {
    backend: Box<dyn Backend>,
    mode: Mode,
    form: LayerForm,
    ignore_error: bool,
    with_client: bool,
    mounts: Option<Mounts>,
    snapshots: Snapshots,
}

/// Where a build's cache goes.
#[derive(Default)]
pub struct CacheExports {
    /// Into the images that it makes.
    pub inline: bool,
    /// To places of its own.
    pub places: Vec<CacheExport>,
}

impl RemoteCaches {
    /// Where a build with these sessions is to give its cache.
    ///
    /// # Errors
    /// Kinds of caches that aren't there, and options that make no sense.
    pub fn exports(&self, asked: &[CacheOptions], sessions: &[String]) -> Result<CacheExports> {
        let mut seen = BTreeSet::new();
        let outside = asked.iter().filter(|options| options.kind != "inline");
        let twice = outside.filter(|options| !seen.insert(options.name()));
        let twice: Vec<&str> = twice.map(|options| options.kind.as_str()).collect();
        if !twice.is_empty() {
            let text = format!("duplicate cache exports [{}]", twice.join(" "));
            return Err(RemoteCacheError::Options(text));
        }
        let mut exports = CacheExports::default();
        for options in asked {
            if options.kind == "inline" {
                exports.inline = true;
                continue;
            }
            let backend = backends::resolve(self, Way::Export, options, sessions)?;
            // As with BuildKit, other words mean the default.
            let mode = match options.attrs.get("mode").map(String::as_str) {
                Some("max") => Mode::Max,
                _ => Mode::Min,
            };
            let ignore_error = options.flag("ignore-error").ok().flatten().unwrap_or(false);
            let (form, with_client) = (options.form()?, options.kind == "local");
            let (mounts, snapshots) = (options.mounts(), self.snapshots.clone());
            exports.places.push(CacheExport {
                backend,
                mode,
                form,
                ignore_error,
                with_client,
                mounts,
                snapshots,
            });
        }
        Ok(exports)
    }
}

impl CacheExport {
    /// Whether the place is a folder of the client's, who then keeps a list of what is in it.
    pub fn is_with_client(&self) -> bool {
        self.with_client
    }

    /// Gives the cache of some results away, in a step of its own; `id` tells that from others.
    /// Returns what the client is told.
    ///
    /// # Errors
    /// A place that can't be reached or refuses, unless that is to be ignored.
    pub async fn export(
        &self,
        trails: &[&[Known<ResultRef>]],
        job: &JobContext,
        id: &str,
    ) -> Result<BTreeMap<String, String>> {
        let step = job.step(self.backend.name(), Some(id));
        let running = step.begin(false);
        let give = async {
            let done = step.part("preparing build cache for export");
            let collected = collect(trails, self.mode, self.form, job.sessions()).await;
            drop(done);
            let mut chains = collected?;
            if let Some(wanted) = &self.mounts {
                let steps: Vec<&Vertex> =
                    trails.iter().flat_map(|trail| trail.iter()).map(|known| &*known.vertex).collect();
                mounts::give(&mut chains, &steps, wanted, self.form, &self.snapshots, &step).await?;
            }
            let collected = chains.collected();
            let done = step.part("sending cache export");
            let given = self.backend.give(collected, &step).await;
            drop(done);
            given
        };
        let given = give.await;
        running.end(given.as_ref().err().map(ToString::to_string).as_deref());
        match given {
            Err(error) if self.ignore_error => {
                tracing::warn!("{}: {error}", self.backend.name());
                Ok(BTreeMap::new())
            }
            given => given,
        }
    }
}

/// Brings together what is known of some results and of all that they depend on.
pub(crate) async fn collect(
    trails: &[&[Known<ResultRef>]],
    mode: Mode,
    form: LayerForm,
    sessions: &[String],
) -> Result<Chains> {
    let mut chains = Chains::default();
    for trail in trails {
        let made = match mode {
            Mode::Max => {
                let mut all = Vec::with_capacity(trail.len());
                for known in *trail {
                    all.push(boxed(known, form, sessions));
                }
                futures::stream::iter(all).buffered(AT_ONCE).collect::<Vec<_>>().await
            }
            Mode::Min => top_down(trail, form, sessions).await,
        };
        let last = trail.len().saturating_sub(1);
        for (at, (known, made)) in trail.iter().zip(made).enumerate() {
            let made = match made {
                Ok(made) => made,
                Err(error) if at == last => return Err(error),
                Err(error) => {
                    tracing::debug!("the cache of {} is left out: {error}", known.vertex.digest);
                    None
                }
            };
            for (cache, key) in &known.keys {
                if let (Some(key), Some(made)) = (chains.add(cache, *key), &made) {
                    chains.lead(key, made);
                }
            }
        }
    }
    Ok(chains)
}

fn boxed<'a>(
    known: &'a Known<ResultRef>,
    form: LayerForm,
    sessions: &'a [String],
) -> BoxFuture<'a, Result<Option<Made>>> {
    Box::pin(made(known, true, form, sessions))
}

/// The layers of the result, and of what it depends on as far as there are layers.
async fn top_down(
    trail: &[Known<ResultRef>],
    form: LayerForm,
    sessions: &[String],
) -> Vec<Result<Option<Made>>> {
    let mut needed = vec![false; trail.len()];
    needed.last_mut().into_iter().for_each(|last| *last = true);
    let mut found = Vec::with_capacity(trail.len());
    for (at, known) in trail.iter().enumerate().rev() {
        let made = made(known, needed[at], form, sessions).await;
        if needed[at] && !matches!(made, Ok(Some(_))) {
            // What it was made of has to stand for it.
            known.inputs.iter().for_each(|input| needed[*input] = true);
        }
        found.push(made);
    }
    found.reverse();
    found
}

/// The layers of one result; made where there are none if that is `needed`. Sources have none:
/// they come from where they are.
async fn made(
    known: &Known<ResultRef>,
    needed: bool,
    form: LayerForm,
    sessions: &[String],
) -> Result<Option<Made>> {
    let unwanted = known.vertex.metadata.export_cache.as_ref().is_some_and(|export| !export.value);
    if known.inputs.is_empty() || unwanted {
        return Ok(None);
    }
    let Some((found, created_ns)) = result(known, sessions).await else { return Ok(None) };
    let layers = match needed {
        true => Some(found.layers(form).await.map_err(RemoteCacheError::snapshots("make layers"))?),
        false => found.known_layers(form),
    };
    Ok(layers.filter(|layers| !layers.is_empty()).map(|layers| Made { layers, created_ns, mount: None }))
}

/// A result, and when it was made.
async fn result(known: &Known<ResultRef>, sessions: &[String]) -> Option<(Ref, u64)> {
    let mut records: Vec<_> = Vec::new();
    for (cache, key) in &known.keys {
        records.extend(cache.records(*key).into_iter().map(|record| (cache, record)));
    }
    if let Some(result) = &known.result {
        let own = known.keys.first().map(|(cache, _)| cache);
        let of_own = records.iter().find(|(cache, _)| own.is_some_and(|own| own.is(cache)));
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        let created = of_own.map_or_else(now, |(_, record)| record.created_ns);
        return result.clone().map(|found| (found, created));
    }
    records.sort_by_key(|(_, record)| std::cmp::Reverse(record.created_ns));
    let cx = LoadContext { sessions: sessions.to_vec(), ..LoadContext::default() };
    for (cache, record) in records {
        if let Ok(found) = cache.load(&record, &cx).await {
            return found.map(|found| (found, record.created_ns));
        }
    }
    None
}
