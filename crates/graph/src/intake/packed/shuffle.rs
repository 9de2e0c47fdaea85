//! Shuffles by tasks: each input partition is split into groups, each output partition concatenates
//! its groups.

use hashbrown::HashMap;
use oxidask_key::Key;

use super::Added;
use super::object::Object;
use super::value::Input;
use crate::intake::Stop;

/// Most tasks of one layer that are collected before they are added.
const MAX_TASKS: usize = super::MAX_TASKS;

fn unknown() -> Stop {
    Stop::python("unknown state of a shuffle layer")
}

fn too_many() -> Stop {
    Stop::python("graph of too many tasks")
}

/// Fields that both kinds have.
struct Shuffle<'a, P> {
    name: &'a str,
    name_input: &'a str,
    column: Object<P>,
    ignore_index: Object<P>,
    /// Absent where each partition keeps its number of digits.
    npartitions: Object<P>,
    npartitions_input: i64,
    parts_out: Vec<i64>,
    meta_input: &'a Input<P>,
}

impl<'a, P: Clone> Shuffle<'a, P> {
    fn read(state: &'a Input<P>) -> Result<Self, Stop> {
        let field = |name| state.field(name).ok_or_else(unknown);
        let column = match Object::from_input(field("column")?)? {
            // The wire does not keep lists apart; tuples of columns are not in use.
            Object::Tuple(items) => Object::List(items),
            column => column,
        };
        Ok(Self {
            name: field("name")?.text().ok_or_else(unknown)?,
            name_input: field("name_input")?.text().ok_or_else(unknown)?,
            column: column.stringified()?,
            ignore_index: Object::from_input(field("ignore_index")?)?,
            npartitions: Object::from_input(field("npartitions")?)?,
            npartitions_input: field("npartitions_input")?.int().ok_or_else(unknown)?,
            parts_out: field("parts_out")?.ints().ok_or_else(unknown)?,
            meta_input: field("meta_input")?,
        })
    }

    fn concatenate(&self, groups: Vec<Object<P>>) -> Object<P> {
        let concat = Object::LazyImport("dask.dataframe.core._concat");
        Object::Tuple(vec![
            concat,
            Object::List(groups),
            self.ignore_index.clone(),
        ])
    }

    fn split(&self, group: &Key, part: Object<P>) -> Object<P> {
        let getitem = Object::Global("_operator", "getitem");
        Object::Tuple(vec![getitem, Object::key(group), part])
    }

    fn group(&self, input: &Key, stage: i64, k: Object<P>, npartitions: Object<P>) -> Object<P> {
        Object::Tuple(vec![
            Object::LazyImport("dask.dataframe.shuffle.shuffle_group"),
            Object::key(input),
            self.column.clone(),
            Object::Int(stage),
            k,
            npartitions,
            self.ignore_index.clone(),
            self.npartitions.clone(),
        ])
    }
}

/// A key in its text form.
fn key(items: impl IntoIterator<Item = Key>) -> Key {
    let items: Vec<Key> = items.into_iter().collect();
    Key::from(Key::from(items).to_text())
}

/// `SimpleShuffleLayer`: every output partition needs every input partition.
pub(super) fn simple<P: Clone>(state: &Input<P>, added: &mut Added<'_, P>) -> Result<(), Stop> {
    let shuffle = Shuffle::read(state)?;
    let split_name = Key::from(format!("split-{}", shuffle.name));
    let group_name = Key::from(format!("group-{}", shuffle.name));
    let mut tasks = Vec::new();
    for (n, &part_out) in shuffle.parts_out.iter().enumerate() {
        let mut groups = Vec::new();
        let mut splits = Vec::new();
        for part_in in 0..shuffle.npartitions_input {
            if tasks.len() + splits.len() > MAX_TASKS {
                return Err(too_many());
            }
            let split = key([split_name.clone(), Key::Int(part_out), Key::Int(part_in)]);
            let group = key([group_name.clone(), Key::Int(part_in)]);
            groups.push(Object::key(&split));
            splits.push((split, shuffle.split(&group, Object::Int(part_out))));
            if n == 0 {
                let input = key([Key::from(shuffle.name_input), Key::Int(part_in)]);
                let task = shuffle.group(
                    &input,
                    0,
                    shuffle.npartitions.clone(),
                    shuffle.npartitions.clone(),
                );
                splits.push((group, task));
            }
        }
        let output = key([Key::from(shuffle.name), Key::Int(part_out)]);
        tasks.push((output, shuffle.concatenate(groups)));
        tasks.append(&mut splits);
    }
    added.mentioning(tasks)
}

