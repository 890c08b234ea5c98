//! The live state of a run: what its directory or the running process says about it, as a picture of the terminal's size and
//! as one line.
//!
//! Nothing here prints, trains or handles keys: `cli` owns the terminal.

mod head;
mod line;
mod look;
mod message;
mod numbers;
mod pace;
mod panels;
mod plot;
mod printable;
mod reader;
mod row;
mod run_view;
mod samples;
mod screen;
mod series;
mod status;

pub use line::{Fit, StepLine, cut, width};
pub use look::Look;
pub use message::{Message, MessageKind};
pub use numbers::{bytes, clock, millions, thousands};
pub use pace::Pace;
pub use printable::{is_unsafe, printable};
pub use reader::RunReader;
pub use row::Row;
pub use run_view::{RunView, Sample, StageStart, Update};
pub use screen::{Owner, Page, draw};
pub use status::{RunState, STATUS_FILE, StageSteps, Status};
