//! Figures for tests, made by hand.

use tallystone::alert::{Alert, Evaluation, Severity, State};
use tallystone::{SlowTask, Timestamp, Value};

use crate::dashboard::figures::{
    Agent, AgentDetail, Agents, Compared, Entries, Figures, Gauge, Number, PanelFigures, Period,
    Queue, Quota, Resources, Trend,
};

/// 2026-11-26 12:00:00 UTC.
pub(super) fn noon() -> Timestamp {
    ago(0)
}

/// So many seconds before noon.
pub(super) fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_795_694_400 - seconds).unwrap()
}

fn period(from: i64, to: i64) -> Period {
    Period {
        from: ago(from),
        to: ago(to),
        total_tasks: 0,
        successful_tasks: 0,
        success_rate: None,
        avg_duration_ms: None,
        p50_duration_ms: None,
        p95_duration_ms: None,
        p99_duration_ms: None,
        rank_error: 0.0,
        total_tokens_used: Value::Int(0),
        avg_tokens_per_task: None,
        tasks_per_minute: 0.0,
        unique_agents: 0,
    }
}

fn nothing() -> Compared {
    Compared { now: period(300, 0), before: period(600, 300) }
}

fn alert(name: &str, severity: Severity, bound: f64, rule: &str) -> Alert {
    Alert {
        name: name.to_owned(),
        severity,
        state: State::Inactive,
        since: None,
        value: None,
        above: Some(bound),
        below: None,
        count: 0,
        label: None,
        rank_error: 0.0,
        rule: rule.to_owned(),
        is_complete: true,
        is_damaged: false,
        error: None,
    }
}

fn alerts() -> Evaluation {
    let alerts = vec![
        alert("success-rate", Severity::Critical, 0.9, "success_rate of summary over 5m below 0.9"),
        alert("p99-latency", Severity::Critical, 5e3, "percentile duration_ms over 5m above 5000"),
        alert("token-budget", Severity::Warning, 0.8, "sum of tokens_used over 1d above 0.8"),
        alert("queue-backlog", Severity::Warning, 50.0, "queue_pending above 50"),
    ];
    Evaluation { at: noon(), alerts, keeps_states: true, notes: Vec::new() }
}

fn trends(value: impl Fn(usize) -> Option<f64>) -> Vec<Trend> {
    let trend = |name, from, step, steps: usize| {
        let series = |factor: f64| (0..steps).map(|i| value(i).map(|v| v * factor)).collect();
        Trend {
            name,
            from: ago(from),
            step,
            avg_duration_ms: series(100.0),
            tasks: series(1.0),
            errors: (0..steps).map(|i| value(i).map(|_| f64::from(u8::from(i % 7 == 3)))).collect(),
            tokens: series(1_500.0),
        }
    };
    vec![trend("last hour", 3_600, "1m", 60), trend("last day", 86_400, "15m", 96)]
}

/// A store without a row.
pub(in crate::dashboard) fn empty() -> Figures {
    Figures {
        at: noon(),
        read_ms: 4.2,
        store: "/var/lib/agents/metrics".to_owned(),
        window: "5m".to_owned(),
        summary: nothing(),
        agents: Agents {
            total: 0,
            fastest: Vec::new(),
            slowest: Vec::new(),
            matching: 0,
            listed: Vec::new(),
        },
        agent: None,
        queue: Queue { pending: None, backlog_minutes: None, priorities: Vec::new() },
        resources: Resources {
            budget_window: "1d".to_owned(),
            tokens_used: Value::Int(0),
            token_budget: None,
            budget_share: None,
            has_quota: false,
            quotas: Vec::new(),
            memory_bytes: None,
            disk_bytes: 0,
            stored_rows: 0,
        },
        trends: trends(|_| None),
        alerts: alerts(),
        panels: Vec::new(),
        missing: Vec::new(),
        is_damaged: false,
    }
}

fn agent(name: &str, tasks: u64, avg: f64, success: f64) -> Agent {
    Agent {
        agent_id: name.to_owned(),
        task_count: tasks,
        avg_duration_ms: Some(avg),
        p95_duration_ms: Some(avg * 2.5),
        avg_tokens_used: Some(avg * 1.5),
        success_rate: success,
    }
}

/// Fifteen agents, the fastest first.
fn fifteen() -> Vec<Agent> {
    let names = ["coder", "planner", "reviewer", "tester", "writer"];
    (0..15u32)
        .map(|i| {
            let name = format!("{}-{}", names[i as usize % 5], i / 5 + 1);
            let success = 1.0 - f64::from(i) / 60.0;
            agent(&name, u64::from(90 - i * 3), 120.0 + f64::from(i * i) * 20.0, success)
        })
        .collect()
}

fn gauge(value: f64, seconds: i64) -> Gauge {
    Gauge { value, at: ago(seconds) }
}

