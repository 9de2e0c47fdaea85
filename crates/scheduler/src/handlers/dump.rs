//! `dump_cluster_state_to_url`: the cluster state written to a file of the scheduler's machine, or with
//! the help of Python to any URL, in the two formats of stock.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use oxidask_wire::value::Value;

use super::cluster_state::get_cluster_state;
use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError};

/// Form of the file.
#[derive(Clone, Copy)]
enum Format {
    /// msgpack, compressed with gzip.
    Msgpack,
    /// YAML; written as JSON, which is YAML too.
    Yaml,
}

/// The op.
pub async fn dump_cluster_state_to_url(context: Arc<Context>, mut call: Call) -> Reply {
    let url = call.str("url")?.to_owned();
    let (format, suffix) = match call.opt_str("format")? {
        None | Some("msgpack") => (Format::Msgpack, ".msgpack.gz"),
        Some("yaml") => (Format::Yaml, ".yaml"),
        Some(other) => {
            return Err(RpcError::value_error(format!(
                "Unsupported format '{other}'. Possible values are 'msgpack' or 'yaml'."
            )));
        }
    };
    let url = match url.ends_with(suffix) {
        true => url,
        false => format!("{url}{suffix}"),
    };
    let release = call.caller.release;
    let options = storage_options(&mut call);
    let local = match url.split_once("://") {
        None => Some(url.as_str()),
        Some(("file" | "local", path)) => Some(path),
        Some(_) => None,
    };
    let path = match local {
        // Functions of clients may have changed the directory that paths are relative to.
        Some(path)
            if Path::new(path).is_absolute() || !context.python.has_session(release).await =>
        {
            PathBuf::from(path)
        }
        _ => {
            let state = get_cluster_state(Arc::clone(&context), call).await?;
            let data = in_background(move || write(Vec::new(), &state, format)).await;
            let data = data.map_err(|error| RpcError::os_error(error.to_string()))?;
            let url = local.unwrap_or(&url);
            let written = context
                .python
                .write_file(release, url, data.into(), &options);
            return Ok(written.await.map(|()| Value::Nil)?);
        }
    };
    // Opened first, so that a bad path is told before the work is done.
    let failed = |error| RpcError::os_error(format!("{}: {error}", path.display()));
    let file = std::fs::File::create(&path).map_err(failed)?;
    let state = get_cluster_state(context, call).await?;
    let written = in_background(move || write(file, &state, format)?.sync_all());
    written.await.map_err(failed)?;
    Ok(Value::Nil)
}

/// Takes out what is not for us but for the file system of the URL.
fn storage_options(call: &mut Call) -> Value {
    call.args.remove("url");
    call.args.remove("format");
    let exclude = call.args.remove("exclude");
    let options = std::mem::replace(&mut call.args, Value::Map(Vec::new()));
    if let Some(exclude) = exclude {
        call.args.insert("exclude", exclude);
    }
    options
}

/// Runs what computes for long, or waits for disks.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(io::Error::other(error)),
    }
}

fn write<W: Write>(file: W, state: &Value, format: Format) -> io::Result<W> {
    match format {
        Format::Msgpack => {
            let mut out = GzEncoder::new(file, Compression::default());
            out.write_all(&state.encode())?;
            out.finish()
        }
        Format::Yaml => {
            let mut out = io::BufWriter::new(file);
            serde_json::to_writer(&mut out, &printable(state)).map_err(io::Error::other)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)
        }
    }
}

/// The value with texts for the keys of its maps, and for bytes, which JSON does not have.
fn printable(value: &Value) -> Value {
    match value {
        Value::Bin(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)).into(),
        Value::Payload(_) => "<serialised object>".into(),
        // Neither has a spelling in JSON.
        Value::Float(number) if !number.is_finite() => Value::Nil,
        Value::Array(items) => Value::Array(items.iter().map(printable).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .map(|(key, value)| {
                    let key = match key {
                        Value::Str(text) => text.clone(),
                        other => other.to_key().map(|key| key.to_text()).unwrap_or_default(),
                    };
                    (key.into(), printable(value))
                })
                .collect(),
        ),
        plain => plain.clone(),
    }
}
