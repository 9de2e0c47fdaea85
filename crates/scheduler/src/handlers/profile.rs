//! `profile`: what workers spend their time on, asked of them and added up; or what the Python of
//! `run_on_scheduler` does, as the scheduler itself has no stacks that Python's profiler could show.

use std::sync::Arc;

use oxidask_wire::value::Value;

use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError};

/// Deepest stack that is merged: a frame takes two levels of a message.
const MAX_DEPTH: usize = oxidask_wire::value::MAX_DEPTH / 2 - 4;

/// `profile`: profiles of the workers, merged unless `merge_workers` is off.
pub async fn profile(context: Arc<Context>, call: Call) -> Reply {
    if call.flag("scheduler", false) {
        let (start, stop) = (call.opt_f64("start")?, call.opt_f64("stop")?);
        let python = context.python.profile(call.caller.release, start, stop);
        return Ok(python.await?.unwrap_or_else(empty));
    }
    let wanted = call.opt_texts("workers")?;
    let argument = |name: &str| call.args.get(name).cloned().unwrap_or_default();
    let request = Value::map([
        ("op", Value::from("profile")),
        ("reply", true.into()),
        ("start", argument("start")),
        ("stop", argument("stop")),
        ("key", argument("key")),
        ("server", call.flag("server", false).into()),
    ]);
    let workers = context.workers.all().into_iter().filter(|w| match &wanted {
        Some(wanted) => wanted.iter().any(|address| **address == *w.info.address),
        None => true,
    });
    let requests = workers.map(|w| (Arc::clone(&w.info.address), request.clone()));
    let answers = ask_each(&context, requests.collect()).await;
    let answers = answers
        .into_iter()
        .filter_map(|(worker, answer)| Some((worker, answer.ok()?)));
    if !call.flag("merge_workers", true) {
        return Ok(answers.collect());
    }
    let profiles: Vec<Value> = answers.map(|(_, profile)| profile).collect();
    Ok(merge(&profiles.iter().collect::<Vec<_>>(), 0))
}

/// Asks several workers at the same time; answers in the order of the requests.
async fn ask_each(
    context: &Arc<Context>,
    requests: Vec<(Arc<str>, Value)>,
) -> Vec<(Arc<str>, Result<Value, RpcError>)> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut answers: Vec<(Arc<str>, Result<Value, RpcError>)> = Vec::new();
    for (i, (worker, request)) in requests.into_iter().enumerate() {
        let (context, address) = (Arc::clone(context), Arc::clone(&worker));
        answers.push((worker, Err(RpcError::runtime_error("aborted"))));
        tasks.spawn(async move {
            let answer = context.peers.ask(&address, &request).await;
            (i, answer.map_err(RpcError::from))
        });
    }
    while let Some(joined) = tasks.join_next().await {
        if let Ok((i, answer)) = joined
            && let Some(slot) = answers.get_mut(i)
        {
            slot.1 = answer;
        }
    }
    answers
}

/// A profile of nothing.
fn empty() -> Value {
    let description = Value::map([
        ("filename", Value::from("")),
        ("name", "".into()),
        ("line_number", 0.into()),
        ("line", "".into()),
    ]);
    Value::map([
        ("count", Value::from(0)),
        ("children", Value::Map(Vec::new())),
        ("identifier", "root".into()),
        ("description", description),
    ])
}

/// Adds profile trees up: equal frames become one with the sum of their counts.
fn merge(profiles: &[&Value], depth: usize) -> Value {
    let Some(first) = profiles.first() else {
        return empty();
    };
    let mut children: Vec<(&Value, Vec<&Value>)> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for profile in profiles {
        for (name, child) in profile
            .get("children")
            .and_then(Value::as_map)
            .unwrap_or(&[])
        {
            let Some(key) = name.to_key() else { continue };
            let at = *index.entry(key).or_insert_with(|| {
                children.push((name, Vec::new()));
                children.len() - 1
            });
            if let Some((_, list)) = children.get_mut(at) {
                list.push(child);
            }
        }
    }
    let merged = if depth < MAX_DEPTH {
        let merged = children.into_iter();
        merged
            .map(|(name, list)| (name.clone(), merge(&list, depth + 1)))
            .collect()
    } else {
        Vec::new()
    };
    let count: i64 = profiles
        .iter()
        .filter_map(|profile| profile.get("count")?.as_i64())
        .fold(0, i64::saturating_add);
    let part = |name: &str| first.get(name).cloned().unwrap_or_default();
    Value::map([
        ("description", part("description")),
        ("children", Value::Map(merged)),
        ("count", count.into()),
        ("identifier", part("identifier")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(count: i64, children: Vec<(&str, Value)>) -> Value {
        Value::map([
            ("identifier", Value::from("root")),
            ("description", Value::Map(Vec::new())),
            ("count", count.into()),
            ("children", Value::map(children)),
        ])
    }

    #[test]
    fn equal_frames_are_added_up() {
        let a = profile(
            3,
            vec![("f", profile(2, vec![])), ("g", profile(1, vec![]))],
        );
        let b = profile(5, vec![("f", profile(5, vec![("h", profile(4, vec![]))]))]);
        let merged = merge(&[&a, &b], 0);
        assert_eq!(merged.get("count"), Some(&Value::Int(8)));
        let children = merged.get("children").unwrap();
        assert_eq!(
            children.get("f").unwrap().get("count"),
            Some(&Value::Int(7))
        );
        assert_eq!(
            children.get("g").unwrap().get("count"),
            Some(&Value::Int(1))
        );
        let h = children.get("f").unwrap().get("children").unwrap().get("h");
        assert_eq!(h.unwrap().get("count"), Some(&Value::Int(4)));
        assert_eq!(merge(&[], 0), empty());
    }
}