/// A store that is written to, with everything recorded.
pub(super) fn live() -> Figures {
    let all = fifteen();
    let wave = |i: usize| {
        let step = [3.0, 5.0, 8.0, 12.0, 9.0, 7.0, 4.0, 2.0][i % 8];
        // Nobody works at lunch.
        (!(20..26).contains(&i)).then_some(step + f64::from(u8::try_from(i / 8).unwrap_or(0)))
    };
    Figures {
        summary: Compared {
            now: Period {
                total_tasks: 1_035,
                successful_tasks: 966,
                success_rate: Some(0.933_3),
                avg_duration_ms: Some(842.0),
                p50_duration_ms: Some(610.0),
                p95_duration_ms: Some(2_210.0),
                p99_duration_ms: Some(4_180.0),
                total_tokens_used: Value::Int(1_512_400),
                avg_tokens_per_task: Some(1_461.3),
                tasks_per_minute: 207.0,
                unique_agents: 15,
                ..period(300, 0)
            },
            before: Period {
                total_tasks: 924,
                successful_tasks: 878,
                success_rate: Some(0.950_2),
                avg_duration_ms: Some(815.0),
                p50_duration_ms: Some(610.0),
                p95_duration_ms: Some(2_480.0),
                p99_duration_ms: Some(4_120.0),
                total_tokens_used: Value::Int(1_288_000),
                avg_tokens_per_task: Some(1_394.0),
                tasks_per_minute: 184.8,
                unique_agents: 15,
                ..period(600, 300)
            },
        },
        agents: Agents {
            total: all.len(),
            fastest: all[..5].to_vec(),
            slowest: all.iter().rev().take(5).cloned().collect(),
            matching: 0,
            listed: Vec::new(),
        },
        queue: Queue {
            pending: Some(gauge(26.0, 3)),
            backlog_minutes: Some(0.126),
            priorities: vec![
                ("critical".to_owned(), gauge(2.0, 3)),
                ("high".to_owned(), gauge(5.0, 3)),
                ("low".to_owned(), gauge(19.0, 3)),
            ],
        },
        resources: Resources {
            tokens_used: Value::Int(134_800_000),
            token_budget: Some(gauge(200e6, 40_000)),
            budget_share: Some(0.674),
            has_quota: true,
            quotas: vec![
                Quota {
                    agent_id: "coder-1".to_owned(),
                    tokens_used: 17.2e6,
                    quota: 20e6,
                    share: 0.86,
                },
                Quota {
                    agent_id: "planner-2".to_owned(),
                    tokens_used: 9.1e6,
                    quota: 20e6,
                    share: 0.455,
                },
            ],
            memory_bytes: Some(gauge(3.2e9, 4)),
            disk_bytes: 48_400_000,
            stored_rows: 2_403_118,
            ..empty().resources
        },
        trends: trends(wave),
        ..empty()
    }
}

/// Every alert fires.
pub(super) fn firing() -> Figures {
    let mut figures = live();
    let values = [0.812, 6_240.0, 0.93, 212.0];
    for (index, (alert, value)) in figures.alerts.alerts.iter_mut().zip(values).enumerate() {
        alert.state = State::Firing;
        alert.since = Some(ago(40 + 700 * i64::try_from(index).unwrap()));
        alert.value = Some(value);
        alert.count = 1_035;
    }
    let now = &mut figures.summary.now;
    (now.success_rate, now.p99_duration_ms) = (Some(0.812), Some(6_240.0));
    figures.resources.budget_share = Some(0.93);
    figures.resources.tokens_used = Value::Int(186_000_000);
    figures.queue.pending = Some(gauge(212.0, 3));
    figures.queue.backlog_minutes = None;
    figures
}

/// Parts of the store cannot be read; alerts are in every state.
pub(super) fn damaged() -> Figures {
    let mut figures = live();
    figures.is_damaged = true;
    figures.missing = vec!["1 file of 2026-11-26 cannot be read".to_owned()];
    figures.alerts.keeps_states = false;
    let alerts = &mut figures.alerts.alerts;
    alerts[0].is_damaged = true;
    alerts[1].state = State::Pending;
    (alerts[1].value, alerts[1].since) = (Some(5_100.0), Some(ago(12)));
    alerts[2].error = Some("column chunk 3 of block 7: checksum".to_owned());
    (alerts[3].state, alerts[3].since) = (State::Resolved, Some(ago(7_300)));
    alerts[3].value = Some(26.0);
    figures
}

/// Only sums of hours are left of what was recorded.
pub(super) fn old() -> Figures {
    let mut figures = live();
    figures.window = "7d".to_owned();
    figures.summary.now.rank_error = 0.0021;
    figures.summary.before = period(1_209_600, 604_800);
    for agent in figures.agents.fastest.iter_mut().chain(&mut figures.agents.slowest) {
        agent.p95_duration_ms = None;
    }
    let untouched = empty();
    (figures.queue, figures.trends) = (untouched.queue, untouched.trends);
    figures.resources =
        Resources { disk_bytes: 1_204_000, stored_rows: 52_300, ..untouched.resources };
    figures.missing = vec!["before 2026-11-20: hourly sums; rows are gone".to_owned()];
    figures
}

