use super::*;
use crosskit_notary::{A_DAY, Form, Key, NOON, Notary, Order};
use serde_json::{Value, json};

const DOCUMENT: &[u8] = br#"{"layers":[],"records":[]}"#;

fn verify(notary: &Notary, document: &[u8], bundle: &Value) -> Result<Signer, String> {
    let root = TrustedRoot::parse(&notary.trusted_root().to_string()).unwrap();
    root.verify(document, bundle.to_string().as_bytes()).map_err(|e| e.to_string())
}

/// What does not hold, of a signature that somebody else looks at than has made it.
fn refused(looking: &Notary, making: &Notary, order: &Order) -> String {
    verify(looking, DOCUMENT, &making.bundle(DOCUMENT, order)).unwrap_err()
}

fn order() -> Order {
    Order::default()
}

#[test]
fn a_signature_tells_who_made_it_and_who_has_seen_it() {
    let notary = Notary::new();
    for form in [Form::Message, Form::Statement] {
        let signer = verify(&notary, DOCUMENT, &notary.bundle(DOCUMENT, &Order { form, ..order() })).unwrap();
        let subject = "https://git.example.com/house/.workflows/cache@refs/heads/main";
        let fields: Vec<_> = signer.fields.iter().map(|(name, value)| (*name, &**value)).collect();
        let expected = [
            ("buildSignerURI", subject),
            ("certificateIssuer", "CN=authority,O=example.com"),
            ("githubWorkflowTrigger", "push"),
            ("issuer", "https://tokens.example.com"),
            ("runnerEnvironment", "self-hosted"),
            ("sourceRepositoryURI", "https://git.example.com/house"),
            ("subjectAlternativeName", subject),
        ];
        assert_eq!(fields, expected);
        assert_eq!((signer.logs, signer.stamps), (1, 1));
    }
}

#[test]
fn one_witness_of_the_time_is_enough_and_none_is_not() {
    let notary = Notary::new();
    let seen = |promised: bool, stamped: bool| {
        let order = Order { promised, stamped, ..order() };
        let signer = verify(&notary, DOCUMENT, &notary.bundle(DOCUMENT, &order))?;
        Ok::<_, String>((signer.logs, signer.stamps))
    };
    assert_eq!(seen(true, false), Ok((1, 0)));
    assert_eq!(seen(false, true), Ok((0, 1)));
    let why = seen(false, false).unwrap_err();
    assert!(why.contains("no verified timestamp"), "{why}");
}

#[test]
fn stamps_of_one_authority_count_once() {
    let notary = Notary::new();
    let mut bundle = notary.bundle(DOCUMENT, &order());
    let stamps = &mut bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"];
    let again = stamps[0].clone();
    stamps.as_array_mut().unwrap().push(again);
    assert_eq!(verify(&notary, DOCUMENT, &bundle).unwrap().stamps, 1);
}

#[test]
fn a_signature_is_for_one_document() {
    let notary = Notary::new();
    for form in [Form::Message, Form::Statement] {
        let bundle = notary.bundle(DOCUMENT, &Order { form, ..order() });
        let why = verify(&notary, b"{}", &bundle).unwrap_err();
        assert!(why.contains("artifact mismatch"), "{why}");
    }
    // One whose digest alone was changed.
    let (mut bundle, other) = (notary.bundle(DOCUMENT, &order()), notary.bundle(b"{}", &order()));
    bundle["messageSignature"]["messageDigest"] = other["messageSignature"]["messageDigest"].clone();
    verify(&notary, b"{}", &bundle).unwrap_err();
}

