//! `BroadcastJoinLayer`: each partition of the larger side is joined with every partition of the
//! smaller one.

use oxidask_key::Key;

use super::Added;
use super::object::Object;
use super::value::Input;
use crate::intake::Stop;

fn unknown() -> Stop {
    Stop::python("unknown state of a join layer")
}

struct Join<'a, P> {
    name: &'a str,
    /// The side of which every partition meets every partition of the other.
    broadcast: &'a str,
    broadcast_size: i64,
    broadcast_left: bool,
    other: &'a str,
    other_on: Object<P>,
    /// The other side need not be split by hash.
    inner: bool,
    merge_kwargs: Object<P>,
}

/// Expands the layer.
pub(super) fn expand<P: Clone>(state: &Input<P>, added: &mut Added<'_, P>) -> Result<(), Stop> {
    let field = |name| state.field(name).ok_or_else(unknown);
    let text = |name| field(name)?.text().ok_or_else(unknown);
    let int = |name| field(name)?.int().ok_or_else(unknown);
    let kwargs = field("merge_kwargs")?;
    let on = |name| match kwargs.field(name) {
        Some(on) => Object::from_input(on)?.stringified(),
        None => Ok(Object::None),
    };
    let broadcast_left = int("lhs_npartitions")? < int("rhs_npartitions")?;
    let (broadcast, broadcast_size, other, other_on) = if broadcast_left {
        (
            text("lhs_name")?,
            int("lhs_npartitions")?,
            text("rhs_name")?,
            on("right_on")?,
        )
    } else {
        (
            text("rhs_name")?,
            int("rhs_npartitions")?,
            text("lhs_name")?,
            on("left_on")?,
        )
    };
    let join = Join {
        name: text("name")?,
        broadcast,
        broadcast_size,
        broadcast_left,
        other,
        other_on,
        inner: kwargs.field("how").and_then(Input::text) == Some("inner"),
        merge_kwargs: Object::from_input(kwargs)?.stringified()?,
    };
    let mut parts = field("parts_out")?.ints().ok_or_else(unknown)?;
    let count = int("npartitions")?;
    if parts.is_empty() {
        if count > super::MAX_TASKS as i64 {
            return Err(unknown());
        }
        parts = (0..count).collect();
    }
    let mut tasks = Vec::new();
    for part in parts {
        join.part(part, &mut tasks)?;
    }
    added.mentioning(tasks)
}

/// A key in its text form.
fn key(name: &str, numbers: &[i64]) -> Key {
    let mut items = vec![Key::from(name)];
    items.extend(numbers.iter().map(|&n| Key::Int(n)));
    Key::from(Key::from(items).to_text())
}

impl<P: Clone> Join<'_, P> {
    fn part(&self, part: i64, to: &mut Vec<(Key, Object<P>)>) -> Result<(), Stop> {
        let other = key(self.other, &[part]);
        let split = key(&format!("split-{}", self.name), &[part]);
        if !self.inner {
            let task = vec![
                Object::LazyImport("dask.dataframe.multi._split_partition"),
                Object::key(&other),
                self.other_on.clone(),
                Object::Int(self.broadcast_size),
            ];
            to.push((split.clone(), Object::Tuple(task)));
        }
        let inter = format!("inter-{}", self.name);
        let mut pieces = Vec::new();
        for j in 0..self.broadcast_size {
            if to.len() > super::MAX_TASKS {
                return Err(Stop::python("graph of too many tasks"));
            }
            let mine = if self.inner {
                Object::key(&other)
            } else {
                let getitem = Object::Global("_operator", "getitem");
                Object::Tuple(vec![getitem, Object::key(&split), Object::Int(j)])
            };
            let mut sides = vec![mine, Object::key(&key(self.broadcast, &[j]))];
            if self.broadcast_left {
                sides.reverse();
            }
            let task = vec![
                Object::Global("dask.utils", "apply"),
                Object::LazyImport("dask.dataframe.multi._merge_chunk_wrapper"),
                Object::List(sides),
                self.merge_kwargs.clone(),
            ];
            let name = key(&inter, &[part, j]);
            pieces.push(Object::key(&name));
            to.push((name, Object::Tuple(task)));
        }
        let concat = Object::LazyImport("dask.dataframe.multi._concat_wrapper");
        let task = Object::Tuple(vec![concat, Object::List(pieces)]);
        to.push((key(self.name, &[part]), task));
        Ok(())
    }
}
