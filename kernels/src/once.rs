//! What is made when it is first needed.

use std::convert::Infallible;
use std::sync::OnceLock;

/// What the cell holds, made by `make` if it is empty.
///
/// `make` runs outside the cell. [`OnceLock::get_or_init`] would keep other threads from the cell meanwhile: one that is
/// inside rayon and waits for its tasks may be given another task that needs the same cell, and waits for itself for ever.
/// Here threads that come at the same time each make a value, and all but one are dropped.
pub fn get_or_make<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    let Ok(made) = get_or_try_make(cell, || Ok::<_, Infallible>(make()));
    made
}

/// As [`get_or_make`]; a failure leaves the cell empty.
///
/// # Errors
/// Those of `make`.
pub fn get_or_try_make<T, E>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    #[expect(clippy::disallowed_methods, reason = "nothing runs inside the cell: the value is made")]
    Ok(cell.get_or_init(|| made))
}
