#![no_main]
//! A tar archive.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Other formats have targets of their own.
    if data.get(257..262) == Some(b"ustar") {
        image_losses_perceptual_fuzz::read(data.to_vec());
    }
});
