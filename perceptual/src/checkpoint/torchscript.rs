//! TorchScript archives, scripted and traced (CLIP's `ViT-B-32.pt`).
//!
//! They are zip files as those of `torch.save`, with the program beside the pickle (which is never read) and a tree of
//! module objects in it instead of a dictionary. What a module's attributes hold is found in
//! [`state_dict`](super::state_dict); here is only how such a file is told from the other.

use super::pickle::Dialect;
use super::zip::Archive;

/// The dialect of the archive's pickle: only TorchScript archives have constants of a program.
pub(super) fn dialect(archive: &Archive, root: &str) -> Dialect {
    let constants = format!("{root}/constants.pkl");
    if archive.names().any(|name| name == constants) { Dialect::TorchScript } else { Dialect::Python }
}
