use super::*;

#[test]
fn modes_change_as_chmod_changes_them() {
    // (mode given, permissions before, is a folder, after)
    let table = [
        ("755", 0o600, false, 0o755),
        ("4755", 0o600, false, 0o4755),
        ("0", 0o777, false, 0),
        ("u+x", 0o644, false, 0o744),
        ("+x", 0o644, false, 0o755),
        ("a-w", 0o666, false, 0o444),
        ("go=", 0o777, false, 0o700),
        ("go=rX", 0o600, false, 0o644),
        ("go=rX", 0o700, false, 0o755),
        ("a=rX", 0o600, true, 0o555),
        ("u=rwx,go=rx", 0, false, 0o755),
        ("g=u", 0o640, false, 0o660),
        ("o+g", 0o640, false, 0o644),
        ("u+s", 0o755, false, 0o4755),
        ("g+s", 0o755, true, 0o2755),
        ("+t", 0o755, true, 0o1755),
        ("o+t", 0o755, true, 0o755),
        ("u-s", 0o4755, false, 0o755),
        ("u+x-w", 0o644, false, 0o544),
        ("a-X", 0o755, false, 0o644),
        ("u=x", 0o4644, false, 0o144),
    ];
    for (text, before, is_folder, after) in table {
        let got = ModeChange::parse(text).unwrap().apply(before, is_folder);
        assert_eq!(got, after, "{text} on {before:o}: {got:o}");
    }
    for wrong in ["", "u", "x+u", "u+y", "9", "77777", "u+x,", "888"] {
        assert!(ModeChange::parse(wrong).is_err(), "{wrong}");
    }
}
