#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = crosskit_mutations::target("layers").expect("a target");
    (target.run)(bytes);
});
