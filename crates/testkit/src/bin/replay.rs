//! Runs a recording again: `replay FILE [--key KEY] [--effects]`. Says whether the effects are those
//! recorded, and tells the story of a key. The exit code is 1 if they differ or the file is none.

use std::process::ExitCode;

use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::recording::Replay;

/// Tasks named that a transition led to.
const SHOWN: usize = 5;

fn main() -> ExitCode {
    let (mut file, mut key, mut effects) = (None, None, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--effects" => effects = true,
            "--key" => key = words.next(),
            _ => file = Some(word),
        }
    }
    let Some(file) = file else {
        eprintln!("usage: replay FILE [--key KEY] [--effects]");
        return ExitCode::from(2);
    };
    match run(&file, key.as_deref(), effects) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &str, key: Option<&str>, effects: bool) -> Result<bool, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(file)?;
    let replay = Replay::run(&bytes, |entry, led_to| {
        if effects {
            println!("{entry:?}");
            for effect in led_to {
                println!("    {effect:?}");
            }
        }
    })?;
    let state = &replay.scheduler;
    println!(
        "{} calls, {} transitions; at the end {} tasks, {} workers",
        replay.calls,
        state.transition_counter(),
        state.tasks_len(),
        state.workers_len()
    );
    if let Some(key) = key {
        tell_story(state, key);
    }
    match replay.divergence {
        None => println!("the effects are those recorded"),
        Some((call, recorded, now)) => {
            println!("call {call} led to other effects: recorded {recorded:?}, now {now:?}");
        }
    }
    Ok(replay.divergence.is_none())
}

/// What happened to the task, as far back as the log goes, and where it is now.
fn tell_story(state: &Scheduler, name: &str) {
    let matches = |key: &&Key| key.to_text() == name || key.repr() == name;
    let logged = state.transition_log().map(|entry| &entry.key).find(matches);
    let known = state.tasks().map(|task| task.key()).find(matches);
    let Some(key) = logged.or(known).cloned() else {
        println!("no task of the name {name}");
        return;
    };
    for entry in state.story(std::slice::from_ref(&key)) {
        let led_to: Vec<String> = entry
            .recommendations()
            .take(SHOWN)
            .map(|(key, state)| format!("{key} {}", state.as_str()))
            .collect();
        let more = entry.recommendations().count().saturating_sub(SHOWN);
        let more = match more {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        println!(
            "{:.6} {} {} -> {} [{}] {}{more}",
            entry.time.0,
            entry.key,
            entry.start.as_str(),
            entry.finish.as_str(),
            entry.stimulus_id,
            led_to.join(", ")
        );
    }
    let Some(task) = state.task(&key) else {
        println!("{key} is forgotten");
        return;
    };
    let on = task.processing_on();
    let holders: Vec<_> = task.who_has().map(|w| w.address().clone()).collect();
    println!(
        "{key} is {} (on {:?}, held by {holders:?})",
        task.state().as_str(),
        on.map(|w| w.address().clone())
    );
}
