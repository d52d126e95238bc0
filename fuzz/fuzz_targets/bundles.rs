#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = crosskit_mutations::target("bundles").expect("a target");
    (target.run)(bytes);
});
