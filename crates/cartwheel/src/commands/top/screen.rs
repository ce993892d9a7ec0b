use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::figures::{Figures, NodeFigures, OPERATIONS, Times};

/// The columns of the table of nodes, and their widths. All of them fit into 80 characters.
const COLUMNS: [(&str, u16); 10] = [
    ("NODE", 12),
    ("STATUS", 7),
    ("READS/S", 7),
    ("WRITES/S", 8),
    ("P99", 6),
    ("FAIL/S", 6),
    ("QUEUE", 5),
    ("HINTS", 6),
    ("REPAIR/S", 8),
    ("EPOCH", 5),
];

/// How the screen shows the figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Screen {
    /// The index of the column by which nodes are sorted.
    pub(super) sorted_by: usize,
    /// The other way round.
    pub(super) reversed: bool,
    /// The figures are no longer renewed.
    pub(super) paused: bool,
    /// Whether keys are explained.
    pub(super) has_keys: bool,
}

/// The most alarms that are shown.
const ALARMS_MAX: usize = 6;

impl Screen {
    /// Sorts by the next column.
    pub(super) const fn sort_by_next(&mut self) {
        self.sorted_by = (self.sorted_by + 1) % COLUMNS.len();
    }

    /// How many lines all of it takes.
    pub(super) fn height(self, figures: &Figures) -> u16 {
        let lines =
            2 + 4 + 1 + 1 + figures.nodes.len() + 1 + figures.alarms.len().min(ALARMS_MAX) + usize::from(self.has_keys);
        u16::try_from(lines).unwrap_or(u16::MAX)
    }

    pub(super) fn draw(self, frame: &mut Frame<'_>, figures: &Figures) {
        let alarms = figures.alarms.len().min(ALARMS_MAX) as u16;
        let areas = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(4),
            Constraint::Length(1),
            Constraint::Min(2),
            Constraint::Length(1 + alarms),
            Constraint::Length(u16::from(self.has_keys)),
        ])
        .split(frame.area());
        frame.render_widget(Paragraph::new(self.title(figures)), areas[0]);
        frame.render_widget(operations(figures), areas[1]);
        frame.render_widget(self.nodes(figures), areas[3]);
        frame.render_widget(Paragraph::new(notes(figures)), areas[4]);
        frame.render_widget(Paragraph::new(self.keys()), areas[5]);
    }

    fn title(self, figures: &Figures) -> Vec<Line<'static>> {
        let cluster = &figures.cluster;
        let name = if cluster.cluster_name.is_empty() { &cluster.cluster } else { &cluster.cluster_name };
        let answering = figures.nodes.iter().filter(|node| node.answers).count();
        let all = figures.nodes.len();
        let mut title = vec![Span::styled(format!("cluster {name}"), BOLD)];
        title.push(Span::raw(format!(", {answering} of {all} nodes answer")));
        if self.paused {
            title.push(Span::styled("  paused", BOLD.fg(Color::Yellow)));
        }
        let waits = match cluster.epoch.waits_for.as_slice() {
            [] => String::new(),
            names => format!(", not finished by {}", names.join(", ")),
        };
        let epoch = format!("epoch {} since {}{waits}", cluster.epoch.epoch, cluster.epoch.since);
        vec![Line::from(title), Line::from(epoch)]
    }

    fn nodes(self, figures: &Figures) -> Table<'static> {
        let mut nodes: Vec<&NodeFigures> = figures.nodes.iter().collect();
        // Names go up, figures down: the busiest node comes first.
        match self.sorted_by {
            0 => nodes.sort_by(|one, other| one.name.cmp(&other.name)),
            1 => nodes.sort_by(|one, other| one.status.cmp(other.status)),
            column => nodes.sort_by(|one, other| figure(other, column).total_cmp(&figure(one, column))),
        }
        if self.reversed {
            nodes.reverse();
        }
        let header = COLUMNS.iter().enumerate().map(|(column, &(name, width))| {
            let text = if column < 2 { name.to_owned() } else { format!("{name:>0$}", usize::from(width)) };
            let style = if column == self.sorted_by { BOLD.add_modifier(Modifier::UNDERLINED) } else { BOLD };
            Cell::from(text).style(style)
        });
        let rows = nodes.into_iter().map(|node| {
            let cells = cells(node).into_iter().zip(COLUMNS).enumerate().map(|(column, (text, (_, width)))| {
                Cell::from(if column < 2 { text } else { format!("{text:>0$}", usize::from(width)) })
            });
            let style = match (node.status, node.answers) {
                ("alive", true) => Style::new(),
                ("down" | "lost" | "problem", _) => Style::new().fg(Color::Red),
                _ => Style::new().fg(Color::Yellow),
            };
            Row::new(cells.collect::<Vec<_>>()).style(style)
        });
        let widths = COLUMNS.map(|(_, width)| Constraint::Length(width));
        Table::new(rows.collect::<Vec<_>>(), widths).header(Row::new(header.collect::<Vec<_>>())).column_spacing(1)
    }

    fn keys(self) -> Line<'static> {
        if self.has_keys {
            Line::styled("q quit  p pause  s sort by the next column  r reverse", Style::new().fg(Color::DarkGray))
        } else {
            Line::default()
        }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

