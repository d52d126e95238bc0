#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = crosskit_mutations::target("configs").expect("a target");
    (target.run)(bytes);
});
