use std::io::{Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn write(headers: &[(Header, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (header, data) in headers {
        writer.entry(header).unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap()
}

fn read(tar: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut reader = Reader::new(tar, ReaderLimits::default());
    let mut all = Vec::new();
    while let Some(header) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        reader.read_to_end(&mut data).unwrap();
        all.push((header, data));
    }
    all
}

fn file(name: &str, size: u64) -> Header {
    let mut header = Header::new(name, Kind::File);
    header.mode = 0o644;
    header.size = size;
    header
}

/// Made with Go 1.26's archive/tar: `Header{Typeflag: TypeReg, Name: "a/b", Mode: 0644, Size: 2, ModTime: 1700000000,
/// Uid: 1000, Gid: 1001, Format: FormatPAX}`.
#[test]
fn a_plain_header_is_ustar() {
    let mut header = file("a/b", 2);
    (header.uid, header.gid) = (1000, 1001);
    header.mtime = Timestamp::from_seconds(1_700_000_000);
    let tar = write(&[(header, b"hi")]);
    assert_eq!(tar.len(), 512 + 512 + 1024);
    assert_eq!(&tar[..8], b"a/b\0\0\0\0\0");
    assert_eq!(&tar[100..124], b"0000644\x000001750\x000001751\0");
    assert_eq!(&tar[124..148], b"00000000002\x0014524770400\0");
    assert_eq!(&tar[156..157], b"0");
    assert_eq!(&tar[257..265], b"ustar\x0000");
    assert_eq!(&tar[329..345], b"0000000\x000000000\0");
    assert_eq!(tar[154..156], *b"\0 ");
}

/// One name that is split between two fields beside a number that none of them holds.
#[test]
fn a_long_path_beside_a_large_number_comes_back() {
    let mut header = file(&format!("n{}/{}", "a".repeat(90), "a".repeat(9)), 0);
    header.uid = 0o10_000_000;
    assert_eq!(read(&write(&[(header.clone(), b"")]))[0].0.name, header.name);
    assert_eq!(read(&write(&[(header.clone(), b"")]))[0].0.uid, header.uid);
}

#[test]
fn what_ustar_cannot_say_is_said_by_pax() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(60));
    let split = write(&[(file(&long, 0), b"")]);
    assert_eq!(split.len(), 512 + 1024, "a long path with a slash in the right place needs no PAX header");
    assert_eq!(&split[345..435], "d".repeat(90).as_bytes());

    let longest = "x".repeat(300);
    let tar = write(&[(file(&longest, 0), b"")]);
    assert_eq!(tar[156], b'x');
    assert_eq!(&tar[..20], b"PaxHeaders.0/xxxxxxx");
    assert!(tar[512..1024].starts_with(format!("310 path={longest}\n").as_bytes()));
    assert_eq!(read(&tar)[0].0.name, longest.as_bytes());

    let mut accented = file("d/é", 0);
    accented.uid = 3_000_000;
    accented.mtime = Timestamp { seconds: -2, nanos: 750_000_000 };
    let tar = write(&[(accented.clone(), b"")]);
    assert!(
        tar[512..1024].starts_with(b"15 mtime=-1.25\n13 path=d/\xc3\xa9\n15 uid=3000000\n\0"),
        "{:?}",
        String::from_utf8_lossy(&tar[512..600])
    );
    assert_eq!(&tar[..16], b"d/PaxHeaders.0\0\0");
    let back = &read(&tar)[0].0;
    assert_eq!((back.uid, back.mtime, &back.name), (3_000_000, accented.mtime, &accented.name));
}

#[test]
fn gnu_tar_reads_what_we_write_and_we_read_what_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), b"content").unwrap();
    std::os::unix::fs::symlink("t".repeat(200), dir.path().join("link")).unwrap();
    std::fs::hard_link(deep.join("file"), dir.path().join("hard")).unwrap();
    for format in ["gnu", "pax", "posix"] {
        let out = Command::new("tar")
            .args(["--sort=name", &format!("--format={format}"), "-cC"])
            .arg(dir.path())
            .arg(".")
            .output()
            .unwrap();
        let entries = read(&out.stdout);
        let names: Vec<_> = entries.iter().map(|(h, _)| (h.name.len(), h.kind)).collect();
        assert_eq!(
            names,
            [
                (2, Kind::Directory),
                (123, Kind::Directory),
                (244, Kind::Directory),
                (248, Kind::File),
                (6, Kind::HardLink),
                (6, Kind::Symlink)
            ],
            "{format}"
        );
        assert_eq!(entries[3].1, b"content");
        assert_eq!(entries[4].0.link.len(), 248);
        assert_eq!(entries[5].0.link, "t".repeat(200).as_bytes());
        let again: Vec<_> = entries.iter().map(|(h, d)| (h.clone(), &d[..])).collect();
        let ours = write(&again);
        let mut list =
            Command::new("tar").arg("-tf-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        list.stdin.take().unwrap().write_all(&ours).unwrap();
        let listed = list.wait_with_output().unwrap();
        assert!(listed.status.success());
        assert_eq!(listed.stdout.iter().filter(|b| **b == b'\n').count(), 6);
    }
}

