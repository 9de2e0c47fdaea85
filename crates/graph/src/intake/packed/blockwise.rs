//! `Blockwise` layers: one task per output block, its arguments the blocks with matching indices.

use bytes::Bytes;
use hashbrown::HashMap;
use oxidask_key::{Key, MAX_KEY_DEPTH};

use super::Added;
use super::object::{self, Object};
use super::value::Input;
use crate::intake::Stop;

/// Most blocks that one argument of one task may be made of.
const MAX_CONTRACTED: usize = 1 << 20;

fn unknown() -> Stop {
    Stop::python("unknown state of a Blockwise layer")
}

/// Expands a `Blockwise`, `DataFrameIOLayer` or `BlockwiseCreateArray`.
pub(super) fn expand<P: Clone>(state: &Input<P>, added: &mut Added<'_, P>) -> Result<(), Stop> {
    let layer = Layer::read(state)?;
    let mut add = |block: &[usize]| {
        let (args, dependencies) = layer.arguments(block)?;
        let spec = match &layer.function {
            Function::Pickled(function) => object::call(function.clone(), args)?,
            Function::Object(payload) => {
                let mut task = vec![Object::Payload(payload.clone())];
                task.extend(args);
                object::nested(task)?
            }
        };
        added.task(block_key(layer.output, block), spec, &dependencies)
    };
    match &layer.output_blocks {
        Some(blocks) => blocks.iter().try_for_each(|block| add(block)),
        None => for_each_block(&layer.output_dims, add),
    }
}

/// All blocks in the order of `itertools.product`.
fn for_each_block(
    dims: &[usize],
    mut visit: impl FnMut(&[usize]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    if dims.contains(&0) {
        return Ok(());
    }
    let mut block = vec![0; dims.len()];
    loop {
        visit(&block)?;
        let mut place = block.iter_mut().zip(dims).rev();
        loop {
            let Some((position, &dim)) = place.next() else {
                return Ok(());
            };
            *position += 1;
            if *position < dim {
                break;
            }
            *position = 0;
        }
    }
}

/// `(name, *block)` in its text form.
fn block_key(name: &str, block: &[usize]) -> Key {
    let mut items = vec![Key::from(name)];
    items.extend(block.iter().map(|&i| Key::Int(i as i64)));
    Key::from(Key::from(items).to_text())
}

enum Function<P> {
    Pickled(Bytes),
    /// To be put together with its arguments on the worker.
    Object(P),
}

/// Which block of an input along one of its dimensions.
#[derive(Clone, Copy)]
enum Coordinate {
    /// The one at this dimension of the output block.
    Output(usize),
    /// The only one.
    Zero,
    /// All of them, since the output does not have this index.
    All(usize),
    /// The only one, so many times.
    Zeros(usize),
}

enum Argument<'a, P> {
    /// The same for all blocks.
    Constant(Object<P>),
    Blocks {
        name: &'a str,
        coordinates: Vec<Coordinate>,
        /// Dimensions along which there is more than one block.
        axes: Vec<i64>,
        /// Replaces the blocks by values.
        source: Option<Source<'a, P>>,
    },
}

struct Layer<'a, P> {
    output: &'a str,
    function: Function<P>,
    output_dims: Vec<usize>,
    output_blocks: Option<Vec<Vec<usize>>>,
    arguments: Vec<Argument<'a, P>>,
    concatenate: bool,
    /// Keys of futures that the function gets as further arguments.
    extra_args: Vec<Key>,
    global_dependencies: Vec<Key>,
}

/// What an index of the layer means.
struct Indices<'a> {
    dims: &'a HashMap<Key, usize>,
    output: &'a [Key],
    concatenate: bool,
}

impl<'a, P: Clone> Layer<'a, P> {
    fn read(state: &'a Input<P>) -> Result<Self, Stop> {
        let field = |name| state.field(name).ok_or_else(unknown);
        let concatenate = match field("concatenate")? {
            Input::Nil | Input::Bool(false) => false,
            Input::Bool(true) => true,
            _ => return Err(unknown()),
        };
        let function = match field("func")? {
            Input::Bin(bytes) => Function::Pickled(bytes.clone()),
            Input::Payload(payload) => Function::Object(payload.clone()),
            _ => return Err(unknown()),
        };
        let dims = dims(field("dims")?)?;
        let output = indices(field("output_indices")?)?;
        let known = Indices {
            dims: &dims,
            output: &output,
            concatenate,
        };
        Ok(Self {
            output: field("output")?.text().ok_or_else(unknown)?,
            function,
            output_dims: output
                .iter()
                .map(|i| dims.get(i).copied().ok_or_else(unknown))
                .collect::<Result<_, _>>()?,
            output_blocks: output_blocks(field("output_blocks")?)?,
            arguments: arguments(state, &known)?,
            concatenate,
            extra_args: keys(field("func_future_args")?)?,
            global_dependencies: keys(field("global_dependencies")?)?,
        })
    }

