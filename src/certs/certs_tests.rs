//! What is written, what is kept, what is refused.

use super::*;
use crate::hosts::Host;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

const DAY: Duration = Duration::from_secs(86_400);

/// Code, standard output, standard error. The folder is that of the test.
fn certs(folder: &TempDir, arguments: &[&str]) -> (u8, String, String) {
    let into = format!("--into={}", folder.path().join("certs").display());
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).chain([into]).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&arguments, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn made(folder: &TempDir, arguments: &[&str]) -> String {
    let (code, out, err) = certs(folder, arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    out
}

fn refused(folder: &TempDir, arguments: &[&str], expected: u8) -> String {
    let before = files(folder);
    let (code, out, err) = certs(folder, arguments);
    assert_eq!((code, out.as_str()), (expected, ""), "{arguments:?}: {err}");
    assert!(files(folder) == before, "{arguments:?}: nothing changes where something is refused");
    err
}

/// All files with their contents.
fn files(folder: &TempDir) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = fs::read_dir(folder.path().join("certs")).into_iter().flatten();
    let all = folders.flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap());
    all.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn file(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join("certs").join(name)
}

/// A certificate that is read by a reader of its own.
fn read<T>(path: &Path, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let der = CertificateDer::from_pem_file(path).unwrap();
    look(&x509_parser::parse_x509_certificate(&der).unwrap().1)
}

/// Its names as they are written.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().unwrap();
    let shown = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => name.to_string(),
        GeneralName::IPAddress(bytes) => format!("{bytes:?}"),
        other => panic!("{other:?}"),
    };
    names.map_or_else(Vec::new, |names| names.value.general_names.iter().map(shown).collect())
}

#[test]
fn certificates_are_for_what_they_shall_be_used_for() {
    let folder = tempfile::tempdir().unwrap();
    let told = made(
        &folder,
        &["--for", "Builder.example.,10.0.0.5", "--for=[::1]", "--for", "10.0.0.5", "--days=90"],
    );
    assert!(told.contains("a new authority"), "{told}");
    assert!(told.contains("of the daemon at builder.example, 10.0.0.5, ::1, until 20"), "{told}");
    assert!(told.contains("tcp://builder.example:1234 --tlsdir /"), "{told}");
    let all: Vec<_> = files(&folder).into_keys().collect();
    let expected = ["ca/ca.pem", "ca/key.pem"].map(String::from).into_iter().chain(
        ["client", "daemon"]
            .into_iter()
            .flat_map(|of| ["ca", "cert", "key"].map(|what| format!("{of}/{what}.pem"))),
    );
    assert_eq!(all, expected.map(|name| file(&folder, &name)).collect::<Vec<_>>());
    for path in &all {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.ends_with("key.pem") { 0o600 } else { 0o644 }, "{}", path.display());
    }
    let ca = fs::read(file(&folder, "ca/ca.pem")).unwrap();
    read(&file(&folder, "ca/ca.pem"), |authority| {
        assert!(authority.is_ca() && authority.key_usage().unwrap().unwrap().value.key_cert_sign());
        let now = x509_parser::time::ASN1Time::now().timestamp();
        for (name, cn, hosts, server) in [
            (
                "daemon",
                "CN=builder.example",
                &["builder.example", "[10, 0, 0, 5]", "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]"][..],
                true,
            ),
            ("client", "CN=client", &[], false),
        ] {
            assert_eq!(fs::read(file(&folder, name).join("ca.pem")).unwrap(), ca);
            read(&file(&folder, name).join("cert.pem"), |certificate| {
                assert_eq!(certificate.subject().to_string(), cn);
                assert_eq!(certificate.issuer(), authority.subject());
                assert_eq!(names(certificate), hosts);
                let usage = certificate.extended_key_usage().unwrap().unwrap().value;
                assert_eq!((usage.server_auth, usage.client_auth), (server, !server));
                let usage = certificate.key_usage().unwrap().unwrap().value;
                assert!(usage.digital_signature() && !usage.key_cert_sign() && !certificate.is_ca());
                let algorithm = certificate.public_key().algorithm.parameters.clone();
                assert_eq!(algorithm.unwrap().as_oid().unwrap().to_string(), "1.2.840.10045.3.1.7", "P-256");
                let validity = certificate.validity();
                let (from, until) =
                    (validity.not_before.timestamp() - now, validity.not_after.timestamp() - now);
                assert!((-4000..-3000).contains(&from), "clocks may be behind: {from}");
                assert!((90 * 86_400 - 600..=90 * 86_400).contains(&until), "{until}");
                certificate.verify_signature(Some(authority.public_key())).unwrap();
            });
        }
    });
}

