use super::*;

#[test]
fn limits_become_one_number() {
    let of = |max, reserved, min_free| PruneOptions {
        max_used_space: max,
        reserved_space: reserved,
        min_free_space: min_free,
        ..PruneOptions::default()
    };
    // (limits, bytes used, bytes free) → bytes that may stay
    let table = [
        (of(100, 0, 0), 500, 1000, 100),
        (of(0, 30, 0), 500, 1000, 30),
        (of(100, 200, 0), 500, 1000, 200),
        (of(0, 0, 1200), 500, 1000, 300),
        (of(100, 0, 1200), 500, 1000, 100),
        (of(400, 0, 1200), 500, 1000, 300),
        (of(0, 350, 1200), 500, 1000, 350),
        (of(0, 0, 900), 500, 1000, 501),
        (of(0, 0, 9000), 500, 1000, 1),
    ];
    for (options, total, free, want) in table {
        assert_eq!(keep_bytes(&options, total, free), want, "{options:?}");
    }
}
