//! What may be asked: commands, options, and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tallystone::export::ExportFormat;
use tallystone::import::{TimeFormat, Zone};
use tallystone::{
    Aggregation, Interval, Limit, MaintenanceWork, Order, Percentile, Table, Tiers, Timestamp,
    TopBy,
};

use crate::dashboard::settings;

/// Stores and queries the metrics of AI-agent fleets: tasks, gauges of agents, gauges of swarms.
///
/// A store is a directory. Any number of processes may write to it and read from it at the
/// same time. Commands that write create it; all others need one that is there.
#[derive(Debug, Parser)]
#[command(
    name = "tallystone",
    version,
    after_help = "Times are RFC 3339 (2026-11-23T10:00:00Z) or a date (2026-11-23, 00:00 UTC).\n\
                  Exit codes: 0 done, 1 failed, 2 bad command line or configuration, 3 damaged data,\n\
                  4 an alert fires.\n\
                  Begin with `tallystone demo`.",
    propagate_version = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
pub(crate) struct Globals {
    /// Directory of the store
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "TALLYSTONE_STORE",
        default_value = "tallystone-data"
    )]
    pub(crate) store: PathBuf,
    /// Configuration of alerts and dashboard [default: tallystone.toml in the store]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON, on one line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Take the store for anybody's: query, export, stats, verify and inspect alone, no link is
    /// followed, no catalog opened, limits are halved
    #[arg(long, global = true)]
    pub(crate) untrusted: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Builds a store from bundled real recordings and shows what can be asked of it
    Demo(DemoArgs),
    /// Appends one metric durably; safe from any number of shells at once
    Record(RecordArgs),
    /// Reads rows from files, each in one transaction
    ///
    /// Each file is imported whole or not at all. The first bad line ends the import, and nothing
    /// of the file is kept; with --skip-bad bad lines are counted and written to
    /// quarantine/import-<id>.rejected in the store. A file that was imported before is refused.
    #[command(after_help = "Fields:\n  \
        task   timestamp, task_id, agent_id, duration_ms, tokens_used, success, metadata\n  \
        agent  timestamp, agent_id, metric_type, value, metadata\n  \
        swarm  timestamp, swarm_id, metric_type, value, metadata\n\
        Of these duration_ms, tokens_used and metadata may be empty or absent.\n\n\
        Samples of prometheus and openmetrics become gauges: agent_id is the label agent_id, agent or\n\
        instance; swarm_id is swarm_id or swarm; metric_type is the label of that name, else the name\n\
        of the metric (__name__ in a map); other labels become metadata. Without a time of its own a\n\
        sample is of the time of the import.\n\n\
        A text may be compressed with gzip, whatever its name is; its beginning tells.\n\n\
        SQLite files are those of the stores with schema 2.0.0 (archives included) and 1.0.0 (whose\n\
        result and files_changed become metadata). A real where a whole number belongs is rounded.\n\
        The file is never written to, and may be in use.\n\n\
        Examples:\n  \
        tallystone import runs.csv\n  \
        tallystone import gauges.jsonl --table agent --time-format ms\n  \
        tallystone import cpu.csv --table agent --set agent_id=i-1 --set metric_type=cpu \\\n    \
        --time-format '%Y-%m-%d %H:%M:%S'\n  \
        tallystone import rows.jsonl.gz --keep\n  \
        tallystone import jobs.csv --map task_id=job,agent_id=worker,success=ok\n  \
        tallystone import .swarm/metrics.db --keep\n  \
        curl -s host:9090/metrics | tallystone import - --format prometheus --set agent_id=host")]
    Import(ImportArgs),
    /// Answers a question
    #[command(after_help = "Examples:\n  \
        tallystone query summary --last 24h\n  \
        tallystone query task-metrics --agent-id coder-1 --success false --limit 20\n  \
        tallystone query percentile --field duration_ms --percentile 0.95\n  \
        tallystone query aggregate-by-time --interval 5m --field tokens_used --agg sum\n  \
        tallystone query top-agents --metric-type success_rate --order desc --json")]
    Query(QueryArgs),
    /// Writes rows, or what they add up to, for other programs
    ///
    /// Rows are in the order of time, oldest first, in constant memory. A file appears whole under
    /// its name or not at all. CSV is safe to open in a spreadsheet: text that would be taken for
    /// a formula gets an apostrophe in front, unless --raw. Of one --table CSV has the columns of
    /// the table; of several, one layout with a column for everything.
    #[command(after_help = "Examples:\n  \
        tallystone export --format csv --output all.csv\n  \
        tallystone export --format jsonl --table task --last 24h --gzip > tasks.jsonl.gz\n  \
        tallystone export --format json --pretty --agent-id coder-1\n  \
        tallystone export --format prometheus\n  \
        tallystone export --format openmetrics --all-samples --output samples.om\n  \
        tallystone export --format grafana --field tokens_used --interval 5m --agg sum")]
    Export(ExportArgs),
    /// Shows live how the fleet does: tasks, agents, queue, resources, trends, alerts
    ///
    /// Press ? for the keys. Alerts and panels are configured in tallystone.toml in the store, or
    /// in the file that --config names; see docs/dashboard.md.
    #[command(after_help = "Examples:\n  \
        tallystone dashboard\n  \
        tallystone dashboard --once | mail -s fleet ops@example.com\n  \
        tallystone dashboard --once --json --window 1h")]
    Dashboard(DashboardArgs),
    /// Evaluates alerts, for timers and pipelines
    Alerts(AlertsArgs),
    /// Sums up a day or a week beside the one before
    #[command(after_help = "Examples:\n  \
        tallystone report daily\n  \
        tallystone report weekly --markdown --of 2026-11-23")]
    Report(ReportArgs),
    /// Shows rows, bytes and time ranges by table and kind of file
    Stats(StatsArgs),
    /// Seals, archives, rolls up and expires now what would otherwise wait
    Maintain(MaintainArgs),
    /// Shows or sets how long rows stay
    Retention(RetentionArgs),
    /// Writes a copy that opens as a store, or brings an earlier one up to date
    ///
    /// The directory is absent, empty, or an earlier backup of the same store that nobody has
    /// written to. Other processes may go on writing. To restore, open the directory.
    Backup(BackupArgs),
    /// Describes a file of a store, whatever its kind, also a damaged one
    ///
    /// A damaged file is described as far as it can be read, and then what is wrong and where; the
    /// command ends with 3. Links and pipes are refused. Of the catalog only the tables are shown.
    Inspect(InspectArgs),
    /// Checks every checksum of the store; changes nothing
    Verify(VerifyArgs),
    /// Makes a damaged store whole again from what can be read of it; deletes nothing
    ///
    /// Every row that can be read is kept; indexes, summaries, the catalog and lost small files
    /// are made anew. Damaged files are kept in quarantine/. What is lost is named here, and from
    /// then on in the coverage of answers, as gone for the reason `damaged`. Ends with 3 if rows
    /// are lost or a damaged file is left, as one that a process is writing to is.
    Repair(RepairArgs),
    /// Builds the catalog anew from the files of the store
    RebuildCatalog,
    /// Prints a completion script for a shell
    Completions(CompletionsArgs),
    /// Prints the manual page (roff), of all or of one command
    Man(ManArgs),
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// New directory for the store [default: tallystone-demo, or with a number if that is there]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct RecordArgs {
    #[command(subcommand)]
    pub(crate) what: RecordWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecordWhat {
    /// A finished task
    Task(RecordTask),
    /// A gauge of an agent
    Agent(RecordAgent),
    /// A gauge of a swarm
    Swarm(RecordSwarm),
}

