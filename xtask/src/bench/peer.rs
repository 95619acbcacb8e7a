//! PyTorch in a process of its own, told what to do over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};

use super::subject::Subject;
use crate::Stop;
use crate::command::{root, torch_peer};

/// The running peer. It ends when this is dropped.
pub(crate) struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
    folder: PathBuf,
}

/// What the peer computed before anything was timed.
pub(crate) struct Reference {
    pub(crate) value64: f64,
    pub(crate) gradient64: Vec<f64>,
    pub(crate) value: f64,
    pub(crate) gradient: Vec<f32>,
}

/// Which form of the peer's is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Eager,
    Compiled,
}

impl Peer {
    /// Starts it with so many threads.
    pub(crate) fn start(threads: usize) -> Result<Self, Stop> {
        let folder = root().join("target").join("bench");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut child = torch_peer()?
            .arg(root().join("xtask").join("scripts").join("bench_peer.py"))
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the PyTorch peer: {error}"))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the PyTorch peer has no pipes".into());
        };
        let mut peer = Peer { child, requests, answers: BufReader::new(answers), version: String::new(), folder };
        let hello = peer.ask(&json!({ "do": "hello", "threads": threads }))?;
        if hello["threads"] != threads {
            return Err(format!("PyTorch runs {} threads, not {threads}", hello["threads"]));
        }
        peer.version = hello["torch"].as_str().unwrap_or_default().to_owned();
        Ok(peer)
    }

    /// PyTorch's version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Hands a case over; returns what the peer computes.
    pub(crate) fn load(&mut self, subject: &Subject, compile: bool) -> Result<Reference, Stop> {
        let (file, answer) = (self.folder.join("inputs.safetensors"), self.folder.join("answer.safetensors"));
        let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = subject
            .tensors
            .iter()
            .map(|(name, array)| {
                (*name, array.shape().to_vec(), array.iter().flat_map(|value| value.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| error.to_string())?;
        serialize_to_file(views, None, &file).map_err(|error| format!("{}: {error}", file.display()))?;
        let request = json!({
            "do": "load", "case": subject.description, "file": file, "answer": answer, "compile": compile,
        });
        self.ask(&request)?;
        let bytes = std::fs::read(&answer).map_err(|error| format!("{}: {error}", answer.display()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
        let data = |name: &str| tensors.tensor(name).map(|view| view.data().to_vec()).map_err(|e| e.to_string());
        let doubles = |name: &str| {
            let numbers = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
            data(name).map(numbers) as Result<Vec<f64>, Stop>
        };
        Ok(Reference {
            value64: doubles("value64")?[0],
            gradient64: doubles("gradient64")?,
            value: doubles("value")?[0],
            gradient: data("gradient")?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        })
    }

    /// Seconds of a call, averaged over `calls`.
    pub(crate) fn time(&mut self, form: Form, calls: usize) -> Result<f64, Stop> {
        let which = if form == Form::Eager { "eager" } else { "compiled" };
        let answer = self.ask(&json!({ "do": "time", "which": which, "calls": calls }))?;
        answer["seconds"].as_f64().ok_or_else(|| format!("the PyTorch peer answered {answer}"))
    }

    fn ask(&mut self, request: &Value) -> Result<Value, Stop> {
        let broken = |error: std::io::Error| format!("the PyTorch peer: {error}");
        writeln!(self.requests, "{request}").and_then(|()| self.requests.flush()).map_err(broken)?;
        let mut line = String::new();
        if self.answers.read_line(&mut line).map_err(broken)? == 0 {
            return Err("the PyTorch peer ended early; its last words stand above".into());
        }
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("the PyTorch peer: {error}"))?;
        match answer.get("error") {
            Some(error) => Err(format!("the PyTorch peer: {error}")),
            None => Ok(answer),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is not waited for in vain.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
