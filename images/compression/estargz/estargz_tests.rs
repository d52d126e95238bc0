use std::io::Read;

use serde_json::Value;

use super::*;
use crate::compression::{pack, pack_layer, repack_layer};
use crate::media_types::LayerPacking;
use crate::tar::{Timestamp, Writer};
use crate::{ContentStore, Error};

/// Files around the size of a chunk, and what has no content.
fn sample() -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    let time = Timestamp { seconds: 1_700_000_000, nanos: 600_000_000 };
    let mut folder = Header::new("d/", Kind::Directory);
    (folder.mode, folder.mtime, folder.uid) = (0o1755, time, 7);
    folder.user = b"someone".to_vec();
    folder.set_xattr(b"user.x", [0_u8, 255]);
    tar.entry(&folder).unwrap();
    let size = CHUNK as u64;
    for (name, size) in [("d/empty", 0), ("d/one", size), ("d/more", size + 1), ("d/three", 2 * size + 5)] {
        let mut header = Header::new(name, Kind::File);
        (header.mode, header.size, header.uid) = (0o4644, size, 7);
        header.user = b"someone".to_vec();
        tar.entry(&header).unwrap();
        tar.data(&noise(size as usize)).unwrap();
    }
    for (name, kind, link) in [("d/hard", Kind::HardLink, "d/one"), ("d/soft", Kind::Symlink, "<x>")] {
        let mut header = Header::new(name, kind);
        header.link = link.into();
        tar.entry(&header).unwrap();
    }
    let mut device = Header::new("d/null", Kind::CharDevice);
    device.device = (1, 3);
    tar.entry(&device).unwrap();
    tar.finish().unwrap()
}

/// Bytes that do not repeat at once, and get smaller by packing nevertheless.
fn noise(size: usize) -> Vec<u8> {
    (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect()
}

fn packed(threads: usize, input: &[u8]) -> std::io::Result<(Vec<u8>, Packed)> {
    let options = PackOptions { threads, ..PackOptions::new(LayerPacking::Estargz) };
    // Pieces that end anywhere.
    let done: std::io::Result<_> =
        pack(Vec::new(), &options, |out| input.chunks(70_001).try_for_each(|piece| out.write_all(piece)));
    done.map(|((), packed, blob)| (blob, packed))
}

/// One gzip member's content, and how long the member is.
fn member(blob: &[u8]) -> (Vec<u8>, usize) {
    let mut decoder = flate2::bufread::GzDecoder::new(blob);
    let mut plain = Vec::new();
    decoder.read_to_end(&mut plain).unwrap();
    (plain, blob.len() - decoder.into_inner().len())
}

fn table(blob: &[u8]) -> (Value, Digest) {
    let at =
        u64::from_str_radix(str::from_utf8(&blob[blob.len() - 35..blob.len() - 19]).unwrap(), 16).unwrap();
    let (tar, len) = member(&blob[at as usize..]);
    assert_eq!(at as usize + len, blob.len() - 51, "nothing between the table and the footer");
    let mut tar = tar::Archive::new(&tar[..]);
    let mut entry = tar.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("stargz.index.json"));
    let mut json = Vec::new();
    entry.read_to_end(&mut json).unwrap();
    (serde_json::from_slice(&json).unwrap(), Digest::of(&json))
}

#[test]
fn every_part_of_a_file_is_where_the_table_says() {
    let (blob, told) = packed(2, &sample()).unwrap();
    let (table, digest) = table(&blob);
    assert_eq!((table["version"].as_u64(), told.toc), (Some(1), Some(digest)));
    let chunk = CHUNK as u64;
    let mut parts = Vec::new();
    for entry in table["entries"].as_array().unwrap() {
        let number = |key: &str| entry[key].as_u64().unwrap_or(0);
        let name = entry["name"].as_str().unwrap();
        parts.push((name, entry["type"].as_str().unwrap(), number("chunkOffset"), number("chunkSize")));
        if number("offset") > 0 {
            let (plain, _) = member(&blob[number("offset") as usize..]);
            let whole = if name == NO_PREFETCH { LANDMARK.to_vec() } else { noise(2 * CHUNK + 5) };
            let size =
                table["entries"].as_array().unwrap().iter().find(|e| e["name"] == name).unwrap()["size"]
                    .as_u64()
                    .unwrap();
            let end =
                if number("chunkSize") > 0 { number("chunkOffset") + number("chunkSize") } else { size };
            let data = &whole[number("chunkOffset") as usize..end as usize];
            assert!(plain.starts_with(data), "{name} at {}", number("offset"));
            assert_eq!(entry["chunkDigest"], Digest::of(data).to_string(), "{name}");
            if entry["type"] == "reg" {
                assert_eq!(entry["digest"], Digest::of(&whole[..size as usize]).to_string(), "{name}");
            }
        }
    }
    let expected = [
        ("d/", "dir", 0, 0),
        ("d/empty", "reg", 0, 0),
        ("d/one", "reg", 0, 0),
        ("d/more", "reg", 0, chunk),
        ("d/more", "chunk", chunk, 0),
        ("d/three", "reg", 0, chunk),
        ("d/three", "chunk", chunk, chunk),
        ("d/three", "chunk", 2 * chunk, 0),
        ("d/hard", "hardlink", 0, 0),
        ("d/soft", "symlink", 0, 0),
        ("d/null", "char", 0, 0),
        (NO_PREFETCH, "reg", 0, 0),
    ];
    assert_eq!(parts, expected);
    // In the words of stargz-snapshotter's writer, for the same headers.
    let lines = [
        r#"{"name":"d/","type":"dir","modtime":"2023-11-14T22:13:21Z","mode":1005,"uid":7,"userName":"someone","xattrs":{"user.x":"AP8="}}"#,
        r#"{"name":"d/empty","type":"reg","mode":2468,"uid":7,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
        r#"{"name":"d/hard","type":"hardlink","linkName":"d/one"}"#,
        r#"{"name":"d/soft","type":"symlink","linkName":"<x>"}"#,
        r#"{"name":"d/null","type":"char","devMajor":1,"devMinor":3}"#,
    ];
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(table["entries"].as_array().unwrap().contains(&line), "{line} in {table}");
    }
}

