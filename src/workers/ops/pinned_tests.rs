use super::Pinned;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a selector is looked up while somebody changes what it names.
const TRIES: usize = 400;

#[test]
fn a_part_of_a_tree_is_in_the_tree_whoever_changes_it_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("tree/part")).expect("made");
    fs::write(path("tree/part/inside"), "").expect("written");
    fs::create_dir(path("outside")).expect("made");
    fs::write(path("outside/secret"), "").expect("written");
    for (at, target) in [path("outside"), "../outside".into(), "../../../../../..".into()].iter().enumerate()
    {
        let link = path("tree/link");
        symlink(target, &link).expect("linked");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let (a, b) = (path("tree/part"), path("tree/link"));
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("exchanged");
                }
            });
            let (mut tries, mut found) = (0, 0);
            // On a busy machine the other thread may rest for long while the name is the link.
            while tries < TRIES || found == 0 {
                tries += 1;
                let place = path(&format!("place-{at}-{tries}"));
                let Ok(pinned) = Pinned::new(&path("tree"), "/part", place) else { continue };
                let names: Vec<_> = fs::read_dir(pinned.path()).expect("listed").flatten().collect();
                let names: Vec<_> =
                    names.iter().map(|e| e.file_name().into_string().expect("text")).collect();
                // The folder, or what the link means with the tree as root: the tree itself.
                let inside = names.iter().all(|name| ["inside", "part", "link"].contains(&name.as_str()));
                assert!(inside, "{names:?}");
                found += usize::from(names == ["inside"]);
            }
            over.store(true, Ordering::Relaxed);
        });
        // Which of the two names is the link now is chance.
        if fs::symlink_metadata(path("tree/part")).expect("there").is_symlink() {
            renameat_with(CWD, path("tree/part"), CWD, path("tree/link"), RenameFlags::EXCHANGE)
                .expect("exchanged");
        }
        fs::remove_file(link).expect("removed");
    }
}

#[test]
fn what_was_found_stays_whatever_the_name_means_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("tree/part")).expect("made");
    fs::create_dir(path("outside")).expect("made");
    let pinned = Pinned::new(&path("tree"), "/part", path("place")).expect("mounted");
    fs::rename(path("tree/part"), path("tree/moved")).expect("moved");
    symlink(path("outside"), path("tree/part")).expect("linked");
    fs::write(pinned.path().join("file"), "").expect("written");
    drop(pinned);
    assert!(path("tree/moved/file").exists() && !path("outside/file").exists());
    assert!(!path("place").exists());
}
