#![no_main]
//! A JSON document as each kind of objective.

use image_losses::config::{BuildContext, Registry, Syntax, parse};
use image_losses::objective::{Objective, Side};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = parse(text, Syntax::Json) else { return };
    let (registry, context) = (Registry::standard(), BuildContext::default());
    for build in [Objective::build, Objective::model, Objective::gan, Objective::sum] {
        match build(&registry, &document, "objective", &context) {
            Ok(mut objective) => {
                let _ = (objective.needs(Side::Generator), objective.needs(Side::Discriminator), objective.notes());
                let state = objective.state().expect("a state");
                objective.restore(state).expect("its own state");
            }
            Err(error) => drop(error.to_string()),
        }
    }
});