#[derive(Args, Debug)]
pub(crate) struct RecordTask {
    /// Which task
    #[arg(long, value_name = "ID")]
    pub(crate) task_id: String,
    /// Which agent ran it
    #[arg(long, value_name = "ID")]
    pub(crate) agent_id: String,
    /// How long it took, in milliseconds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) duration_ms: Option<i64>,
    /// Tokens it used
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) tokens_used: Option<i64>,
    /// Whether it succeeded
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    pub(crate) success: bool,
    #[command(flatten)]
    pub(crate) common: RecordCommon,
}

#[derive(Args, Debug)]
pub(crate) struct RecordAgent {
    /// Which agent
    #[arg(long, value_name = "ID")]
    pub(crate) agent_id: String,
    #[command(flatten)]
    pub(crate) gauge: RecordGauge,
}

#[derive(Args, Debug)]
pub(crate) struct RecordSwarm {
    /// Which swarm
    #[arg(long, value_name = "ID")]
    pub(crate) swarm_id: String,
    #[command(flatten)]
    pub(crate) gauge: RecordGauge,
}

#[derive(Args, Debug)]
pub(crate) struct RecordGauge {
    /// What was measured
    #[arg(long, value_name = "NAME")]
    pub(crate) metric_type: String,
    /// The measurement
    #[arg(long, value_name = "V", allow_negative_numbers = true)]
    pub(crate) value: f64,
    #[command(flatten)]
    pub(crate) common: RecordCommon,
}

