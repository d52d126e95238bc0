//! Requests, made again when a store or the way to it has a bad moment.

use crate::error::{Result, StoreError};
use crate::objects::{Described, Version};
use crate::reading::PieceStream;
use crate::xml;
use bytes::Bytes;
use crosskit_images::registry::{reason, web_client};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

pub use http::{Method, StatusCode};

/// The wait after the first failure; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long an answer may take that needs no work of the store's.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long an answer may take to what carries a piece, or has the store copy one.
const WORK_LIMIT: Duration = Duration::from_secs(300);
/// How long a transfer may stand still.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// The most that is read of an answer with words: 1 MiB.
const WORDS: u64 = 1 << 20;
/// Clocks that differ by less are taken for the same.
const SAME_CLOCK: i64 = 60;
/// How often a request is made if nothing else is said.
pub const TRIES: u32 = 4;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is done.
    pub method: Method,
    /// To what, with its query, encoded.
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What goes there.
    pub body: Bytes,
    /// Whether the store may take its time.
    pub slow: bool,
}

impl Request {
    /// Without headers or a body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Request { method, url: url.into(), headers: Vec::new(), body: Bytes::new(), slow: false }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body, which takes its time.
    #[must_use]
    pub fn body(mut self, body: Bytes) -> Self {
        self.slow = !body.is_empty();
        self.body = body;
        self
    }
}

/// How requests are made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Requests in all, at least one.
    pub tries: u32,
    /// Whether all requests wait while the store asks one of them to be slower.
    pub together: bool,
    /// For how long a request is made again, however often, while the store asks to be slower.
    pub patience: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { tries: TRIES, together: false, patience: Duration::ZERO }
    }
}

/// A client for one store.
pub struct Http {
    client: reqwest::Client,
    retries: Retries,
    /// Seconds that the store's clock is ahead of ours.
    ahead: AtomicI64,
    paused_until: Mutex<Option<Instant>>,
}

/// An answer that is no refusal.
pub struct Answer {
    response: reqwest::Response,
    doing: String,
}

impl Http {
    /// A client for whatever is at an address.
    ///
    /// # Errors
    /// Certificates that can't be used.
    pub fn new(url: &str, retries: Retries) -> Result<Self> {
        let client = web_client(url).map_err(StoreError::Options)?;
        Ok(Http { client, retries, ahead: AtomicI64::new(0), paused_until: Mutex::default() })
    }

    /// Makes a request, which `make` has to sign for the moment given. Passing failures have it made again.
    ///
    /// # Errors
    /// What the store refuses, and a way there that stays broken.
    pub async fn send(&self, doing: &str, make: impl Fn(Timestamp) -> Request) -> Result<Answer> {
        let mut tried = 0;
        let started = Instant::now();
        loop {
            self.pause().await;
            let (error, after) = match self.once(doing, make(self.now())).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            tried += 1;
            let Some(asked) = after else { return Err(error) };
            let after = asked.max(waits(tried));
            let throttled = error.status().is_some_and(is_throttling);
            let patient = throttled && started.elapsed() + after < self.retries.patience;
            if tried >= self.retries.tries && !patient {
                return Err(error);
            }
            tracing::debug!("try {tried} failed: {error}");
            let after = if patient { after } else { after.min(LONGEST_WAIT) };
            if self.retries.together && throttled {
                let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
                *paused = Some(Instant::now() + after);
            } else {
                tokio::time::sleep(after).await;
            }
        }
    }

