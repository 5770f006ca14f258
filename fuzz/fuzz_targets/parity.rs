#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::testing::fuzz::parity(data));
