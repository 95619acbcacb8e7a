//! From a configuration of MMagic to the value of its losses.

use image_losses::config::{BuildContext, Registry};
use image_losses::prelude::*;
use ndarray::array;

fn main() -> image_losses::Result<()> {
    let model = serde_json::json!({
        "type": "BasicVSR",
        "generator": {"type": "BasicVSRNet", "mid_channels": 64},
        "pixel_loss": {"type": "CharbonnierLoss", "loss_weight": 1.0, "reduction": "mean", "eps": 9.0},
    });
    let (prediction, target) = (NdTensor::new(array![[4.0f64, 0.0]]), NdTensor::new(array![[0.0f64, 0.0]]));
    for mut loss in Registry::standard().losses(&model, &BuildContext::default())? {
        let value = loss.call([("pred", prediction.clone().into()), ("target", target.clone().into())])?;
        println!("{} at {}: {:?}", loss.type_name(), loss.path(), value.values()?);
        assert_eq!(value.values()?, [4.0]); // the mean of √(4² + 9) and √9
    }
    Ok(())
}
