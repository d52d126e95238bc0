//! Requests that are made again, and those that are not.

use crate::answering::{answering, said};
use crate::http::{Http, Method, Request, Retries};
use crate::reading::{read_all, read_on};
use futures::StreamExt;
use std::time::Duration;

#[tokio::test]
async fn passing_failures_are_tried_again_and_others_are_told() {
    let xml = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Words.</Message></Error>")
    };
    let old = "Sat, 01 Jan 2000 00:00:00 GMT";
    let skewed =
        format!("403 Forbidden\r\nDate: {old}\r\nConnection: close\r\n\r\n{}", xml("RequestTimeTooSkewed"));
    let silent = format!("403 Forbidden\r\nDate: {old}\r\nConnection: close\r\n\r\n");
    let cases: Vec<(Vec<String>, Retries, Result<usize, &str>)> = vec![
        (vec![silent, said("200 OK", "")], Retries::default(), Ok(2)),
        (
            vec![said("503 Slow Down", &xml("SlowDown")), said("500 Error", ""), said("200 OK", "")],
            Retries::default(),
            Ok(3),
        ),
        (vec![said("400 Bad", &xml("RequestTimeout")), said("200 OK", "")], Retries::default(), Ok(2)),
        (vec![String::new(), said("200 OK", "")], Retries::default(), Ok(2)),
        (vec![skewed.clone(), said("200 OK", "")], Retries::default(), Ok(2)),
        (
            vec![skewed.clone(), skewed],
            Retries::default(),
            Err("403 Forbidden: RequestTimeTooSkewed: Words: set this machine's clock"),
        ),
        (
            vec![said("403 Forbidden", &xml("AccessDenied"))],
            Retries::default(),
            Err("AccessDenied: Words: check the credentials"),
        ),
        (
            vec![said("503 Slow", ""); 2],
            Retries { tries: 2, together: true, ..Retries::default() },
            Err("ask: 503 Service Unavailable"),
        ),
        (
            vec![said("429 Slow", ""), said("429 Slow", ""), said("200 OK", "")],
            Retries { tries: 1, patience: Duration::from_secs(60), ..Retries::default() },
            Ok(3),
        ),
        (
            vec![said("409 Taken", r#"{"code":"already_exists","msg":"it is there"}"#)],
            Retries::default(),
            Err("409 Conflict: already_exists: it is there"),
        ),
    ];
    for (answers, retries, expected) in cases {
        let count = answers.len();
        let mut left = answers.clone().into_iter();
        let (address, log) = answering(move |_| left.next().unwrap_or_else(|| said("500 Nothing left", "")));
        let http = Http::new(&address, retries).unwrap();
        let sent =
            http.send("ask", |at| Request::new(Method::GET, &*address).header("at", at.to_string())).await;
        match (sent, expected) {
            (Ok(_), Ok(expected)) => assert_eq!(log.lock().unwrap().len(), expected, "{answers:?}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
                assert_eq!(log.lock().unwrap().len(), count, "{answers:?}");
            }
            (sent, expected) => panic!("{answers:?}: {sent:?}, not {expected:?}"),
        }
        if answers[0].contains(old) {
            // From then on it is the store's clock that counts.
            assert!(
                log.lock().unwrap()[1].headers.contains("at:2000-01-01T00:00"),
                "{:?}",
                log.lock().unwrap()
            );
        }
    }
}

#[tokio::test]
async fn bytes_come_on_where_they_broke_off() {
    let whole = "0123456789";
    let (address, log) = answering(move |asked| {
        let from =
            asked.headers.lines().find_map(|line| line.strip_prefix("range:bytes=")?.strip_suffix('-'));
        let from: usize = from.map_or(0, |from| from.parse().unwrap());
        // Four bytes, then nothing.
        let to = whole.len().min(from + 4);
        format!(
            "206 Partial\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
            whole.len() - from,
            &whole[from..to]
        )
    });
    let http = Http::new(&address, Retries::default()).unwrap();
    let open = |from: u64| {
        let (http, address) = (&http, &address);
        let ask = async move {
            let make = |_| Request::new(Method::GET, &**address).header("range", format!("bytes={from}-"));
            Ok(Some(http.send("read", make).await?.stream()))
        };
        Box::pin(ask) as futures::future::BoxFuture<'_, _>
    };
    let pieces: Vec<_> = read_on("read".to_owned(), 10, open).collect().await;
    let pieces: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
    assert_eq!(pieces, whole.as_bytes());
    assert_eq!(log.lock().unwrap().len(), 3);
    // What never comes on is given up.
    let ended =
        read_on("read it".to_owned(), 20, |_| Box::pin(async { Ok(Some(futures::stream::empty().boxed())) }));
    let told: Vec<_> = ended.collect().await;
    assert_eq!(told[0].as_ref().unwrap_err().to_string(), "read it: it ended after 0 of 20 bytes");
    let large = futures::stream::iter([Ok(bytes::Bytes::from_static(b"123"))]).boxed();
    assert_eq!(
        read_all("words", large, 2).await.unwrap_err().to_string(),
        "words: it is too large (more than 2 bytes)"
    );
}
