//! Derivatives of the engine's operations against closed forms.

use image_losses_autograd::{AgTensor, Element, Session, run};
use image_losses_core::Result;
use image_losses_laws::{closed_forms, norms};

/// The values of several tensors in one evaluation.
fn values<'g, F: Element>(session: &Session<'g, F>, tensors: &[&AgTensor<'g, F>]) -> Result<Vec<Vec<f64>>> {
    let values = session.evaluate(tensors)?;
    Ok(values.into_iter().map(|values| values.into_iter().map(image_losses_core::Element::to_f64).collect()).collect())
}

#[test]
fn derivatives_have_their_closed_forms() {
    fn check<F: Element>(tolerance: f64) {
        run(|session: &Session<'_, F>| {
            closed_forms::<AgTensor<'_, F>>(&session.graph(), |tensors| values(session, tensors), tolerance)
        })
        .expect("shapes that fit");
    }
    check::<f64>(1e-12);
    check::<f32>(2e-6);
}

#[test]
fn norms_are_in_range_where_squares_are_not() {
    fn check<F: Element>(magnitudes: &[f64], tolerance: f64) {
        run(|session: &Session<'_, F>| {
            norms::<AgTensor<'_, F>>(&session.graph(), |tensors| values(session, tensors), magnitudes, tolerance)
        })
        .expect("shapes that fit");
    }
    check::<f32>(&[1e-30, 1e-19, 1e-15, 1.0, 1e15, 1e19, 1e38], 1e-6);
    check::<f64>(&[1e-140, 1e-40, 1.0, 1e40, 1e140], 1e-14);
}
