//! A pointwise loss: the function, its options and its name are all there is to write.

use image_losses::config::{Contribution, Entry, inventory};
use image_losses::core::{Declared, Expr, Pointwise};
use serde::{Deserialize, Serialize};

/// ln(1 + ((x − y)/γ)²), the Cauchy (Lorentzian) loss: an outlier costs little more the farther out it lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cauchy {
    pub gamma: f64,
}

impl Declared for Cauchy {
    const NAME: &'static str = "CauchyLoss";
}

impl Pointwise<2> for Cauchy {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (((x - y) / self.gamma).square() + 1.0).ln()
    }
}

inventory::submit!(Contribution(|| Entry::function::<Cauchy, 2>()));
