#![no_main]
//! A zip archive, or a pickle that one is made around.

libfuzzer_sys::fuzz_target!(|data: &[u8]| image_losses_perceptual_fuzz::read_zip(data, false));
