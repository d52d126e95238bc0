use std::io::{Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::media_types::LayerPacking;
use crate::{ContentStore, Digest};

fn packed(packing: LayerPacking, threads: usize, level: Option<i32>, input: &[u8]) -> Vec<u8> {
    let options = PackOptions { threads, ..PackOptions::new(packing) }.with_level(level).unwrap();
    let ((), packed, out) = pack(Vec::new(), &options, |out| out.write_all(input)).unwrap();
    assert_eq!(packed, Packed { diff_id: Digest::of(input), size: input.len() as u64, toc: None });
    out
}

fn filtered(program: &str, args: &[&str], input: Vec<u8>) -> Vec<u8> {
    let mut child =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(out.status.success(), "{program}");
    out.stdout
}

fn unpacked(bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut reader = LayerReader::new(std::io::Cursor::new(bytes))?;
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    let (digest, size) = reader.finish()?;
    assert_eq!((digest, size), (Digest::of(&out), out.len() as u64));
    Ok(out)
}

fn text(size: usize) -> Vec<u8> {
    let mut seed = 7_u32;
    (0..size)
        .map(|i| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i % 7 < 4 { b"layer"[i % 5] } else { (seed >> 24) as u8 & 0x1f }
        })
        .collect()
}

#[test]
fn other_programs_unpack_what_we_pack() {
    for size in [0, 1, 1000, 256 << 10, (256 << 10) + 1, 1_000_000] {
        let input = text(size);
        for level in [None, Some(1), Some(9)] {
            let gzip = packed(LayerPacking::Gzip, 2, level, &input);
            assert_eq!(filtered("gzip", &["-dc"], gzip), input, "gzip of {size} at {level:?}");
            let zstd = packed(LayerPacking::Zstd, 2, level, &input);
            assert_eq!(filtered("zstd", &["-dc"], zstd), input, "zstd of {size} at {level:?}");
        }
        assert_eq!(packed(LayerPacking::Plain, 2, None, &input), input);
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let input = text(1_500_000);
    for packing in [LayerPacking::Gzip, LayerPacking::Zstd] {
        let one = packed(packing, 1, None, &input);
        for threads in [2, 8] {
            assert!(packed(packing, threads, None, &input) == one, "{packing:?} on {threads} threads");
        }
    }
}

#[test]
fn we_unpack_what_other_programs_pack() {
    let input = text(1_000_000);
    for (program, args) in [("gzip", &["-c"][..]), ("zstd", &["-c"]), ("cat", &["-"])] {
        assert!(unpacked(filtered(program, args, input.clone())).unwrap() == input, "{program}");
    }
    // Several members, as pigz -i and bgzip make them.
    let mut twice = filtered("gzip", &["-c"], input.clone());
    twice.extend(filtered("gzip", &["-c"], b"more".to_vec()));
    assert_eq!(unpacked(twice).unwrap().len(), input.len() + 4);
    assert_eq!(unpacked(Vec::new()).unwrap(), b"");
}

#[test]
fn a_cut_stream_is_an_error() {
    for packing in [LayerPacking::Gzip, LayerPacking::Zstd] {
        let whole = packed(packing, 2, None, &text(700_000));
        for end in [5, 100, whole.len() / 2, whole.len() - 1] {
            assert!(unpacked(whole[..end].to_vec()).is_err(), "{packing:?} cut at {end} of {}", whole.len());
        }
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        assert!(unpacked(damaged).is_err(), "{packing:?} damaged");
    }
}

#[test]
fn levels_nobody_knows_are_refused() {
    let error = PackOptions::new(LayerPacking::Gzip).with_level(Some(10)).unwrap_err();
    assert_eq!(error.to_string(), "invalid compression level: 10 is not one of -1 to 9");
    assert!(PackOptions::new(LayerPacking::Zstd).with_level(Some(23)).is_err());
    assert_eq!(PackOptions::new(LayerPacking::Zstd).with_level(Some(0)).unwrap().level, None);
    assert_eq!(PackOptions::new(LayerPacking::Gzip).with_level(Some(-1)).unwrap().level, None);
}

/// Fails after some bytes, as a full disk does.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_as_such() {
    for packing in [LayerPacking::Gzip, LayerPacking::Zstd, LayerPacking::Plain] {
        let mut seed = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .take(10_000_000)
        .collect();
        let result = pack(Full(1_000_000), &PackOptions::new(packing), |out| out.write_all(&noise));
        assert_eq!(
            result.map(|_| ()).map_err(|e| e.kind()),
            Err(std::io::ErrorKind::StorageFull),
            "{packing:?}"
        );
    }
}

#[test]
fn a_layer_changes_its_packing_and_keeps_its_diff_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    let mut tar = crate::tar::Writer::new(Vec::new());
    tar.file("f", 0o644, crate::tar::Timestamp::from_seconds(5000), &text(100_000)).unwrap();
    let tar = tar.finish().unwrap();
    let ((), plain) = pack_layer(&store, &PackOptions::new(LayerPacking::Plain), |out| {
        out.write_all(&tar).map_err(|e| crate::Error::io("write", e))
    })
    .unwrap();
    assert_eq!((plain.desc.digest, plain.diff_id), (Digest::of(&tar), Digest::of(&tar)));
    for packing in [LayerPacking::Gzip, LayerPacking::Zstd] {
        let other =
            repack_layer(&store, &plain.desc.digest, Some(&plain.diff_id), &PackOptions::new(packing), None)
                .unwrap();
        assert_eq!(other.diff_id, plain.diff_id);
        assert_eq!(crate::media_types::layer_packing(&other.desc.media_type), Some(packing));
        let root = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        let (applied, diff_id) =
            unpack_layer(&store, &other.desc.digest, Some(&plain.diff_id), &fd, &Default::default()).unwrap();
        assert_eq!((applied.entries, diff_id), (1, plain.diff_id));
        let wrong = Digest::of(b"other");
        let error =
            unpack_layer(&store, &other.desc.digest, Some(&wrong), &fd, &Default::default()).unwrap_err();
        assert!(error.to_string().contains("unexpected digest of unpacked layer"), "{error}");
    }
    let early =
        repack_layer(&store, &plain.desc.digest, None, &PackOptions::new(LayerPacking::Gzip), Some(1000))
            .unwrap();
    assert_ne!(early.diff_id, plain.diff_id);
    // A plain tar has no checksum of its own: damage shows by what is known of it.
    let gzip = PackOptions::new(LayerPacking::Gzip);
    let mut bytes = std::fs::read(store.path(&plain.desc.digest)).unwrap();
    bytes[600] ^= 1;
    std::fs::write(store.path(&plain.desc.digest), bytes).unwrap();
    let error = repack_layer(&store, &plain.desc.digest, Some(&plain.diff_id), &gzip, None).unwrap_err();
    assert!(error.to_string().contains("was damaged on disk and has been removed"), "{error}");
    assert!(!store.contains(&plain.desc.digest));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn whatever_is_packed_is_unpacked(input in proptest::collection::vec(any::<u8>(), 0..300_000), writes in 1_usize..5000) {
        for packing in [LayerPacking::Gzip, LayerPacking::Zstd, LayerPacking::Plain] {
            let ((), _, out) = pack(Vec::new(), &PackOptions::new(packing), |out| {
                input.chunks(writes).try_for_each(|piece| out.write_all(piece))
            }).unwrap();
            prop_assert!(unpacked(out).unwrap() == input);
        }
    }
}
