//! Signatures and keys as text: base64 between a line that says what begins and one that says that it ends
//! (RFC 9580 §6, OpenSSH PROTOCOL.sshsig).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The tag of a packet that is a signature (RFC 9580 §5).
const SIGNATURE_PACKET: u8 = 2;

/// One block of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it says it is: `PGP SIGNATURE`.
    pub(super) label: String,
    pub(super) data: Vec<u8>,
}

/// All blocks of a text; what is around them does not count.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let mut body = Vec::new();
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) => body.push(line),
                None => return Err(format!("{label} has no end")),
            }
        }
        let data = match label.starts_with("PGP ") {
            true => pgp_body(&body).ok_or_else(|| format!("{label} has no empty line before its data"))?,
            false => &body,
        };
        let data = STANDARD.decode(data.concat()).map_err(|err| format!("{label} is not base64: {err}"))?;
        blocks.push(Block { label: label.to_string(), data });
    }
    Ok(blocks)
}

/// The lines between the headers and the checksum. That is not compared: who could change the data could change it too.
fn pgp_body<'a, 'b>(lines: &'a [&'b str]) -> Option<&'a [&'b str]> {
    let headers = lines.iter().position(|line| line.is_empty())?;
    let body = &lines[headers + 1..];
    match body.split_last() {
        Some((last, rest)) if last.starts_with('=') => Some(rest),
        _ => Some(body),
    }
}

/// An error unless these are signatures alone: a message that brings its own text could be signed as well, and say
/// nothing about what it is compared with.
pub(super) fn only_signatures(mut data: &[u8]) -> Result<(), String> {
    if data.is_empty() {
        return Err("no signature packet found".into());
    }
    while let Some((&first, rest)) = data.split_first() {
        let old_form = first & 0x40 == 0;
        let tag = if old_form { first >> 2 & 0x0f } else { first & 0x3f };
        if first & 0x80 == 0 || tag != SIGNATURE_PACKET {
            return Err(format!("not a detached signature: it holds a packet of type {tag}"));
        }
        let length = if old_form { old_length(first, rest) } else { new_length(rest) };
        let (len, rest) = length.ok_or("the signature is cut off")?;
        data = rest.get(len..).ok_or("the signature is cut off")?;
    }
    Ok(())
}

/// How long a packet is whose header is in the old form, and what comes behind the header. None for one that goes on
/// to the end.
fn old_length(first: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    let size = *[1, 2, 4].get(usize::from(first & 3))?;
    let (bytes, rest) = rest.split_at_checked(size)?;
    Some((number(bytes), rest))
}

/// The same for the new form. None for one that comes in parts.
fn new_length(rest: &[u8]) -> Option<(usize, &[u8])> {
    let size = match rest.first()? {
        0..192 => 1,
        192..224 => 2,
        255 => 5,
        _ => return None,
    };
    let (bytes, rest) = rest.split_at_checked(size)?;
    let len = match size {
        2 => number(bytes) - (192 << 8) + 192,
        5 => number(&bytes[1..]),
        _ => number(bytes),
    };
    Some((len, rest))
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// A signature of SSH, or the like, as text.
pub(super) fn wrapped(label: &str, data: &[u8]) -> String {
    /// As OpenSSH writes it.
    const COLUMNS: usize = 70;
    let encoded = STANDARD.encode(data);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(COLUMNS));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\naGVs\r\nbG8=\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";
        let text = format!("Our keys\n{key}\nand another\n{key}");
        let block = Block { label: "PGP PUBLIC KEY BLOCK".into(), data: b"hello".into() };
        let found = blocks(&text).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| *one == block));
        let signature = wrapped("SSH SIGNATURE", &[7; 200]);
        assert!(signature.lines().all(|line| line.len() <= 70));
        assert_eq!(blocks(&signature).unwrap()[0].data, [7; 200]);
        assert_eq!(blocks("nothing").unwrap(), []);
        for (text, reason) in [
            ("-----BEGIN PGP SIGNATURE-----\n\naGVs", "has no end"),
            ("-----BEGIN PGP SIGNATURE-----\naGVs\n-----END PGP SIGNATURE-----", "no empty line"),
            ("-----BEGIN PGP SIGNATURE-----\n\n%%\n-----END PGP SIGNATURE-----", "not base64"),
        ] {
            let err = blocks(text).unwrap_err();
            assert!(err.contains(reason), "{err}");
        }
    }

    #[test]
    fn damaged_packets_are_read_or_refused() {
        let good = [&[0xc2, 3, 1, 2, 3, 0x88, 2, 1, 2, 0xc2, 255, 0, 0, 1, 0][..], &[0; 256]].concat();
        assert_eq!(only_signatures(&good), Ok(()));
        for at in 0..20 {
            for byte in 0..=255 {
                let mut changed = good.clone();
                changed[at] = byte;
                let _ = only_signatures(&changed);
                let _ = only_signatures(&changed[..at + 1]);
            }
        }
    }

    #[test]
    fn a_detached_signature_holds_nothing_else() {
        let new_form = [&[0xc2, 3][..], &[1, 2, 3]].concat();
        let old_form = [&[0x88, 2][..], &[1, 2]].concat();
        let longer = [&[0xc2, 192, 8][..], &[0; 200]].concat();
        let longest = [&[0xc2, 255, 0, 0, 1, 0][..], &[0; 256]].concat();
        for good in [&new_form, &old_form, &longer, &longest, &[new_form.clone(), old_form.clone()].concat()]
        {
            assert_eq!(only_signatures(good), Ok(()), "{good:?}");
        }
        for (bad, reason) in [
            (&[][..], "no signature packet"),
            (&[0x01, 2, 3], "not a detached signature"),
            (&[0xc2, 3, 1], "cut off"),
            (&[0xc2, 192], "cut off"),
            // Parts, and a length that nobody says.
            (&[0xc2, 224, 1], "cut off"),
            (&[0x8b, 1], "cut off"),
            (&[0xc4, 1, 0], "packet of type 4"),
            (&[0xc2, 1, 0, 0xcb, 1, 0], "packet of type 11"),
        ] {
            let err = only_signatures(bad).unwrap_err();
            assert!(err.contains(reason), "{bad:?}: {err}");
        }
    }
}
