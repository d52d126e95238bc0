use super::*;

fn open(dir: &tempfile::TempDir) -> Database {
    Database::open(dir.path().join("metadata.db")).unwrap()
}

#[test]
fn what_was_written_is_read_at_once_and_after_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    db.write(vec![Change::put("a", "k1", "v1"), Change::put("a", "k2", "v2"), Change::put("b", "k1", "x")])
        .unwrap();
    assert_eq!(db.get("a", b"k1").unwrap(), Some(b"v1".to_vec()));
    db.flush().unwrap();
    db.write(vec![Change::delete("a", "k1"), Change::put("a", "k3", "v3")]).unwrap();
    let want = vec![(b"k2".to_vec(), b"v2".to_vec()), (b"k3".to_vec(), b"v3".to_vec())];
    assert_eq!(db.get("a", b"k1").unwrap(), None);
    assert_eq!(db.scan("a", b"k").unwrap(), want);
    drop(db);
    let db = open(&dir);
    assert_eq!(db.scan("a", b"").unwrap(), want);
    assert_eq!(db.get("b", b"k1").unwrap(), Some(b"x".to_vec()));
    assert_eq!(db.get("none", b"k1").unwrap(), None);
}

#[test]
fn scans_merge_the_file_with_what_is_pending() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    let put = |n: u32, v: &str| Change::put("t", format!("p{n:03}"), v);
    db.write((0..100).step_by(2).map(|n| put(n, "old")).collect()).unwrap();
    db.flush().unwrap();
    db.write((0..100).step_by(3).map(|n| put(n, "new")).collect()).unwrap();
    db.write(vec![Change::delete("t", "p000"), Change::put("t", "q", "beyond")]).unwrap();
    let got = db.scan("t", b"p").unwrap();
    let want: Vec<_> = (1..100)
        .filter(|n| n % 2 == 0 || n % 3 == 0)
        .map(|n| {
            (format!("p{n:03}").into_bytes(), if n % 3 == 0 { b"new".to_vec() } else { b"old".to_vec() })
        })
        .collect();
    assert_eq!(got, want);
    let mut seen = 0;
    db.for_each("t", b"p", |_, _| {
        seen += 1;
        if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(seen, 5);
}

#[test]
fn a_change_becomes_durable_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    db.write(vec![Change::put("t", "k", "v")]).unwrap();
    let shared = &db.0.shared;
    let state = shared.lock();
    let (state, wait) =
        shared.committed.wait_timeout_while(state, COMMIT_AFTER * 50, |s| s.durable < 1).unwrap();
    assert!(!wait.timed_out() && state.durable == 1);
}

#[test]
fn a_damaged_file_is_set_aside() {
    for damage in ["header", "cut", "pages"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata.db");
        let db = open(&dir);
        db.write((0..20_000u32).map(|n| Change::put("t", n.to_be_bytes(), vec![7; 50])).collect()).unwrap();
        drop(db);
        let mut bytes = std::fs::read(&path).unwrap();
        match damage {
            "header" => bytes[..512].fill(0x5a),
            "cut" => bytes.truncate(bytes.len() / 3),
            _ => bytes[4096..].fill(0x5a),
        }
        std::fs::write(&path, bytes).unwrap();
        let db = open(&dir);
        assert_eq!(db.scan("t", b"").unwrap(), vec![], "{damage}");
        db.write(vec![Change::put("t", "k", "v")]).unwrap();
        db.flush().unwrap();
        assert!(dir.path().join("metadata.db.corrupt-1").exists(), "{damage}");
    }
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _db = open(&dir);
    let error = Database::open(dir.path().join("metadata.db")).err().unwrap();
    assert!(error.to_string().contains("already open in another process"), "{error}");
    assert_eq!(error.kind(), Kind::Environment);
}

/// A child process writes numbered batches of two keys each and is killed in the middle.
#[test]
fn after_a_kill_whole_batches_are_there() {
    const DIR: &str = "METADATA_TEST_DIR";
    if let Some(dir) = std::env::var_os(DIR) {
        let db = Database::open(Path::new(&dir).join("metadata.db")).unwrap();
        for n in 0u64.. {
            let value = n.to_be_bytes();
            db.write(vec![Change::put("t", "one", value), Change::put("t", "two", value)]).unwrap();
            if n == 10 {
                db.flush().unwrap();
                std::fs::write(Path::new(&dir).join("ready"), "").unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lib_tests::after_a_kill_whole_batches_are_there"])
        .env(DIR, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !dir.path().join("ready").exists() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let db = open(&dir);
    let one = db.get("t", b"one").unwrap().unwrap();
    assert_eq!(db.get("t", b"two").unwrap().unwrap(), one);
    assert!(u64::from_be_bytes(one.try_into().unwrap()) >= 10);
}

#[test]
fn twenty_thousand_records_open_fast() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir);
    db.write((0..20_000u32).map(|n| Change::put("t", n.to_be_bytes(), vec![7; 300])).collect()).unwrap();
    drop(db);
    // The best of some: whatever else the machine does only adds to it.
    let open_and_scan = || {
        let started = std::time::Instant::now();
        let db = open(&dir);
        assert_eq!(db.scan("t", b"").unwrap().len(), 20_000);
        started.elapsed()
    };
    let took = (0..4).map(|_| open_and_scan()).min().unwrap();
    println!("open and scan: {took:?}");
    let db = open(&dir);
    let started = std::time::Instant::now();
    for n in 0..1_000u32 {
        db.write(vec![Change::put("t", n.to_be_bytes(), vec![8; 300])]).unwrap();
    }
    println!("a write: {:?}", started.elapsed() / 1_000);
    assert!(took < Duration::from_millis(500));
}
