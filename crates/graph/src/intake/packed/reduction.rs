//! `DataFrameTreeReduction`: partitions are reduced `split_every` at a time until one is left.

use oxidask_key::Key;

use super::Added;
use super::object::{self, Object};
use super::value::Input;
use crate::intake::Stop;

fn unknown() -> Stop {
    Stop::python("unknown state of a tree reduction")
}

struct Reduction<'a, P> {
    name: &'a str,
    tree_node_name: &'a str,
    concat: Object<P>,
    tree_node: Object<P>,
    finalize: Object<P>,
    split_every: usize,
    /// Each input yields several parts, which are reduced independently.
    split_out: bool,
}

/// Expands the layer.
pub(super) fn expand<P: Clone>(state: &Input<P>, added: &mut Added<'_, P>) -> Result<(), Stop> {
    let field = |name| state.field(name).ok_or_else(unknown);
    let text = |name| field(name)?.text().ok_or_else(unknown);
    let function = |name| Object::from_input(field(name)?);
    let tree_node = function("tree_node_func")?;
    let reduction = Reduction {
        name: text("name")?,
        tree_node_name: text("tree_node_name")?,
        concat: function("concat_func")?,
        finalize: match function("finalize_func")? {
            Object::None => tree_node.clone(),
            finalize => finalize,
        },
        tree_node,
        split_every: field("split_every")?
            .count()
            .filter(|&n| n > 1)
            .ok_or_else(unknown)?,
        split_out: match field("split_out")? {
            Input::Nil | Input::Bool(false) | Input::Int(0) => false,
            Input::Bool(true) | Input::Int(1..) => true,
            _ => return Err(unknown()),
        },
    };
    let inputs = field("npartitions_input")?.count().ok_or_else(unknown)?;
    let mut name_input = text("name_input")?.to_owned();
    let outputs = field("output_partitions")?.ints().ok_or_else(unknown)?;
    let mut tasks = Tasks {
        reduction: &reduction,
        added,
    };
    if reduction.split_out && !outputs.is_empty() {
        let whole = std::mem::take(&mut name_input);
        name_input = format!("{whole}-split");
        for &split in &outputs {
            for part in 0..inputs {
                tasks.select(&name_input, &whole, part, split)?;
            }
        }
    }
    for &split in &outputs {
        tasks.tree(&name_input, inputs, split)?;
    }
    Ok(())
}

struct Tasks<'r, 'a, 'b, P> {
    reduction: &'r Reduction<'a, P>,
    added: &'r mut Added<'b, P>,
}

impl<P: Clone> Tasks<'_, '_, '_, P> {
    fn key(&self, name: &str, numbers: &[usize], split: i64) -> Key {
        let mut items = vec![Key::from(name)];
        items.extend(numbers.iter().map(|&n| Key::Int(n as i64)));
        if self.reduction.split_out {
            items.push(Key::Int(split));
        }
        Key::from(Key::from(items).to_text())
    }

    fn select(&mut self, name: &str, whole: &str, part: usize, split: i64) -> Result<(), Stop> {
        let input = Key::from(vec![Key::from(whole), Key::Int(part as i64)]);
        let input = Key::from(input.to_text());
        let getitem = Object::Global("_operator", "getitem");
        let task = vec![getitem, Object::key(&input), Object::Int(split)];
        let key = self.key(name, &[part], split);
        self.add(key, task, vec![input])
    }

    fn tree(&mut self, name_input: &str, inputs: usize, split: i64) -> Result<(), Stop> {
        let output = Key::from(vec![Key::from(self.reduction.name), Key::Int(split)]);
        let output = Key::from(output.to_text());
        let mut width = inputs;
        let mut depth = 0;
        loop {
            let below = |p: usize, this: &Self| match depth {
                0 => this.key(name_input, &[p], split),
                _ => this.key(this.reduction.tree_node_name, &[p, depth], split),
            };
            let groups = width.div_ceil(self.reduction.split_every);
            if groups <= 1 {
                // A lone partition goes through the final function as well.
                let keys = (0..width.max(1)).map(|p| below(p, self)).collect();
                return self.reduce(output, keys, true);
            }
            for group in 0..groups {
                let start = self.reduction.split_every * group;
                let stop = (start + self.reduction.split_every).min(width);
                let keys = (start..stop).map(|p| below(p, self)).collect();
                let key = self.key(self.reduction.tree_node_name, &[group, depth + 1], split);
                self.reduce(key, keys, false)?;
            }
            width = groups;
            depth += 1;
        }
    }

    fn reduce(&mut self, key: Key, inputs: Vec<Key>, last: bool) -> Result<(), Stop> {
        let list = inputs.iter().map(Object::key).collect();
        let task = vec![
            Object::Global("toolz.functoolz", "pipe"),
            Object::List(list),
            self.reduction.concat.clone(),
            if last {
                self.reduction.finalize.clone()
            } else {
                self.reduction.tree_node.clone()
            },
        ];
        self.add(key, task, inputs)
    }

    fn add(&mut self, key: Key, task: Vec<Object<P>>, inputs: Vec<Key>) -> Result<(), Stop> {
        self.added.task(key, object::nested(task)?, &inputs)
    }
}
