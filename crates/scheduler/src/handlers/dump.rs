//! `dump_cluster_state_to_url`: the cluster state written to a file of the scheduler's machine, in
//! the two formats of stock.

use std::io::Write;
use std::path::PathBuf;
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
    let mut path = match url.split_once("://") {
        None => url,
        Some(("file" | "local", path)) => path.to_owned(),
        Some((scheme, _)) => {
            return Err(RpcError::not_implemented(format!(
                "this scheduler writes cluster dumps to local files only, not to {scheme}://"
            )));
        }
    };
    if !path.ends_with(suffix) {
        path.push_str(suffix);
    }
    let path = PathBuf::from(path);
    // Opened first, so that a bad path is told before the work is done.
    let file = std::fs::File::create(&path)
        .map_err(|error| RpcError::os_error(format!("{}: {error}", path.display())))?;
    call.args.remove("url");
    let state = get_cluster_state(context, call).await?;
    let written = tokio::task::spawn_blocking(move || write(file, &state, format)).await;
    match written {
        Ok(Ok(())) => Ok(Value::Nil),
        Ok(Err(error)) => Err(RpcError::os_error(format!("{}: {error}", path.display()))),
        Err(error) => Err(RpcError::runtime_error(error.to_string())),
    }
}

fn write(file: std::fs::File, state: &Value, format: Format) -> std::io::Result<()> {
    match format {
        Format::Msgpack => {
            let mut out = GzEncoder::new(file, Compression::default());
            out.write_all(&state.encode())?;
            out.finish()?.sync_all()
        }
        Format::Yaml => {
            let mut out = std::io::BufWriter::new(file);
            serde_json::to_writer(&mut out, &printable(state)).map_err(std::io::Error::other)?;
            out.flush()
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
