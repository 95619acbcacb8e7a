//! Tests of the configuration: objectives, options, schema.

mod config_basicsr;
mod config_cases;
mod config_models;
mod config_objective;
mod config_options;
mod config_schema;
mod objective_typed;
mod program;
mod support;
mod third_derivatives;