#[test]
fn an_authority_is_used_again_and_nothing_is_overwritten_by_chance() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(&folder, &["--client=ci"], 1).contains("--for HOST makes one"));
    assert!(!folder.path().join("certs").exists(), "a slip in --into leaves no folder");
    made(&folder, &["--for=a.example"]);
    let before = files(&folder);
    let is_kept = |name: &str| before[&file(&folder, name)] == fs::read(file(&folder, name)).unwrap();
    assert!(refused(&folder, &["--for=b.example"], 1).contains("daemon/ca.pem is there already; --force"));
    assert!(refused(&folder, &["--client=ci,client"], 1).contains("client/ca.pem is there already"));
    // More of them.
    let told = made(&folder, &["--client=ci", "--client=alice"]);
    assert!(!told.contains("authority") && told.contains("/ci: of a client, until"), "{told}");
    made(&folder, &["--for=w.example", "--daemon=worker"]);
    assert!(before.keys().all(|path| fs::read(path).unwrap() == before[path]));
    let subject = |name: &str| read(&file(&folder, name).join("cert.pem"), |c| c.subject().to_string());
    assert_eq!(["ci", "alice", "worker"].map(subject), ["CN=ci", "CN=alice", "CN=w.example"]);
    // New ones in the place of the old, of the same authority; the client is not the daemon's matter.
    made(&folder, &["--for=b.example", "--force"]);
    assert!(["ca/ca.pem", "ca/key.pem", "client/cert.pem", "client/key.pem"].into_iter().all(is_kept));
    assert!(!is_kept("daemon/cert.pem") && !is_kept("daemon/key.pem"));
    assert_eq!(read(&file(&folder, "daemon/cert.pem"), names), ["b.example"]);
    made(&folder, &["--client=client", "--force"]);
    assert!(!is_kept("client/key.pem"));
    // Nothing is left beside them, and the numbers are all different.
    assert!(files(&folder).keys().all(|path| path.extension().is_some_and(|ending| ending == "pem")));
    let serials: std::collections::BTreeSet<_> = ["daemon", "client", "ci", "alice", "worker"]
        .map(|name| read(&file(&folder, name).join("cert.pem"), |c| c.raw_serial().to_vec()))
        .into();
    assert_eq!(serials.len(), 5);
}

#[test]
fn runs_at_once_share_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                let [daemon, client] = ["daemon", "client"].map(|what| format!("--{what}={what}{number}"));
                made(folder, &["--for=a.example", &daemon, &client]);
            });
        }
    });
    read(&file(&folder, "ca/ca.pem"), |authority| {
        for number in 0..8 {
            for what in ["daemon", "client"] {
                let path = file(&folder, &format!("{what}{number}/cert.pem"));
                read(&path, |certificate| {
                    certificate.verify_signature(Some(authority.public_key())).unwrap()
                });
            }
        }
    });
}