#[test]
fn sparse_files_of_every_format_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let f = std::fs::File::create(&path).unwrap();
    f.set_len(1 << 20).unwrap();
    for (at, text) in [(0, "begin"), (300_000, "middle"), ((1 << 20) - 3, "end")] {
        std::os::unix::fs::FileExt::write_all_at(&f, text.as_bytes(), at).unwrap();
    }
    for args in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let out = Command::new("tar").args(args).arg("-ScC").arg(dir.path()).arg("sparse").output().unwrap();
        assert!(out.stdout.len() < 100_000, "tar made no sparse archive");
        let (header, data) = read(&out.stdout).remove(0);
        assert_eq!(header.name, b"sparse", "{args:?}");
        assert_eq!(header.size, 1 << 20);
        let mut whole = vec![0; 1 << 20];
        let mut from = 0;
        for (offset, length) in header.pieces.unwrap() {
            whole[offset as usize..(offset + length) as usize]
                .copy_from_slice(&data[from..from + length as usize]);
            from += length as usize;
        }
        assert_eq!(whole, std::fs::read(&path).unwrap(), "{args:?}");
    }
}

#[test]
fn damaged_archives_are_errors_not_panics() {
    let tar = write(&[(file(&"n".repeat(200), 700), &[1; 700])]);
    for end in (1..1536 + 700).step_by(97) {
        let mut reader = Reader::new(&tar[..end], ReaderLimits::default());
        let mut sink = Vec::new();
        let result = reader.next_entry().and_then(|_| reader.read_to_end(&mut sink));
        assert!(result.is_err(), "cut at {end}");
    }
    let mut bad = tar.clone();
    bad[0] ^= 1;
    let error = Reader::new(&bad[..], ReaderLimits::default()).next_entry().unwrap_err();
    assert_eq!(error.to_string(), "invalid tar: header checksum");
}

#[test]
fn a_huge_extension_is_refused_before_it_is_read() {
    let mut header = Header::new("x", Kind::Other(b'x'));
    header.size = 1 << 32;
    let mut tar = Vec::new();
    Writer::new(&mut tar).entry(&header).unwrap();
    let error = Reader::new(&tar[..], ReaderLimits::default()).next_entry().unwrap_err();
    assert_eq!(error.to_string(), "invalid tar: extended header too large");
}

fn any_header() -> impl Strategy<Value = (Header, Vec<u8>)> {
    let name = prop_oneof![
        "[a-z./é]{1,20}".prop_map(String::from),
        "[a-z]{90,120}/[a-z]{1,160}".prop_map(String::from),
        "[a-z/]{250,400}".prop_map(String::from)
    ];
    let bytes = proptest::collection::vec(any::<u8>(), 0..1500);
    let xattr = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
    let when = (-5_000_000_000_i64..20_000_000_000, prop_oneof![Just(0), 0_u32..1_000_000_000]);
    (name, bytes, xattr, when, any::<u32>(), 0_u32..0o10000).prop_map(
        |(name, data, xattr, (seconds, nanos), uid, mode)| {
            let name = format!("n{}", name.trim_end_matches('/'));
            let mut header = Header::new(name, Kind::File);
            header.size = data.len() as u64;
            header.mtime = Timestamp { seconds, nanos };
            header.uid = uid;
            header.mode = mode;
            if let Some(value) = xattr {
                header.set_xattr(b"user.x", value);
            }
            (header, data)
        },
    )
}

proptest! {
    #[test]
    fn everything_written_is_read_back(entries in proptest::collection::vec(any_header(), 0..6)) {
        let borrowed: Vec<_> = entries.iter().map(|(h, d)| (h.clone(), &d[..])).collect();
        prop_assert_eq!(read(&write(&borrowed)), entries);
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..3000), at in 0_usize..1500) {
        let mut tar = write(&[(file(&"n".repeat(150), 600), &[7; 600])]);
        let at = at.min(tar.len());
        let end = (at + noise.len()).min(tar.len());
        tar[at..end].copy_from_slice(&noise[..end - at]);
        let mut reader = Reader::new(&tar[..], ReaderLimits::default());
        while let Ok(Some(_)) = reader.next_entry() {}
    }
}
