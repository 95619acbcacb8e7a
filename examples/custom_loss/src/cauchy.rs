//! A pointwise loss: its function and its options are all there is to write.

use image_losses::config::{Contribution, Entry, inventory};
use image_losses::core::{Element, Function, Input, Pointwise, PointwiseLoss, Reducer};
use serde::{Deserialize, Serialize};

/// ln(1 + ((x − y)/γ)²), the Cauchy (Lorentzian) loss: an outlier costs little more the farther out it lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CauchyLoss {
    gamma: f64,
}
impl Pointwise<2> for CauchyLoss {
    #[inline(always)]
    fn value<E: Element>(&self, [x, y]: [E; 2]) -> E {
        (((x - y) / self.gamma).square() + 1.0).ln()
    }
}
impl PointwiseLoss<2> for CauchyLoss {
    const NAME: &'static str = "CauchyLoss";
    const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];
    fn function(&self) -> Function { Function::new(self.clone()) }
    fn reducer(&self) -> Reducer { Reducer::default() }
}
inventory::submit!(Contribution(|| Entry::pointwise::<CauchyLoss, CauchyLoss, 2>()));
