#![no_main]
//! A document in any of the formats; the first byte says which. Everything in it that is a loss is built.
//!
//! ```text
//! cargo fuzz run --sanitizer none configuration -- -dict=fuzz/words.dict -max_len=4096 -rss_limit_mb=1024 -max_total_time=600
//! ```

use image_losses::config::check::check;
use image_losses::config::{BuildContext, Registry, Syntax, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&first, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let syntax = match first {
        b't' => Syntax::Toml,
        b'y' => Syntax::Yaml,
        _ => Syntax::Json,
    };
    let Ok(document) = parse(text, syntax) else { return };
    let (registry, context) = (Registry::standard(), BuildContext::default());
    let findings = check(&registry, &document, &context);
    for row in &findings.rows {
        let _ = row.error.as_ref().map(ToString::to_string);
    }
    // What builds can be written, and builds again to the same.
    if let Ok(component) = registry.build(&document, "", &context) {
        let value = component.to_value().expect("what was built can be written");
        let again = registry.build(&value, "", &context).expect("what was written can be built");
        assert_eq!(again.to_value().expect("a value"), value);
    }
});
