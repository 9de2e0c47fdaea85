//! The rules of click that clap does not have: options may stand anywhere, words that are no option of
//! ours are collected (for `--preload`), the last of a repeated option counts, the value of an option is
//! the next word whatever it looks like, and usage errors end with code 2 in click's wording.

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use thiserror::Error;

/// What a command line asks for.
#[derive(Debug)]
pub enum Outcome<A> {
    /// Run with these arguments.
    Run(Parsed<A>),
    /// Print this on stdout and end with code 0 (`--help`, `--version`).
    Print(String),
}

/// Arguments, and what their use gives reason to warn about (one line each).
#[derive(Debug)]
pub struct Parsed<A> {
    /// The arguments.
    pub args: A,
    /// Deprecated spellings, and options accepted without effect.
    pub warnings: Vec<String>,
}

/// A mistake in a command line: print it on stderr and end with [`UsageError::EXIT_CODE`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Usage: {usage}\nTry '{program} --help' for help.\n\nError: {message}")]
pub struct UsageError {
    /// Name of the program.
    pub program: String,
    /// Its usage line.
    pub usage: String,
    /// What is wrong.
    pub message: String,
}

impl UsageError {
    /// As for click programs.
    pub const EXIT_CODE: i32 = 2;
}

/// A program as its user sees it.
pub(crate) struct Program<'a> {
    /// As it was called: `dask-scheduler`.
    pub(crate) name: &'a str,
    /// `[OPTIONS] [PRELOAD_ARGV]...`.
    pub(crate) shape: &'a str,
    /// The first so many words that are no options have a meaning of their own.
    pub(crate) positionals: usize,
    pub(crate) command: Command,
}

/// The words of a command line, sorted.
#[derive(Debug, Default)]
struct Words {
    /// Known options as `--name` or `--name=value`.
    options: Vec<String>,
    /// Everything else in order, unknown options included.
    others: Vec<String>,
}

impl Program<'_> {
    pub(crate) fn usage_error(&self, message: impl Into<String>) -> UsageError {
        UsageError {
            program: self.name.to_owned(),
            usage: format!("{} {}", self.name, self.shape),
            message: message.into(),
        }
    }

    /// Parses the words after the program's name. The result holds clap's matches and the words that
    /// are no options, `positionals` of which are the program's own and the rest the preload's.
    pub(crate) fn parse(
        &self,
        words: &[String],
    ) -> Result<Outcome<(clap::ArgMatches, Vec<String>)>, UsageError> {
        let words = self.split(words)?;
        // Eager options: the first one given counts, before any value is looked at.
        match words
            .options
            .iter()
            .find(|word| matches!(word.as_str(), "--help" | "--version"))
        {
            Some(word) if word == "--help" => return Ok(Outcome::Print(self.help())),
            Some(_) => return Ok(Outcome::Print(version_line(self.name))),
            None => {}
        }
        let preloads = words
            .options
            .iter()
            .any(|word| word.starts_with("--preload="));
        if !preloads {
            self.refuse_extra(words.others.get(self.positionals..).unwrap_or_default())?;
        }
        let line = std::iter::once(self.name.to_owned()).chain(words.options);
        let matches = self
            .command
            .clone()
            .try_get_matches_from(line)
            .map_err(|error| self.invalid(&error))?;
        let parsed = Parsed {
            args: (matches, words.others),
            warnings: Vec::new(),
        };
        Ok(Outcome::Run(parsed))
    }

    fn split(&self, words: &[String]) -> Result<Words, UsageError> {
        let mut sorted = Words::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                sorted.others.extend(rest.cloned());
                break;
            }
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let name = if name == "-h" { "--help" } else { name };
            let Some(option) = self.option(name) else {
                sorted.others.push(word.clone());
                continue;
            };
            let takes_value = matches!(option.get_action(), ArgAction::Set | ArgAction::Append);
            sorted.options.push(match (takes_value, given) {
                (false, None) => name.to_owned(),
                (false, Some(_)) => {
                    return Err(self.usage_error(format!("Option '{name}' does not take a value.")));
                }
                (true, Some(value)) => format!("{name}={value}"),
                (true, None) => match rest.next() {
                    Some(value) => format!("{name}={value}"),
                    None => {
                        return Err(
                            self.usage_error(format!("Option '{name}' requires an argument."))
                        );
                    }
                },
            });
        }
        Ok(sorted)
    }

    fn option(&self, word: &str) -> Option<&Arg> {
        let name = word.strip_prefix("--")?;
        self.command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(name))
    }

    /// Words that only a preload could want, without a preload.
    fn refuse_extra(&self, extra: &[String]) -> Result<(), UsageError> {
        let Some(first) = extra
            .iter()
            .find(|word| word.starts_with('-'))
            .or(extra.first())
        else {
            return Ok(());
        };
        if first.starts_with('-') {
            return Err(self.usage_error(format!("No such option: {first}")));
        }
        let plural = if extra.len() == 1 { "" } else { "s" };
        Err(self.usage_error(format!(
            "Got unexpected extra argument{plural}: ({}). Words for a --preload module need --preload; \
             '--help' lists the options.",
            extra.join(" ")
        )))
    }

    /// clap's refusal of a value in click's words.
    fn invalid(&self, error: &clap::Error) -> UsageError {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let option = text(ContextKind::InvalidArg).unwrap_or_default();
        let option = option.split(' ').next().unwrap_or_default();
        let source = std::error::Error::source(error).map(ToString::to_string);
        match (source, text(ContextKind::InvalidValue)) {
            (Some(reason), _) => {
                self.usage_error(format!("Invalid value for '{option}': {reason}"))
            }
            (None, Some(value)) => {
                self.usage_error(format!("Invalid value for '{option}': {value:?}"))
            }
            _ => self.usage_error(error.to_string().trim().to_owned()),
        }
    }

    fn help(&self) -> String {
        let usage = format!("{} {}", self.name, self.shape);
        self.command
            .clone()
            .override_usage(usage)
            .render_help()
            .to_string()
    }
}

/// `--version`, worded as click words it.
fn version_line(program: &str) -> String {
    format!(
        "{program}, version {} (Oxidask)\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The name a program was called by, without its directory.
pub(crate) fn program_name(called: Option<&String>, default: &str) -> String {
    let name = called.and_then(|path| std::path::Path::new(path).file_name()?.to_str());
    name.filter(|name| !name.is_empty())
        .unwrap_or(default)
        .to_owned()
}