#[test]
fn others_see_the_layer_and_no_table() {
    let input = sample();
    let (blob, told) = packed(1, &input).unwrap();
    assert!(packed(4, &input).unwrap().0 == blob, "the number of threads shows");
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(&blob[..]).read_to_end(&mut plain).unwrap();
    assert_eq!((told.diff_id, told.size), (Digest::of(&plain), plain.len() as u64));
    assert!(plain.starts_with(&input), "the layer's own archive has changed");
    assert_eq!(tar::Archive::new(&plain[..]).entries().unwrap().count(), 8);
}

#[test]
fn a_layer_comes_back_from_it_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    let input = sample();
    let plain = store.put(&input).unwrap();
    let repack = |from: &Digest, packing| repack_layer(&store, from, None, &PackOptions::new(packing), None);
    let estargz = repack(&plain, LayerPacking::Estargz).unwrap();
    assert_eq!(estargz.desc.annotations[UNCOMPRESSED_SIZE], estargz.size.to_string());
    for packing in [LayerPacking::Gzip, LayerPacking::Zstd, LayerPacking::Plain] {
        let other = repack(&estargz.desc.digest, packing).unwrap();
        assert_eq!((other.diff_id, other.desc.annotations.len()), (plain, 0), "{packing:?}");
    }
    // From itself it is itself again, not with two tables.
    assert_eq!(repack(&estargz.desc.digest, LayerPacking::Estargz).unwrap(), estargz);
}

#[test]
fn what_others_made_becomes_estargz() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path().join("store")).unwrap();
    let estargz = |tar: &[u8]| {
        let from = store.put(tar).unwrap();
        repack_layer(&store, &from, None, &PackOptions::new(LayerPacking::Estargz), None)
    };
    let names = |blob: crate::compression::LayerBlob| {
        let blob = store.read(&blob.desc.digest, 1 << 30).unwrap();
        let entries = table(&blob).0["entries"].as_array().unwrap().clone();
        entries.iter().map(|entry| (entry["name"].clone(), entry["size"].clone())).collect::<Vec<_>>()
    };
    // A landmark is not put in twice, and an archive without end gets one.
    let mut marked = Writer::new(Vec::new());
    marked.file("a", 0o644, Timestamp::default(), b"x").unwrap();
    marked.file("./.prefetch.landmark", 0o644, Timestamp::default(), &LANDMARK).unwrap();
    let marked = marked.finish().unwrap();
    let found = names(estargz(&marked[..marked.len() - 1024]).unwrap());
    assert_eq!(found, [("a".into(), 1.into()), ("./.prefetch.landmark".into(), 1.into())]);
    // Holes are filled, for the table tells of bytes that are there.
    std::fs::File::create(dir.path().join("holes")).unwrap().set_len(1 << 20).unwrap();
    let sparse = std::process::Command::new("tar")
        .args(["-C", dir.path().to_str().unwrap(), "--format=pax", "-Scf", "-", "holes"])
        .output()
        .unwrap();
    let found = names(estargz(&sparse.stdout).unwrap());
    assert_eq!(found[0], ("holes".into(), (1 << 20).into()));
    // The table's own name is taken, and half an archive is none.
    let mut taken = Writer::new(Vec::new());
    taken.file("./stargz.index.json", 0o644, Timestamp::default(), b"{}").unwrap();
    let error = estargz(&taken.finish().unwrap()).unwrap_err();
    assert!(error.to_string().contains("has a file stargz.index.json, which eStargz keeps"), "{error}");
    let error = estargz(&sample()[..CHUNK]).unwrap_err();
    assert!(error.to_string().contains("unexpected end of the tar archive"), "{error}");
    let nothing: Result<_, Error> = pack_layer(&store, &PackOptions::new(LayerPacking::Estargz), |_| Ok(()));
    assert_eq!(names(nothing.unwrap().1), [(NO_PREFETCH.into(), 1.into())]);
}