fn operations(figures: &Figures) -> Table<'static> {
    let right = |text: String| Cell::from(format!("{text:>10}"));
    let header = ["REQUESTS/S", "P50", "P99", "P99.9", "FAIL/S"].map(|name| right(name.to_owned()));
    let header = [Cell::from("OPERATION")].into_iter().chain(header);
    let rows = OPERATIONS.iter().zip(&figures.operations).map(|(name, operation)| {
        let time = |share| right(time(&operation.times, share));
        Row::new([
            Cell::from(*name),
            right(rate(operation.rate)),
            time(0.5),
            time(0.99),
            time(0.999),
            right(rate(operation.failures)),
        ])
    });
    let widths = [12, 10, 10, 10, 10, 10].map(Constraint::Length);
    Table::new(rows, widths).header(Row::new(header).style(BOLD)).column_spacing(1)
}

fn notes(figures: &Figures) -> Vec<Line<'static>> {
    let transfers = match figures.transfers {
        Some(0) => "no transfers".to_owned(),
        Some(partitions) => format!("transfers: {partitions} partitions, {}B/s", count(figures.transfer_bytes_rate)),
        None => "transfers unknown".to_owned(),
    };
    let under_way: f64 = figures.nodes.iter().map(|node| node.under_way).sum();
    let mut lines = vec![Line::from(format!("{transfers}; {} requests under way", count(under_way)))];
    let alarms = figures.alarms.iter().take(ALARMS_MAX);
    lines.extend(alarms.map(|alarm| Line::styled(alarm.clone(), Style::new().fg(Color::Red))));
    lines
}

/// The figure of a node in a column, by which it is sorted.
fn figure(node: &NodeFigures, column: usize) -> f64 {
    match column {
        2 => node.reads,
        3 => node.writes,
        4 => node.times.percentile(0.99).unwrap_or_default(),
        5 => node.failures,
        6 => node.waiting,
        7 => node.hints,
        8 => node.repairs,
        _ => node.epoch,
    }
}

fn cells(node: &NodeFigures) -> [String; COLUMNS.len()] {
    if !node.answers {
        let unknown = || "-".to_owned();
        let mut cells = std::array::from_fn(|_| unknown());
        (cells[0], cells[1]) = (node.name.clone(), node.status.to_owned());
        return cells;
    }
    [
        node.name.clone(),
        node.status.to_owned(),
        rate(node.reads),
        rate(node.writes),
        time(&node.times, 0.99),
        rate(node.failures),
        count(node.waiting),
        count(node.hints),
        rate(node.repairs),
        format!("{}", node.epoch),
    ]
}

/// A rate, as 0, 0.4, 12 or 1.2k.
fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { count(rate) }
}

/// A number in at most five characters.
fn count(number: f64) -> String {
    match number {
        _ if number < 999.5 => format!("{number:.0}"),
        _ if number < 99_950.0 => format!("{:.1}k", number / 1e3),
        _ if number < 999_500.0 => format!("{:.0}k", number / 1e3),
        _ if number < 99_950_000.0 => format!("{:.1}M", number / 1e6),
        _ if number < 999_500_000.0 => format!("{:.0}M", number / 1e6),
        _ => format!("{:.1}G", number / 1e9),
    }
}

/// The time that a share of the requests did not exceed.
fn time(times: &Times, share: f64) -> String {
    match times.percentile(share) {
        None => "-".to_owned(),
        Some(seconds) if seconds < 9.95e-3 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 0.9995 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_fit_into_80_characters() {
        let widths: u16 = COLUMNS.iter().map(|(_, width)| width + 1).sum();
        assert!(widths - 1 <= 80, "{widths}");
        assert!(COLUMNS.iter().all(|(name, width)| name.len() <= usize::from(*width)));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.04, 0.44, 9.94, 12.3].map(rate), ["0", "0.0", "0.4", "9.9", "12"]);
        assert_eq!(
            [999.4, 1_000.0, 99_949.0, 123_456.0, 1.5e6, 2e9].map(count),
            ["999", "1.0k", "99.9k", "123k", "1.5M", "2.0G"]
        );
    }
}
