//! Value and gradient of L1 and of a perceptual loss on arrays.

use image_losses::ndarray::{differentiate, value_and_gradients};
use image_losses::perceptual::PerceptualOptions;
use image_losses::prelude::*;
use ndarray::Array4;

fn main() -> image_losses::Result<()> {
    let prediction = Array4::from_shape_fn((1, 3, 32, 32), |(_, c, y, x)| ((c + 3 * y + 5 * x) % 7) as f32 / 7.0);
    let target = Array4::from_elem((1, 3, 32, 32), 0.5f32);

    let (l1, [gradient, _]) =
        value_and_gradients(&L1Loss::default(), [prediction.view(), target.view()], None, [true, false])?;
    println!("L1 {l1:.4}, the gradient's shape {:?}", gradient.as_ref().map(|gradient| gradient.shape()));

    // Trained weights: `Weights::default()`, which looks for torchvision's file in `IMAGE_LOSSES_WEIGHTS`.
    let options = PerceptualOptions { layer_weights: [("relu2_2".to_owned(), 1.0)].into(), ..Default::default() };
    let perceptual = PerceptualLoss::new(options, &Weights::Seeded(1))?;
    let (value, gradients) = differentiate(&[prediction.view(), target.view()], |images| {
        let terms = perceptual.forward(&images[0], &images[1])?;
        terms.total().map(|total| total.expect("a weight is not 0"))
    })?;
    println!("perceptual and style {:.4}, the gradient's shape {:?}", value.sum(), gradients[0].shape());
    assert!(l1 > 0.0 && value.sum() > 0.0 && gradients[0].iter().any(|&element| element != 0.0));
    Ok(())
}
