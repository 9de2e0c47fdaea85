//! Whatever bytes come in, an answer comes out: no panic, no endless loop, bounded memory.

mod common;

use bytes::Bytes;
use common::{Items, recorded};
use oxidask_graph::intake::expr::split_expr;
use oxidask_graph::intake::packed::{Input, expand};
use oxidask_graph::pickle::emit::Emitter;
use oxidask_graph::pickle::plain::{to_key, to_plain};
use oxidask_graph::pickle::walker::walk;
use oxidask_graph::{Limits, decode_plain};
use oxidask_key::Key;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    max_nodes: 1 << 20,
    max_output: 16 << 20,
    max_steps: 1 << 22,
};

/// Everything that may be done with a pickle.
fn exercise(pickle: Bytes, buffers: Vec<Bytes>) {
    if let Ok((arena, root)) = walk(pickle.clone(), buffers.clone(), LIMITS) {
        let _ = to_key(&arena, root);
        let _ = to_plain(&arena, root);
        if let Ok((copy, used)) = Emitter::new(LIMITS).whole(&arena, root) {
            // What we write, we can read, and it means the same: writing it again gives it again.
            let copy = copy.to_bytes();
            let (again, root) = walk(copy.clone(), used, LIMITS).expect("our own pickle");
            let (twice, _) = Emitter::new(LIMITS).whole(&again, root).expect("again");
            assert_eq!(twice.to_bytes(), copy);
        }
    }
    let _ = decode_plain(pickle.clone(), buffers.clone());
    let mut frames = vec![pickle];
    frames.extend(buffers);
    let _ = split_expr(&frames, &[Key::from("x"), Key::from("task-1")], LIMITS);
}

fn opcode() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::sample::select(
        b"(0122NRNNabbd}eltu)]so\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98".to_vec(),
    );
    prop_oneof![
        8 => plain.prop_map(|code| vec![code]),
        2 => (0u8..12).prop_map(|slot| vec![b'h', slot]),
        1 => (0u8..12).prop_map(|slot| vec![b'q', slot]),
        2 => any::<u8>().prop_map(|n| vec![b'K', n]),
        2 => prop::sample::select(vec![
            "x", "task-1", "dask._task_spec", "Task", "Alias", "DataNode", "TaskRef", "List",
            "dask._expr", "Expr._reconstruct", "LLGExpr", "HLGExpr", "distributed.client", "_MapExpr",
            "Future", "builtins", "range", "cloudpickle.cloudpickle", "_make_function",
        ])
        .prop_map(|text| {
            let mut bytes = vec![0x8c, text.len() as u8];
            bytes.extend_from_slice(text.as_bytes());
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(bytes.into(), Vec::new());
    }

    #[test]
    fn random_opcodes(codes in prop::collection::vec(opcode(), 0..120)) {
        let mut pickle = codes.concat();
        pickle.push(b'.');
        exercise(pickle.into(), vec![Bytes::from_static(b"buffer")]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn damaged_submissions(
        which in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        splice in any::<bool>(),
    ) {
        let cases = recorded("expressions-2026.8.0.bin");
        let frames = |index: prop::sample::Index| {
            Items::new(index.get(&cases).case.clone()).skip(1).collect::<Vec<Bytes>>()
        };
        let submission = frames(which);
        let mut pickle = submission[0].to_vec();
        for (place, byte) in edits {
            let place = place.index(pickle.len());
            pickle[place] = byte;
        }
        if let Some(cut) = cut {
            let cut = cut.index(pickle.len());
            pickle.truncate(cut);
            if splice {
                let tail = &frames(other)[0];
                pickle.extend_from_slice(&tail[cut.min(tail.len())..]);
            }
        }
        exercise(pickle.into(), submission[1..].to_vec());
    }
}

fn repeat(head: &[u8], middle: &[u8], times: usize, tail: &[u8]) -> Bytes {
    [head, &middle.repeat(times), tail].concat().into()
}

#[test]
fn deep_nesting_is_no_trouble() {
    exercise(
        repeat(
            b"\x80\x04",
            b"]",
            200_000,
            &[b"a".repeat(199_999), b".".to_vec()].concat(),
        ),
        vec![],
    );
    exercise(repeat(b"\x80\x04)", b"\x85", 200_000, b"."), vec![]);
}

#[test]
fn exponential_sharing_is_no_trouble() {
    // Each tuple holds the one before twice: 2^60 elements for whoever follows the references.
    exercise(repeat(b"\x80\x04K\x01\x94", b"2\x86\x94", 60, b"."), vec![]);
    exercise(repeat(b"\x80\x04]\x94", b"2\x86\x94", 60, b"."), vec![]);
}

#[test]
fn far_memo_slots_are_refused() {
    let error = walk(
        Bytes::from_static(b"\x80\x04Nr\xff\xff\xff\xff."),
        vec![],
        LIMITS,
    );
    assert!(error.is_err());
}

#[test]
fn promised_lengths_are_not_believed() {
    for code in [0x8d_u8, 0x8e, 0x96] {
        let mut pickle = vec![code];
        pickle.extend(u64::MAX.to_le_bytes());
        assert!(walk(pickle.into(), vec![], LIMITS).is_err());
    }
}

fn input() -> impl Strategy<Value = Input<u8>> {
    let names = prop::sample::select(vec![
        "layers",
        "__module__",
        "__name__",
        "state",
        "dsk",
        "dependencies",
        "annotations",
        "dask.blockwise",
        "Blockwise",
        "output",
        "output_indices",
        "func",
        "func_future_args",
        "global_dependencies",
        "indices",
        "is_list",
        "numblocks",
        "concatenate",
        "output_blocks",
        "dims",
        "io_deps",
        ".0",
        "x",
        "__Set__",
        "as-list",
        "__expanded_annotations__",
    ]);
    let leaf = prop_oneof![
        Just(Input::Nil),
        any::<bool>().prop_map(Input::Bool),
        (-3i64..2_000_000_000).prop_map(Input::Int),
        any::<f64>().prop_map(Input::Float),
        names.prop_map(|name| Input::Str(name.into())),
        any::<u8>().prop_map(Input::Payload),
    ];
    leaf.prop_recursive(6, 100, 12, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Input::Array),
            prop::collection::vec((inner.clone(), inner), 0..12).prop_map(Input::Map),
        ]
    })
}

proptest! {
    #[test]
    fn random_layers(module in prop::sample::select(vec!["dask.blockwise", "dask.layers", "x"]),
                     name in prop::sample::select(vec!["Blockwise", "SimpleShuffleLayer", "ShuffleLayer",
                                                       "BroadcastJoinLayer", "DataFrameTreeReduction"]),
                     state in input(), annotations in input()) {
        let text = |text: &str| Input::Str(text.to_owned());
        let layer = Input::Map(vec![
            (text("__module__"), text(module)),
            (text("__name__"), text(name)),
            (text("state"), state),
            (text("annotations"), annotations),
        ]);
        let hlg = Input::Map(vec![(text("layers"), Input::Array(vec![layer]))]);
        let _ = expand(&hlg, LIMITS);
    }
}
