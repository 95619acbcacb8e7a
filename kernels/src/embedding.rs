//! Rows divided by their length, and the way back.

/// Rows of length 1.
pub(crate) struct Units {
    /// The rows, one after the other; a row of zeros stays so.
    pub(crate) rows: Vec<f64>,
    /// One over each row's length before; 0 for a row of zeros.
    inverses: Vec<f64>,
    len: usize,
}

impl Units {
    /// Divides the first `len` elements of every `stride`.
    pub(crate) fn new(rows: &[f32], len: usize, stride: usize) -> Self {
        let mut units = Units { rows: Vec::new(), inverses: Vec::new(), len };
        for row in rows.chunks_exact(stride.max(1)) {
            let row = row[..len].iter().copied().map(f64::from);
            let length = row.clone().map(|value| value * value).sum::<f64>().sqrt();
            let inverse = if length == 0.0 { 0.0 } else { 1.0 / length };
            units.rows.extend(row.map(|value| value * inverse));
            units.inverses.push(inverse);
        }
        units
    }

    /// A row.
    pub(crate) fn row(&self, index: usize) -> &[f64] {
        &self.rows[index * self.len..][..self.len]
    }

    /// Carries the gradient `above` of row `index` back through the division: g − e (e·g), over the length.
    pub(crate) fn carry_back(&self, index: usize, above: &[f64], target: &mut [f32]) {
        let unit = self.row(index);
        let along: f64 = unit.iter().zip(above).map(|(unit, above)| unit * above).sum();
        for ((target, unit), above) in target.iter_mut().zip(unit).zip(above) {
            *target = ((above - unit * along) * self.inverses[index]) as f32;
        }
    }
}
