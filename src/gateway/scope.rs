//! Who asked for what in a build: the client, and frontends that ask other frontends. Provenance tells it.

use crate::bridge::SolveRequest;
use crate::result::Handle;
use crosskit_api::pb;
use crosskit_attest::{Capture, Parameters, RequestProvenance, filtered_arguments};
use crosskit_llb::{Digest, Graph, Limits};
use crosskit_sources::Material;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a frontend was asked, or the client asked.
#[derive(Debug, Clone, Default)]
struct Asked {
    frontend: String,
    options: BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
}

impl Asked {
    fn of(request: &SolveRequest) -> Arc<Self> {
        let SolveRequest { frontend, options, inputs, .. } = request;
        Arc::new(Asked { frontend: frontend.clone(), options: options.clone(), inputs: inputs.clone() })
    }

    fn says_something(&self) -> bool {
        !self.frontend.is_empty() || !self.options.is_empty() || !self.inputs.is_empty()
    }

    fn told(&self, capture: &Capture, producers: &Producers) -> RequestProvenance {
        let mut told = RequestProvenance::new(&self.frontend, filtered_arguments(&self.options), capture);
        if let Some(request) = &mut told.request {
            request.inputs = producers.of_inputs(&self.inputs);
        }
        told
    }
}

/// What one frontend does; the outermost is the client itself.
#[derive(Default)]
pub(crate) struct Scope {
    /// None for the client itself.
    request: Option<Arc<Asked>>,
    /// What the client asked for.
    client: Option<Arc<Asked>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Results of graphs, and what the frontend has yielded.
    results: Vec<Handle>,
    /// Images that were looked up.
    images: Vec<Material>,
    /// What other frontends have done for this one.
    below: Vec<Arc<Scope>>,
    /// Kept as long as the build runs.
    told: Vec<Told>,
}

impl Scope {
    /// Of a build.
    pub(crate) fn of_client(request: &SolveRequest) -> Arc<Self> {
        Arc::new(Scope { client: Some(Asked::of(request)), ..Scope::default() })
    }

    /// Of a frontend that this one asks for something.
    pub(crate) fn within(&self, request: &SolveRequest) -> Arc<Self> {
        let asked = Asked::of(request);
        let client = self.client.clone().filter(|client| client.says_something());
        let client = client.or_else(|| self.request.clone());
        let below = Arc::new(Scope { request: Some(asked), client, seen: Mutex::default() });
        self.seen().below.push(Arc::clone(&below));
        below
    }

    /// Notes the result of a graph.
    pub(crate) fn solved(&self, handle: &Handle) {
        self.seen().results.push(handle.clone());
    }

    /// Notes an image that was looked up.
    pub(crate) fn resolved(&self, name: &str, platform: Option<pb::Platform>, digest: &str, local: bool) {
        let reference = match crosskit_images::registry::Reference::parse(name) {
            Ok(parsed) => parsed.to_string(),
            Err(_) => name.to_string(),
        };
        self.seen().images.push(Material::Image {
            reference,
            platform: platform.as_ref().map(crosskit_workers::platform_from_message),
            digest: digest.to_string(),
            local,
        });
    }

    /// Keeps what is told of results to others.
    pub(crate) fn keep(&self, told: Vec<Told>) {
        self.seen().told.extend(told);
    }

    /// Whose result it is; the innermost counts.
    pub(crate) fn owner(self: &Arc<Self>, handle: &Handle) -> Option<Arc<Scope>> {
        let (below, own) = {
            let seen = self.seen();
            (seen.below.clone(), seen.results.iter().any(|known| known.is(handle)))
        };
        below.iter().find_map(|below| below.owner(handle)).or_else(|| own.then(|| Arc::clone(self)))
    }

    /// All results here and below.
    pub(crate) fn results(&self) -> Vec<Handle> {
        let (mut results, below) = {
            let seen = self.seen();
            (seen.results.clone(), seen.below.clone())
        };
        results.extend(below.iter().flat_map(|below| below.results()));
        results
    }

    /// All images that were looked up here and below.
    pub(crate) fn images(&self) -> Vec<Material> {
        let (mut images, below) = {
            let seen = self.seen();
            (seen.images.clone(), seen.below.clone())
        };
        images.extend(below.iter().flat_map(|below| below.images()));
        images
    }

    /// What was asked of this frontend, with what the client asked where that is something else; none for the client.
    pub(crate) fn request(&self, capture: &Capture, producers: &Producers) -> Option<RequestProvenance> {
        let mut told = self.request.as_ref()?.told(capture, producers);
        let client = self.client.as_ref().filter(|client| client.says_something());
        let client = client.map(|client| client.told(capture, producers)).filter(|client| {
            let empty = |p: &Parameters| p.frontend.is_empty() && p.args.is_empty() && p.inputs.is_empty();
            *client != told && client.request.as_ref().is_some_and(|request| !empty(request))
        });
        if let Some(request) = &mut told.request {
            request.root = client.map(Box::new);
        }
        Some(told)
    }

    /// What was asked of this frontend, for its own result.
    pub(crate) fn parameters(&self, producers: &Producers, capture: &Capture) -> Option<Parameters> {
        let asked = self.request.as_ref()?;
        let told = self.request(capture, producers)?.request?;
        // The address of the context is taken out only where everything is written down.
        Some(Parameters { args: filtered_arguments(&asked.options), ..told })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How results were made that clients and frontends hand on as inputs, while the builds that made them run. Cheap to clone.
#[derive(Clone, Default)]
pub struct Producers(Arc<Known>);

#[derive(Default)]
struct Known {
    by_digest: Mutex<HashMap<Digest, BTreeMap<u64, RequestProvenance>>>,
    next: AtomicU64,
}

/// Forgets a result's way of being made when it is dropped.
pub(crate) struct Told {
    producers: Producers,
    digest: Digest,
    number: u64,
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut known = self.producers.0.by_digest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_digest) = known.get_mut(&self.digest) {
            of_digest.remove(&self.number);
            if of_digest.is_empty() {
                known.remove(&self.digest);
            }
        }
    }
}

impl Producers {
    /// Tells how the result of a graph was made, as long as what is returned is kept.
    pub(crate) fn tell(&self, graph: &Graph, told: RequestProvenance) -> Option<Told> {
        let digest = graph.head()?.vertex;
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut known = self.0.by_digest.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(digest).or_default().insert(number, told);
        Some(Told { producers: self.clone(), digest, number })
    }

    fn of_inputs(&self, inputs: &BTreeMap<String, pb::Definition>) -> BTreeMap<String, RequestProvenance> {
        let of_input = |(name, definition): (&String, &pb::Definition)| {
            let graph = Graph::decode(definition.clone(), &Limits::default()).ok()?;
            Some((name.clone(), self.of(&graph.head()?.vertex)?))
        };
        inputs.iter().filter_map(of_input).collect()
    }

    /// How a result was made, if all who know of it say the same.
    fn of(&self, digest: &Digest) -> Option<RequestProvenance> {
        let known = self.0.by_digest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = known.get(digest)?.values().cloned().map(|mut told| {
            if let Some(request) = &mut told.request {
                request.root = None;
            }
            told
        });
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    }
}
