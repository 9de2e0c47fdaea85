//! Puts the worker's extension module into the program.
//!
//! * Variable `OXIDASK_WORKER_MODULE`: a module that is built already.
//! * Feature `embed`: it is built here, in a folder of its own, since cargo waits for itself otherwise.
//! * Neither: the program loads the file that lies beside it, as developers want it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const VARIABLE: &str = "OXIDASK_WORKER_MODULE";
const FILE_NAME: &str = "liboxidask_worker_module.so";

fn main() {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where"));
    let target = out.join("module.so");
    let given = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let module = match given {
        Some(path) => Some(PathBuf::from(path)),
        None => env::var_os("CARGO_FEATURE_EMBED").map(|_| build(&out.join("module"))),
    };
    let Some(module) = module else {
        println!("cargo:rerun-if-changed=build.rs");
        fs::write(target, []).expect("a writeable folder");
        return;
    };
    println!("cargo:rerun-if-changed={}", module.display());
    if let Err(error) = fs::copy(&module, target) {
        panic!("{}: {error}", module.display());
    }
}

/// Builds the module with the same profile for the same machine.
fn build(folder: &Path) -> PathBuf {
    println!("cargo:rerun-if-changed=..");
    let var = |name: &str| env::var(name).expect("cargo says so");
    let (target, profile) = (var("TARGET"), var("PROFILE"));
    let mut cargo = Command::new(var("CARGO"));
    cargo
        .args([
            "build",
            "--package",
            "oxidask-worker-module",
            "--target",
            &target,
        ])
        .arg("--target-dir")
        .arg(folder);
    if profile == "release" {
        cargo.arg("--release");
    }
    // What cargo tells this script is not meant for another package.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_FEATURE_") || text.starts_with("CARGO_PKG_") {
            cargo.env_remove(&name);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "the worker's extension module was not built"
    );
    folder.join(target).join(profile).join(FILE_NAME)
}
