use super::challenge::parse;
use super::errors::said;

#[test]
fn challenges_of_real_registries_are_read() {
    let hub = parse(
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="insufficient_scope""#,
    );
    assert_eq!(hub.len(), 1);
    assert_eq!(hub[0].scheme, "bearer");
    assert_eq!(hub[0].get("realm"), "https://auth.docker.io/token");
    assert_eq!(hub[0].get("scope"), "repository:a/b:pull,push");
    assert_eq!(hub[0].get("error"), "insufficient_scope");
    let two = parse(r#"Basic realm="a \"quoted\" realm", Bearer realm=https://x/token , Service="s""#);
    assert_eq!(two.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(), ["basic", "bearer"]);
    assert_eq!(two[0].get("realm"), "a \"quoted\" realm");
    assert_eq!((two[1].get("realm"), two[1].get("service")), ("https://x/token", "s"));
    assert_eq!(parse("Basic")[0].scheme, "basic");
    for odd in ["", ",,", "\"", "=", "Bearer realm=\"open", "é"] {
        parse(odd);
    }
}

#[test]
fn a_registrys_words_are_passed_on() {
    let body = br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":[{}]},{"code":"UNKNOWN"}]}"#;
    assert_eq!(said(body), "DENIED: requested access to the resource is denied, UNKNOWN");
    assert_eq!(said(b"<html>"), "");
    assert_eq!(said(br#"{"details":"incorrect username or password"}"#), "incorrect username or password");
}
