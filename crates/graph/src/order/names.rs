//! Keys in the order in which Python's `sort` puts them, which falls back to their texts.

use oxidask_key::Key;

/// Places of the keys in the order of their names.
pub(super) fn rank_names(keys: &[&Key]) -> Vec<u32> {
    let mut sorted: Vec<u32> = (0..keys.len() as u32).collect();
    if keys.iter().all(|key| key.as_str().is_some()) {
        sorted.sort_unstable_by_key(|&n| keys[n as usize].as_str());
    } else {
        let texts: Vec<String> = keys.iter().map(|key| key.to_text()).collect();
        merge_sort(&mut sorted, &|a, b| {
            let (a, b) = (a as usize, b as usize);
            python_less(keys[a], keys[b]).unwrap_or_else(|| texts[a] < texts[b])
        });
    }
    let mut rank = vec![0; keys.len()];
    for (place, &node) in sorted.iter().enumerate() {
        rank[node as usize] = place as u32;
    }
    rank
}

/// Python's `<`; `None` for a `TypeError`.
fn python_less(a: &Key, b: &Key) -> Option<bool> {
    match (a, b) {
        (Key::Str(a), Key::Str(b)) => Some(a < b),
        (Key::Bytes(a), Key::Bytes(b)) => Some(a < b),
        (Key::Tuple(a), Key::Tuple(b)) => match a.iter().zip(b.iter()).find(|(a, b)| a != b) {
            Some((a, b)) => python_less(a, b),
            None => Some(a.len() < b.len()),
        },
        _ => Some(number(a)? < number(b)?),
    }
}

fn number(key: &Key) -> Option<f64> {
    match *key {
        Key::Int(i) => Some(i as f64),
        Key::UInt(u) => Some(u as f64),
        Key::Float(f) => Some(f),
        Key::Bool(b) => Some(f64::from(u8::from(b))),
        _ => None,
    }
}

/// A stable sort that puts up with a comparison that is not transitive, as that of keys of mixed
/// types is.
fn merge_sort(items: &mut [u32], less: &impl Fn(u32, u32) -> bool) {
    if items.len() < 2 {
        return;
    }
    let middle = items.len() / 2;
    let (left, right) = items.split_at_mut(middle);
    merge_sort(left, less);
    merge_sort(right, less);
    let (left, right) = (left.to_vec(), right.to_vec());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    for slot in items {
        let take_right = match (left.peek(), right.peek()) {
            (Some(&l), Some(&r)) => less(r, l),
            (None, _) => true,
            (_, None) => false,
        };
        let next = if take_right {
            right.next()
        } else {
            left.next()
        };
        if let Some(next) = next {
            *slot = next;
        }
    }
}
