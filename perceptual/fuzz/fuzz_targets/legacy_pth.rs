#![no_main]
//! Five pickles and the storages.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Other formats have targets of their own.
    if data.first() == Some(&0x80) && data.get(8) != Some(&b'{') {
        image_losses_perceptual_fuzz::read(data.to_vec());
    }
});
