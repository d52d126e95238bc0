use super::*;

struct Thing(&'static [(&'static str, &'static str)]);

impl Fields for Thing {
    fn field(&self, path: &[String]) -> Option<String> {
        let name = path.join(".");
        self.0.iter().find(|(field, _)| *field == name).map(|(_, value)| value.to_string())
    }
}

const THING: Thing = Thing(&[
    ("id", "abc123"),
    ("type", "source.local"),
    ("description", "[stage 1/2] RUN echo \"hi\", there"),
    ("inuse", ""),
    ("labels.a b", "x"),
]);

#[test]
fn filters_hold_or_do_not() {
    let table = [
        ("", true),
        ("id==abc123", true),
        ("id!=abc123", false),
        ("id~=^abc", true),
        ("id~=123$,inuse", true),
        ("id~=/^a.c1/", true),
        ("id~=|zzz|", false),
        ("inuse", true),
        ("inuse==", false),
        ("mutable", false),
        ("type==source.local", true),
        ("type == regular", false),
        ("mutable!=x", true),
        ("labels.\"a b\"==x", true),
        ("description~='RUN echo \"hi\", there'", true),
        ("description==\"[stage 1/2] RUN echo \\\"hi\\\", there\"", true),
        ("id==\"\\x61bc123\"", true),
        ("id~=(", false),
    ];
    for (filter, want) in table {
        match Filters::parse([filter]) {
            Ok(filters) => assert_eq!(filters.matches(&THING), want, "{filter}"),
            Err(why) => assert_eq!(filter, "inuse==", "{filter}: {why}"),
        }
    }
    let any = Filters::parse(["id==nothing", "type==source.local"]).unwrap();
    assert!(any.matches(&THING));
    assert!(Filters::default().matches(&THING));
}

#[test]
fn faults_are_shown_in_their_place() {
    let table = [
        ("id=abc", "filters: parse error: [id >|=|< abc]: unsupported operator \"=\""),
        ("=x", "filters: parse error: [ >|=|< x]: expected field or quoted"),
        ("id==", "filters: parse error: [id==]: expected value or quoted"),
        ("id==\"abc", "filters: parse error: [id== >|\"|< abc]: quoted literal not terminated"),
        ("id x", "filters: parse error: [id  >|x|< ]: expected an operator (\"==\"|\"!=\"|\"~=\")"),
        ("a,,b", "filters: parse error: [a, >|,|< b]: expected field or quoted"),
        ("id==x y", "filters: parse error: [id==x >| |< y]: unexpected input:  "),
        (r#"id=="\q""#, r#"filters: parse error: [id== >|"|< \q"]: illegal escape sequence"#),
        ("idé==x", "filters: parse error: [id >|é|< ==x]: expected an operator (\"==\"|\"!=\"|\"~=\")"),
    ];
    for (filter, want) in table {
        assert_eq!(Filters::parse([filter]).unwrap_err().to_string(), want);
    }
}
