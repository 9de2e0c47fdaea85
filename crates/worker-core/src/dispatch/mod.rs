//! What begins when an event is done: transfers and executions.

mod communicating;
mod computing;
