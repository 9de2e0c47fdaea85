//! Order numbers for graphs whose client gave none.

use std::collections::HashMap;

use oxidask_key::Key;

/// A depth-first order: a task comes after what it needs, and soon after it. Tasks are given with
/// their dependencies; each key once.
pub(super) fn depth_first(tasks: &[(&Key, &[Key])]) -> HashMap<Key, i64> {
    let keys = tasks.iter().enumerate();
    let index: HashMap<&Key, usize> = keys.map(|(i, (key, _))| (*key, i)).collect();
    let mut order = HashMap::with_capacity(tasks.len());
    let mut entered = vec![false; tasks.len()];
    for start in 0..tasks.len() {
        // (task, next dependency to look at); explicit, as graphs may be deep.
        let mut stack = vec![(start, 0)];
        while let Some((i, next)) = stack.pop() {
            let (Some((key, dependencies)), Some(seen)) = (tasks.get(i), entered.get_mut(i)) else {
                continue;
            };
            if next == 0 && std::mem::replace(seen, true) {
                continue;
            }
            match dependencies.get(next) {
                Some(dependency) => {
                    stack.push((i, next + 1));
                    if let Some(&d) = index.get(dependency)
                        && entered.get(d) == Some(&false)
                    {
                        stack.push((d, 0));
                    }
                }
                None => {
                    let number = i64::try_from(order.len()).unwrap_or(i64::MAX);
                    order.insert((*key).clone(), number);
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_comes_after_what_it_needs() {
        let key = |name: &str| Key::from(name);
        let (a, b, c, d) = (key("a"), key("b"), key("c"), key("d"));
        let (of_a, of_c) = ([key("b"), key("c")], [key("d"), key("elsewhere")]);
        let order = depth_first(&[(&a, &of_a), (&b, &[]), (&c, &of_c), (&d, &[])]);
        assert_eq!(order.len(), 4);
        assert!(order[&b] < order[&a] && order[&c] < order[&a] && order[&d] < order[&c]);
    }
}
