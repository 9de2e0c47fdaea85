//! `fuzz-seeds FOLDER`: inputs to begin with, made from what was recorded of stock peers. Called by
//! `cargo xtask fuzz`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Larger recordings teach a fuzzer nothing that smaller ones do not.
const MAX_BYTES: usize = 8 << 10;

/// Release, and the number of the generation of its messages in `messages` and `frames`.
const RELEASES: [(&str, u8); 3] = [("2.30.1", 1), ("2022.12.0", 3), ("2026.8.0", 3)];

const REQUESTS: [&str; 9] = [
    "GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text; version=1.0.0,text/plain;q=0.5\r\n\r\n",
    "GET /info/main/workers.html HTTP/1.1\r\nhost: x\r\n\r\nGET /info/worker/tcp%3A%2F%2Fw%3A1.html HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /info/task/x.html HTTP/1.1\r\nhost: x\r\n\r\nGET /info/logs/w.html HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST /api/v1/retire_workers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{\"n\": 1}",
    "GET /proxy/8787/10.0.0.1/status HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /sitemap.json HTTP/1.1\r\nhost: x\r\n\r\nGET /individual-plots.json HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /status/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\u{1}",
    "GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
];

const CONFIGURATIONS: [(u8, &str); 9] = [
    (
        0,
        "distributed:\n  scheduler:\n    blocked-handlers: [feed, 'run_function']\n    idle-timeout: &a 1 hour\n  other: *a\n",
    ),
    (
        0,
        "a: {b: [1, 0x1f, 1_000, .inf, ~, yes, 2001-12-14]}\nc: |\n  text\n",
    ),
    (1, "{'a': [1, 2.5, None, True, b'x\\x00'], 'b': (1,)}"),
    (1, "10 GiB"),
    (1, "1 hour 5ms"),
    (
        2,
        "DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS=['feed', 'run_function']\nCOMM__REQUIRE_ENCRYPTION=True",
    ),
    (2, "DASK_INTERNAL_INHERIT_CONFIG=eyJhIjogeyJiIjogMX19"),
    (
        3,
        "dask-scheduler\n--host\n\n--port=8786\n--dashboard-address\n:8787\n--protocol\ntls\n--preload\nx.py\n--y\n1",
    ),
    (
        4,
        "default: read-only\nrules:\n  - {subject: {CN: 'worker-*', O: Dask}, roles: [worker, client]}\n",
    ),
];

fn main() -> io::Result<()> {
    let folder = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .expect("usage: fuzz-seeds FOLDER"),
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (release, generation) in RELEASES {
        for entry in fs::read_dir(root.join("protocol/vectors").join(release))? {
            let path = entry?.path();
            let raw = fs::read(&path)?;
            if path.extension().is_none_or(|e| e != "bin") || raw.len() > MAX_BYTES {
                continue;
            }
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let name = format!("{release}-{stem}");
            keep(&folder, "frames", &name, generation, &raw)?;
            keep(&folder, "frames", &format!("{name}-caller"), 4, &raw)?;
            let way = generation | (generation ^ 2) << 2;
            keep(
                &folder,
                "messages",
                &name,
                way,
                &frames(&raw, generation >= 2),
            )?;
        }
    }
    submissions(&folder, &root)?;
    for (number, (kind, text)) in CONFIGURATIONS.iter().enumerate() {
        keep(
            &folder,
            "configuration",
            &number.to_string(),
            *kind,
            text.as_bytes(),
        )?;
    }
    for (number, text) in REQUESTS.iter().enumerate() {
        for way in 0..4 {
            keep(
                &folder,
                "http",
                &format!("{number}-{way}"),
                way,
                text.as_bytes(),
            )?;
        }
    }
    Ok(())
}

fn keep(folder: &Path, target: &str, name: &str, way: u8, data: &[u8]) -> io::Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), [&[way], data].concat())
}

/// Recorded submissions are a pickle and its buffers, behind a first item of their own.
fn submissions(folder: &Path, root: &Path) -> io::Result<()> {
    let recorded = root.join("crates/graph/tests/fixtures/expressions-2026.8.0.bin");
    let recorded = fs::read(recorded)?;
    let folder = folder.join("pickles");
    fs::create_dir_all(&folder)?;
    let cases = items(&recorded);
    // Name, case, result.
    for (number, case) in cases.iter().skip(1).step_by(3).enumerate() {
        let wanted = items(case).first().map_or(0, |first| 4 + first.len());
        let submission = case.get(wanted..).unwrap_or_default();
        if submission.len() <= MAX_BYTES {
            fs::write(folder.join(number.to_string()), submission)?;
        }
    }
    Ok(())
}

/// Byte strings behind their lengths.
fn items(mut data: &[u8]) -> Vec<&[u8]> {
    let mut items = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (item, rest) = rest.split_at(length.min(rest.len()));
        items.push(item);
        data = rest;
    }
    items
}

/// The frames of a message on the wire, each with its length in front in four bytes.
fn frames(raw: &[u8], has_total: bool) -> Vec<u8> {
    let word = |at: usize| {
        let bytes = raw
            .get(8 * at..8 * at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes) as usize
    };
    let first = usize::from(has_total);
    let count = word(first);
    let mut at = 8 * (first + 1 + count);
    let mut out = Vec::new();
    for length in (0..count).map(|index| word(first + 1 + index)) {
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(raw.get(at..at + length).unwrap_or_default());
        at += length;
    }
    out
}