#[test]
fn authorities_that_are_of_no_use_are_refused_with_the_reason() {
    let template = tempfile::tempdir().unwrap();
    made(&template, &["--for=a.example"]);
    let [ca, key] = ["ca/ca.pem", "ca/key.pem"].map(|name| fs::read(file(&template, name)).unwrap());
    let [cert, cert_key] =
        ["daemon/cert.pem", "daemon/key.pem"].map(|name| fs::read(file(&template, name)).unwrap());
    let ec = "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n".as_bytes().to_vec();
    let twice = [ca.clone(), ca.clone()].concat();
    for (ca, key, told) in [
        (Some(&ca), None, "ca/key.pem: this is not there, while "),
        (None, Some(&key), "ca/ca.pem: this is not there, while "),
        (Some(&ca), Some(&cert_key), "ca/key.pem: this is not the key of "),
        (Some(&cert), Some(&cert_key), "ca/ca.pem: this is no authority's certificate"),
        (Some(&key), Some(&key), "ca/ca.pem: one certificate is wanted here, not 0"),
        (Some(&twice), Some(&key), "ca/ca.pem: one certificate is wanted here, not 2"),
        (Some(&ca), Some(&ca), "ca/key.pem: there is no key in it"),
        (Some(&ca), Some(&ec), "openssl pkcs8 -topk8"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(file(&folder, "ca")).unwrap();
        for (name, content) in [("ca/ca.pem", ca), ("ca/key.pem", key)] {
            content.into_iter().for_each(|content| fs::write(file(&folder, name), content).unwrap());
        }
        let said = refused(&folder, &["--for=b.example"], 1);
        assert!(said.contains(told), "{told}: {said}");
    }
    // An old one, and one that ends before what it shall give.
    let folder = tempfile::tempdir().unwrap();
    let asked = |arguments: &[&str]| {
        let into = format!("--into={}", file(&folder, "").display());
        let given =
            arguments::command().try_get_matches_from([&[into.as_str()], arguments].concat()).unwrap();
        Asked::read(&given).unwrap()
    };
    let then = SystemTime::now() - 3600 * DAY;
    make(&asked(&["--for=a.example"]), then).unwrap();
    let said = refused(&folder, &["--client=x", "--days=51"], 2);
    assert!(
        said.contains("--days 51: the authority itself is valid until ") && said.contains("at most 49 days"),
        "{said}"
    );
    made(&folder, &["--client=x", "--days=49"]);
    let late = make(&asked(&["--client=y"]), then + 3651 * DAY).map(|_| ()).unwrap_err();
    assert!(late.to_string().contains("it was valid until ") && late.kind() == Kind::Environment, "{late}");
    // Who wants more than ten years has an authority that lives as long.
    let long = tempfile::tempdir().unwrap();
    made(&long, &["--for=a.example", "--days=36500"]);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, told) in [
        (&[][..], "--for HOST says"),
        (&["--for="][..], "a name or an address is wanted"),
        (&["--for=tcp://a:1"], "without scheme"),
        (&["--for=a.example:1234"], "without a port"),
        (&["--for=a.example,b/c"], "without scheme and path"),
        (&["--for=bücher.example"], "xn--"),
        (&["--for=10.0.0.300"], "neither a host's name nor an IP address"),
        (&["--for=a..b"], "neither a host's name"),
        (&["--for=-a"], "neither a host's name"),
        (&["--for=a.*.b"], "neither a host's name"),
        (&["--for=*.b"], "at least two parts"),
        (&["--for=a", "--days=0"], "0 is not in 1..=36500"),
        (&["--for=a", "--days=x"], "invalid digit"),
        (&["--for=a", "--client=ca"], "the authority's"),
        (&["--for=a", "--client=../x"], "a name has at most"),
        (&["--for=a", "--client=daemon"], "both the daemon and a client"),
        (&["--for=a", "--daemon=client"], "both the daemon and a client"),
        (&["--for=a", "--daemon=.x"], "begins with neither"),
        (&["--frob"], "--frob"),
        (&["a.example"], "a.example"),
    ] {
        let said = refused(&folder, arguments, 2);
        assert!(said.contains(told), "{arguments:?}: {said}");
    }
    assert!(!file(&folder, "").exists());
    assert_eq!(Host::parse("*.Builders.example").unwrap(), Host::Name("*.builders.example".into()));
    assert!(certs(&folder, &["--help"]).1.contains("--kubernetes"));
    // Where one of them can't be written none is.
    fs::create_dir(file(&folder, "")).unwrap();
    fs::create_dir(file(&folder, "daemon")).unwrap();
    fs::write(file(&folder, "client"), "in the way").unwrap();
    let (code, _, said) = certs(&folder, &["--for=a"]);
    assert!(
        code == 1 && said.contains("writing ") && said.contains("/certs/client/key.pem: Not a directory"),
        "{said}"
    );
    let left: Vec<_> =
        fs::read_dir(file(&folder, "")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() == 2 && fs::read_dir(file(&folder, "daemon")).unwrap().count() == 0, "{left:?}");
    fs::remove_dir_all(file(&folder, "")).unwrap();
    // Where nothing can be written.
    fs::write(folder.path().join("certs"), "in the way").unwrap();
    let (code, _, said) = certs(&folder, &["--for=a"]);
    assert!(code == 1 && said.contains("creating the folder") && said.contains("/certs: "), "{said}");
}

#[test]
fn secrets_hold_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = certs(&folder, &["--for=a.example", "--client=ci", "--kubernetes"]);
    assert!(code == 0 && err.contains("a new authority"), "{err}");
    let mut expected = String::new();
    for name in ["ci", "daemon"] {
        let text = |what: &str| STANDARD.encode(fs::read(file(&folder, name).join(what)).unwrap());
        expected += if expected.is_empty() { "" } else { "---\n" };
        expected += &format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: crosskit-{name}-tls\ntype: Opaque\ndata:\n  ca.pem: {}\n  cert.pem: {}\n  key.pem: {}\n",
            text("ca.pem"),
            text("cert.pem"),
            text("key.pem"),
        );
    }
    assert_eq!(out, expected, "and not the authority's key");
    assert_eq!(made(&folder, &["--kubernetes"]), expected);
    let slips = refused(&folder, &["--client=Bob.B", "--kubernetes"], 2);
    assert!(slips.contains("\"Bob.B\" can't be part of a Secret's name"), "{slips}");
    made(&folder, &["--client=Alice_1"]);
    assert!(refused(&folder, &["--kubernetes"], 2).contains("\"Alice_1\" can't be part of a Secret's name"));
    let empty = tempfile::tempdir().unwrap();
    fs::create_dir(file(&empty, "")).unwrap();
    assert!(refused(&empty, &["--kubernetes"], 2).contains("--for HOST makes some"));
}
