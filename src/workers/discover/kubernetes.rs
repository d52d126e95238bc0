//! Workers behind services of the Kubernetes cluster that this daemon is in: its EndpointSlices
//! are listed, then watched; where watching does not work, they are listed again and again.

use super::account::Account;
use super::slices::{Slice, SliceList, ready};
use super::{Found, News, pause, whole};
use reqwest::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long an answer to a list may take.
const ANSWER: Duration = Duration::from_secs(20);

/// How long one watch is to last, as the server is asked; it ends it by then.
const WATCH: Duration = Duration::from_secs(240);

/// How much longer it is waited for.
const GRACE: Duration = Duration::from_secs(30);

/// How often everything is listed where nothing can be watched.
const POLL: Duration = Duration::from_secs(10);

/// How long a watch takes at least, the time until the next one included.
const AT_LEAST: Duration = Duration::from_secs(1);

/// How many slices come in one answer.
const AT_ONCE: &str = "500";

/// The longest event that is taken, in bytes; a slice has at most a thousand endpoints.
const LONGEST_EVENT: usize = 8 << 20;

/// Which endpoints are workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The namespace; None for the daemon's own.
    pub namespace: Option<String>,
    /// The labels of their EndpointSlices, which are those of their service.
    pub selector: String,
    /// Name or number of the port; None if there is only one.
    pub port: Option<String>,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kubernetes ")?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.selector)
    }
}

