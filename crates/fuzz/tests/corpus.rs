//! Inputs that fuzzing found worth keeping (among them everything that ever failed), and recorded
//! messages, through the same functions.

use std::fs;
use std::path::{Path, PathBuf};

use oxidask_fuzz::TARGETS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("listed").path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_gets_an_answer() {
    for (name, target) in TARGETS {
        let inputs = files(&root().join("fuzz/corpus").join(name));
        assert!(!inputs.is_empty(), "no inputs for {name}");
        for input in inputs {
            // The name of the input, should it panic.
            println!("{}", input.display());
            target(&fs::read(&input).expect("read"));
        }
    }
}

#[test]
fn recorded_messages_are_read_by_readers_of_every_generation() {
    let (_, frames) = TARGETS[0];
    for release in ["2.30.1", "2022.12.0", "2026.8.0"] {
        let recorded = files(&root().join("protocol/vectors").join(release));
        assert!(recorded.len() > 100, "{release}");
        for path in recorded
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "bin"))
        {
            let raw = fs::read(path).expect("read");
            for way in 0..5 {
                println!("{} {way}", path.display());
                frames(&[&[way], &raw[..]].concat());
            }
        }
    }
}

#[test]
fn every_target_has_a_fuzzer() {
    for (name, _) in TARGETS {
        let path = root().join(format!("fuzz/fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(&path).expect("a fuzzer");
        assert!(text.contains(&format!("oxidask_fuzz::{name}(")), "{name}");
    }
}