#[test]
fn each_of_those_who_vouch_is_looked_at() {
    let notary = Notary::new;
    let (mut making, looking) = (notary(), notary());
    let why = refused(&looking, &making, &order());
    assert!(!why.is_empty());
    // Those who look trust everybody but one.
    type Change = fn(&mut Notary, Notary);
    let changes: [(&str, &str, Change); 6] = [
        ("another authority", "certificate chain is invalid", |n, o| n.authority = o.authority),
        ("another log of certificates", "SCT", |n, o| n.certificates = o.certificates),
        ("another key of that log", "SCT", |n, _| n.certificates.key = Key::new()),
        ("another log", "inclusion promise", |n, o| n.log = o.log),
        ("another key of that log", "SET verification failed", |n, _| n.log.key = Key::new()),
        ("another timestamp authority", "TSA timestamp verification failed", |n, o| n.stamper = o.stamper),
    ];
    for (what, expected, change) in changes {
        making = notary();
        let trusted = making.trusted_root().to_string();
        change(&mut making, notary());
        let bundle = making.bundle(DOCUMENT, &order()).to_string();
        let root = TrustedRoot::parse(&trusted).unwrap();
        let why = root.verify(DOCUMENT, bundle.as_bytes()).unwrap_err().to_string();
        assert!(why.contains(expected), "{what}: {why}");
    }
}

#[test]
fn a_key_is_good_only_while_its_certificate_is_valid() {
    let notary = Notary::new();
    let late = Order { time: NOON + A_DAY, ..order() };
    let why = refused(&notary, &notary, &late);
    assert!(why.contains("certificate"), "{why}");
    // A log alone may say so, too, or a timestamp authority.
    for (promised, stamped) in [(true, false), (false, true)] {
        refused(&notary, &notary, &Order { promised, stamped, ..late.clone() });
    }
}

#[test]
fn no_part_of_a_bundle_may_be_changed() {
    let notary = Notary::new();
    let (good, other) = (notary.bundle(DOCUMENT, &order()), notary.bundle(DOCUMENT, &order()));
    for path in [
        "/messageSignature/signature",
        "/messageSignature/messageDigest/algorithm",
        "/verificationMaterial/certificate/rawBytes",
        "/verificationMaterial/tlogEntries/0/canonicalizedBody",
        "/verificationMaterial/tlogEntries/0/integratedTime",
        "/verificationMaterial/tlogEntries/0/inclusionPromise/signedEntryTimestamp",
        "/verificationMaterial/tlogEntries/0/inclusionProof/hashes/0",
        "/verificationMaterial/tlogEntries/0/inclusionProof/checkpoint/envelope",
        "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp",
    ] {
        let mut bundle = good.clone();
        let changed = match path.rsplit('/').next() {
            Some("algorithm") => json!("SHA2_384"),
            Some("integratedTime") => json!((NOON + 1).to_string()),
            Some("0") => json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            _ => other.pointer(path).unwrap().clone(),
        };
        *bundle.pointer_mut(path).unwrap() = changed;
        assert!(verify(&notary, DOCUMENT, &bundle).is_err(), "{path}");
    }
    let mut bundle = good;
    bundle["verificationMaterial"]["tlogEntries"] = json!([]);
    assert!(verify(&notary, DOCUMENT, &bundle).is_err(), "no log");
}

#[test]
fn what_is_no_bundle_or_has_too_many_witnesses_is_told() {
    let notary = Notary::new();
    let root = TrustedRoot::parse(&notary.trusted_root().to_string()).unwrap();
    for text in [&b""[..], b"\xff", b"{}", b"sha256"] {
        let why = root.verify(DOCUMENT, text).unwrap_err();
        assert!(matches!(why, SignatureError::Bundle(_)), "{why}");
    }
    let mut bundle = notary.bundle(DOCUMENT, &order());
    let entries = &mut bundle["verificationMaterial"]["tlogEntries"];
    *entries = Value::Array(vec![entries[0].clone(); 33]);
    assert!(verify(&notary, DOCUMENT, &bundle).unwrap_err().contains("33 witnesses"));
}

#[test]
fn a_root_has_to_name_somebody() {
    for (text, expected) in [
        ("[]", "it is no trusted root"),
        (
            r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#,
            "it names no certificate authorities",
        ),
    ] {
        let why = TrustedRoot::parse(text).err().unwrap().to_string();
        assert!(why.contains(expected), "{why}");
    }
}
