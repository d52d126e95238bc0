//! Asking a web server, or the client for what it uploads.

use super::HttpSource;
use super::answers::Answer;
use super::gunzip::gunzip;
use crate::single_file::safe_name;
use crate::{SourceContext, SourceError};
use bytes::Bytes;
use crosskit_snapshots::Ref;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, USER_AGENT,
};
use reqwest::{Method, Response, Url};
use std::sync::Arc;

/// The host that stands for the client itself.
const UPLOADS: &str = "buildkit-session";

/// How we introduce ourselves: servers that make room for builders look for BuildKit's name.
const AGENT: &str = concat!("buildkit/v0.31 crosskit/", env!("CARGO_PKG_VERSION"));

/// In front of a host's name: the secret that is the header `Authorization` for it.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";

/// The same for a bearer token.
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";

/// Pieces of a file.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, SourceError>>;

/// What came.
pub(super) enum Got {
    Answer(Response),
    Upload(Pieces),
}

impl HttpSource {
    /// Asks for the URL.
    pub(super) async fn send(
        &self,
        cx: &Arc<dyn SourceContext>,
        method: Method,
        kept: &[(Ref, Answer)],
    ) -> Result<Got, SourceError> {
        let url = Url::parse(&self.url)
            .map_err(|err| SourceError::Invalid(format!("invalid URL {:?}: {err}", self.url)))?;
        if url.host_str() == Some(UPLOADS) {
            return self.upload(cx, &url).await.map(Got::Upload);
        }
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        // Always the same: servers may give other tags to other encodings.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        for header in &self.headers {
            let value = HeaderValue::from_str(&header.value);
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(header.name.as_bytes()), value) {
                headers.insert(name, value);
            }
        }
        let etags: Vec<&str> = kept.iter().map(|(_, answer)| answer.etag.as_str()).collect();
        if let Ok(value) = HeaderValue::from_str(&etags.join(", "))
            && !etags.is_empty()
        {
            headers.insert(IF_NONE_MATCH, value);
        }
        if let Some(mut value) = self.authorization(cx, &url).await? {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let sent = self.shared.parts.http.request(method, url).headers(headers).send().await;
        sent.map(Got::Answer).map_err(|err| failed(&self.url, &err))
    }

    /// The bytes of the file that is the answer, uncompressed.
    pub(super) fn body(&self, answer: Response) -> Pieces {
        let says = |name, value: &str| {
            let text = answer.headers().get(name).and_then(|text: &HeaderValue| text.to_str().ok());
            text.is_some_and(|text| text.trim().eq_ignore_ascii_case(value))
        };
        let compressed = says(CONTENT_ENCODING, "gzip") && !says(CONTENT_LENGTH, "0");
        let url = self.url.clone();
        let pieces = answer.bytes_stream().map(move |piece| piece.map_err(|err| failed(&url, &err)));
        match compressed {
            true => gunzip(self.url.clone(), pieces.boxed()),
            false => pieces.boxed(),
        }
    }

    /// What a secret of the client says about who asks.
    async fn authorization(
        &self,
        cx: &Arc<dyn SourceContext>,
        url: &Url,
    ) -> Result<Option<HeaderValue>, SourceError> {
        let host = url.host_str().unwrap_or_default();
        let names = match self.auth_secret.is_empty() {
            false => vec![(self.auth_secret.clone(), false)],
            true => vec![(format!("{TOKEN_SECRET}{host}"), true), (format!("{HEADER_SECRET}{host}"), false)],
        };
        let sessions = cx.sessions();
        for (name, token) in names {
            let manager = &self.shared.parts.sessions;
            match manager.any(&sessions, async |session| session.secret(&name).await).await {
                Ok(secret) => {
                    let prefix: &[u8] = if token { b"Bearer " } else { b"" };
                    let value = HeaderValue::from_bytes(&[prefix, &secret].concat());
                    return value.map(Some).map_err(|_| {
                        SourceError::Invalid(format!(
                            "HTTP auth secret {name} cannot be a header: it has line breaks"
                        ))
                    });
                }
                Err(err) if !self.auth_secret.is_empty() => {
                    return Err(SourceError::session(format!("failed to retrieve HTTP auth secret {name}"))(
                        err,
                    ));
                }
                // Nobody has to have one.
                Err(_) => {}
            }
        }
        Ok(None)
    }

    async fn upload(&self, cx: &Arc<dyn SourceContext>, url: &Url) -> Result<Pieces, SourceError> {
        let sessions = cx.sessions();
        let manager = &self.shared.parts.sessions;
        let pulled = manager.any(&sessions, async |session| session.pull_upload(UPLOADS, url.path()).await);
        let pieces = pulled.await.map_err(SourceError::session(format!("pull {}", self.url)))?;
        let url = self.url.clone();
        Ok(Box::pin(pieces.map(move |piece| piece.map_err(SourceError::session(format!("pull {url}"))))))
    }
}

