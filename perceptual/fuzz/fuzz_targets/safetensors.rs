#![no_main]
//! A header's length, the header and the tensors.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Other formats have targets of their own.
    if data.get(8) == Some(&b'{') && !data.starts_with(b"PK") {
        image_losses_perceptual_fuzz::read(data.to_vec());
    }
});