#[derive(Args, Debug)]
pub(crate) struct RecordCommon {
    /// Anything else, as JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// When it was measured [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) timestamp: Option<Timestamp>,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Files to read; - is standard input
    #[arg(value_name = "FILE", required_unless_present = "undo")]
    pub(crate) files: Vec<PathBuf>,
    /// Table that the rows are for [default: all tables of json and sqlite; task of csv and
    /// jsonl; agent of prometheus and openmetrics]
    #[arg(long, value_name = "task|agent|swarm", value_parser = table)]
    pub(crate) table: Option<Table>,
    /// How the files are written [default: by the end of the name, also before .gz: .csv, .jsonl,
    /// .ndjson, .json, .prom, .om, .openmetrics; .db, .sqlite, .sqlite3; a SQLite file is known
    /// by its beginning]
    #[arg(long)]
    pub(crate) format: Option<FormatArg>,
    /// Which column or label holds a field; other columns that are no field are then passed over
    #[arg(long, value_name = "FIELD=COLUMN,...", value_delimiter = ',')]
    pub(crate) map: Vec<String>,
    /// Gives a field the same value in every row
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// How times are written: rfc3339, s, ms, us, ns (since 1970), or a strptime pattern
    #[arg(long, value_name = "FORMAT", default_value = "rfc3339", value_parser = time_format)]
    pub(crate) time_format: TimeFormat,
    /// Zone of times that name none: UTC, local, +02:00, Europe/Berlin [default: UTC; of SQLite
    /// files local, as they were written]
    #[arg(long, value_parser = zone)]
    pub(crate) zone: Option<Zone>,
    /// Count bad lines and write them to the quarantine instead of giving up
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Import a file although it was imported before
    #[arg(long)]
    pub(crate) again: bool,
    /// Accept rows past the last retention tier, and keep everything from now on
    #[arg(long)]
    pub(crate) keep: bool,
    /// Take the import with this id back
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = ["files", "format", "map", "set", "zone", "skip_bad", "again", "keep"]
    )]
    pub(crate) undo: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// Comma-separated, with a header line
    Csv,
    /// One JSON object on each line
    Jsonl,
    /// One JSON document, as export --format json writes it
    Json,
    /// A database of an earlier metrics store
    Sqlite,
    /// Prometheus text exposition 0.0.4
    Prometheus,
    /// OpenMetrics text exposition 1.0
    #[value(name = "openmetrics")]
    OpenMetrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Rows of any table, newest first (needs --table)
    Metrics,
    /// Rows of finished tasks, newest first
    TaskMetrics,
    /// Rows of agents' gauges, newest first
    AgentMetrics,
    /// Rows of swarms' gauges, newest first
    SwarmMetrics,
    /// One number for each interval of time
    AggregateByTime,
    /// The value at a rank (needs --percentile)
    Percentile,
    /// The mean
    Average,
    /// Agents by what their tasks add up to
    TopAgents,
    /// Tasks with the largest durations
    SlowestTasks,
    /// All tasks in nine numbers
    Summary,
}