/// `ShuffleLayer`: one stage of a shuffle in several.
pub(super) fn staged<P: Clone>(state: &Input<P>, added: &mut Added<'_, P>) -> Result<(), Stop> {
    let shuffle = Shuffle::read(state)?;
    let field = |name| state.field(name).ok_or_else(unknown);
    let inputs: Option<Vec<Vec<i64>>> = field("inputs")?
        .items()
        .ok_or_else(unknown)?
        .iter()
        .map(Input::ints)
        .collect();
    let stage = Stage {
        part_of: HashMap::new(),
        inputs: inputs.ok_or_else(unknown)?,
        stage: field("stage")?.count().ok_or_else(unknown)?,
        nsplits: field("nsplits")?.int().ok_or_else(unknown)?,
        split_name: Key::from(format!("split-{}", shuffle.name)),
        group_name: Key::from(format!("group-{}", shuffle.name)),
        shuffle,
    };
    added.mentioning(stage.tasks()?)
}

struct Stage<'a, P> {
    shuffle: Shuffle<'a, P>,
    /// Digits of each partition, and the other way round.
    inputs: Vec<Vec<i64>>,
    part_of: HashMap<Vec<i64>, i64>,
    stage: usize,
    nsplits: i64,
    split_name: Key,
    group_name: Key,
}

fn digits(digits: &[i64]) -> Key {
    Key::from(digits.iter().map(|&d| Key::Int(d)).collect::<Vec<_>>())
}

impl<P: Clone> Stage<'_, P> {
    fn tasks(mut self) -> Result<Vec<(Key, Object<P>)>, Stop> {
        let numbered = self.inputs.iter().cloned().zip(0..);
        self.part_of = numbered.collect();
        let mut grouped = HashMap::new();
        let mut tasks = Vec::new();
        for &part in &self.shuffle.parts_out {
            let out = usize::try_from(part).ok().and_then(|p| self.inputs.get(p));
            let out = out.ok_or_else(unknown)?;
            let index = *out.get(self.stage).ok_or_else(unknown)?;
            let mut groups = Vec::new();
            let mut splits = Vec::new();
            for i in 0..self.nsplits {
                if tasks.len() + splits.len() > MAX_TASKS {
                    return Err(too_many());
                }
                let mut input = out.clone();
                *input.get_mut(self.stage).ok_or_else(unknown)? = i;
                let split = key([self.split_name.clone(), Key::Int(index), digits(&input)]);
                let group = key([self.group_name.clone(), digits(&input)]);
                groups.push(Object::key(&split));
                splits.push((split, self.shuffle.split(&group, Object::Int(index))));
                if grouped.insert(input.clone(), ()).is_none() {
                    self.group(&input, group, &mut splits)?;
                }
            }
            let output = key([Key::from(self.shuffle.name), Key::Int(part)]);
            tasks.push((output, self.shuffle.concatenate(groups)));
            tasks.append(&mut splits);
        }
        Ok(tasks)
    }

    /// Splits a partition of the stage before into groups.
    fn group(&self, input: &[i64], group: Key, to: &mut Vec<(Key, Object<P>)>) -> Result<(), Stop> {
        let part = *self.part_of.get(input).ok_or_else(unknown)?;
        let source = if self.stage == 0 && part >= self.shuffle.npartitions_input {
            // There are fewer partitions than digits can count: the rest is empty.
            let empty = key([self.group_name.clone(), digits(input), Key::from("empty")]);
            to.push((empty.clone(), Object::from_input(self.shuffle.meta_input)?));
            empty
        } else {
            key([Key::from(self.shuffle.name_input), Key::Int(part)])
        };
        let stage = self.stage as i64;
        let task = self.shuffle.group(
            &source,
            stage,
            Object::Int(self.nsplits),
            Object::Int(self.shuffle.npartitions_input),
        );
        to.push((group, task));
        Ok(())
    }
}