    /// Arguments and dependencies of the task of an output block.
    fn arguments(&self, block: &[usize]) -> Result<(Vec<Object<P>>, Vec<Key>), Stop> {
        let mut args = Vec::new();
        let mut dependencies = Vec::new();
        for argument in &self.arguments {
            args.push(match argument {
                Argument::Constant(value) => value.clone(),
                Argument::Blocks {
                    source: Some(source),
                    coordinates,
                    ..
                } => source.value(&single(coordinates, block)?)?,
                Argument::Blocks {
                    name,
                    coordinates,
                    axes,
                    source: None,
                } => {
                    let mut at = Vec::new();
                    let blocks = product(name, coordinates, block, &mut at, &mut dependencies)?;
                    if axes.is_empty() || !self.concatenate {
                        blocks
                    } else {
                        let axes = axes.iter().map(|&axis| Object::Int(axis)).collect();
                        let concatenate = Object::Global("dask.array.core", "concatenate_axes");
                        Object::Tuple(vec![concatenate, blocks, Object::List(axes)])
                    }
                }
            });
        }
        for argument in &self.arguments {
            if let Argument::Blocks {
                source: Some(source),
                ..
            } = argument
            {
                dependencies.extend(source.key(block)?);
            }
        }
        args.extend(self.extra_args.iter().map(Object::key));
        dependencies.extend_from_slice(&self.extra_args);
        dependencies.extend_from_slice(&self.global_dependencies);
        Ok((args, dependencies))
    }
}

fn keys<P>(input: &Input<P>) -> Result<Vec<Key>, Stop> {
    let items = input.items().ok_or_else(unknown)?;
    let keys: Option<Vec<Key>> = items.iter().map(Input::key).collect();
    keys.ok_or_else(unknown)
}

fn indices<P>(input: &Input<P>) -> Result<Vec<Key>, Stop> {
    let items = input.items().ok_or_else(unknown)?;
    let keys: Option<Vec<Key>> = items.iter().map(|i| i.raw_key(MAX_KEY_DEPTH)).collect();
    keys.ok_or_else(unknown)
}

fn dims<P>(input: &Input<P>) -> Result<HashMap<Key, usize>, Stop> {
    let mut dims = HashMap::new();
    for (index, extent) in input.entries().ok_or_else(unknown)? {
        let index = index.raw_key(MAX_KEY_DEPTH).ok_or_else(unknown)?;
        dims.insert(index, extent.count().ok_or_else(unknown)?);
    }
    Ok(dims)
}

fn block<P>(input: &Input<P>) -> Result<Vec<usize>, Stop> {
    let items = input.items().ok_or_else(unknown)?;
    let numbers: Option<Vec<usize>> = items.iter().map(Input::count).collect();
    numbers.ok_or_else(unknown)
}

fn output_blocks<P>(input: &Input<P>) -> Result<Option<Vec<Vec<usize>>>, Stop> {
    if input.is_nil() {
        return Ok(None);
    }
    let blocks: Result<Vec<Vec<usize>>, Stop> = input
        .items()
        .ok_or_else(unknown)?
        .iter()
        .map(block)
        .collect();
    Ok(Some(blocks?).filter(|blocks| !blocks.is_empty()))
}