/// The list of all agents.
pub(super) fn listed() -> Figures {
    let mut figures = live();
    figures.agents.listed = fifteen().into_iter().rev().collect();
    figures.agents.matching = 15;
    figures
}

/// One agent more closely.
pub(super) fn detailed(name: &str) -> Figures {
    let mut figures = live();
    let slow = |i: i64| SlowTask {
        task_id: format!("{name}-task-{i}"),
        agent_id: name.to_owned(),
        duration_ms: 9_000 - i * 1_900,
        tokens_used: (i != 2).then_some(1_000 + i),
        success: i % 2 == 0,
        timestamp: ago(i * 7),
    };
    figures.agent = Some(AgentDetail {
        agent_id: name.to_owned(),
        summary: figures.summary.clone(),
        trends: figures.trends.clone(),
        slowest: (0..5).map(slow).collect(),
        gauges: vec![
            ("cpu_share".to_owned(), gauge(0.42, 5)),
            ("memory_bytes".to_owned(), gauge(5.1e8, 65)),
        ],
    });
    figures
}

/// Names that would act on a terminal, or that take more or less room than they seem to.
pub(super) const NASTY: [&str; 10] = [
    "clear\u{1b}[2J\u{1b}]0;title\u{7}",
    "lines\r\n\ttab\u{0}\u{7f}\u{9b}31m",
    "\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{30a8}\u{30fc}\u{30b8}\u{30a7}\u{30f3}\u{30c8}",
    "\u{5e9}\u{5dc}\u{5d5}\u{5dd}\u{202e}gnp.exe",
    "e\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}clair",
    "zero\u{200b}width\u{feff}\u{200d}joined",
    "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{fe0f}",
    "\u{fdfd}\u{ff9e}\u{1f1e9}\u{1f1ea}\u{1f3f3}",
    "",
    "\u{301}",
];

/// Names from others wherever there is one.
pub(super) fn nasty() -> Figures {
    let mut figures = detailed(NASTY[0]);
    let long = "x\u{1b}".repeat(512);
    let mut names = NASTY.into_iter().chain([long.as_str()]).cycle();
    let mut name = || names.next().unwrap_or_default().to_owned();
    figures.agents.listed = fifteen();
    figures.agents.matching = 15;
    let agents = &mut figures.agents;
    let lists = [&mut agents.fastest, &mut agents.slowest, &mut agents.listed];
    lists.into_iter().flatten().for_each(|agent| agent.agent_id = name());
    for (priority, _) in &mut figures.queue.priorities {
        *priority = name();
    }
    for quota in &mut figures.resources.quotas {
        quota.agent_id = name();
    }
    for alert in &mut figures.alerts.alerts {
        (alert.name, alert.label) = (name(), Some(name()));
        (alert.rule, alert.state, alert.value) = (name(), State::Firing, Some(1.0));
    }
    if let Some(agent) = &mut figures.agent {
        agent.slowest.iter_mut().for_each(|task| task.task_id = name());
        agent.gauges.iter_mut().for_each(|(gauge, _)| *gauge = name());
    }
    figures.missing = vec![name(), name()];
    figures.store = name();
    figures.panels = custom(&mut name);
    figures
}

/// A panel of each kind that has a query.
fn custom(name: &mut impl FnMut() -> String) -> Vec<PanelFigures> {
    let blank = || PanelFigures {
        title: String::new(),
        unit: String::new(),
        number: None,
        entries: None,
        error: None,
    };
    let numbers = [Some(3.0), None, Some(7.5)];
    let mut entries = || Entries {
        columns: vec![name(), name()],
        rows: vec![vec![name(), "3".to_owned()], vec![name(), "7.5".to_owned()]],
        numbers: numbers.map(|value| (name(), value)).to_vec(),
    };
    let entries = [entries(), entries(), entries()];
    let number = Number { value: Some(1_234.5), count: 42, label: Some(name()), rank_error: 0.002 };
    let mut panels = vec![PanelFigures { number: Some(number), ..blank() }];
    panels.extend(entries.map(|entries| PanelFigures { entries: Some(entries), ..blank() }));
    panels.push(PanelFigures { error: Some(name()), ..blank() });
    for panel in &mut panels {
        (panel.title, panel.unit) = (name(), name());
    }
    panels
}

/// Panels of queries with plain names.
pub(super) fn queried() -> Figures {
    let mut figures = live();
    let mut names = (1..).map(|i| format!("name {i}"));
    figures.panels = custom(&mut || names.next().unwrap_or_default());
    for (panel, title) in
        figures.panels.iter_mut().zip(["one", "rows", "over time", "shares", "broken"])
    {
        (panel.title, panel.unit) = (title.to_owned(), "ms".to_owned());
    }
    figures
}