/// Which rows.
#[derive(Args, Debug)]
pub(crate) struct FilterArgs {
    /// Only rows from this time on
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Filter")]
    pub(crate) from: Option<Timestamp>,
    /// Only rows before this time
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Filter")]
    pub(crate) to: Option<Timestamp>,
    /// Only rows of this long before now: 90s, 5m, 24h, 7d
    #[arg(
        long,
        value_name = "LENGTH",
        value_parser = length,
        conflicts_with_all = ["from", "to"],
        help_heading = "Filter"
    )]
    pub(crate) last: Option<i64>,
    /// Only this task
    #[arg(long, value_name = "ID", help_heading = "Filter")]
    pub(crate) task_id: Option<String>,
    /// Only this agent
    #[arg(long, value_name = "ID", help_heading = "Filter")]
    pub(crate) agent_id: Option<String>,
    /// Only this swarm
    #[arg(long, value_name = "ID", help_heading = "Filter")]
    pub(crate) swarm_id: Option<String>,
    /// Only this metric type; for `query top-agents` what they are ordered by: task_count,
    /// avg_duration_ms (the default), avg_tokens_used, success_rate
    #[arg(long, value_name = "NAME", help_heading = "Filter")]
    pub(crate) metric_type: Option<String>,
    /// Only tasks that succeeded, or only those that failed
    #[arg(long, value_name = "true|false", help_heading = "Filter")]
    pub(crate) success: Option<bool>,
}

#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// What to ask
    #[arg(value_name = "METHOD")]
    pub(crate) method: Method,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,

    /// At most so many rows [default: 1000] or entries [default: 10, all buckets]
    #[arg(long, value_name = "N|all", value_parser = limit, help_heading = "Page")]
    pub(crate) limit: Option<Limit>,
    /// Leave out so many rows or entries first
    #[arg(long, value_name = "N", help_heading = "Page")]
    pub(crate) offset: Option<usize>,
    /// Go on after the page that ended with this cursor
    #[arg(long, value_name = "TEXT", conflicts_with = "offset", help_heading = "Page")]
    pub(crate) cursor: Option<String>,

    /// Table to ask [default: task, where a method works on any]
    #[arg(long, value_name = "task|agent|swarm", value_parser = table, help_heading = "Method")]
    pub(crate) table: Option<Table>,
    /// Column to compute with: duration_ms or tokens_used of tasks, value of gauges
    /// [default: duration_ms or value]
    #[arg(long, value_name = "FIELD", help_heading = "Method")]
    pub(crate) field: Option<String>,
    /// Rank from 0 to 1, as 0.95; may be given several times to `percentile`
    #[arg(long, value_name = "P", value_parser = rank, help_heading = "Method")]
    pub(crate) percentile: Vec<f64>,
    /// Length of a bucket: minute, hour, day, week, month, or as 30s, 5m, 2h [default: hour]
    #[arg(long, value_name = "INTERVAL", value_parser = interval, help_heading = "Method")]
    pub(crate) interval: Option<Interval>,
    /// What to compute in each bucket [default: avg]
    #[arg(long, help_heading = "Method")]
    pub(crate) agg: Option<Agg>,
    /// Smallest or largest first [default: asc]
    #[arg(long, help_heading = "Method")]
    pub(crate) order: Option<OrderArg>,
    /// Percentiles from digests alone, with a stated bound on the error of their rank
    #[arg(long, help_heading = "Method")]
    pub(crate) estimate: bool,

    /// Fail if anything of the range is missing
    #[arg(long, help_heading = "Coverage")]
    pub(crate) strict: bool,
    /// Compute from what is readable where some of it is damaged
    #[arg(long, conflicts_with = "strict", help_heading = "Coverage")]
    pub(crate) allow_partial: bool,

    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    /// Do not guard text in CSV against being taken for a formula
    #[arg(long, requires = "csv")]
    pub(crate) raw: bool,
    /// Say on standard error what was skipped, summarised and scanned
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Agg {
    Avg,
    Sum,
    Count,
    Min,
    Max,
    Percentile,
}