fn arguments<'a, P: Clone>(
    state: &'a Input<P>,
    known: &Indices<'_>,
) -> Result<Vec<Argument<'a, P>>, Stop> {
    let field = |name| state.field(name).ok_or_else(unknown);
    let pairs = field("indices")?.items().ok_or_else(unknown)?;
    let is_list = field("is_list")?.items().ok_or_else(unknown)?;
    let numblocks = field("numblocks")?;
    let io_deps = field("io_deps")?.entries().ok_or_else(unknown)?;
    if pairs.len() != is_list.len() || !pairs.len().is_multiple_of(2) {
        return Err(unknown());
    }
    let mut arguments = Vec::new();
    for (pair, lists) in pairs.chunks_exact(2).zip(is_list.chunks_exact(2)) {
        let ([arg, index], [arg_is_list, _]) = (pair, lists) else {
            return Err(unknown());
        };
        if index.is_nil() {
            let value = match (Object::from_input(arg)?, arg_is_list) {
                (Object::Tuple(items), Input::Bool(true)) => Object::List(items),
                (value, _) => value,
            };
            arguments.push(Argument::Constant(value.stringified()?));
            continue;
        }
        let name = arg.text().ok_or_else(unknown)?;
        let blocks = numblocks
            .field(name)
            .and_then(Input::items)
            .ok_or_else(unknown)?;
        let (coordinates, axes) = coordinates(&indices(index)?, blocks, known)?;
        let dep = io_deps.iter().find(|(n, _)| n.text() == Some(name));
        let source = dep.map(|(_, dep)| Source::read(dep)).transpose()?;
        if source.is_some() && !axes.is_empty() {
            return Err(Stop::python("values in place of contracted blocks"));
        }
        arguments.push(Argument::Blocks {
            name,
            coordinates,
            axes,
            source,
        });
    }
    Ok(arguments)
}

fn coordinates<P>(
    index: &[Key],
    blocks: &[Input<P>],
    known: &Indices<'_>,
) -> Result<(Vec<Coordinate>, Vec<i64>), Stop> {
    let mut coordinates = Vec::new();
    let mut axes = Vec::new();
    let mut product: usize = 1;
    for (axis, (index, blocks)) in index.iter().zip(blocks).enumerate() {
        let single = blocks.count().ok_or_else(unknown)? == 1;
        if let Some(position) = known.output.iter().position(|i| i == index) {
            coordinates.push(match single {
                true => Coordinate::Zero,
                false => Coordinate::Output(position),
            });
            continue;
        }
        axes.push(axis as i64);
        let dim = known.dims.get(index).copied().ok_or_else(unknown)?;
        // Concatenating the same block several times would be wrong.
        let repeat = if known.concatenate { 1 } else { dim };
        product = product.saturating_mul(dim);
        coordinates.push(match single {
            true => Coordinate::Zeros(repeat),
            false => Coordinate::All(dim),
        });
    }
    if product > MAX_CONTRACTED {
        return Err(Stop::python("too many blocks in one argument"));
    }
    Ok((coordinates, axes))
}

/// The one block that coordinates without contraction mean.
fn single(coordinates: &[Coordinate], block: &[usize]) -> Result<Vec<usize>, Stop> {
    coordinates
        .iter()
        .map(|coordinate| match *coordinate {
            Coordinate::Output(position) => block.get(position).copied().ok_or_else(unknown),
            _ => Ok(0),
        })
        .collect()
}

/// The key of a block, or nested lists of keys; adds the keys to the dependencies.
fn product<P: Clone>(
    name: &str,
    coordinates: &[Coordinate],
    block: &[usize],
    at: &mut Vec<usize>,
    dependencies: &mut Vec<Key>,
) -> Result<Object<P>, Stop> {
    let Some(coordinate) = coordinates.get(at.len()) else {
        let key = block_key(name, at);
        let object = Object::key(&key);
        dependencies.push(key);
        return Ok(object);
    };
    let (count, step) = match *coordinate {
        Coordinate::All(count) => (count, 1),
        Coordinate::Zeros(count) => (count, 0),
        Coordinate::Zero | Coordinate::Output(_) => {
            at.push(match *coordinate {
                Coordinate::Output(position) => *block.get(position).ok_or_else(unknown)?,
                _ => 0,
            });
            let found = product(name, coordinates, block, at, dependencies);
            at.pop();
            return found;
        }
    };
    let mut list = Vec::new();
    for i in 0..count {
        at.push(i * step);
        list.push(product(name, coordinates, block, at, dependencies)?);
        at.pop();
    }
    Ok(Object::List(list))
}

