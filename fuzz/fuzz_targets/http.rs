#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oxidask_fuzz::http(data));
