//! Tests of the configuration: objectives, options, schema.

mod config_objective;
mod config_options;
mod config_schema;
mod third_derivatives;
