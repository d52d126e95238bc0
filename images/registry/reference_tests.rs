use super::{Reference, ReferenceError};

#[test]
fn names_are_completed_and_shortened() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    for (given, full, short) in [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine", "alpine"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("127.0.0.1:5000/a/b__c-d.e", "127.0.0.1:5000/a/b__c-d.e", "127.0.0.1:5000/a/b__c-d.e"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("ghcr.io/o/r:T-a.g_1", "ghcr.io/o/r:T-a.g_1", "ghcr.io/o/r:T-a.g_1"),
        ("Registry/app", "Registry/app", "Registry/app"),
    ] {
        let reference = Reference::parse(given).unwrap();
        assert_eq!(reference.to_string(), full, "{given}");
        assert_eq!(reference.familiar(), short, "{given}");
        let pinned = Reference::parse(&format!("{given}@{digest}")).unwrap();
        assert_eq!(pinned.to_string(), format!("{full}@{digest}"));
        assert_eq!(pinned.clone().with_default_tag(), pinned);
    }
    assert_eq!(
        Reference::parse("alpine").unwrap().with_default_tag().to_string(),
        "docker.io/library/alpine:latest"
    );
}

#[test]
fn what_is_no_name_is_refused_in_dockers_words() {
    let hex = "a".repeat(64);
    let long = format!("{}/x", "a".repeat(260));
    for (bad, why) in [
        ("", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("/a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a:-x", "invalid reference format"),
        ("http://x/y", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("host:port/x", "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("user/Foo:tag", "invalid reference format: repository name (user/Foo) must be lowercase"),
        (&hex, &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings")),
        (&long, "repository name must not be more than 255 characters"),
        (&format!("a@sha512:{}", "ab".repeat(64)), "unsupported digest algorithm"),
    ] {
        assert_eq!(Reference::parse(bad).unwrap_err().to_string(), why, "{bad}");
    }
    assert_eq!(Reference::parse(&"t".repeat(129)).map(|_| ()), Ok(()));
    assert_eq!(Reference::parse(&format!("a:{}", "t".repeat(129))), Err(ReferenceError::Format));
}