impl Selection {
    pub(super) async fn search(&self, tell: &(dyn Fn(News) + Send + Sync)) {
        let mut failures = 0;
        let mut before = Vec::new();
        loop {
            let begun = Instant::now();
            let Err(why) = self.follow(&mut before, tell).await;
            // Something that went well for a while has not failed many times.
            failures = if begun.elapsed() > WATCH / 4 { 1 } else { failures + 1 };
            tell(News::Failed(why));
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Lists and watches until listing fails.
    async fn follow(
        &self,
        before: &mut Vec<Found>,
        tell: &(dyn Fn(News) + Send + Sync),
    ) -> Result<std::convert::Infallible, String> {
        let account = Account::of_this_pod()?;
        let namespace = match &self.namespace {
            Some(given) => given.clone(),
            None => account.namespace()?,
        };
        let client = account.client()?;
        let api = Api { selector: &self.selector, account, namespace, client };
        let mut say = |slices: &BTreeMap<String, Slice>, trouble: &Option<String>| {
            let (found, remark) = ready(slices.values(), &api.namespace, self.port.as_deref(), before);
            let nothing = slices
                .is_empty()
                .then(|| format!("namespace {} has no EndpointSlice with {}", api.namespace, self.selector));
            before.clone_from(&found);
            tell(News::Found(found, remark.or(nothing).or_else(|| trouble.clone())));
        };
        // Why nothing can be watched.
        let mut trouble = None;
        loop {
            let (mut slices, mut version) = api.list().await?;
            say(&slices, &trouble);
            let broken = loop {
                let begun = Instant::now();
                let ended = api.watch(&mut slices, &mut version, |slices| {
                    trouble = None;
                    say(slices, &None);
                });
                match ended.await {
                    Ok(Watched::ToItsEnd) => tokio::time::sleep_until(begun + AT_LEAST).await,
                    Ok(Watched::TooLate) => break None,
                    Err(why) => break Some(why),
                }
            };
            if let Some(why) = broken {
                trouble = Some(format!("{why}; they are listed every {POLL:?} instead"));
                say(&slices, &trouble);
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// How a watch has ended.
enum Watched {
    /// As it does; the next one goes on from there.
    ToItsEnd,
    /// The server does not remember what has changed since then.
    TooLate,
}

/// The API of the cluster, as far as it is needed.
struct Api<'a> {
    selector: &'a str,
    account: Account,
    namespace: String,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

/// What the API says when it says no.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: u16,
}

/// An object of which only the version counts.
#[derive(Deserialize)]
struct Mark {
    metadata: super::slices::Metadata,
}

impl Api<'_> {
    async fn get(&self, verb: &str, query: &[(&str, &str)]) -> Result<reqwest::Response, (u16, String)> {
        let what = format!("{} the EndpointSlices of namespace {}", verb, self.namespace);
        let failed = |why: String| (0, format!("{what}: {why}"));
        let token = self.account.token().map_err(failed)?;
        let url = format!(
            "{}/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
            self.account.server(),
            self.namespace
        );
        let mut url = reqwest::Url::parse(&url).map_err(|e| failed(format!("{url}: {e}")))?;
        url.query_pairs_mut().append_pair("labelSelector", self.selector).extend_pairs(query);
        let request = self.client.get(url).bearer_auth(token).header("Accept", "application/json");
        let answer = match timeout(ANSWER, request.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(failed(whole(&e.without_url()))),
            Err(_) => {
                return Err(failed(format!("no answer from {} within {ANSWER:?}", self.account.server())));
            }
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = timeout(ANSWER, answer.bytes()).await.ok().and_then(Result::ok).unwrap_or_default();
        let said = serde_json::from_slice::<Refusal>(&text).unwrap_or_default().message;
        let said = if said.is_empty() { status.to_string() } else { said };
        let why = match status {
            StatusCode::FORBIDDEN => format!(
                "{said}. The daemon's service account needs a Role in namespace {} that allows the verbs \
                 list and watch on the resource endpointslices of the API group discovery.k8s.io",
                self.namespace
            ),
            StatusCode::UNAUTHORIZED => format!("the token of the service account is not accepted: {said}"),
            _ => said,
        };
        Err((status.as_u16(), format!("{what}: {why}")))
    }

    /// All slices by their names, and the version of the list.
    async fn list(&self) -> Result<(BTreeMap<String, Slice>, String), String> {
        let (mut slices, mut more) = (BTreeMap::new(), String::new());
        loop {
            let answer = self.get("listing", &[("limit", AT_ONCE), ("continue", &more)]).await;
            let answer = match answer {
                Ok(answer) => answer,
                // It took too long to read page after page: from the beginning.
                Err((410, _)) if !more.is_empty() => {
                    (slices, more) = Default::default();
                    continue;
                }
                Err((_, why)) => return Err(why),
            };
            let failed =
                |why: String| format!("listing the EndpointSlices of namespace {}: {why}", self.namespace);
            let text = match timeout(ANSWER, answer.bytes()).await {
                Ok(text) => text.map_err(|e| failed(whole(&e.without_url())))?,
                Err(_) => return Err(failed(format!("the answer was not complete after {ANSWER:?}"))),
            };
            let list: SliceList = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
            slices.extend(list.items.into_iter().map(|slice| (slice.metadata.name.clone(), slice)));
            if list.metadata.more.is_empty() {
                return Ok((slices, list.metadata.resource_version));
            }
            more = list.metadata.more;
        }
    }

    /// Takes over what changes, and says so each time.
    async fn watch(
        &self,
        slices: &mut BTreeMap<String, Slice>,
        version: &mut String,
        mut changed: impl FnMut(&BTreeMap<String, Slice>),
    ) -> Result<Watched, String> {
        let seconds = WATCH.as_secs().to_string();
        let query = [
            ("watch", "true"),
            ("resourceVersion", version.as_str()),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &seconds),
        ];
        let mut answer = match self.get("watching", &query).await {
            Ok(answer) => answer,
            Err((410, _)) => return Ok(Watched::TooLate),
            Err((_, why)) => return Err(why),
        };
        changed(slices);
        let failed =
            |why: String| format!("watching the EndpointSlices of namespace {}: {why}", self.namespace);
        let mut text = Vec::new();
        let ends = Instant::now() + WATCH + GRACE;
        loop {
            let more = match tokio::time::timeout_at(ends, answer.chunk()).await {
                Ok(Ok(Some(more))) => more,
                Ok(Ok(None)) => return Ok(Watched::ToItsEnd),
                Ok(Err(e)) => return Err(failed(whole(&e.without_url()))),
                Err(_) => return Err(failed("the server did not end it in time".to_string())),
            };
            text.extend_from_slice(&more);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let unreadable = |e: serde_json::Error| failed(format!("an event that can't be read: {e}"));
                let event: Event = serde_json::from_slice(&line).map_err(unreadable)?;
                let object = event.object.get();
                match event.kind.as_str() {
                    "ADDED" | "MODIFIED" | "DELETED" => {
                        let slice: Slice = serde_json::from_str(object).map_err(unreadable)?;
                        version.clone_from(&slice.metadata.resource_version);
                        if event.kind == "DELETED" {
                            slices.remove(&slice.metadata.name);
                        } else {
                            slices.insert(slice.metadata.name.clone(), slice);
                        }
                        changed(slices);
                    }
                    "BOOKMARK" => {
                        let mark: Mark = serde_json::from_str(object).map_err(unreadable)?;
                        *version = mark.metadata.resource_version;
                    }
                    _ => {
                        let refusal: Refusal = serde_json::from_str(object).unwrap_or_default();
                        if refusal.code == StatusCode::GONE.as_u16() {
                            return Ok(Watched::TooLate);
                        }
                        return Err(failed(refusal.message));
                    }
                }
            }
            if text.len() > LONGEST_EVENT {
                return Err(failed(format!("an event of more than {LONGEST_EVENT} bytes")));
            }
        }
    }
}
