//! Alerts: rules over the answers of queries, and their states.
//!
//! Owns what a rule is ([`Rule`]), the number that it looks at ([`Query`], [`Reading`]), how
//! an alert goes from pending to firing to resolved ([`State`]), and who keeps the states of a
//! store ([`Alerts`]). Leaves alone how rules are written down, and how anybody is told.
//!
//! ```
//! use tallystone::alert::{Rule, State};
//! # use tallystone::{Store, TaskMetric};
//! # fn main() -> tallystone::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let store = Store::open(dir.path().join("store"))?;
//! let mut alerts = store.alerts(Rule::defaults(&Default::default()))?;
//! let found = store.evaluate_alerts(&mut alerts)?;
//! assert!(found.alerts.iter().all(|alert| alert.state == State::Inactive));
//! # Ok(())
//! # }
//! ```

mod evaluate;
mod query;
mod rule;

pub(crate) use evaluate::Change;
pub use evaluate::{Alert, Alerts, Evaluation, HISTORY_SWARM};
pub use query::{Across, Method, Query, Reading};
pub use rule::{Bound, MetricNames, Rule, Severity};

pub use crate::store_files::alerts::State;