/// Values by block (`BlockwiseDep`).
enum Source<'a, P> {
    /// `BlockwiseDepDict`.
    Mapping {
        values: HashMap<Vec<usize>, &'a Input<P>>,
        dimensions: usize,
        /// The values are keys.
        produces_keys: bool,
    },
    /// `ArrayChunkShapeDep`: the shape of the chunk.
    Shape(Vec<Vec<i64>>),
    /// `ArraySliceDep`: where the chunk lies in the array; the bounds of the chunks by dimension.
    Slices(Vec<Vec<i64>>),
    /// `BlockIndex`: the block itself.
    Index,
}

impl<'a, P: Clone> Source<'a, P> {
    fn read(dep: &'a Input<P>) -> Result<Self, Stop> {
        let text = |name| dep.field(name).and_then(Input::text);
        let state = dep.field("state").ok_or_else(unknown)?;
        match (text("__module__"), text("__name__")) {
            (Some("dask.blockwise"), Some("BlockwiseDepDict")) => {
                let mut values = HashMap::new();
                let mapping = state.field("mapping").and_then(Input::entries);
                for (index, value) in mapping.ok_or_else(unknown)? {
                    values.insert(block(index)?, value);
                }
                let numblocks = state.field("numblocks").and_then(Input::items);
                Ok(Self::Mapping {
                    values,
                    dimensions: numblocks.ok_or_else(unknown)?.len(),
                    produces_keys: matches!(state.field("produces_keys"), Some(Input::Bool(true))),
                })
            }
            (Some("dask.blockwise"), Some("BlockIndex")) => Ok(Self::Index),
            (Some("dask.layers"), Some("ArrayChunkShapeDep")) => Ok(Self::Shape(chunks(state)?)),
            (Some("dask.layers"), Some("ArraySliceDep")) => {
                let mut bounds = chunks(state)?;
                for sizes in &mut bounds {
                    let mut start = 0i64;
                    for size in sizes.iter_mut() {
                        let next = start.checked_add(*size).ok_or_else(unknown)?;
                        *size = std::mem::replace(&mut start, next);
                    }
                    sizes.push(start);
                }
                Ok(Self::Slices(bounds))
            }
            (module, name) => Err(Stop::python(format!(
                "argument source {}.{}",
                module.unwrap_or_default(),
                name.unwrap_or_default()
            ))),
        }
    }

    fn value(&self, block: &[usize]) -> Result<Object<P>, Stop> {
        let at = |list: &Vec<i64>, i: usize| list.get(i).copied().ok_or_else(unknown);
        let items: Result<Vec<Object<P>>, Stop> = match self {
            Self::Mapping { .. } => match self.lookup(block) {
                Some(value) => return Object::from_input(value),
                None => Ok(block.iter().map(|&i| Object::Int(i as i64)).collect()),
            },
            Self::Index => Ok(block.iter().map(|&i| Object::Int(i as i64)).collect()),
            Self::Shape(chunks) => {
                let sizes = block.iter().zip(chunks);
                sizes
                    .map(|(&i, sizes)| Ok(Object::Int(at(sizes, i)?)))
                    .collect()
            }
            Self::Slices(bounds) => {
                let dimensions = block.iter().zip(bounds);
                dimensions
                    .map(|(&i, bounds)| Ok(Object::Slice(at(bounds, i)?, at(bounds, i + 1)?)))
                    .collect()
            }
        };
        Ok(Object::Tuple(items?))
    }

    fn lookup(&self, block: &[usize]) -> Option<&'a Input<P>> {
        let Self::Mapping {
            values, dimensions, ..
        } = self
        else {
            return None;
        };
        let found = values.get(block);
        found
            .or_else(|| values.get(block.get(..*dimensions)?))
            .copied()
    }

    /// The dependency that the value for an output block is, if values are keys.
    fn key(&self, block: &[usize]) -> Result<Option<Key>, Stop> {
        match self {
            Self::Mapping {
                produces_keys: true,
                ..
            } => {
                let key = self.lookup(block).and_then(Input::key);
                Ok(Some(key.ok_or_else(unknown)?))
            }
            _ => Ok(None),
        }
    }
}

fn chunks<P>(state: &Input<P>) -> Result<Vec<Vec<i64>>, Stop> {
    let chunks = state.field("chunks").and_then(Input::items);
    let sizes: Option<Vec<Vec<i64>>> = chunks
        .ok_or_else(unknown)?
        .iter()
        .map(Input::ints)
        .collect();
    sizes.ok_or_else(unknown)
}