    /// One try; with an error, after which time it may be made again, if at all.
    async fn once(
        &self,
        doing: &str,
        request: Request,
    ) -> std::result::Result<Answer, (StoreError, Option<Duration>)> {
        let limit = if request.slow { WORK_LIMIT } else { ANSWER_LIMIT };
        let mut ask = self.client.request(request.method.clone(), &request.url);
        for (name, value) in &request.headers {
            ask = ask.header(name, value);
        }
        // Without a body PUT and POST have to say that there is none.
        if !request.body.is_empty() || matches!(request.method, Method::PUT | Method::POST) {
            ask = ask.header(http::header::CONTENT_LENGTH, request.body.len()).body(request.body);
        }
        let unreachable = |reason: String| StoreError::Unreachable { doing: doing.to_owned(), reason };
        let response = match tokio::time::timeout(limit, ask.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                // Nobody listening and names that lead nowhere are no passing matter.
                let again = (!error.is_builder() && !error.is_connect()).then_some(Duration::ZERO);
                return Err((unreachable(reason(&error)), again));
            }
            Err(_) => {
                let text = format!("no answer in {} s", limit.as_secs());
                return Err((unreachable(text), Some(Duration::ZERO)));
            }
        };
        let status = response.status();
        if status.is_success() {
            return Ok(Answer { response, doing: doing.to_owned() });
        }
        let after = retry_after(&response);
        let clock = header(&response, "date").and_then(|text| date(&text));
        let error = refused(doing, response).await;
        // What is asked without words is answered without: it may be the clocks whenever they differ.
        let skewed =
            matches!(status.as_u16(), 400 | 401 | 403) && clock.is_some_and(|theirs| self.set_clock(theirs));
        let again = skewed || is_throttling(status) || is_passing(status, &error);
        Err((error, again.then_some(after)))
    }

    /// The time by the store's clock.
    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.ahead.load(Ordering::Relaxed));
        Timestamp::now().checked_add(ahead).unwrap_or_else(|_| Timestamp::now())
    }

    /// Goes by the store's clock from now on; false if that is no news.
    fn set_clock(&self, theirs: Timestamp) -> bool {
        let ahead = theirs.as_second() - Timestamp::now().as_second();
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        (ahead - before).abs() > SAME_CLOCK
    }

    async fn pause(&self) {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.response, name)
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The whole answer as text: words, not content.
    ///
    /// # Errors
    /// A way that breaks, and more words than anybody needs.
    pub async fn text(self) -> Result<String> {
        let doing = self.doing.clone();
        let all = crate::reading::read_all(&doing, self.stream(), WORDS).await?;
        String::from_utf8(all).map_err(|_| StoreError::answer(doing, "the answer is no text"))
    }

    /// The whole answer as JSON.
    ///
    /// # Errors
    /// As with [`Answer::text`], and what is no such JSON.
    pub async fn json<T: for<'de> serde::Deserialize<'de>>(self) -> Result<T> {
        let doing = self.doing.clone();
        let text = self.text().await?;
        serde_json::from_str(&text).map_err(|e| StoreError::answer(doing, format!("the answer: {e}")))
    }

    /// The name of the content that it has.
    pub(crate) fn version(&self) -> Version {
        Version(self.header("etag").unwrap_or_default())
    }

    /// What its headers tell of an object.
    ///
    /// # Errors
    /// They tell no length.
    pub(crate) fn described(&self) -> Result<Described> {
        let size = self.header("content-length").and_then(|text| text.parse().ok());
        let size = size.ok_or_else(|| StoreError::answer(&*self.doing, "the answer has no length"))?;
        let modified = self.header("last-modified").and_then(|text| date(&text));
        Ok(Described { size, modified })
    }

    /// The answer's bytes as they come, where those from a place on were asked for.
    ///
    /// # Errors
    /// It has all of them.
    pub(crate) fn stream_from(self, from: u64) -> Result<PieceStream> {
        if from > 0 && self.status() != StatusCode::PARTIAL_CONTENT {
            return Err(StoreError::answer(self.doing, "the store sends only what is whole"));
        }
        Ok(self.stream())
    }

    /// The answer's bytes as they come.
    pub fn stream(self) -> PieceStream {
        let doing = self.doing;
        let pieces = self.response.bytes_stream();
        let broken = doing.clone();
        let pieces =
            pieces.map_err(move |e| StoreError::Unreachable { doing: broken.clone(), reason: reason(&e) });
        let timed = futures::stream::try_unfold(pieces.boxed(), move |mut pieces| {
            let doing = doing.clone();
            async move {
                match tokio::time::timeout(STALLED_AFTER, pieces.next()).await {
                    Ok(None) => Ok(None),
                    Ok(Some(piece)) => Ok(Some((piece?, pieces))),
                    Err(_) => {
                        let reason = format!("nothing came for {} s", STALLED_AFTER.as_secs());
                        Err(StoreError::Unreachable { doing, reason })
                    }
                }
            }
        });
        timed.boxed()
    }
}

/// The wait before try number `tried` + 1.
pub(crate) async fn wait(tried: u32) {
    tokio::time::sleep(waits(tried)).await;
}

fn waits(tried: u32) -> Duration {
    FIRST_WAIT * 2_u32.pow(tried.min(6).saturating_sub(1))
}

fn is_throttling(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

fn is_passing(status: StatusCode, error: &StoreError) -> bool {
    let passing = ["RequestTimeout", "SlowDown", "InternalError", "OperationTimedOut", "ServerBusy"];
    let code = error.code().unwrap_or_default();
    matches!(status.as_u16(), 408 | 500 | 502 | 504) || passing.contains(&code) || code.contains("Throttl")
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn retry_after(response: &reqwest::Response) -> Duration {
    let seconds = header(response, "retry-after").and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// A moment as HTTP writes it.
pub(crate) fn date(text: &str) -> Option<Timestamp> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    parsed.ok()
}

/// What a store says with a refusal: in XML or in JSON, or in a header where there is no room for words.
async fn refused(doing: &str, response: reqwest::Response) -> StoreError {
    let status = response.status();
    let told = header(&response, "x-ms-error-code");
    let elsewhere = header(&response, "x-amz-bucket-region")
        .filter(|_| status.is_redirection() || status == StatusCode::BAD_REQUEST);
    let answer = Answer { response, doing: doing.to_owned() };
    let text = answer.text().await.unwrap_or_default();
    let (code, message) = words(&text);
    let message = match elsewhere {
        Some(region) => format!("the bucket is in region {region}, and so has to be what is asked"),
        // Azure's sentences end with numbers of the request, each on a line of its own.
        None => message.lines().next().unwrap_or_default().to_owned(),
    };
    let code = told.or(code).unwrap_or_default();
    StoreError::Refused { doing: doing.to_owned(), status, code, message }
}

fn words(text: &str) -> (Option<String>, String) {
    #[derive(serde::Deserialize)]
    struct Words {
        #[serde(alias = "error", alias = "typeKey", alias = "Code")]
        code: Option<serde_json::Value>,
        #[serde(alias = "msg", alias = "error_description", alias = "Message")]
        message: Option<String>,
    }
    if let Ok(words) = serde_json::from_str::<Words>(text) {
        let code = words.code.as_ref().and_then(|code| code.as_str()).map(str::to_owned);
        return (code, words.message.unwrap_or_default());
    }
    (xml::text(text, "Code"), xml::text(text, "Message").unwrap_or_default())
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Answer({})", self.response.status())
    }
}
