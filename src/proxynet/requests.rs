//! What a request of a step is about, and what of it leaves.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, Uri, Version};
use url::Url;

/// Headers that are about the connection to the proxy, not about what is asked for.
const OF_THE_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why the proxy answers a request itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

fn refuse<T>(status: StatusCode, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(status, why.into()))
}

/// The address that a request is for, in the form in which it is judged and asked for: names in lower case, without
/// default ports, steps upwards and users. `tunnel` is the host and port that a tunnel leads to.
pub(crate) fn target<B>(request: &Request<B>, tunnel: Option<&str>) -> Result<Url, Refusal> {
    let uri = request.uri();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let text = match (tunnel, uri.scheme_str(), host) {
        (Some(tunnel), None, host) => {
            let inside = parse(&format!("https://{tunnel}{path}"))?;
            let said = host.map(|host| parse(&format!("https://{host}/"))).transpose()?;
            let place = |url: &Url| (url.host_str().map(str::to_owned), url.port());
            if let Some(said) = said.filter(|said| place(said) != place(&inside)) {
                let said = said.host_str().unwrap_or_default().to_owned();
                let why =
                    format!("a request for {said} in a tunnel to {tunnel}: the proxy sends it nowhere else");
                return refuse(StatusCode::MISDIRECTED_REQUEST, why);
            }
            return Ok(inside);
        }
        (Some(_), Some(_), _) => {
            return refuse(StatusCode::BAD_REQUEST, "a whole address in a tunnel: ask for its path only");
        }
        (None, Some(_), _) => uri.to_string(),
        (None, None, Some(host)) => format!("http://{host}{path}"),
        (None, None, None) => {
            return refuse(StatusCode::BAD_REQUEST, "the request names no host");
        }
    };
    parse(&text)
}

fn parse(text: &str) -> Result<Url, Refusal> {
    let Ok(url) = Url::parse(text) else {
        return refuse(StatusCode::BAD_REQUEST, "the request's address is none");
    };
    plain(url)
}

/// The address without a user, if it is one of the web.
fn plain(mut url: Url) -> Result<Url, Refusal> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        let why = format!("{}: only http and https leave a step behind the proxy", url.scheme());
        return refuse(StatusCode::NOT_IMPLEMENTED, why);
    }
    let bare = url.set_username("").and_then(|()| url.set_password(None));
    url.set_fragment(None);
    match bare {
        Ok(()) => Ok(url),
        Err(()) => refuse(StatusCode::BAD_REQUEST, "the request's address is none"),
    }
}

/// An address that takes a request's place.
pub(crate) fn converted(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("not an address ({e})"))?;
    plain(url).map_err(|Refusal(_, why)| why)
}

/// Where the answer sends the step to, if it does.
pub(crate) fn redirect(from: &Url, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let to = from.join(headers.get(header::LOCATION)?.to_str().ok()?).ok()?;
    plain(to).ok().map(String::from)
}

/// Makes a step's request one that leaves, for `to`. Nothing that is meant for one host goes to another.
pub(crate) fn direct<B>(request: &mut Request<B>, from: &Url, to: &Url) -> Result<(), Refusal> {
    let Ok(uri) = to.as_str().parse::<Uri>() else {
        return refuse(StatusCode::BAD_REQUEST, "the request's address is none");
    };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip(headers);
    // The host is that of the address. What comes is what is counted: no compression on the way, no waiting for a leave.
    for name in [header::HOST, header::ACCEPT_ENCODING, header::EXPECT] {
        headers.remove(name);
    }
    if from.origin() != to.origin() {
        headers.remove(header::AUTHORIZATION);
        headers.remove(header::COOKIE);
    }
    Ok(())
}

/// Takes out what is about one connection only.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value: &HeaderValue| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_THE_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uri: &str, host: &str, tunnel: Option<&str>) -> Result<String, u16> {
        let request = Request::builder().uri(uri).header("host", host).body(()).expect("a request");
        target(&request, tunnel).map(String::from).map_err(|Refusal(status, _)| status.as_u16())
    }

    #[test]
    fn an_address_has_one_form() {
        for (uri, host, tunnel, expected) in [
            ("http://u:p@Host:80/a/../b?q", "other", None, Ok("http://host/b?q")),
            ("https://host:443/%2e%2e/x", "host", None, Ok("https://host/x")),
            ("http://0x7f.1/", "host", None, Ok("http://127.0.0.1/")),
            ("/path", "host:81", None, Ok("http://host:81/path")),
            ("/path", "HOST", Some("host:443"), Ok("https://host/path")),
            ("/path", "host", Some("host:8443"), Err(421)),
            ("/path", "other", Some("host:443"), Err(421)),
            ("http://host/", "host", Some("host:443"), Err(400)),
            ("ftp://host/", "host", None, Err(501)),
        ] {
            assert_eq!(at(uri, host, tunnel), expected.map(str::to_owned), "{uri}");
        }
    }

    #[test]
    fn what_is_meant_for_one_host_stays_with_it() {
        let (one, two) = (Url::parse("http://one/a").unwrap(), Url::parse("http://two/a").unwrap());
        let sent = |to: &Url| {
            let mut request = Request::builder()
                .uri("http://one/a")
                .header("host", "one")
                .header("authorization", "secret")
                .header("connection", "x-hop, close")
                .header("x-hop", "1")
                .header("accept-encoding", "gzip")
                .header("accept", "*/*")
                .body(())
                .unwrap();
            direct(&mut request, &one, to).unwrap();
            let mut names: Vec<_> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
            names.sort();
            (request.uri().to_string(), names.join(" "))
        };
        assert_eq!(sent(&one), ("http://one/a".to_owned(), "accept authorization".to_owned()));
        assert_eq!(sent(&two), ("http://two/a".to_owned(), "accept".to_owned()));
    }

    #[test]
    fn only_redirects_lead_somewhere_else() {
        let from = Url::parse("http://host/a/b").unwrap();
        let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static("../c"))]);
        let found = redirect(&from, StatusCode::FOUND, &headers);
        assert_eq!(found.as_deref(), Some("http://host/c"));
        assert_eq!(redirect(&from, StatusCode::CREATED, &headers), None);
        assert_eq!(redirect(&from, StatusCode::FOUND, &HeaderMap::new()), None);
    }
}
