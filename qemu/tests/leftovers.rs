//! What is left of a private binfmt_misc: alone in its file, for it counts this process's descriptors and children.

use crosskit_qemu::PrivateBinfmt;

#[test]
fn private_binfmt_misc_leaves_nothing_behind() {
    let count = || std::fs::read_dir("/proc/self/fd").expect("listed").count();
    drop(PrivateBinfmt::new(&[]).expect("made"));
    let before = count();
    for _ in 0..3 {
        drop(PrivateBinfmt::new(&[]).expect("made"));
    }
    assert_eq!(count(), before);
    let waited = nix::sys::wait::waitpid(None, None);
    assert_eq!(waited, Err(nix::errno::Errno::ECHILD), "no child is left");
}