fn failed(url: &str, err: &reqwest::Error) -> SourceError {
    SourceError::Http { url: url.to_string(), reason: crosskit_images::registry::reason(err) }
}

/// What the file is called: as asked for, as the server says, as the URL says.
pub(super) fn file_name(url: &str, asked: &str, headers: Option<&HeaderMap>) -> String {
    if !asked.is_empty() {
        return safe_name(asked);
    }
    let said = headers.and_then(|headers| headers.get("content-disposition")?.to_str().ok());
    if let Some(name) = said.and_then(disposition_name)
        && !name.is_empty()
        && !name.ends_with('/')
    {
        return safe_name(&name);
    }
    let path = Url::parse(url).ok().map(|url| decode(url.path())).unwrap_or_default();
    safe_name(&path)
}

/// The parameter `filename` of a header `Content-Disposition` (RFC 6266).
fn disposition_name(text: &str) -> Option<String> {
    let mut plain = None;
    let mut rest = text.split_once(';')?.1;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim().trim_start_matches(';').trim().to_ascii_lowercase();
        let after = after.trim_start();
        let value;
        if let Some(quoted) = after.strip_prefix('"') {
            let mut text = String::new();
            let mut chars = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => text.extend(chars.next().map(|(_, c)| c)),
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    c => text.push(c),
                }
            }
            value = text;
            rest = quoted[end.min(quoted.len())..].trim_start().trim_start_matches(';');
        } else {
            let (text, after) = after.split_once(';').unwrap_or((after, ""));
            value = text.trim().to_string();
            rest = after;
        }
        match key.as_str() {
            // The form for other scripts wins: charset'language'text.
            "filename*" => return value.splitn(3, '\'').nth(2).map(decode),
            "filename" => plain = Some(value),
            _ => {}
        }
    }
    plain
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Seconds since 1970 of a time in one of HTTP's three forms, and the time in the usual one.
pub(super) fn http_time(text: &str) -> Option<(i64, String)> {
    let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    // Some servers call the zone by its newer name.
    let text = &match text.strip_suffix(" UTC") {
        Some(rest) => format!("{rest} GMT"),
        None => text.to_string(),
    };
    let time = forms.iter().find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some((zoned.timestamp().as_second(), zoned.strftime(forms[0]).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_servers_put_them() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-disposition", HeaderValue::from_str(text).unwrap());
            file_name("https://example.org/path/from%20url?x=/y", "", Some(&headers))
        };
        assert_eq!(with("attachment; filename=\"a b.txt\""), "a b.txt");
        assert_eq!(with("attachment; filename=plain.txt; size=1"), "plain.txt");
        assert_eq!(with("attachment; filename=\"../../etc/passwd\""), "passwd");
        assert_eq!(with("attachment; filename=\"q\\\"uote\"; x=y"), "q\"uote");
        assert_eq!(with("attachment; filename=\"x\"; filename*=UTF-8''%e2%82%ac.txt"), "€.txt");
        assert_eq!(with("attachment"), "from url");
        assert_eq!(with("attachment; filename=\"dir/\""), "from url");
        assert_eq!(file_name("https://example.org", "", None), "download");
        assert_eq!(file_name("https://example.org/a", "b/c", None), "c");
    }

    #[test]
    fn times_are_read_in_all_forms() {
        let usual = "Sun, 06 Nov 1994 08:49:37 GMT";
        let named_utc = "Sunday, 06-Nov-94 08:49:37 UTC";
        for text in [usual, "Sunday, 06-Nov-94 08:49:37 GMT", named_utc, "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(http_time(text), Some((784_111_777, usual.to_string())), "{text}");
        }
        assert_eq!(http_time("yesterday"), None);
    }
}
