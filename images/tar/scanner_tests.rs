use std::process::{Command, Stdio};

use super::*;

/// The bytes of every part one after the other, and the entries' names.
fn scanned(tar: &[u8], pieces: usize) -> std::io::Result<(Vec<u8>, Vec<String>, bool)> {
    let mut scanner = Scanner::default();
    let (mut bytes, mut names, mut ended) = (Vec::new(), Vec::new(), false);
    for mut piece in tar.chunks(pieces) {
        while let Some(part) = scanner.step(&mut piece)? {
            match part {
                Part::Entry(raw, header) => {
                    bytes.extend(raw);
                    names.push(String::from_utf8_lossy(&header.name).into_owned());
                }
                Part::Data(data) | Part::Padding(data) => bytes.extend(data),
                Part::End => ended = true,
            }
        }
        assert!(piece.is_empty());
    }
    assert_eq!(scanner.is_between_entries(), ended || bytes.len() == tar.len());
    Ok((bytes, names, ended))
}

#[test]
fn an_archive_stays_as_it_is_in_whatever_pieces_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let long = "d".repeat(120);
    std::fs::create_dir_all(dir.path().join(&long).join(&long)).unwrap();
    std::fs::write(dir.path().join(&long).join(&long).join("file"), [7; 1500]).unwrap();
    std::fs::write(dir.path().join("empty"), "").unwrap();
    std::os::unix::fs::symlink("l".repeat(150), dir.path().join("link")).unwrap();
    for format in ["pax", "gnu"] {
        let tar = Command::new("tar")
            .args(["-C", dir.path().to_str().unwrap(), "--sort=name", "--format", format, "-cf", "-", "."])
            .stdout(Stdio::piped())
            .output()
            .unwrap()
            .stdout;
        let expected = [
            "./".to_owned(),
            format!("./{long}/"),
            format!("./{long}/{long}/"),
            format!("./{long}/{long}/file"),
        ];
        for pieces in [1, 511, 512, 4096, tar.len()] {
            let (bytes, names, ended) = scanned(&tar, pieces).unwrap();
            assert!(
                ended && names[..4] == expected && names[4..] == ["./empty", "./link"],
                "{format} {names:?}"
            );
            assert!(tar.starts_with(&bytes) && tar[bytes.len()..].iter().all(|byte| *byte == 0), "{format}");
        }
        // What is cut off in the middle is not whole.
        assert!(!scanned(&tar[..700], 512).unwrap().2);
    }
}

#[test]
fn sparse_files_and_endless_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("holes")).unwrap();
    file.set_len(1 << 20).unwrap();
    for format in ["gnu", "pax"] {
        let tar = Command::new("tar")
            .args(["-C", dir.path().to_str().unwrap(), "--format", format, "-Scf", "-", "holes"])
            .output()
            .unwrap()
            .stdout;
        let error = scanned(&tar, 512).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported, "{format}: {error}");
    }
    let mut tar = Writer::new(Vec::new());
    let mut header = Header::new("f", Kind::Other(b'g'));
    header.size = 1 << 20;
    tar.entry(&header).unwrap();
    for _ in 0..1 << 10 {
        tar.data(&[b' '; 1024]).unwrap();
    }
    let one = tar.finish().unwrap();
    let endless = one[..one.len() - 2 * BLOCK].repeat(6);
    assert!(scanned(&endless, 1 << 20).unwrap_err().to_string().contains("extended header too large"));
}
