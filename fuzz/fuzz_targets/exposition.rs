#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tallystone::testing::fuzz::import_exposition(input));
