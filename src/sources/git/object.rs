//! Commits and tags as git keeps them, taken apart.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The headers with a signature: for the repository's ids of SHA-1, and of SHA-256 (git gitformat-signature).
pub(super) const HEADERS: [&str; 2] = ["gpgsig", "gpgsig-sha256"];

/// How a signature begins that stands behind the message of a tag.
const BEGINNINGS: [&[u8]; 2] = [b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN SSH SIGNATURE-----"];

/// The id of an object, as long as another one. None if no id is so long.
pub(super) fn id_of(kind: &str, raw: &[u8], len: usize) -> Option<String> {
    let algorithm = match len {
        40 => &SHA1_FOR_LEGACY_USE_ONLY,
        64 => &SHA256,
        _ => return None,
    };
    let mut hash = Context::new(algorithm);
    hash.update(format!("{kind} {}\0", raw.len()).as_bytes());
    hash.update(raw);
    Some(hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An object taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Option<Vec<u8>>,
}

/// Takes the signature out of an object. A commit has it in a header, a tag behind its message.
pub(super) fn split(raw: &[u8], tag: bool, header: &str) -> Result<Signed, String> {
    let mut signed = Signed::default();
    // Of a line, what follows belongs to this, for git goes on with headers in lines that begin with a space.
    let mut into = Into::Payload;
    let mut rest = raw;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, more) = rest.split_at(end);
        if line == b"\n" {
            break;
        }
        rest = more;
        match (line.strip_prefix(b" "), &into) {
            (Some(more), Into::Signature) => signed.signature.get_or_insert_default().extend_from_slice(more),
            (Some(_), Into::Nothing) => {}
            (Some(_), Into::Payload) => signed.payload.extend_from_slice(line),
            (None, _) => {
                let name = line.split(|byte| *byte == b' ').next().unwrap_or_default();
                let is = |header: &str| name == header.as_bytes();
                into = match () {
                    () if !tag && is(header) => Into::Signature,
                    () if HEADERS.into_iter().any(is) => Into::Nothing,
                    () => Into::Payload,
                };
                match into {
                    Into::Signature if signed.signature.is_some() => {
                        return Err(format!("it has more than one header {header}"));
                    }
                    Into::Signature => {
                        signed.signature = Some(line[(name.len() + 1).min(line.len())..].to_vec())
                    }
                    Into::Nothing => {}
                    Into::Payload => signed.payload.extend_from_slice(line),
                }
            }
        }
    }
    let message = match tag {
        true => {
            let at = signature_at(rest);
            signed.signature = at.map(|at| rest[at..].to_vec());
            &rest[..at.unwrap_or(rest.len())]
        }
        false => rest,
    };
    signed.payload.extend_from_slice(message);
    Ok(signed)
}

/// Where a line of a header goes.
enum Into {
    Payload,
    Signature,
    Nothing,
}

/// Where the signature behind a message begins: at the last line that begins one, as git sees it.
fn signature_at(message: &[u8]) -> Option<usize> {
    let mut found = None;
    let mut at = 0;
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if BEGINNINGS.into_iter().any(|beginning| line.starts_with(beginning)) {
            found = Some(at);
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn a_commit_is_signed_without_its_signatures() {
        let raw = "tree 1\nparent 2\nmergetag object 3\n type commit\n \n gpgsig no\nauthor a\ngpgsig -----BEGIN\n \n \
                   line\n -----END\ngpgsig-sha256 other\n more\ngpgsigs x\n\ngpgsig of the message\n -----BEGIN PGP \
                   SIGNATURE-----\n";
        let payload = "tree 1\nparent 2\nmergetag object 3\n type commit\n \n gpgsig no\nauthor a\ngpgsigs x\n\ngpgsig of \
                       the message\n -----BEGIN PGP SIGNATURE-----\n";
        let one = split(raw.as_bytes(), false, "gpgsig").unwrap();
        assert_eq!(text(&one.payload), payload);
        assert_eq!(text(&one.signature.unwrap()), "-----BEGIN\n\nline\n-----END\n");
        let other = split(raw.as_bytes(), false, "gpgsig-sha256").unwrap();
        assert_eq!(text(&other.payload), payload);
        assert_eq!(text(&other.signature.unwrap()), "other\nmore\n");

        let plain = "tree 1\nauthor a\n\nmessage without end";
        let found = split(plain.as_bytes(), false, "gpgsig").unwrap();
        assert_eq!((text(&found.payload).as_str(), found.signature), (plain, None));
        let twice = split(b"tree 1\ngpgsig a\ngpgsig b\n\nm", false, "gpgsig").unwrap_err();
        assert!(twice.contains("more than one header gpgsig"), "{twice}");
        for odd in ["", "gpgsig", "gpgsig\n", "\n", " \n", " x"] {
            split(odd.as_bytes(), false, "gpgsig").unwrap();
            split(odd.as_bytes(), true, "gpgsig").unwrap();
        }
    }

    #[test]
    fn a_tag_is_signed_before_its_signature() {
        let quoted = "object 1\ntype commit\ntag v1\n\nsay\n-----BEGIN PGP SIGNATURE-----\nquoted\n";
        let raw = format!("{quoted}-----BEGIN SSH SIGNATURE-----\nx\n");
        let found = split(raw.as_bytes(), true, "gpgsig").unwrap();
        assert_eq!(text(&found.payload), quoted);
        assert_eq!(text(&found.signature.unwrap()), "-----BEGIN SSH SIGNATURE-----\nx\n");
        let header = split(b"object 1\ngpgsig-sha256 x\n y\ntag v1\n\nm\n", true, "gpgsig").unwrap();
        assert_eq!((text(&header.payload).as_str(), header.signature), ("object 1\ntag v1\n\nm\n", None));
    }

    #[test]
    fn damaged_objects_are_read_or_refused() {
        let raw = b"object 1\ngpgsig -----BEGIN\n more\n\nmessage\n-----BEGIN SSH SIGNATURE-----\nx";
        for at in 0..raw.len() {
            let mut changed = raw.to_vec();
            for byte in [b'\n', b' ', 0, 0xff] {
                changed[at] = byte;
                for object in [&raw[..at], &changed] {
                    for tag in [true, false] {
                        if let Ok(found) = split(object, tag, "gpgsig") {
                            assert!(found.payload.len() <= object.len());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn ids_are_made_of_kind_length_and_content() {
        // `git hash-object -t commit` of the same bytes, in repositories of both formats.
        let empty_tree = id_of("tree", b"", 40).unwrap();
        assert_eq!(empty_tree, "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
        let sha256 = id_of("tree", b"", 64).unwrap();
        assert_eq!(sha256, "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321");
        assert_eq!(id_of("tree", b"", 8), None);
    }
}
