//! The one error type of the workspace.

use std::path::PathBuf;

/// A tensor's extents, outermost axis first.
pub type Shape = Vec<usize>;

/// `Result` with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in a loss, an engine, a configuration or a checkpoint.
///
/// A variant is one *cause*; its fields say which operation refused, what it expected and what came. Match on the
/// variant, print the text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two shapes that must agree do not.
    #[error("{operation}: `{argument}` must have shape {expected:?}, got {got:?}")]
    ShapeMismatch {
        /// The operation or loss that refused.
        operation: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// The shape it must have.
        expected: Shape,
        /// The shape it has.
        got: Shape,
    },
    /// A shape breaks a rule that is no single shape (a rank, a divisibility, a minimum).
    #[error("{operation}: `{argument}` must have {expected}, got shape {got:?}")]
    ShapeRule {
        /// The operation or loss that refused.
        operation: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// The rule, in words: "rank at least 2", "3 channels".
        expected: String,
        /// The shape that broke it.
        got: Shape,
    },
    /// Shapes that cannot be broadcast to one another.
    #[error("{operation}: cannot broadcast {left:?} with {right:?}")]
    Broadcast {
        /// The operation that refused.
        operation: &'static str,
        /// The left operand's shape.
        left: Shape,
        /// The right operand's shape.
        right: Shape,
    },
    /// A weight map that is neither one per pixel nor one per element.
    #[error("{operation}: weight must have shape {per_pixel:?} or {per_element:?}, got {got:?}")]
    WeightShape {
        /// The loss that refused.
        operation: &'static str,
        /// The accepted shape with one channel.
        per_pixel: Shape,
        /// The accepted shape with all channels.
        per_element: Shape,
        /// The shape that came.
        got: Shape,
    },
    /// A tensor without elements where a value was to be computed.
    #[error("{operation}: `{argument}` has no elements (shape {got:?})")]
    Empty {
        /// The operation or loss that refused.
        operation: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// Its shape.
        got: Shape,
    },
    /// Data whose length does not fill the shape given with it.
    #[error("{operation}: shape {shape:?} needs {expected} elements, got {got}")]
    Length {
        /// The operation that refused.
        operation: &'static str,
        /// The shape to be filled.
        shape: Shape,
        /// Its number of elements.
        expected: usize,
        /// The number of elements that came.
        got: usize,
    },
    /// An option outside its range.
    #[error("{owner}: `{option}` must be {expected}, got {got}")]
    InvalidOption {
        /// The loss or command the option belongs to.
        owner: &'static str,
        /// The option's name as a configuration writes it.
        option: &'static str,
        /// What is accepted, in words.
        expected: String,
        /// What came.
        got: String,
    },
    /// An input the loss cannot do without is absent.
    #[error("{operation}: the input `{argument}` is missing{hint}")]
    MissingInput {
        /// The loss that refused.
        operation: &'static str,
        /// The missing input.
        argument: String,
        /// Why it is needed, starting with ": ", or empty.
        hint: String,
    },
    /// Features or embeddings of a target were given to another network than the one that computed them.
    #[error("{operation}: the target's features must be of {expected}, got those of {got}")]
    OtherNetwork {
        /// The loss or the network that refused.
        operation: &'static str,
        /// The network that it is.
        expected: String,
        /// The network that the features are of.
        got: String,
    },
    /// An operation was given too few or too many tensors.
    #[error("{operation}: expected {expected} inputs, got {got}")]
    InputCount {
        /// The operation that refused.
        operation: &'static str,
        /// The number it takes.
        expected: usize,
        /// The number that came.
        got: usize,
    },
    /// A gradient was asked for with respect to a tensor the output does not depend on.
    #[error("{operation}: the output does not depend on `{argument}`")]
    NotConnected {
        /// The loss that asked.
        operation: &'static str,
        /// The input that has no influence.
        argument: String,
    },
    /// The engine cannot do what was asked.
    #[error("{operation} is not supported by the {engine} engine")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// The engine.
        engine: &'static str,
    },
    /// An operation with a kernel for its gradient alone was differentiated twice.
    #[error("{operation} has no second derivative in its fused form: use the form composed of tensor operations")]
    SecondDerivative {
        /// The operation.
        operation: &'static str,
    },
    /// The engine beneath failed.
    #[error("{engine}: {message}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// Its own words.
        message: String,
    },
    /// A name that nothing answers to.
    #[error("{path}: unknown {kind} `{name}`{}", instead(nearest.as_deref(), known))]
    UnknownName {
        /// Where in the document, as `losses.0.type`.
        path: String,
        /// What kind of name: "type", "field", "layer".
        kind: &'static str,
        /// The name that came.
        name: String,
        /// The nearest known name, if one is near.
        nearest: Option<String>,
        /// All known names, where they are few enough to be read; else none.
        known: Vec<String>,
    },
    /// A configuration lacks something it cannot do without.
    #[error("{path}: `{key}` is missing")]
    MissingKey {
        /// The mapping that lacks it.
        path: String,
        /// What it lacks.
        key: String,
    },
    /// A configuration that names known things in a way that cannot be.
    #[error("{path}: {message}")]
    Config {
        /// Where in the document.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Another error, with its place in the configuration.
    #[error("{path}: {error}")]
    At {
        /// Where in the document, as `losses.0`.
        path: String,
        /// What is wrong there.
        error: Box<Error>,
    },
    /// A file that is not what its format says (truncated, hostile, another format).
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A checkpoint whose tensors do not fit the network.
    #[error("{}: does not fit {network}: missing {missing:?}, left over {unexpected:?}, of another shape {mismatched:?}", path.display())]
    CheckpointMismatch {
        /// The file.
        path: PathBuf,
        /// The network.
        network: String,
        /// Names the network needs and the file lacks.
        missing: Vec<String>,
        /// Names the file holds and the network does not know.
        unexpected: Vec<String>,
        /// Names with the shape needed and the shape found, in words.
        mismatched: Vec<String>,
    },
    /// A file could not be read or written.
    #[error("{}: {message}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        message: String,
    },
}

/// What to write instead of an unknown name: the nearest known one, else all of them.
fn instead(nearest: Option<&str>, known: &[String]) -> String {
    match (nearest, known) {
        (Some(nearest), _) => format!(", did you mean `{nearest}`?"),
        (None, []) => String::new(),
        (None, known) => format!(", expected one of `{}`", known.join("`, `")),
    }
}

impl Error {
    /// An [`Error::Io`] from the operating system's error.
    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Error::Io { path: path.into(), message: error.to_string() }
    }

    /// The same with its place in a configuration.
    pub fn at(self, path: impl Into<String>) -> Self {
        Error::At { path: path.into(), error: Box::new(self) }
    }

    /// An [`Error::InvalidOption`].
    pub fn option(owner: &'static str, option: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Error::InvalidOption { owner, option, expected: expected.into(), got: got.to_string() }
    }
}