impl Agg {
    /// With the rank that a percentile needs.
    pub(crate) fn with_rank(self, rank: Option<f64>) -> Result<Aggregation, String> {
        let plain = match self {
            Self::Avg => Aggregation::Avg,
            Self::Sum => Aggregation::Sum,
            Self::Count => Aggregation::Count,
            Self::Min => Aggregation::Min,
            Self::Max => Aggregation::Max,
            Self::Percentile => {
                let missing = "--agg percentile: expected --percentile P with it";
                return rank.map(Aggregation::Percentile).ok_or_else(|| missing.to_owned());
            }
        };
        match rank {
            None => Ok(plain),
            Some(_) => Err("--percentile: expected --agg percentile with it".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderArg {
    /// Smallest first
    Asc,
    /// Largest first
    Desc,
}

impl From<OrderArg> for Order {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Asc => Self::Ascending,
            OrderArg::Desc => Self::Descending,
        }
    }
}

impl QueryArgs {
    /// How percentiles are found.
    pub(crate) fn how(&self) -> Percentile {
        if self.estimate { Percentile::Estimate } else { Percentile::Exact }
    }

    /// What the top agents are ordered by.
    pub(crate) fn top_by(&self) -> tallystone::Result<TopBy> {
        TopBy::parse(self.filter.metric_type.as_deref().unwrap_or("avg_duration_ms"))
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// How to write it [default: by the end of the name of --output: .csv, .json, .jsonl]
    #[arg(long)]
    pub(crate) format: Option<ExportFormatArg>,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Compress [default: where the name of --output ends in .gz]
    #[arg(long)]
    pub(crate) gzip: bool,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Fail if anything of the range is missing
    #[arg(long, help_heading = "Filter")]
    pub(crate) strict: bool,

    /// Only these tables [default: all that have the columns of the filter]
    #[arg(long, value_name = "task|agent|swarm,...", value_parser = table, value_delimiter = ',')]
    pub(crate) table: Vec<Table>,
    /// Only these columns of one table, in this order (csv, jsonl, grafana --flat)
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Newest rows first
    #[arg(long)]
    pub(crate) newest_first: bool,
    /// CSV for programs: text is not guarded against being taken for a formula
    #[arg(long)]
    pub(crate) raw: bool,
    /// Lists instead of nesting (json), tables instead of series (grafana)
    #[arg(long)]
    pub(crate) flat: bool,
    /// With line breaks and indentation (json, grafana)
    #[arg(long)]
    pub(crate) pretty: bool,
    /// Every sample with its time, as `promtool tsdb create-blocks-from openmetrics` reads it
    /// (openmetrics)
    #[arg(long)]
    pub(crate) all_samples: bool,
    /// To which swarm an agent belongs (json); goes before `swarm_id` in metadata
    #[arg(long, value_name = "AGENT=SWARM,...", value_delimiter = ',', value_parser = belonging)]
    pub(crate) swarm: Vec<(String, String)>,

    /// Column that series are of: duration_ms or tokens_used of tasks, value of gauges
    /// [default: duration_ms and value]
    #[arg(long, value_name = "FIELD", help_heading = "Series (grafana)")]
    pub(crate) field: Option<String>,
    /// How far points are apart: minute, hour, day, week, month, or as 30s, 5m, 2h
    /// [default: hour]
    #[arg(
        long,
        value_name = "INTERVAL",
        value_parser = interval,
        help_heading = "Series (grafana)"
    )]
    pub(crate) interval: Option<Interval>,
    /// What a point is [default: avg]
    #[arg(long, help_heading = "Series (grafana)")]
    pub(crate) agg: Option<Agg>,
    /// Rank from 0 to 1 of --agg percentile
    #[arg(long, value_name = "P", value_parser = rank, help_heading = "Series (grafana)")]
    pub(crate) percentile: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormatArg {
    /// One document: swarms, their agents, their tasks and gauges
    Json,
    /// One JSON object on each line
    Jsonl,
    /// Comma-separated, with a header line
    Csv,
    /// Prometheus text format: newest gauges, sums and quantiles of tasks
    Prometheus,
    /// OpenMetrics 1.0, the same
    #[value(name = "openmetrics")]
    OpenMetrics,
    /// A response of Grafana's JSON data source
    Grafana,
}

impl From<ExportFormatArg> for ExportFormat {
    fn from(format: ExportFormatArg) -> Self {
        match format {
            ExportFormatArg::Json => Self::Json,
            ExportFormatArg::Jsonl => Self::Jsonl,
            ExportFormatArg::Csv => Self::Csv,
            ExportFormatArg::Prometheus => Self::Prometheus,
            ExportFormatArg::OpenMetrics => Self::OpenMetrics,
            ExportFormatArg::Grafana => Self::Grafana,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct DashboardArgs {
    /// Print everything once, as text, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// As if it were then [default: now]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "once")]
    pub(crate) at: Option<Timestamp>,
    /// Time before now that is looked at: 90s, 5m, 24h, 7d [default: as configured, 5m]
    #[arg(long, value_name = "LENGTH", value_parser = window)]
    pub(crate) window: Option<i64>,
    /// Time between two looks at the store, 1s to 1h [default: as configured, 5s]
    #[arg(long, value_name = "LENGTH", value_parser = refresh, conflicts_with = "once")]
    pub(crate) refresh: Option<Duration>,
    /// Draw with ASCII characters alone
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Leave the mouse to the terminal
    #[arg(long, conflicts_with = "once")]
    pub(crate) no_mouse: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AlertsArgs {
    #[command(subcommand)]
    pub(crate) what: AlertsWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsWhat {
    /// Takes every alert to its next state and shows all; exit code 4 while one fires
    ///
    /// States are kept in the store, and every change is recorded as a swarm metric
    /// alert.NAME of the swarm tallystone. Where another process keeps the states, or the
    /// store can only be read, alerts are evaluated and nothing is kept.
    Check,
}

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Day or week, of UTC; a week begins on Monday
    #[arg(value_name = "PERIOD")]
    pub(crate) period: ReportPeriod,
    /// The day or week that this lies in [default: the last that is over]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) of: Option<Timestamp>,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportPeriod {
    /// A day
    Daily,
    /// A week
    Weekly,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// A file of a store
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// Show how maintenance stands instead
    #[arg(long)]
    pub(crate) health: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Active segments of this store that no process writes to, and small ones
    Seal,
    /// Days past the detailed tier, into archives
    Compact,
    /// Days whose rows are to go, into hourly or daily rollups
    Rollup,
    /// Days past the last tier, and the oldest where the store is too large
    Expire,
    /// Everything
    All,
}

impl From<Work> for MaintenanceWork {
    fn from(work: Work) -> Self {
        match work {
            Work::Seal => Self::Seal,
            Work::Compact => Self::Compact,
            Work::Rollup => Self::RollUp,
            Work::Expire => Self::Expire,
            Work::All => Self::All,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct MaintainArgs {
    /// What to do
    #[arg(value_name = "WORK", default_value = "all")]
    pub(crate) what: Work,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Believe the clock although it has jumped
    #[arg(long)]
    pub(crate) accept_clock: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RetentionArgs {
    #[command(subcommand)]
    pub(crate) what: RetentionWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RetentionWhat {
    /// Shows the rules
    Show,
    /// Sets rules; what is not named stays
    ///
    /// A day ages as a whole, from its end, and is in the first of the four tiers that it is not
    /// older than. 0 days, and no more than a tier before, mean that a tier is skipped.
    Set(SetArgs),
}

#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Only of this table [default: all]
    #[arg(long, value_name = "task|agent|swarm", value_parser = table)]
    pub(crate) table: Option<Table>,
    /// Keep rows for ever
    #[arg(
        long,
        conflicts_with_all = ["detailed_days", "archive_days", "hourly_days", "daily_days"],
        required_unless_present_any = [
            "detailed_days", "archive_days", "hourly_days", "daily_days", "max_bytes"
        ]
    )]
    pub(crate) keep: bool,
    /// Age up to which every row is kept as it is
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    pub(crate) detailed_days: Option<u32>,
    /// Age up to which every row is kept in archives
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    pub(crate) archive_days: Option<u32>,
    /// Age up to which sums and percentiles of hours are kept
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    pub(crate) hourly_days: Option<u32>,
    /// Age up to which sums and percentiles of days are kept
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    pub(crate) daily_days: Option<u32>,
    /// Size of the store above which the oldest days go, whatever their age
    #[arg(long, value_name = "N|none", value_parser = max_bytes, allow_negative_numbers = true)]
    pub(crate) max_bytes: Option<MaxBytes>,
}

/// A size, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaxBytes(pub(crate) Option<u64>);

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// Directory of the backup
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Compute summaries anew as well, and compare
    #[arg(long)]
    pub(crate) deep: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Only the page of this command
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,
}

fn days(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("expected a number of days, 0 to {}", Tiers::DAYS_MAX))
}

fn max_bytes(text: &str) -> Result<MaxBytes, String> {
    if text == "none" {
        return Ok(MaxBytes(None));
    }
    let parsed = text.parse().map(|bytes| MaxBytes(Some(bytes)));
    parsed.map_err(|_| "expected a number of bytes, or none".to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.message().to_owned())
}

fn length(text: &str) -> Result<i64, String> {
    tallystone::time::parse_length(text)
        .filter(|micros| *micros > 0)
        .ok_or_else(|| "expected a length of time as 90s, 5m, 24h, 7d".to_owned())
}

fn window(text: &str) -> Result<i64, String> {
    settings::parse_window(text)
}

fn refresh(text: &str) -> Result<Duration, String> {
    settings::parse_refresh(text)
}

fn table(text: &str) -> Result<Table, String> {
    Table::parse(text).map_err(|error| error.message().to_owned())
}

fn belonging(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(agent, swarm)| !agent.is_empty() && !swarm.is_empty())
        .map(|(agent, swarm)| (agent.to_owned(), swarm.to_owned()))
        .ok_or_else(|| "expected AGENT=SWARM".to_owned())
}

fn time_format(text: &str) -> Result<TimeFormat, String> {
    TimeFormat::parse(text).map_err(|error| error.message().to_owned())
}

fn zone(text: &str) -> Result<Zone, String> {
    Zone::parse(text).map_err(|error| error.message().to_owned())
}

fn interval(text: &str) -> Result<Interval, String> {
    Interval::parse(text).map_err(|error| error.message().to_owned())
}

fn limit(text: &str) -> Result<Limit, String> {
    if text == "all" {
        return Ok(Limit::All);
    }
    text.parse().map(Limit::Rows).map_err(|_| "expected a whole number, or all".to_owned())
}

fn rank(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|p| (0.0..=1.0).contains(p))
        .ok_or_else(|| "expected a number from 0 to 1, as 0.95".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ranks_limits_and_lengths() {
        assert_eq!(rank("0.95"), Ok(0.95));
        assert!(rank("95").is_err() && rank("NaN").is_err() && rank("-0.1").is_err());
        assert_eq!(limit("all"), Ok(Limit::All));
        assert_eq!(limit("5"), Ok(Limit::Rows(5)));
        assert!(limit("-1").is_err());
        assert_eq!(length("24h"), Ok(86_400_000_000));
        assert!(length("0s").is_err() && length("24").is_err());
    }

    #[test]
    fn a_percentile_needs_its_rank() {
        assert_eq!(Agg::Percentile.with_rank(Some(0.5)), Ok(Aggregation::Percentile(0.5)));
        assert!(Agg::Percentile.with_rank(None).is_err());
        assert!(Agg::Sum.with_rank(Some(0.5)).is_err());
        assert_eq!(Agg::Sum.with_rank(None), Ok(Aggregation::Sum));
    }
}
